"""Decontamination: evaluation items found in training documents by their n-grams."""

__all__: list[str] = []
