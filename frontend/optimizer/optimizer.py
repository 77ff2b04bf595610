"""`Optimizer`: what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.promote import FLOAT32
from mgec.core.tensor import Parameter, Tensor
from mgec.errors import ArgumentError, ShapeError

__all__ = ["Optimizer", "assign", "check_hyper", "no_record"]

Group = dict[str, Any]


@contextmanager
def no_record() -> Iterator[None]:
    """Ops in this block are not recorded: an update is no part of what is differentiated."""
    tapes = dispatch.state.tapes
    dispatch.state.tapes = []
    try:
        yield
    finally:
        dispatch.state.tapes = tapes


def check_hyper(
    name: str, argument: str, value: Any, low: float = 0.0, high: float = np.inf
) -> None:
    """Raises ArgumentError unless low <= value < high (a hyperparameter)."""
    if not isinstance(value, int | float | np.number) or not low <= value < high:
        limit = f"at least {low:g}" + ("" if high == np.inf else f" and below {high:g}")
        raise ArgumentError(
            f"{name}: {argument} is {value!r} but must be a number, {limit}",
            fix=f"use a {argument} of {limit}",
        )


def assign(tensor: Tensor, value: Tensor) -> None:
    """Gives a parameter or a state a new value, in the dtype it has."""
    tensor._reset(value if value.dtype is tensor.dtype else value.astype(tensor.dtype))


class Optimizer(ABC):
    """Base of the optimizers.

    A subclass makes its state tensors in `_create_state` and computes new values of
    parameters, in tensor ops, in `_updates`; so a traced step contains the update.

    Args:
        params: parameters, or dicts with the key "params" and own settings (groups).
        defaults: settings of groups that do not have their own.

    Attributes:
        param_groups: one dict for each group: "params" and the settings, such as "lr". Changing
            a setting changes the next step, also of a traced function.
    """

    def __init__(self, params: Any, defaults: Mapping[str, Any]) -> None:
        self._defaults = dict(defaults)
        self._state: dict[int, dict[str, Tensor]] = {}
        self._used_backward = False
        self.param_groups: list[Group] = []
        name = type(self).__name__
        given = [params] if isinstance(params, Tensor | dict) else params
        if not isinstance(given, Iterable):
            raise ArgumentError(
                f"{name}: params is a {type(params).__name__}, not parameters",
                fix="pass net.parameters()",
            )
        entries: list[Any] = list(given)
        if not entries:
            raise ArgumentError(f"{name}: there are no parameters", fix="pass net.parameters()")
        groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
        for group in groups:
            self.add_param_group(group)
        from mgec.autodiff import implicit_watch

        implicit_watch(self._params())

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def add_param_group(self, param_group: Group) -> None:
        """Adds parameters with their own settings.

        Args:
            param_group: "params", and settings that differ from the defaults.

        Raises:
            ArgumentError: for something that is not a parameter, or is one already.
        """
        name = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise ArgumentError(
                f"{name}: a parameter group has no 'params'", fix='pass {"params": [...], ...}'
            )
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for p in self._params()}
        for p in params:
            if not isinstance(p, Parameter):
                raise ArgumentError(
                    f"{name}: a {type(p).__name__} is not a parameter",
                    values=[("params", p)],
                    fix="pass net.parameters(), or make it an mgec.Parameter",
                )
            if id(p) in known:
                raise ArgumentError(
                    f"{name}: a parameter is given twice",
                    values=[("params", p)],
                    fix="give each parameter once",
                )
            known.add(id(p))
        group = {**self._defaults, **param_group, "params": params}
        self.param_groups.append(group)
        with no_record():
            self._create_state(group)

    # -- for subclasses ---------------------------------------------------------------------

    @abstractmethod
    def _create_state(self, param_group: Group) -> None:
        """Makes the state of a group's parameters, with `_add_state`."""

    @abstractmethod
    def _updates(self, param_group: Group) -> None:
        """Gives the parameters of a group that have gradients new values."""

    def _add_state(self, param: Tensor, name: str, value: Any = None) -> None:
        """Makes a state tensor: zeros of the shape of the parameter by default."""
        initial = np.zeros(param.shape, param.dtype) if value is None else value
        made = Tensor(initial, device=param.device)
        self._state.setdefault(id(param), {})[name] = made

    def _scalar(self, key: str, group: Group) -> Any:
        """A setting, as something that tensors can be multiplied with.

        Eager: the Python number. In a trace: a tensor that is read from the group at every
        call, so that a changed learning rate does not trace anew.
        """
        tracer = dispatch.state.tracer
        if tracer is None:
            return group[key]
        return tracer.python_value(lambda: group[key], FLOAT32)

    # -- for users --------------------------------------------------------------------------

    def step(self) -> Optimizer:
        """Gives every parameter that has a gradient a new value; returns itself."""
        with no_record():
            for group in self.param_groups:
                self._updates(group)
        if not self._used_backward:  # gradients come from a GradManager: stop remembering
            from mgec.autodiff import implicit_unwatch

            implicit_unwatch(self._params())
        return self

    def clear_grad(self) -> Optimizer:
        """Sets the gradients of all parameters to None; returns itself."""
        for p in self._params():
            p.grad = None
        return self

    def zero_grad(self) -> Optimizer:
        """The old name of `clear_grad`."""
        return self.clear_grad()

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of `loss` to those of the parameters, without a `GradManager`.

        As in MegEngine before 1.0. What is computed from the parameters remembers how, from the
        time the optimizer is made until its first `step` without a `backward` before it.

        Args:
            loss: a tensor that depends on the parameters.

        Raises:
            GradientError: if it does not.
        """
        from mgec.autodiff import implicit_backward

        self._used_backward = True
        implicit_backward(loss, self._params())

    def minimize(self, loss: Tensor) -> Optimizer:
        """`clear_grad`, `backward` and `step` in one; returns itself."""
        self.clear_grad().backward(loss)
        return self.step()

    def state_dict(self, keep_var: bool = False) -> dict[str, Any]:
        """Settings and state, for `mgec.save`.

        Args:
            keep_var: give the state tensors themselves instead of NumPy copies.

        Returns:
            "param_groups": the settings, with the parameters as numbers in order; "state": for
            each number, the state arrays by name.
        """
        number = {id(p): i for i, p in enumerate(self._params())}
        groups = [
            {**group, "params": [number[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {
            number[key]: {name: t if keep_var else t.numpy() for name, t in tensors.items()}
            for key, tensors in self._state.items()
        }
        return {"param_groups": groups, "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets settings and state.

        Args:
            state: what `state_dict` of the same optimizer on the same network returned.

        Raises:
            ArgumentError: if it is of another optimizer or network.
            ShapeError: if a state has another shape.
        """
        name = type(self).__name__
        if not isinstance(state, Mapping):
            raise ArgumentError(
                f"{name}.load_state_dict: a {type(state).__name__} is not a state",
                fix="pass what state_dict() of the same optimizer returned",
            )
        groups = state.get("param_groups", [])
        own = [len(group["params"]) for group in self.param_groups]
        given = [len(group["params"]) for group in groups]
        if own != given:
            raise ArgumentError(
                f"{name}.load_state_dict: groups have {given} parameters but must have {own}",
                fix="load a state of the same optimizer and network",
            )
        params = self._params()
        new: list[tuple[Tensor, Tensor]] = []
        for i, p in enumerate(params):
            tensors = self._state.get(id(p), {})
            values = state.get("state", {}).get(i, {})
            if set(tensors) != set(values):
                raise ArgumentError(
                    f"{name}.load_state_dict: parameter {i} has state {sorted(values)} "
                    f"but must have {sorted(tensors)}",
                    fix="load a state of the same optimizer and network",
                )
            for key, tensor in tensors.items():
                value = Tensor(values[key], dtype=tensor.dtype, device=tensor.device)
                if value.shape != tensor.shape:
                    raise ShapeError(
                        f"{name}.load_state_dict: {key} of parameter {i} has shape "
                        f"{value.shape} but must have {tensor.shape}",
                        fix="load a state of the same optimizer and network",
                    )
                new.append((tensor, value))
        for tensor, value in new:
            tensor._reset(value)
        for group, values in zip(self.param_groups, groups, strict=True):
            group.update({key: value for key, value in values.items() if key != "params"})
