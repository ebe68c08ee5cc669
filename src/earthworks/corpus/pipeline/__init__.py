"""The build of a corpus: recipe, shards, stages, executors, and the record of every decision."""

__all__: list[str] = []
