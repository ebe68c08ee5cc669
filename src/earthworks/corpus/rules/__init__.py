"""Quality and repetition rules, by profile; language identification."""

from earthworks.corpus.rules.profiles import PROFILES, failing, quality_values, repetition_values, rule_values

__all__ = ["PROFILES", "failing", "quality_values", "repetition_values", "rule_values"]
