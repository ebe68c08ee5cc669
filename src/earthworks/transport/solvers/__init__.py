"""Solvers of optimal transport: assignment, entropic (Sinkhorn), and sorting in one dimension."""

__all__: list[str] = []
