"""Automatic differentiation: `GradManager` and custom gradients."""

from mgec.autodiff.function import Function
from mgec.autodiff.grad_manager import GradManager
from mgec.autodiff.implicit import implicit_backward, implicit_unwatch, implicit_watch

__all__ = ["Function", "GradManager", "implicit_backward", "implicit_unwatch", "implicit_watch"]
