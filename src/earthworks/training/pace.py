"""Time of one update on this machine, to convert minutes into steps."""

import statistics
import time

from earthworks.training.loop import Task

FEWEST, MOST = 3, 30


def seconds_per_update(task: Task, enough: float = 0.0) -> float:
    """Median time of 3 to 30 updates of a throwaway task, as many as fit into `enough` seconds, after a warm-up update."""
    task.update(0)
    seconds: list[float] = []
    while len(seconds) < FEWEST or (sum(seconds) < enough and len(seconds) < MOST):
        started = time.perf_counter()
        task.update(1 + len(seconds))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
