"""`Module`: a function with parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.tensor import Parameter, Tensor
from mgec.errors import ArgumentError, ShapeError

__all__ = ["Module", "state_epoch"]

_INTERNAL = frozenset({"_forward_hooks", "_forward_pre_hooks"})
_SIMPLE = (bool, int, float, str, type(None))


def state_epoch() -> int:
    """Counts the changes of attributes of all modules that are not tensors.

    A trace has such attributes built in (`training`, a stride); while this number is the same,
    none of them changed.
    """
    return dispatch.state.module_epoch


class HookHandler:
    """Takes a hook off again; returned by `Module.register_forward_hook`."""

    def __init__(self, hooks: OrderedDict[HookHandler, Callable[..., Any]], hook: Any) -> None:
        self._hooks = hooks
        hooks[self] = hook
        dispatch.state.module_epoch += 1

    def remove(self) -> None:
        """Takes the hook off; a second call does nothing."""
        self._hooks.pop(self, None)
        dispatch.state.module_epoch += 1


class Module:
    """Base of all layers and networks: attributes are parameters, buffers and other modules.

    A `Parameter` is trained, any other `Tensor` is a buffer. Both are found as attributes and
    inside lists, tuples and dicts that are attributes, in the order in which they were set.

    Args:
        name: a name for people.

    Attributes:
        training: whether layers such as `Dropout` behave as for training; see `train`.

    Example:
        >>> import mgec as mge
        >>> import mgec.module as M
        >>> class Net(M.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc = M.Linear(4, 2)
        ...     def forward(self, x):
        ...         return self.fc(x)
        >>> net = Net()
        >>> [name for name, _ in net.named_parameters()]
        ['fc.weight', 'fc.bias']
        >>> net(mge.functional.ones((3, 4))).shape
        (3, 2)
    """

    training: bool

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.training = True
        self._forward_hooks: OrderedDict[HookHandler, Callable[..., Any]] = OrderedDict()
        self._forward_pre_hooks: OrderedDict[HookHandler, Callable[..., Any]] = OrderedDict()

    def __setattr__(self, name: str, value: Any) -> None:
        old = self.__dict__.get(name, _MISSING)
        object.__setattr__(self, name, value)
        if old is value or (isinstance(value, Tensor) and isinstance(old, Tensor)):
            return
        if isinstance(value, _SIMPLE) and type(old) is type(value) and old == value:
            return
        dispatch.state.module_epoch += 1

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        dispatch.state.module_epoch += 1

    # -- calling ----------------------------------------------------------------------------

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Computes the outputs; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """`forward`, with the hooks around it."""
        for hook in tuple(self._forward_pre_hooks.values()):
            changed = hook(self, inputs)
            if changed is not None:
                inputs = changed if isinstance(changed, tuple) else (changed,)
        outputs = self.forward(*inputs, **kwargs)
        for hook in tuple(self._forward_hooks.values()):
            changed = hook(self, inputs, outputs)
            if changed is not None:
                outputs = changed
        return outputs

    def register_forward_hook(self, hook: Callable[[Module, Any, Any], Any]) -> HookHandler:
        """Calls `hook(module, inputs, outputs)` after `forward`.

        Args:
            hook: what it returns, unless None, becomes the outputs.

        Returns:
            A handle whose `remove()` takes the hook off.
        """
        return HookHandler(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[[Module, Any], Any]) -> HookHandler:
        """Calls `hook(module, inputs)` before `forward`; a result replaces the inputs."""
        return HookHandler(self._forward_pre_hooks, hook)

    # -- what is inside ---------------------------------------------------------------------

    def _named(
        self, kind: type | tuple[type, ...], prefix: str, recursive: bool, seen: set[int]
    ) -> Iterator[tuple[str, Any, Module]]:
        """Members of a kind with their names and owners, each once, in attribute order."""
        for key, value in vars(self).items():
            if key in _INTERNAL:
                continue
            for name, leaf in _leaves(prefix + key, value):
                if id(leaf) in seen:
                    continue
                seen.add(id(leaf))
                if isinstance(leaf, kind):
                    yield name, leaf, self
                if recursive and isinstance(leaf, Module):
                    yield from leaf._named(kind, name + ".", True, seen)

    def named_tensors(
        self, prefix: str = "", recursive: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of all parameters and buffers."""
        for name, leaf, _ in self._named(Tensor, _dotted(prefix), recursive, {id(self)}):
            yield name, leaf

    def tensors(self, recursive: bool = True) -> Iterator[Tensor]:
        """All parameters and buffers."""
        for _, leaf in self.named_tensors(recursive=recursive):
            yield leaf

    def named_parameters(
        self, prefix: str = "", recursive: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Names and parameters, in the order in which they were set as attributes.

        Args:
            prefix: put in front of the names.
            recursive: whether to look into modules inside this one.
        """
        for name, leaf in self.named_tensors(prefix, recursive):
            if isinstance(leaf, Parameter):
                yield name, leaf

    def parameters(self, recursive: bool = True) -> Iterator[Parameter]:
        """All parameters; see `named_parameters`."""
        for _, leaf in self.named_parameters(recursive=recursive):
            yield leaf

    def named_buffers(
        self, prefix: str = "", recursive: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors that are not parameters."""
        for name, leaf in self.named_tensors(prefix, recursive):
            if not isinstance(leaf, Parameter):
                yield name, leaf

    def buffers(self, recursive: bool = True) -> Iterator[Tensor]:
        """All tensors that are not parameters."""
        for _, leaf in self.named_buffers(recursive=recursive):
            yield leaf

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Names and modules directly inside this one."""
        for name, leaf, _ in self._named(Module, "", False, {id(self)}):
            yield name, leaf

    def children(self) -> Iterator[Module]:
        """Modules directly inside this one."""
        for _, leaf in self.named_children():
            yield leaf

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (under the name `prefix`) and all inside it, with their names."""
        yield prefix, self
        for name, leaf, _ in self._named(Module, _dotted(prefix), True, {id(self)}):
            yield name, leaf

    def modules(self) -> Iterator[Module]:
        """This module and all inside it."""
        for _, leaf in self.named_modules():
            yield leaf

    def apply(self, fn: Callable[[Module], Any]) -> None:
        """Calls `fn` with this module and all inside it."""
        for module in list(self.modules()):
            fn(module)

    # -- mode and gradients -----------------------------------------------------------------

    def train(self, mode: bool = True, recursive: bool = True) -> Module:
        """Makes layers behave as for training (or, with False, for inference).

        Returns:
            Itself.
        """
        for module in list(self.modules()) if recursive else [self]:
            module.training = mode
        return self

    def eval(self) -> Module:
        """Makes layers behave as for inference; returns itself."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Removes the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # -- state ------------------------------------------------------------------------------

    def state_dict(
        self, rst: dict[str, Any] | None = None, prefix: str = "", keep_var: bool = False
    ) -> dict[str, Any]:
        """Values of all parameters and buffers by name.

        Args:
            rst: a dict to fill; a new one by default.
            prefix: put in front of the names.
            keep_var: give the tensors themselves instead of NumPy copies.
        """
        state = OrderedDict() if rst is None else rst
        for name, leaf in self.named_tensors(prefix):
            state[name] = leaf if keep_var else leaf.numpy()
        return state

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any] | Callable[[str, Tensor], Any],
        strict: bool = True,
    ) -> None:
        """Sets parameters and buffers.

        Args:
            state_dict: values by name; or a function of name and tensor that returns the value,
                or None to leave the tensor as it is.
            strict: whether every name must be on both sides.

        Raises:
            ArgumentError: if strict and names are missing or unknown.
            ShapeError: if a value has another shape than its tensor.
        """
        own = dict(self.named_tensors())
        if callable(state_dict):
            given = {
                name: value
                for name, leaf in own.items()
                if (value := state_dict(name, leaf)) is not None
            }
        else:
            if not isinstance(state_dict, Mapping):
                raise ArgumentError(
                    f"load_state_dict: a {type(state_dict).__name__} is not a state",
                    fix="pass what state_dict() of the same network returned",
                )
            given = dict(state_dict)
            missing = [name for name in own if name not in given]
            unknown = [name for name in given if name not in own]
            if strict and (missing or unknown):
                raise ArgumentError(
                    f"load_state_dict: {len(missing)} names are missing and {len(unknown)} unknown",
                    values=[("missing", ", ".join(missing)), ("unknown", ", ".join(unknown))],
                    fix="load a state of the same network, or set strict=False",
                )
        values: list[tuple[Tensor, Tensor]] = []
        for name, leaf in own.items():
            if name not in given:
                continue
            value = given[name]
            shape = tuple(np.shape(value)) if not isinstance(value, Tensor) else value.shape
            if shape != leaf.shape:
                raise ShapeError(
                    f"load_state_dict: {name} has shape {shape} but the network's has {leaf.shape}",
                    values=[(name, leaf)],
                    fix="load a state of the same network",
                )
            values.append((leaf, Tensor(value, dtype=leaf.dtype, device=leaf.device)))
        for leaf, new in values:  # only now, so that an error leaves the network as it was
            leaf._reset(new)

    # -- printing ---------------------------------------------------------------------------

    def _module_info_string(self) -> str:
        """What stands in the brackets of `repr`."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + _indented(repr(child)) for name, child in self.named_children()]
        info = self._module_info_string()
        if not lines:
            return f"{type(self).__name__}({info})"
        head = [info] if info else []
        return f"{type(self).__name__}(\n  " + "\n  ".join([*head, *lines]) + "\n)"


_MISSING = object()


def _dotted(prefix: str) -> str:
    return prefix + "." if prefix and not prefix.endswith(".") else prefix


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Tensors and modules inside lists, tuples and dicts, with names such as `layers.0`."""
    if isinstance(value, Tensor | Module):
        yield name, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _leaves(f"{name}.{key}", item)
