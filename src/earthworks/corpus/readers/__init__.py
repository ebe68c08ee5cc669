"""Readers: files, archives, web pages and tables as documents."""

__all__: list[str] = []
