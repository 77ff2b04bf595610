"""Graph mode: `trace` turns a Python function into one compiled graph."""

from mgec.errors import TraceError
from mgec.jit.trace import trace

__all__ = ["TraceError", "trace"]
