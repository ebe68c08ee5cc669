"""Pages by kind of run, and the parts they are made of."""

__all__: list[str] = []
