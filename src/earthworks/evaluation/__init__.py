"""Evaluation of language models: tasks, scaling, bias, toxicity and model cards."""

from earthworks.evaluation.bias.suite import measure_bias as measure_bias
from earthworks.evaluation.cards.command import write_card as write_card
from earthworks.evaluation.scaling.compare import compare_family as compare_family
from earthworks.evaluation.tasks.evaluation import evaluate_tasks as evaluate_tasks
from earthworks.evaluation.toxicity.classifier import train_classifier as train_classifier
from earthworks.evaluation.toxicity.detection import measure_detection as measure_detection
from earthworks.evaluation.toxicity.prompts import measure_toxicity as measure_toxicity
