"""The settings of a run that is continued: those it was started with, but for its length."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from earthworks.runs import EarthworksError, RunFolder

CHANGEABLE = ("resume", "max_steps", "device", "tensorboard")  # what may be given beside --resume


def settings_to_resume(
    run: str,
    given: dict[str, Any],
    *,
    train: Callable[..., Path],
    read: Callable[[str, dict[str, Any]], tuple[RunFolder, dict[str, Any], dict[str, Any]]],
    check: Callable[[dict[str, Any]], None],
) -> tuple[RunFolder, dict[str, Any]]:
    """The folder and the settings of an existing run; `given` are those of the command that resumes it.

    `train` is the room's command, whose signature has the defaults; `read(run, defaults)` opens the folder and gives its
    configuration and the settings in it, or refuses what is not a run of this room; `check` refuses impossible values.
    A raised max_steps is written to config.yaml. Raises EarthworksError for any other change, and for too few steps.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(train).parameters.items()}
    for name, value in given.items():
        if name not in CHANGEABLE and value != defaults[name]:
            raise EarthworksError(f"--resume continues with the settings of {run}; --{name} cannot be changed there")
    folder, config, kept = read(run, defaults)
    settings = {**defaults, **kept}
    settings["tensorboard"] = given["tensorboard"] or settings["tensorboard"]
    if given["max_steps"] is not None:
        settings["max_steps"] = given["max_steps"]
    check(settings)
    done = max(folder.steps(), default=0)
    if settings["max_steps"] < done:
        raise EarthworksError(f"{run} has made {done} steps already; --max_steps {settings['max_steps']} is too few")
    if settings["max_steps"] != config.get("max_steps"):
        folder.write_config({**config, "max_steps": settings["max_steps"]})
    return folder, settings


def settings_differing(config: dict[str, Any], written: dict[str, Any]) -> list[str]:
    """The settings in which a configuration differs from those that a checkpoint was written with."""
    return [name for name, value in written.items() if config.get(name) != value]
