"""Who does the shards of a stage: this process, processes of this machine, or an existing Ray cluster.

A task is (stage, shard's name) on a store; it is a pure function whose last write marks it done, so that it may be done
again at any time, by anybody, and nothing is lost when whoever does it is killed.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from earthworks.runs import EarthworksError

Perform = Callable[[str, str, str], dict[str, Any]]  # (location, stage, shard) -> counts
TRIES = 5  # times a shard may be under way when a worker dies before it is named as the cause


def local(perform: Perform, location: str, stage: str, shards: list[str], workers: int) -> Iterator[dict[str, Any]]:
    """Counts of the shards as they are done, by `workers` processes; a worker that is killed is replaced.

    Raises EarthworksError with exit code 1 when the same shard was under way at TRIES deaths: it takes more memory
    than there is, or crashes the interpreter."""
    if workers == 1:
        for shard in shards:
            yield perform(location, stage, shard)
        return
    left = list(shards)
    deaths = dict.fromkeys(shards, 0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["earthworks.corpus.filtering"])
    while left:
        suspects = {shard for shard in left if deaths[shard]}
        with ProcessPoolExecutor(min(workers, len(left)), context) as pool:
            waiting = list(left)
            running: dict[Any, str] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < workers and not (suspects and running):  # a suspect runs alone
                        shard = waiting.pop(0)
                        running[pool.submit(perform, location, stage, shard)] = shard
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        shard = running[future]
                        counts = future.result()
                        del running[future]
                        left.remove(shard)
                        suspects.discard(shard)
                        yield counts
            except BrokenProcessPool:
                for shard in running.values():
                    deaths[shard] += 1
                worst = max(running.values(), key=lambda shard: deaths[shard])
                if deaths[worst] >= TRIES:
                    raise EarthworksError(
                        f"workers died {TRIES} times over shard {worst} (out of memory?): what is done stays; "
                        "try --workers 1, or leave out its input",
                        exit_code=1,
                    ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise


def ray(perform: Perform, location: str, stage: str, shards: list[str], workers: int) -> Iterator[dict[str, Any]]:
    """The same on the Ray cluster that RAY_ADDRESS names, or on one of this machine: one task a shard, at most `workers`
    under way where that is given. The store must be a place that every node sees."""
    from earthworks.corpus.ray_executor import tasks

    return tasks(perform, location, stage, shards, workers)


EXECUTORS = {"local": local, "ray": ray}
