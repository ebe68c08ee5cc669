"""Diagnosis of a GAN's run from its log and its last checkpoint."""

from earthworks.wgan.diagnosis.run_diagnosis import diagnose

__all__ = ["diagnose"]
