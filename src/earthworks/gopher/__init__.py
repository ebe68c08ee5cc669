"""Gopher: training, sampling and evaluation of DeepMind's decoder-only language models."""

from earthworks.gopher.attention.relative import relative_attention as relative_attention
from earthworks.gopher.cache import Cache as Cache
from earthworks.gopher.config import FAMILY as FAMILY
from earthworks.gopher.config import GopherConfig as GopherConfig
from earthworks.gopher.evaluating import evaluate as evaluate
from earthworks.gopher.generation import generate as generate
from earthworks.gopher.loading import load as load
from earthworks.gopher.model import Gopher as Gopher
from earthworks.gopher.pretraining.command import train as train
