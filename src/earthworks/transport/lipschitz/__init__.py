"""Lipschitz control of critics: gradient penalties, weight constraints, and feasible lower bounds."""

from earthworks.transport.lipschitz.bounds import LowerBounds as LowerBounds
from earthworks.transport.lipschitz.bounds import lower_bounds as lower_bounds
from earthworks.transport.lipschitz.constraints import GroupSort as GroupSort
from earthworks.transport.lipschitz.constraints import bjorck as bjorck
from earthworks.transport.lipschitz.constraints import clip_weights as clip_weights
from earthworks.transport.lipschitz.constraints import orthonormalize as orthonormalize
from earthworks.transport.lipschitz.constraints import retract as retract
from earthworks.transport.lipschitz.constraints import spectral_normalize as spectral_normalize
from earthworks.transport.lipschitz.penalty import gradient_norms as gradient_norms
from earthworks.transport.lipschitz.penalty import gradient_penalty as gradient_penalty
from earthworks.transport.lipschitz.penalty import gradients as gradients
from earthworks.transport.lipschitz.penalty import interpolate as interpolate
from earthworks.transport.lipschitz.penalty import penalize as penalize
