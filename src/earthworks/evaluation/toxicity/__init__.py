"""Toxicity: continuations, classifiers, and detection by the model."""

from earthworks.evaluation.toxicity.classifier import train_classifier
from earthworks.evaluation.toxicity.detection import measure_detection
from earthworks.evaluation.toxicity.prompts import measure_toxicity

__all__ = ["measure_detection", "measure_toxicity", "train_classifier"]
