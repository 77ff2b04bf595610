"""Reductions, sorting and linear algebra."""

from __future__ import annotations

import builtins
from math import inf
from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.promote import FLOAT32, category, common_dtype, operands
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, ShapeError
from mgec.functional import elemwise
from mgec.functional._arguments import (
    as_float_tensor,
    as_index,
    as_number,
    as_tensor,
    axes_of,
    axis_of,
    check_choice,
    check_rank,
)
from mgec.functional.elemwise import sign

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "cross",
    "dot",
    "isfinite",
    "isinf",
    "isnan",
    "matmul",
    "max",
    "mean",
    "min",
    "norm",
    "normalize",
    "prod",
    "sign",
    "sort",
    "std",
    "sum",
    "topk",
    "var",
]

Axis = int | tuple[int, ...] | list[int] | None


def isnan(inp: Any) -> Tensor:
    """Where an element is NaN, as bool; nowhere for integers."""
    return dispatch.call("is_nan", as_float_tensor("isnan", inp))


def isinf(inp: Any) -> Tensor:
    """Where an element is inf or -inf, as bool; nowhere for integers."""
    return dispatch.call("is_inf", as_float_tensor("isinf", inp))


def isfinite(inp: Any) -> Tensor:
    """Where an element is neither NaN nor infinite, as bool."""
    return dispatch.call("not", elemwise.logical_or(isnan(inp), isinf(inp)))


# -- reductions --------------------------------------------------------------------------


def _reduce(name: str, op: str, inp: Tensor, axis: Any, keepdims: bool) -> Tensor:
    axes = axes_of(name, axis, inp.ndim)
    if op in ("reduce_max", "reduce_min") and not builtins.all(inp.shape[a] for a in axes):
        raise ShapeError(
            f"{name}: there is no element along axis {axes}, but the result needs one",
            values=[("inp", inp)],
            fix="give the axis at least one element",
        )
    return dispatch.call(op, inp, axes=axes, keepdims=bool(keepdims))


def _number(x: Tensor) -> Tensor:
    """Bools counted as int32."""
    return x.astype(np.int32) if x.dtype is np.bool_ else x


def sum(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum of the elements along axes.

    Args:
        inp: numbers of any shape; bools are summed as int32.
        axis: one axis or several; all by default.
        keepdims: keep the reduced axes, with size 1.

    Returns:
        A tensor of the dtype of `inp`.

    Raises:
        AxisError: for an axis that does not exist or is named twice.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.sum(mge.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
        Tensor([4. 6.], device=xpux:0)
    """
    return _reduce("sum", "reduce_sum", _number(as_tensor("sum", inp)), axis, keepdims)


def prod(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Product of the elements along axes; see `sum`."""
    return _reduce("prod", "reduce_prod", _number(as_tensor("prod", inp)), axis, keepdims)


def mean(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean of the elements along axes, always floating point; see `sum`."""
    return _reduce("mean", "reduce_mean", as_float_tensor("mean", inp), axis, keepdims)


def max(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element along axes (values only; see `argmax`); NaN if there is one."""
    return _reduce("max", "reduce_max", _number(as_tensor("max", inp)), axis, keepdims)


def min(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element along axes (values only; see `argmin`); NaN if there is one."""
    return _reduce("min", "reduce_min", _number(as_tensor("min", inp)), axis, keepdims)


def all(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements along axes hold (are not 0), as bool."""
    holds = elemwise.logical_not(elemwise.logical_not(inp))
    return _reduce("all", "reduce_all", holds, axis, keepdims)


def any(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether any element along axes holds (is not 0), as bool."""
    holds = elemwise.logical_not(elemwise.logical_not(inp))
    return _reduce("any", "reduce_any", holds, axis, keepdims)


def var(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Variance along axes: the mean squared distance from the mean (biased, as in NumPy).

    Args:
        inp: numbers of any shape; integers are taken as float32.
        axis: one axis or several; all by default.
        keepdims: keep the reduced axes, with size 1.

    Returns:
        A floating point tensor.
    """
    x = as_float_tensor("var", inp)
    axis = axes_of("var", axis, x.ndim)
    return mean(elemwise.square(x - mean(x, axis, keepdims=True)), axis, keepdims)


def std(inp: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Standard deviation along axes: the square root of `var` (biased).

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.std(mge.tensor([1.0, 2.0, 3.0, 4.0]))
        Tensor(1.118034, device=xpux:0)
    """
    return elemwise.sqrt(var(inp, axis, keepdims))


def norm(
    inp: Any, ord: float | None = None, axis: int | None = None, keepdims: bool = False
) -> Tensor:
    """The vector norm of order `ord`.

    Args:
        inp: numbers of any shape; of rank 1 if no axis is given.
        ord: the order: 2 by default, 0 counts the elements that are not 0, inf and -inf are
            the largest and smallest absolute value.
        axis: the axis of the vectors.
        keepdims: keep that axis, with size 1.

    Returns:
        A floating point tensor.

    Raises:
        ShapeError: without an axis, if `inp` is not a vector.
    """
    x = as_float_tensor("norm", inp)
    if axis is None:
        check_rank("norm", "inp", x, (1,), "(n,), or give an axis")
    elif not isinstance(axis, list | tuple):
        axis = axis_of("norm", axis, x.ndim)
    order = 2.0 if ord is None else float(as_number("norm", "ord", ord))
    if order == 0:
        return sum(elemwise.not_equal(x, 0).astype(x.dtype), axis, keepdims)
    size = elemwise.abs(x)
    if order == inf:
        return max(size, axis, keepdims)
    if order == -inf:
        return min(size, axis, keepdims)
    if order == 1:
        return sum(size, axis, keepdims)
    if order == 2:
        return elemwise.sqrt(sum(elemwise.square(x), axis, keepdims))
    return elemwise.pow(sum(elemwise.pow(size, order), axis, keepdims), 1.0 / order)


def normalize(
    inp: Any, ord: float | None = None, axis: int | None = None, eps: float = 1e-12
) -> Tensor:
    """`inp` divided by its norm along an axis.

    Args:
        inp: numbers of any shape; integers are taken as float32.
        ord: see `norm`.
        axis: the axis of the vectors; without it `inp` is one vector of all its elements.
        eps: the least norm that is divided by.
    """
    x = as_float_tensor("normalize", inp)
    if axis is None:
        size = norm(x.reshape(-1), ord)
    else:
        size = norm(x, ord, axis, keepdims=True)
    return x / elemwise.maximum(size, eps)


# -- order -------------------------------------------------------------------------------


def argmax(inp: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index of the largest element: the first of ties.

    Args:
        inp: numbers of any shape.
        axis: the axis to search; by default, the index counts the elements of the whole tensor.
        keepdims: keep that axis, with size 1.

    Returns:
        An int32 tensor.
    """
    return _arg("argmax", inp, axis, keepdims)


def argmin(inp: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index of the smallest element: the first of ties; see `argmax`."""
    return _arg("argmin", inp, axis, keepdims)


def _arg(name: str, inp: Any, axis: Any, keepdims: bool) -> Tensor:
    x = _number(as_tensor(name, inp))
    if isinstance(axis, list | tuple):
        if len(axis) != 1:
            raise ArgumentError(
                f"{name}: axis is {axis}, not one axis",
                values=[("inp", x)],
                fix="give one axis, or none for the whole tensor",
            )
        (axis,) = axes_of(name, axis, x.ndim)
    if axis is not None:
        return dispatch.call(name, x, axis=axis_of(name, axis, x.ndim), keepdims=bool(keepdims))
    flat = dispatch.call("reshape", x, shape=(x.size,))
    found = dispatch.call(name, flat, axis=0, keepdims=False)
    return dispatch.call("reshape", found, shape=(1,) * x.ndim) if keepdims else found


def sort(inp: Any, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Sorts along the last axis; elements that are equal keep their order.

    Args:
        inp: numbers of rank 1 or more.
        descending: largest first.

    Returns:
        The sorted values, and their int32 indices in `inp`.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> values, indices = F.sort(mge.tensor([3.0, 1.0, 2.0]))
        >>> values, indices
        (Tensor([1. 2. 3.], device=xpux:0), Tensor([1 2 0], dtype=int32, device=xpux:0))
    """
    x = _number(as_tensor("sort", inp))
    if x.ndim == 0:
        raise ShapeError(
            "sort: inp has rank 0 but must have an axis to sort",
            values=[("inp", x)],
            fix="reshape it to (1,)",
        )
    values, indices = dispatch.call("sort", x, axis=x.ndim - 1, descending=bool(descending))
    return values, indices


def argsort(inp: Any, descending: bool = False) -> Tensor:
    """The int32 indices that `sort` returns."""
    return sort(inp, descending)[1]


def topk(
    inp: Any, k: int, descending: bool = True, kth_only: bool = False, no_sort: bool = False
) -> tuple[Tensor, Tensor] | Tensor:
    """The k largest elements along the last axis, or the k smallest.

    Args:
        inp: numbers of rank 1 or more.
        k: how many; not more than there are.
        descending: True for the largest, largest first; False for the smallest, smallest first.
        kth_only: return only the value of the k-th one, without the last axis.
        no_sort: the order of the result does not matter.

    Returns:
        Values and int32 indices, or the k-th value.

    Raises:
        ArgumentError: unless 1 <= k <= size of the last axis.
    """
    del no_sort  # sorted is fine, too
    x = _number(as_tensor("topk", inp))
    count, size = as_index("topk", "k", k), x.shape[-1] if x.ndim else 0
    if not 1 <= count <= size:
        raise ArgumentError(
            f"topk: k is {count} but the last axis has {size} elements",
            values=[("inp", x)],
            fix=f"use 1 <= k <= {size}",
        )
    values, indices = dispatch.call(
        "topk", x, k=count, axis=x.ndim - 1, descending=bool(descending)
    )
    return values[..., count - 1] if kth_only else (values, indices)


# -- products ----------------------------------------------------------------------------


def matmul(
    inp1: Any,
    inp2: Any,
    transpose_a: bool = False,
    transpose_b: bool = False,
    compute_mode: str = "default",
) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast.

    Args:
        inp1: (..., n, k), or (k,) for a row that is dropped from the result.
        inp2: (..., k, m), or (k,) for a column that is dropped from the result.
        transpose_a: take `inp1` as (..., k, n).
        transpose_b: take `inp2` as (..., m, k).
        compute_mode: "default" or "float32"; sums are in float32 in any case.

    Returns:
        (..., n, m), in the common dtype; integers are taken as float32.

    Raises:
        ShapeError: if the inner sizes differ or the leading axes do not broadcast.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> a = mge.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
        >>> F.matmul(a, a, transpose_b=True)
        Tensor([[ 5. 14.]
         [14. 50.]], device=xpux:0)
    """
    check_choice("matmul", "compute_mode", compute_mode, ("default", "float32"))
    a, b = operands("matmul", (inp1, inp2), _float_dtype("matmul", inp1, inp2))
    for argument, x in (("inp1", a), ("inp2", b)):
        if x.ndim == 0:
            raise ShapeError(
                f"matmul: {argument} has rank 0 but must have rank 1 or more",
                values=[("inp1", a), ("inp2", b)],
                fix="multiply with * instead",
            )
    rows, columns = a.ndim > 1, b.ndim > 1
    if not rows:
        a, transpose_a = a.reshape(1, -1), False
    if not columns:
        b, transpose_b = b.reshape(-1, 1), False
    out = dispatch.call(
        "matmul", a, b, transpose_lhs=bool(transpose_a), transpose_rhs=bool(transpose_b)
    )
    if rows and columns:
        return out
    kept = (*out.shape[:-2], *out.shape[-2:-1] * rows, *out.shape[-1:] * columns)
    return dispatch.call("reshape", out, shape=kept)


def _float_dtype(name: str, *values: Any) -> Any:
    """The dtype of a product: the promoted one, float32 in place of integers."""
    tensors = [as_tensor(name, v) for v in values]
    dtype = common_dtype(tuple(t._spec.dtype for t in tensors), -1)
    return dtype if category(dtype) == 2 else FLOAT32


def dot(inp1: Any, inp2: Any) -> Tensor:
    """The inner product of two vectors, as a 0-d tensor.

    Args:
        inp1: (n,)
        inp2: (n,)

    Raises:
        ShapeError: unless both are vectors of one length.
    """
    a, b = as_tensor("dot", inp1), as_tensor("dot", inp2)
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(
            f"dot: operands have ranks {a.ndim} and {b.ndim} but must be vectors",
            values=[("inp1", a), ("inp2", b)],
            fix="use matmul for matrices",
        )
    return matmul(a, b)


def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Tensor:
    """The cross product of vectors of three elements.

    Args:
        a: vectors along `axisa`.
        b: vectors along `axisb`; the other axes broadcast.
        axisa: axis of the vectors of `a`.
        axisb: axis of the vectors of `b`.
        axisc: axis of the vectors of the result.
        axis: one axis for all three.

    Raises:
        ShapeError: if the vectors do not have three elements.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = operands("cross", (a, b))
    lhs, rhs = _vectors("a", x, axisa), _vectors("b", y, axisb)
    parts = [
        lhs[(i + 1) % 3] * rhs[(i + 2) % 3] - lhs[(i + 2) % 3] * rhs[(i + 1) % 3] for i in range(3)
    ]
    from mgec.functional.tensor import stack

    return stack(parts, axis_of("cross", axisc, parts[0].ndim + 1))


def _vectors(argument: str, x: Tensor, axis: int) -> list[Tensor]:
    at = axis_of("cross", axis, x.ndim)
    if x.shape[at] != 3:
        raise ShapeError(
            f"cross: the vectors of {argument} have {x.shape[at]} elements, not 3",
            values=[(argument, x)],
            fix=f"name the axis of size 3 with axis{argument}",
        )
    return [x[(builtins.slice(None),) * at + (i,)] for i in range(3)]
