"""Training loop for any task: update, validate, save, and stop in good order.

The loop knows only the `Task` protocol: make a step, validate, show a sample, and hand over tensors. A resumed run makes
the same calls with the same step numbers as an uninterrupted one.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from earthworks.runs import EarthworksError, Metrics, Progress, RunFolder
from earthworks.runs.errors import INTERRUPTED, TRY_AGAIN
from earthworks.runs.metrics import log_fault
from earthworks.runs.progress import duration, note
from earthworks.training import checkpoint

PACE_STEPS = 50  # the time left is estimated from this number of recent steps


class Task(Protocol):
    """A task for the training loop."""

    def update(self, step: int) -> dict[str, Any]:
        """Make update number `step` (from 0) and return its metrics."""
        ...

    def validate(self) -> dict[str, Any] | None:
        """Measure on held-out data (lower `score` is better); None where nothing is held out."""
        ...

    def sample(self, step: int) -> str:
        """Write a sample into the run folder; returns a line of it for the terminal."""
        ...

    def describe(self, record: dict[str, Any]) -> str:
        """The middle part of the live line, from a step's metrics."""
        ...

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything a checkpoint must hold as tensors, by file."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything else a checkpoint must hold, as JSON values."""
        ...

    def restore(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Restore what `tensors` and `state` returned."""
        ...


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Numbers of steps between validations, samples and checkpoints."""

    evaluate: int
    sample: int
    save: int


def fit(
    task: Task,
    run: RunFolder,
    *,
    max_steps: int,
    cadence: Cadence,
    command: str,
    started: float,
    tensorboard: bool = False,
) -> None:
    """Train up to `max_steps`, from the newest checkpoint of the run if there is one.

    Writes metrics.jsonl, samples/ and checkpoints/ (every `cadence.save` steps, at each best validation, at the end).
    `elapsed` counts from `started` (a time.perf_counter), so that it includes the time before the first step.
    SIGINT, SIGTERM and SIGUSR1 save a checkpoint after the current step and raise EarthworksError with the command to resume
    (exit code 130 after SIGINT, 75 after the others).
    """
    start, elapsed, best = resume(task, run)
    metrics = Metrics(run.metrics_file, start, (checkpoint.newest_state(run) or {}).get("log"))
    board = open_tensorboard(run, start) if tensorboard else None
    started = time.perf_counter() - elapsed if start else started
    pace, reached = 0.0, time.perf_counter() - started
    sampled = ""
    with stop_signals() as stop, Progress("training") as progress:
        for step in range(start, max_steps):
            step_started = time.perf_counter()
            record = task.update(step)
            now = time.perf_counter()
            done, last = step + 1, step + 1 == max_steps
            record = {"step": done, **record, "seconds": now - step_started}
            measured = task.validate() if done % cadence.evaluate == 0 or last else None
            if measured:
                record["validation"] = measured
            record["elapsed"] = time.perf_counter() - started
            if done % cadence.sample == 0 or last:
                sampled = task.sample(done)
            metrics.append(**record)
            if board:
                show_on_board(board, record)
            better = False
            finite = measured is not None and math.isfinite(measured["score"])
            if measured is not None and finite and (best is None or measured["score"] < best["score"]):
                better, best = True, {"step": done, "score": measured["score"]}
            if better or last or stop.caught or done % cadence.save == 0:
                metrics.sync()
                if run.lock is not None:
                    run.lock.check()
                state = {
                    "step": done,
                    "elapsed": record["elapsed"],
                    "best": best,
                    "log": metrics.state(),
                    **task.state(),
                }
                checkpoint.save(run, done, {**task.tensors(), "random": checkpoint.random_state()}, state)
                if better and best is not None:
                    checkpoint.mark_best(run, best)
                checkpoint.prune(run)
            pace += (record["elapsed"] - reached - pace) / min(done - start, PACE_STEPS)
            reached = record["elapsed"]
            line = f"step {done:,}/{max_steps:,} · {task.describe(record)} · {duration(pace * (max_steps - done))} left"
            progress.show(line + (f" · “{sampled}”" if sampled else ""), force=measured is not None)
            if stop.caught and not last:
                raise EarthworksError(
                    f"stopped by {stop.caught} after step {done:,} of {max_steps:,}; everything is saved; "
                    f"continue with: {command}",
                    exit_code=INTERRUPTED if stop.caught == "SIGINT" else TRY_AGAIN,
                )
    metrics.close()


def resume(task: Task, run: RunFolder) -> tuple[int, float, dict[str, Any] | None]:
    """Restore the newest checkpoint; returns its step, its elapsed seconds, and the best validation so far."""
    newest = checkpoint.newest(run)
    if newest is None:
        return 0, 0.0, None
    with checkpoint.naming_what_to_remove(run, newest):
        tensors, state = checkpoint.load(newest)
        restore(task, newest, tensors, state)
    if fault := log_fault(run.metrics_file, state):
        note(f"notice: {fault}")
    best = state["best"]
    if best and best["step"] not in run.steps():  # pruned when a later one was better, and that one was removed by hand
        best = None
    if best:  # the run may have been killed between the checkpoint and this mark
        checkpoint.mark_best(run, best)
    checkpoint.prune(run)  # as the killed run was about to do
    return state["step"], state["elapsed"], best


def restore(task: Task, path: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Hand a checkpoint to the task; EarthworksError if its contents are not what the task writes."""
    try:
        task.restore(tensors, state)
        checkpoint.restore_random_state(tensors["random"])
        best = state["best"]
        if not (
            state["step"] > 0
            and state["elapsed"] >= 0
            and (best is None or (best["step"] > 0 and math.isfinite(best["score"])))
        ):
            raise ValueError("invalid step, seconds or best step")
    except EarthworksError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise EarthworksError(f"{path} does not hold a valid state of this run ({reason}): it was altered") from error


class Stop:
    """The signal that asked the loop to stop, if any."""

    caught: str | None = None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Record the first SIGINT, SIGTERM or SIGUSR1 instead of terminating; a second one kills as usual."""
    stop = Stop()
    before = {}

    def note(number: int, _frame: object) -> None:
        stop.caught = signal.Signals(number).name
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: only that can set handlers
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_tensorboard(run: RunFolder, start: int) -> Any:
    from earthworks.runs.errors import missing_extra

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing_extra("tensorboard", "tensorboard", "--tensorboard") from None
    return SummaryWriter(str(run.path / "tensorboard"), purge_step=start + 1)


def show_on_board(board: Any, record: dict[str, Any]) -> None:
    flat = {**record, **{f"validation/{key}": value for key, value in record.get("validation", {}).items()}}
    for key, value in flat.items():
        if isinstance(value, int | float) and key != "step":
            board.add_scalar(key, value, record["step"])
