"""Tensors and the one place where their ops are dispatched."""
