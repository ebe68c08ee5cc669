"""Bias: differences in how a language model treats groups of people."""

from earthworks.evaluation.bias.suite import measure_bias

__all__ = ["measure_bias"]
