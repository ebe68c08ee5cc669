"""Shards as Ray core tasks, on an existing cluster or on this machine."""

from collections.abc import Callable, Iterator
from typing import Any

from earthworks.runs.errors import missing_extra

RETRIES = 3  # of a task whose worker or node died


class Ray:
    """Runs at most `workers` tasks at once."""

    def __init__(self, workers: int):
        try:
            import ray
        except ImportError:
            raise missing_extra("ray", "ray", "--executor ray") from None
        self.workers, self.ray = workers, ray

    def __enter__(self) -> "Ray":
        if not self.ray.is_initialized():
            self.ray.init(log_to_driver=False, include_dashboard=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster running: it may be shared."""

    def run(
        self, perform: Callable[[str, str, str], dict[str, Any]], location: str, stage: str, shards: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Counts of the shards as they finish."""
        remote = self.ray.remote(num_cpus=1, max_retries=RETRIES)(perform)
        waiting, running = list(shards), []
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    running.append(remote.remote(location, stage, waiting.pop(0)))
                done, running = self.ray.wait(running)
                yield from self.ray.get(done)
        finally:  # leave no task writing after this command
            for task in running:
                self.ray.cancel(task, force=True)
