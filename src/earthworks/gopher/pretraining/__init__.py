"""Training of a language model: settings, time budget, run, and families of sizes."""

from earthworks.gopher.pretraining.command import train

__all__ = ["train"]
