"""Compiled CPU kernels: a matrix product held in registers, and elementwise arithmetic."""

__all__: list[str] = []
