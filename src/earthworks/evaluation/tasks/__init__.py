"""Tasks: items, prompts, metrics, and the files that describe them."""

from earthworks.evaluation.tasks.evaluation import evaluate_tasks

__all__ = ["evaluate_tasks"]
