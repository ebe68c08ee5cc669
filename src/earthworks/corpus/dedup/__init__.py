"""Exact and near-duplicate detection: shingles, MinHash, and the Jaccard similarity."""

__all__: list[str] = []
