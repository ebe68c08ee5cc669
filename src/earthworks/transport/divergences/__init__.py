"""Divergences of two distributions over the same cells, and the divergence frontier."""

from earthworks.transport.divergences.f_divergences import jensen_shannon, kullback_leibler, total_variation
from earthworks.transport.divergences.frontier import divergence_frontier

__all__ = ["divergence_frontier", "jensen_shannon", "kullback_leibler", "total_variation"]
