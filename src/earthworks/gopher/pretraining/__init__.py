"""Training of a language model: settings, time budget, run, and families of sizes."""

from earthworks.gopher.pretraining.run import train

__all__ = ["train"]
