"""Measurements of a generator's samples: quality, coverage, memorisation."""

__all__: list[str] = []
