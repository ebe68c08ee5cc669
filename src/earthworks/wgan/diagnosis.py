"""Is a run healthy? Its log and its last checkpoint are asked the questions that a person would ask."""

import json as json_format
from collections.abc import Callable
from typing import Any

import torch

from earthworks.runs import EarthworksError, RunFolder, read_metrics
from earthworks.training import checkpoint as checkpoints
from earthworks.training.precision import choose_device
from earthworks.wgan import examination, symptoms
from earthworks.wgan.datasets import load_dataset
from earthworks.wgan.findings import Diagnosis, Finding, Undecided
from earthworks.wgan.sampling import wgan_run
from earthworks.wgan.settings import networks
from earthworks.wgan.task import Adversarial
