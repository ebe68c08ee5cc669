"""`earthworks gopher train`."""

import importlib
import time
from pathlib import Path

from earthworks.gopher.pretraining import family, run
from earthworks.gopher.pretraining.settings import SettledFamily, TrainSettings, check
from earthworks.gopher.pretraining.starting import kept_settings
from earthworks.runs import EarthworksError, RunFolder
from earthworks.training.command_settings import command, settled
from earthworks.training.precision import choose_device


@command(TrainSettings)
def train(settings: TrainSettings) -> Path:
    """Train a Gopher on text and write everything about it into one run folder, which is returned."""
    importlib.import_module("torch._dynamo")  # torch.optim imports it at first use: 1.3 s that are not training
    started = time.perf_counter()
    if settings.resume is not None:
        with RunFolder.open(settings.resume).writing() as folder:
            device, kept = choose_device(settings.device), kept_settings(folder, settings)
            if kept.family is not None:
                return family.resume(folder, settled(SettledFamily, kept, folder.config_file))
            return run.resume(folder, kept, device, started)
    if settings.data is None:
        raise EarthworksError("--data is missing: give a file or folder of text, or python-docs; or --resume RUN")
    check(settings)
    return family.start(settings, started) if settings.family is not None else run.start(settings, started)
