"""What the code generator knows about a machine."""

from mgec.compiler.targets.target import Target, host_target, target_named

__all__ = ["Target", "host_target", "target_named"]
