"""Earthworks: Gopher language models and Wasserstein GANs, trained, sampled and measured on your own data."""

__version__ = "0.1.0"
