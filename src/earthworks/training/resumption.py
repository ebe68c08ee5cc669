"""The settings of a run that is continued: those it was started with, but for its length."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from earthworks.runs import EarthworksError, RunFolder
from earthworks.runs.settings import CHANGEABLE, settings_differing
from earthworks.runs.settings import settings_written as settings_written

LARGEST = 1 << 63  # of a whole number: what a seed may be
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "nothing (null)"}


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
    check_types(kept, train, folder.config_file)
    settings = {**defaults, **kept}
    for name in ("tensorboard", "verify"):
        if name in settings:
            settings[name] = given[name] or settings[name]
    if given["max_steps"] is not None:
        settings["max_steps"] = given["max_steps"]
    if settings["max_steps"] is None:
        raise EarthworksError(
            f"{folder.config_file} does not say max_steps: it was altered; put the file back, or start a new run"
        )
    check(settings)
    done = max(folder.steps(), default=0)
    if settings["max_steps"] < done:
        raise EarthworksError(f"{run} has made {done} steps already; --max_steps {settings['max_steps']} is too few")
    if settings["max_steps"] != config.get("max_steps"):
        folder.write_config({**config, "max_steps": settings["max_steps"]})
    return folder, settings


def check_types(settings: Mapping[str, Any], train: Callable[..., Path], source: Path) -> None:
    """Raise EarthworksError for the first setting of a file that is of another type than the command takes."""
    hints = typing.get_type_hints(train)
    for name, value in settings.items():
        wanted = hints.get(name, Any)
        if wanted is Any or is_of(value, wanted):
            continue
        kinds = typing.get_args(wanted) or (wanted,)
        words = " or ".join(WORDS.get(each, str(each)) for each in kinds)
        raise EarthworksError(f"{source}: {name} is {str(value)[:80]!r}; it must be {words}")


def is_of(value: Any, wanted: Any) -> bool:
    """Whether a value of a file is of a type, or one of several: True is no whole number, 3 is a number."""
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        return any(is_of(value, each) for each in typing.get_args(wanted))
    if origin is typing.Literal:
        return value in typing.get_args(wanted)
    if wanted in (int, float):
        small = not isinstance(value, int) or abs(value) < LARGEST
        return isinstance(value, (int, float) if wanted is float else int) and not isinstance(value, bool) and small
    return isinstance(value, origin or wanted)


def refuse_differing(folder: RunFolder, config: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """Raise EarthworksError when config.yaml is not that of a checkpoint with this state; a notice when that cannot be
    said."""
    written = state.get("settings")
    if not isinstance(written, dict):
        return f"the checkpoint is of a version that kept no settings, so {folder.config_file} was not compared with it"
    if differing := settings_differing(config, written):
        raise EarthworksError(
            f"{folder.config_file} was changed after its checkpoint was saved ({'; '.join(differing)}): put that back, or "
            "start a new run with the new settings"
        )
    return None
