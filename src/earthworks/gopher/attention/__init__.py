"""Transformer-XL relative attention: the formula, its backends, and the choice among them."""

from earthworks.gopher.attention.relative import causal_attention, position_table, relative_attention

__all__ = ["causal_attention", "position_table", "relative_attention"]
