"""What a language model can do, and whom it harms."""

from earthworks.evaluation.evaluating import evaluate_tasks as evaluate_tasks
