"""Atomic checkpoints: safetensors, a small state file, and the SHA-256 of both."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earthworks.runs import (
    EarthworksError,
    RunFolder,
    inside,
    json_text,
    new_folder,
    read_json,
    verify_manifest,
    write_json,
)
from earthworks.runs.files import write_through
from earthworks.runs.manifest import remove_folder
from earthworks.runs.metrics import log_fault
from earthworks.runs.progress import note_once
from earthworks.runs.temporary import remove_leftovers

BEST = "best.json"  # {"step": N, "score": s}: next to the checkpoints, replaced atomically
PATIENCE = 20  # retries of a reader whose checkpoint was removed while it was read
KEPT = 2  # newest periodic checkpoints kept in addition to the best: one may be damaged by the disk


def save(run: RunFolder, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Write `checkpoints/step-N/`: one safetensors file for each entry of `tensors`, `state.json`, `manifest.json`."""
    from safetensors.torch import save as serialize

    path = run.checkpoint(step)
    with new_folder(path) as folder:
        for name, group in tensors.items():
            group = {key: value.detach().cpu().contiguous() for key, value in group.items()}
            write_through(folder / f"{name}.safetensors", serialize(group))
        write_through(folder / "state.json", json_text(state).encode())
    return path


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint: only the files that its manifest names, each checked against it first."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_dir():
        raise EarthworksError(f"there is no checkpoint at {path}")
    files = verify_manifest(path)
    if "state.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise EarthworksError(f"{path / 'manifest.json'} does not list the files of a checkpoint: it was altered")
    tensors = {}
    for name in sorted(name for name in files if name.endswith(".safetensors") and "/" not in name):
        try:
            tensors[name.removesuffix(".safetensors")] = load_file(path / name)
        except (SafetensorError, ValueError, OSError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise EarthworksError(
                f"{path / name} is not a readable safetensors file ({reason}): it was altered"
            ) from None
    return tensors, read_state(path)


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint, without its tensors; state.json is compared with the manifest first."""
    verify_manifest(path, names=["state.json"])
    state = read_json(path / "state.json")
    if not isinstance(state, dict):
        raise EarthworksError(f"{path / 'state.json'} does not hold the state of a run: it was altered")
    if "step" in state and path.name != f"step-{state['step']}":
        raise EarthworksError(
            f"{path} holds the checkpoint of step {state['step']}: restore its folder's name, or remove it"
        )
    return state


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    inside(file.parent, file.name)
    if not file.is_file():
        raise EarthworksError(f"{file} is missing: the folder was altered after it was written")
    try:
        with safe_open(file, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EarthworksError(f"{file} is not a readable safetensors file ({reason}): it was altered") from None


@contextmanager
def naming_what_to_remove(run: RunFolder, path: Path) -> Iterator[None]:
    """Extend an error about an unusable checkpoint by how to continue the run without it."""
    try:
        yield
    except EarthworksError as error:
        before = "the checkpoint before it" if len(run.steps()) > 1 else "the beginning"
        raise EarthworksError(f"{error}; remove {path} to continue from {before}") from None


def newest(run: RunFolder) -> Path | None:
    """The last complete checkpoint, or None."""
    steps = run.steps()
    return run.checkpoint(steps[-1]) if steps else None


def newest_state(run: RunFolder) -> dict[str, Any] | None:
    """The state of the last complete checkpoint, without its tensors; None where there is no checkpoint."""
    path = newest(run)
    return None if path is None else read_state(path)


def altered_log(run: RunFolder) -> str | None:
    """A sentence if metrics.jsonl is not what it was when the last checkpoint was saved; None where that cannot be told."""
    with suppress(EarthworksError):  # a damaged checkpoint is reported by whatever loads it
        state = newest_state(run)
        if state is not None and type(state.get("step")) is int:
            return log_fault(run.metrics_file, state)
    return None


def best(run: RunFolder) -> dict[str, Any] | None:
    """The step and score of the best validation so far, or None.

    The newest checkpoint is authoritative; best.json repeats it for people. They may differ when the run was killed between
    the two or best.json was altered."""
    state = newest_state(run)
    if state is not None and "best" in state:
        return best_record(state["best"], run.checkpoints)
    if not (run.checkpoints / BEST).exists():
        return None
    return best_record(read_json(run.checkpoints / BEST), run.checkpoints / BEST)


def best_record(record: Any, source: Path) -> dict[str, Any] | None:
    if record is not None and not (isinstance(record, dict) and type(record.get("step")) is int):
        raise EarthworksError(f"{source} does not name the step of the best checkpoint: it was altered")
    return record


def choose(run: RunFolder, which: str = "best") -> Path:
    """`best` (by validation; the last where nothing was held out), `last`, or the number of a step."""
    steps = run.steps()
    if not steps:
        raise EarthworksError(f"{run.path} has no checkpoint yet")
    if which == "best":
        record = best(run)
        return run.checkpoint(record["step"] if record and record["step"] in steps else steps[-1])
    if which == "last":
        return run.checkpoint(steps[-1])
    if which not in map(str, steps):
        raise EarthworksError(
            f"there is no checkpoint {which!r} in {run.path}; there are best, last and {', '.join(map(str, steps))}"
        )
    return run.checkpoint(int(which))


def load_chosen(run: RunFolder, which: str = "best") -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """`choose`, then `load`, and the path; retried when a run in training removes the checkpoint in between."""
    for left in reversed(range(PATIENCE)):
        before = run.steps()
        try:
            path = choose(run, which)
            return path, *load(path)
        except EarthworksError:
            if not left or run.steps() == before:
                raise
    raise AssertionError


def mark_best(run: RunFolder, record: dict[str, Any]) -> None:
    """Record which step had the lowest validation score: {"step", "score"}."""
    write_json(run.checkpoints / BEST, record)


def prune(run: RunFolder) -> None:
    """Remove all checkpoints but the newest two and the best, and partial ones that a killed run left behind.

    A checkpoint with files that the run did not write is kept."""
    remove_leftovers(run.checkpoints)
    steps = run.steps()
    record = best(run)
    for step in steps[:-KEPT]:
        if (record is None or step != record["step"]) and not remove_folder(run.checkpoint(step)):
            note_once(f"notice: {run.checkpoint(step)} is kept, because it has files that Earthworks did not write")


def random_state() -> dict[str, Tensor]:
    """torch's global generators, CPU and every CUDA device."""
    state = {"cpu": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        state[f"cuda-{index}"] = torch.cuda.get_rng_state(index)
    return state


def restore_random_state(state: dict[str, Tensor]) -> None:
    """Restore the generators; devices that no longer exist are skipped."""
    torch.set_rng_state(state["cpu"])
    for index in range(torch.cuda.device_count()):
        if f"cuda-{index}" in state:
            torch.cuda.set_rng_state(state[f"cuda-{index}"], index)
