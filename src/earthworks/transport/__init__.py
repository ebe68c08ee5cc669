"""Distances between distributions, each with its kind, sample sizes, null and interval."""

from earthworks.transport.critic import critic_estimate as critic_estimate
from earthworks.transport.divergences.f_divergences import jensen_shannon as jensen_shannon
from earthworks.transport.divergences.f_divergences import kullback_leibler as kullback_leibler
from earthworks.transport.divergences.f_divergences import total_variation as total_variation
from earthworks.transport.divergences.frontier import divergence_frontier as divergence_frontier
from earthworks.transport.exact import wasserstein as wasserstein
from earthworks.transport.gaussian import Moments as Moments
from earthworks.transport.gaussian import frechet_distance as frechet_distance
from earthworks.transport.gaussian import gaussian_wasserstein as gaussian_wasserstein
from earthworks.transport.lipschitz import gradient_penalty as gradient_penalty
from earthworks.transport.one_dimensional import wasserstein_1d as wasserstein_1d
from earthworks.transport.permutation import permutation_test as permutation_test
from earthworks.transport.result import Distance as Distance
from earthworks.transport.sinkhorn import sinkhorn_divergence as sinkhorn_divergence
from earthworks.transport.sliced import max_sliced_wasserstein as max_sliced_wasserstein
from earthworks.transport.sliced import sliced_wasserstein as sliced_wasserstein
