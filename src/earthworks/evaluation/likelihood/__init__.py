"""Likelihoods and continuations under a model: the scorer that every evaluation uses."""

__all__: list[str] = []
