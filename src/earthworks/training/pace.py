"""How long one update takes here and now: what turns minutes into steps."""

import statistics
import time

from earthworks.training.loop import Task

FEWEST, MOST = 3, 30


def seconds_per_update(task: Task, enough: float = 0.0) -> float:
    """The median of 3 to 30 updates of a throwaway task, as many as fit into `enough` seconds, after one that warms up
    memory and threads."""
    task.update(0)
    seconds: list[float] = []
    while len(seconds) < FEWEST or (sum(seconds) < enough and len(seconds) < MOST):
        begun = time.perf_counter()
        task.update(1 + len(seconds))
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)
