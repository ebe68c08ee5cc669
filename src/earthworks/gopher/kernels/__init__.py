"""Machine code for processors: a matrix product held in registers, and the arithmetic around it."""

__all__: list[str] = []
