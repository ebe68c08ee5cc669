"""Shards as Ray core tasks, on an existing cluster or on this machine."""

from collections.abc import Callable, Iterator
from typing import Any

from earthworks.runs.errors import missing_extra

RETRIES = 3  # of a task whose worker or node died


def tasks(
    perform: Callable[[str, str, str], dict[str, Any]], location: str, stage: str, shards: list[str], workers: int
) -> Iterator[dict[str, Any]]:
    """Counts of the shards as they are done; at most `workers` under way."""
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "ray", "--executor ray") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(perform)
    waiting, running = list(shards), []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(remote.remote(location, stage, waiting.pop(0)))
        done, running = ray.wait(running)
        yield from ray.get(done)
