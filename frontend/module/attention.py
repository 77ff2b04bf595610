"""Attention."""

from __future__ import annotations

from typing import Any

import mgec.functional as F
from mgec.core.tensor import Parameter, Tensor
from mgec.errors import ArgumentError
from mgec.module import init
from mgec.module._arguments import empty, positive
from mgec.module.linear import Linear
from mgec.module.module import Module

__all__ = ["MultiHeadAttention"]


class MultiHeadAttention(Module):
    """Scaled dot-product attention of several heads.

    Args:
        embed_dim: E of the inputs.
        num_heads: how many heads; divides `embed_dim`.
        attn_drop: probability of dropout of the attention weights.
        out_drop: probability of dropout of the result.
        bias: whether the projections have one.

    Attributes:
        qkv_weight: (3 * E, E): the projections of query, key and value one below the other.
        qkv_bias: (3 * E,), or None.
        out_proj: the `Linear` that mixes the heads.

    Shape:
        query (N, L, E), key and value (N, S, E) to (N, L, E)

    Source:
        Vaswani et al., "Attention is all you need", 2017, section 3.2.2.

    Example:
        >>> import mgec as mge
        >>> attention = mge.module.MultiHeadAttention(8, 2)
        >>> x = mge.functional.ones((2, 5, 8))
        >>> attention(x, x, x)[0].shape
        (2, 5, 8)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        attn_drop: float = 0.0,
        out_drop: float = 0.0,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embed_dim = positive("MultiHeadAttention", "embed_dim", embed_dim)
        self.num_heads = positive("MultiHeadAttention", "num_heads", num_heads)
        if embed_dim % num_heads:
            raise ArgumentError(
                f"MultiHeadAttention: {num_heads} heads do not divide embed_dim {embed_dim}",
                fix="use a number of heads that divides embed_dim",
            )
        self.attn_drop, self.out_drop = attn_drop, out_drop
        self.qkv_weight = Parameter(empty((3 * embed_dim, embed_dim)))
        self.qkv_bias = Parameter(empty((3 * embed_dim,))) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws first values again."""
        init.xavier_uniform_(self.qkv_weight)
        if self.qkv_bias is not None:
            init.zeros_(self.qkv_bias)
        self.out_proj.reset_parameters()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Attends.

        Args:
            query: (N, L, E)
            key: (N, S, E)
            value: (N, S, E)
            attn_mask: (L, S): bool where attention is allowed, or numbers added to the scores.
            is_causal: position i sees positions up to i only.

        Returns:
            The result (N, L, E) and the attention weights (N, num_heads, L, S).
        """
        return F.multi_head_attention(
            query,
            key,
            value,
            self.num_heads,
            self.qkv_weight,
            self.qkv_bias,
            self.out_proj.weight,
            self.out_proj.bias,
            attn_mask=attn_mask,
            attn_drop=self.attn_drop,
            out_drop=self.out_drop,
            is_causal=is_causal,
            training=self.training,
        )

    def _module_info_string(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
