"""Model cards, written from the files of a run."""

from earthworks.evaluation.cards.command import write_card

__all__ = ["write_card"]
