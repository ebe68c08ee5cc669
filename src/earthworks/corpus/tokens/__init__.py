"""Tokens: the tokenizer, packed tokens, the held-out split, and the order of training samples."""

__all__: list[str] = []
