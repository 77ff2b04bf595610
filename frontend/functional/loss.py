"""Losses; each reduces to the mean over all elements unless told otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.indexing import check_indices
from mgec.core.promote import operands
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, ShapeError
from mgec.functional import math as math_
from mgec.functional._arguments import as_float_tensor, as_number, axis_of, check_choice
from mgec.functional.elemwise import abs, clip, log, maximum, square
from mgec.functional.nn import indexing_one_hot, integer_tensor

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "cross_entropy_with_softmax",
    "hinge_loss",
    "l1_loss",
    "nll_loss",
    "square_loss",
]


def _reduce(name: str, loss: Tensor, reduction: str) -> Tensor:
    check_choice(name, "reduction", reduction, ("mean", "sum", "none"))
    if reduction == "none":
        return loss
    return math_.mean(loss) if reduction == "mean" else math_.sum(loss)


def _pair(name: str, pred: Any, label: Any) -> tuple[Tensor, Tensor]:
    """Prediction and label as floating point tensors that broadcast."""
    x, y = operands(name, (as_float_tensor(name, pred), label))
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ShapeError(
            f"{name}: pred has shape {x.shape} but label has {y.shape}",
            values=[("pred", x), ("label", y)],
            fix="make the shapes equal",
        ) from None
    return x, y


def l1_loss(pred: Any, label: Any, reduction: str = "mean") -> Tensor:
    """|pred - label|.

    Args:
        pred: numbers of any shape.
        label: of the shape of `pred`.
        reduction: "mean", "sum" or "none".

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: for another reduction.
    """
    x, y = _pair("l1_loss", pred, label)
    return _reduce("l1_loss", abs(x - y), reduction)


def square_loss(pred: Any, label: Any, reduction: str = "mean") -> Tensor:
    """(pred - label) ** 2; see `l1_loss`.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.loss.square_loss(mge.tensor([3.0, -0.5]), mge.tensor([2.5, 0.5]))
        Tensor(0.625, device=xpux:0)
    """
    x, y = _pair("square_loss", pred, label)
    return _reduce("square_loss", square(x - y), reduction)


def cross_entropy(
    pred: Any,
    label: Any,
    axis: int = 1,
    with_logits: bool = True,
    label_smooth: float = 0,
    reduction: str = "mean",
) -> Tensor:
    """-log of the probability of the true class.

    Args:
        pred: (N, C, ...): logits, or probabilities with ``with_logits=False``.
        label: integers, the shape of `pred` without `axis`: 0 <= label < C.
        axis: the axis of the classes.
        with_logits: whether `pred` still has to go through softmax.
        label_smooth: how much of the probability to spread over all classes, 0 to 1.
        reduction: "mean", "sum" or "none".

    Returns:
        A 0-d tensor, or with "none" the shape of `label`.

    Raises:
        ShapeError: if the label does not have the shape of `pred` without `axis`.
        DTypeError: if the label is not made of integers.
        ArgumentError: for another reduction, or a smoothing out of range.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.loss.cross_entropy(mge.tensor([[0.0, 0.0]]), mge.tensor([1]))
        Tensor(0.6931472, device=xpux:0)
    """
    name = "cross_entropy"
    x, y = as_float_tensor(name, pred), integer_tensor(name, "label", label)
    at = axis_of(name, axis, x.ndim)
    if y.ndim == x.ndim and y.shape[at] == 1:
        y = dispatch.call("reshape", y, shape=y.shape[:at] + y.shape[at + 1 :])
    if y.shape != x.shape[:at] + x.shape[at + 1 :]:
        raise ShapeError(
            f"{name}: label has shape {y.shape} but pred without axis {at} has "
            f"{x.shape[:at] + x.shape[at + 1 :]}",
            values=[("pred", x), ("label", y)],
            fix="give one class index for each prediction",
        )
    if not 0 <= as_number(name, "label_smooth", label_smooth) <= 1:
        raise ArgumentError(
            f"{name}: label_smooth is {label_smooth} but must be from 0 to 1",
            fix="use a small number such as 0.1",
        )
    check_choice(name, "reduction", reduction, ("mean", "sum", "none"))
    check_indices(name, "label", y, x.shape[at], from_end=False)
    if with_logits:
        loss = dispatch.call("cross_entropy", x, y, axis=at, label_smooth=float(label_smooth))
    else:
        loss = _of_probabilities(x, y, at, float(label_smooth))
    return _reduce(name, loss, reduction)


def _of_probabilities(x: Tensor, y: Tensor, axis: int, smooth: float) -> Tensor:
    logs = log(x)
    loss = -indexing_one_hot(logs, y, axis)
    if smooth:
        loss = loss * (1 - smooth) - math_.mean(logs, axis) * smooth
    return loss


def cross_entropy_with_softmax(
    pred: Any, label: Any, axis: int = 1, label_smooth: float = 0
) -> Tensor:
    """`cross_entropy` of logits, by its name before MegEngine 1.0."""
    return cross_entropy(pred, label, axis, with_logits=True, label_smooth=label_smooth)


def nll_loss(pred: Any, label: Any, axis: int = 1, reduction: str = "mean") -> Tensor:
    """-pred at the true class, for log-probabilities `pred`; see `cross_entropy`."""
    x, y = as_float_tensor("nll_loss", pred), integer_tensor("nll_loss", "label", label)
    classes = x.shape[axis_of("nll_loss", axis, x.ndim)]
    check_indices("nll_loss", "label", y, classes, from_end=False)
    return _reduce("nll_loss", -indexing_one_hot(x, y, axis), reduction)


def binary_cross_entropy(
    pred: Any, label: Any, with_logits: bool = True, reduction: str = "mean"
) -> Tensor:
    """-(label * log(p) + (1 - label) * log(1 - p)), with p = sigmoid(pred).

    Args:
        pred: logits of any shape, or probabilities with ``with_logits=False``.
        label: 0 to 1, of the shape of `pred`.
        with_logits: whether `pred` still has to go through sigmoid.
        reduction: "mean", "sum" or "none".

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: for another reduction.
    """
    name = "binary_cross_entropy"
    x, y = _pair(name, pred, label)
    if with_logits:
        loss = dispatch.call("binary_cross_entropy_with_logits", x, y)
    else:
        # log(0) is cut off at -100, so that certain and right predictions cost 0.
        loss = -(y * clip(log(x), -100.0) + (1 - y) * clip(log(1 - x), -100.0))
    return _reduce(name, loss, reduction)


def hinge_loss(pred: Any, label: Any, norm: str = "L1", reduction: str = "mean") -> Tensor:
    """sum over the classes of max(0, 1 - pred * label), or of its square.

    Args:
        pred: (N, C)
        label: (N, C), -1 or 1.
        norm: "L1" or "L2".
        reduction: "mean" (over N), "sum" or "none".

    Raises:
        ArgumentError: for another norm or reduction.
    """
    check_choice("hinge_loss", "norm", norm, ("L1", "L2"))
    x, y = _pair("hinge_loss", pred, label)
    margin = maximum(0.0, 1.0 - x * y)
    loss = math_.sum(margin if norm == "L1" else square(margin), axis=1)
    return _reduce("hinge_loss", loss, reduction)
