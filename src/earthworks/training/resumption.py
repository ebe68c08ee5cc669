"""Settings of a resumed run: unchanged, except for its length."""

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
LARGEST = 1 << 63  # bound of a whole number, as for a seed
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "nothing (null)"}


def settings_to_resume(
    folder: RunFolder, given: RunSettings, kind: type[S], kept: Mapping[str, Any], check: Callable[[S], None]
) -> S:
    """The settings of an existing run, of the class `kind`; `given` are those of the command that resumes it.

    `kept`: the contents of config.yaml; keys that are not settings are ignored. `check` refuses invalid values. A raised
    max_steps is written to config.yaml. Raises EarthworksError for any other change, and for too few steps.
    """
    for each in dataclasses.fields(given):
        if each.name not in CHANGEABLE and getattr(given, each.name) != each.default:
            raise EarthworksError(
                f"--resume keeps the settings of {folder.path}, so --{each.name} cannot be changed: leave it out"
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
            f"{folder.config_file} has no max_steps: it was altered; put the file back, or start a new run"
        )
    check(settings)
    done = max(folder.steps(), default=0)
    if settings.max_steps < done:
        raise EarthworksError(
            f"{folder.path} has already made {done} steps; --max_steps {settings.max_steps} is too few: raise it"
        )
    if settings.max_steps != kept.get("max_steps"):
        folder.write_config({**folder.read_config(), "max_steps": settings.max_steps})
    return settings


def check_types(settings: Mapping[str, Any], hints: Mapping[str, Any], source: Path) -> None:
    """Raise EarthworksError for the first setting of a file whose type is not what the command takes."""
    for name, value in settings.items():
        wanted = hints[name]
        if is_of(value, wanted):
            continue
        kinds = typing.get_args(wanted) if typing.get_origin(wanted) is not typing.Literal else (str,)
        words = " or ".join(WORDS.get(each, "text") for each in kinds or (wanted,))
        raise EarthworksError(f"{source}: {name} is {str(value)[:80]!r}; it must be {words}")


def is_of(value: Any, wanted: Any) -> bool:
    """Whether a value of a file is of a type, or one of several: True is not a whole number, 3 is a number."""
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        return any(is_of(value, each) for each in typing.get_args(wanted))
    if origin is typing.Literal:
        return isinstance(value, str)  # its value is checked with the bounds
    if wanted in (int, float):
        small = not isinstance(value, int) or abs(value) < LARGEST
        return isinstance(value, (int, float) if wanted is float else int) and not isinstance(value, bool) and small
    return isinstance(value, origin or wanted)


def refuse_differing(folder: RunFolder, settings: RunSettings, state: Mapping[str, Any]) -> str | None:
    """Raise EarthworksError when config.yaml does not match a checkpoint with this state; returns a notice when that
    cannot be told."""
    written = state.get("settings")
    if not isinstance(written, dict):
        return (
            f"the checkpoint is from a version that kept no settings, so {folder.config_file} was not compared with it"
        )
    if differing := settings_differing(values(settings), written):
        raise EarthworksError(
            f"{folder.config_file} was changed after its checkpoint was saved ({'; '.join(differing)}): undo the "
            "change, or start a new run with the new settings"
        )
    return None
