"""Scaling: how loss and task accuracy change with size and data."""

from earthworks.evaluation.scaling.compare import compare_family

__all__ = ["compare_family"]
