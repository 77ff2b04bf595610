"""A table of vectors."""

from __future__ import annotations

from typing import Any

import mgec.functional as F
from mgec.core.tensor import Parameter, Tensor
from mgec.errors import ArgumentError, ShapeError
from mgec.module import init
from mgec.module._arguments import empty, positive
from mgec.module.module import Module

__all__ = ["Embedding"]


class Embedding(Module):
    """Rows of a table that is trained; see `mgec.functional.embedding`.

    Args:
        num_embeddings: rows of the table.
        embedding_dim: size of a row.
        padding_idx: not supported, as in MegEngine.
        max_norm: not supported, as in MegEngine.
        norm_type: not supported, as in MegEngine.
        initial_weight: the table; drawn from the normal distribution by default.
        freeze: whether the table is a buffer, which is not trained.

    Attributes:
        weight: (num_embeddings, embedding_dim)

    Shape:
        integers (...) to (..., embedding_dim)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float | None = None,
        initial_weight: Tensor | None = None,
        freeze: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if padding_idx is not None or max_norm is not None or norm_type is not None:
            raise ArgumentError(
                "Embedding: padding_idx, max_norm and norm_type are not supported",
                fix="leave them out",
            )
        self.num_embeddings = positive("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = positive("Embedding", "embedding_dim", embedding_dim)
        self.freeze = freeze
        shape = (num_embeddings, embedding_dim)
        if initial_weight is not None and tuple(initial_weight.shape) != shape:
            raise ShapeError(
                f"Embedding: initial_weight has shape {tuple(initial_weight.shape)} "
                f"but must have {shape}",
                values=[("initial_weight", initial_weight)],
                fix="make the shapes equal",
            )
        make = Tensor if freeze else Parameter
        self.weight = make(empty(shape) if initial_weight is None else initial_weight)
        if initial_weight is None:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws first values again."""
        init.normal_(self.weight)

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True) -> Embedding:
        """A layer with a given table.

        Args:
            embeddings: (num_embeddings, embedding_dim)
            freeze: whether the table stays as it is.
        """
        if len(embeddings.shape) != 2:
            raise ShapeError(
                f"Embedding: embeddings has rank {len(embeddings.shape)} but must have rank 2",
                values=[("embeddings", embeddings, "(num_embeddings, embedding_dim)")],
                fix="pass one row for each index",
            )
        rows, size = embeddings.shape
        return cls(rows, size, initial_weight=embeddings, freeze=freeze)

    def forward(self, inp: Tensor) -> Tensor:
        return F.embedding(inp, self.weight)

    def _module_info_string(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
