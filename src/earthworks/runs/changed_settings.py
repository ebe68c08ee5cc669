"""Comparison of config.yaml with the settings recorded in a checkpoint."""

from collections.abc import Mapping
from typing import Any

from earthworks.runs.errors import EarthworksError
from earthworks.runs.folder import DERIVED, RunFolder
from earthworks.runs.json_files import read_json
from earthworks.runs.manifest import verify_manifest

CHANGEABLE = ("resume", "max_steps", "device", "tensorboard", "verify")  # may be given with --resume
# Settings that the owner of a run may edit in its config.yaml: they change no weight. Moved data are compared by their
# contents.
FREE = (*CHANGEABLE, "run", "data", "preset", "minutes", "evaluate_every", "sample_every", "save_every")


# kept in a checkpoint with the settings, for display
COUNTED = ("parameters", "shape", "data_digest", "critic_batch_norm")


def settings_written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a checkpoint keeps: those that determine what the run computes."""
    return {name: value for name, value in settings.items() if name not in FREE and name not in DERIVED}


def settings_differing(config: Mapping[str, Any], written: Mapping[str, Any]) -> list[str]:
    """A phrase, such as `batch is 8 and was 4`, for each setting of config.yaml that differs from a checkpoint's;
    `written` are its `settings_written`, possibly of an older version with fewer settings."""
    now = settings_written(config) | {name: config[name] for name in COUNTED if name in config}
    return [
        f"{name} is {str(now[name])[:80]} and was {str(written[name])[:80]}"
        for name in sorted(now.keys() & written.keys())
        if now[name] != written[name] or isinstance(now[name], bool) != isinstance(written[name], bool)
    ]


def changed_settings(folder: RunFolder) -> str | None:
    """A sentence if config.yaml does not match the newest checkpoint, or if that cannot be told."""
    steps = folder.steps()
    if not steps:
        return None
    path = folder.checkpoint(steps[-1])
    try:
        verify_manifest(path, names=["state.json"])
        state = read_json(path / "state.json")
    except EarthworksError as error:
        return str(error) if path.exists() else None  # a run in training may have removed it by now
    written = state.get("settings") if isinstance(state, dict) else None
    if not isinstance(written, dict):
        return None
    config = folder.read_config()
    unknown = config.keys() - written.keys() - {*FREE, *DERIVED}
    differing = [*settings_differing(config, written), *(f"{str(name)[:80]} is no setting" for name in sorted(unknown))]
    if not differing:
        return None
    return (
        f"{folder.config_file} was changed after its checkpoint was saved ({'; '.join(differing)}): the run was not trained "
        "with the values it has now"
    )
