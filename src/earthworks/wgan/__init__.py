"""Wasserstein GANs and their rivals: train on images or points, sample, measure, diagnose."""

from earthworks.wgan.sampling import load as load
from earthworks.wgan.sampling import sample as sample
from earthworks.wgan.training import train as train
