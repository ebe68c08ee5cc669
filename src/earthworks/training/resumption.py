"""The settings of a run that is continued: those it was started with, but for its length."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from earthworks.runs import EarthworksError, RunFolder
from earthworks.runs.changed_settings import CHANGEABLE, settings_differing
from earthworks.runs.changed_settings import settings_written as settings_written
from earthworks.training.command_settings import RunSettings, types_of, values

S = TypeVar("S", bound=RunSettings)
LARGEST = 1 << 63  # of a whole number: what a seed may be
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "nothing (null)"}


def settings_to_resume(
    folder: RunFolder, given: RunSettings, kind: type[S], kept: Mapping[str, Any], check: Callable[[S], None]
) -> S:
    """The settings of an existing run, of the class `kind`; `given` are those of the command that resumes it.

    `kept`: what config.yaml says; keys of it that are no settings are left out. `check` refuses impossible values. A raised
    max_steps is written to config.yaml. Raises EarthworksError for any other change, and for too few steps.
    """
    for each in dataclasses.fields(given):
        if each.name not in CHANGEABLE and getattr(given, each.name) != each.default:
            raise EarthworksError(
                f"--resume continues with the settings of {folder.path}; --{each.name} cannot be changed there"
            )
    hints = types_of(kind)
    kept = {name: value for name, value in kept.items() if name in hints}
    check_types(kept, hints, folder.config_file)
    settings = kind(**kept)
    for name in ("tensorboard", "verify"):
        if getattr(given, name, False):
            settings = dataclasses.replace(settings, **{name: True})
    if given.max_steps is not None:
        settings = dataclasses.replace(settings, max_steps=given.max_steps)
    if settings.max_steps is None:
        raise EarthworksError(
            f"{folder.config_file} does not say max_steps: it was altered; put the file back, or start a new run"
        )
    check(settings)
    done = max(folder.steps(), default=0)
    if settings.max_steps < done:
        raise EarthworksError(
            f"{folder.path} has made {done} steps already; --max_steps {settings.max_steps} is too few"
        )
    if settings.max_steps != kept.get("max_steps"):
        folder.write_config({**folder.read_config(), "max_steps": settings.max_steps})
    return settings


def check_types(settings: Mapping[str, Any], hints: Mapping[str, Any], source: Path) -> None:
    """Raise EarthworksError for the first setting of a file that is of another type than the command takes."""
    for name, value in settings.items():
        wanted = hints[name]
        if is_of(value, wanted):
            continue
        kinds = typing.get_args(wanted) if typing.get_origin(wanted) is not typing.Literal else (str,)
        words = " or ".join(WORDS.get(each, "text") for each in kinds or (wanted,))
        raise EarthworksError(f"{source}: {name} is {str(value)[:80]!r}; it must be {words}")


def is_of(value: Any, wanted: Any) -> bool:
    """Whether a value of a file is of a type, or one of several: True is no whole number, 3 is a number."""
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        return any(is_of(value, each) for each in typing.get_args(wanted))
    if origin is typing.Literal:
        return isinstance(value, str)  # which of its values is checked with the bounds
    if wanted in (int, float):
        small = not isinstance(value, int) or abs(value) < LARGEST
        return isinstance(value, (int, float) if wanted is float else int) and not isinstance(value, bool) and small
    return isinstance(value, origin or wanted)


def refuse_differing(folder: RunFolder, settings: RunSettings, state: Mapping[str, Any]) -> str | None:
    """Raise EarthworksError when config.yaml is not that of a checkpoint with this state; a notice when that cannot be
    said."""
    written = state.get("settings")
    if not isinstance(written, dict):
        return f"the checkpoint is of a version that kept no settings, so {folder.config_file} was not compared with it"
    if differing := settings_differing(values(settings), written):
        raise EarthworksError(
            f"{folder.config_file} was changed after its checkpoint was saved ({'; '.join(differing)}): put that back, or "
            "start a new run with the new settings"
        )
    return None
