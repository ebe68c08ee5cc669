"""What a language model can do, and whom it harms."""

from earthworks.evaluation.bias import measure_bias as measure_bias
from earthworks.evaluation.card import write_card as write_card
from earthworks.evaluation.evaluating import evaluate_tasks as evaluate_tasks
from earthworks.evaluation.few_shot_toxicity import measure_detection as measure_detection
from earthworks.evaluation.scaling import compare_family as compare_family
from earthworks.evaluation.toxicity import measure_toxicity as measure_toxicity
from earthworks.evaluation.toxicity_classifier import train_classifier as train_classifier
