"""Who does the shards of a stage: this process, processes of this machine, or a Ray cluster.

A task is (stage, shard's name) on a store; it is a pure function whose last write marks it done, so that it may be done
again at any time, by anybody, and nothing is lost when whoever does it is killed.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from earthworks.runs import EarthworksError

Perform = Callable[[str, str, str], dict[str, Any]]  # (location, stage, shard) -> counts
PATIENCE = 5.0  # seconds until a worker that was asked to end is killed
TRIES = 5  # times a shard may be under way when a worker dies before it is named as the cause


class Local:
    """`workers` processes of this machine, for all stages of a build; this process alone where there is one.

    They are forked where that is possible, so that they have the compiled kernels from the beginning."""

    def __init__(self, workers: int):
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the workers, and wait until they have: what they were writing can then be removed."""
        if self.pool is not None:
            pool, self.pool = self.pool, None
            workers = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            until = time.monotonic() + PATIENCE
            for worker in workers:
                worker.join(max(0.0, until - time.monotonic()))
                if worker.is_alive():  # stopped by SIGSTOP, or waiting for a disk
                    worker.kill()

    def submit(self, *task: Any) -> Future:
        if self.pool is None:
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
            self.pool = ProcessPoolExecutor(self.workers, context, end_with_parent)
        return self.pool.submit(*task)

    def run(self, perform: Perform, location: str, stage: str, shards: list[str]) -> Iterator[dict[str, Any]]:
        """Counts of the shards as they are done; a worker that is killed is replaced.

        Raises EarthworksError with exit code 1 when one shard was under way at TRIES deaths: it takes more memory than
        there is, or crashes the interpreter."""
        if self.workers == 1 or len(shards) == 1:
            for shard in shards:
                yield perform(location, stage, shard)
            return
        waiting, deaths = list(shards), dict.fromkeys(shards, 0)
        suspects: set[str] = set()  # were under way when a worker died: each is tried again alone
        running: dict[Future, str] = {}
        while waiting or running:
            try:
                while waiting and len(running) < (1 if suspects else self.workers):
                    running[self.submit(perform, location, stage, waiting[0])] = waiting[0]
                    waiting.pop(0)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    counts = future.result()
                    suspects.discard(running.pop(future))
                    yield counts
            except BrokenProcessPool:
                self.stop()
                suspects.update(running.values())
                waiting = [*running.values(), *waiting]
                for shard in running.values():
                    deaths[shard] += 1
                running = {}
                worst = max(suspects, key=lambda shard: deaths[shard], default="")
                if worst and deaths[worst] >= TRIES:
                    raise EarthworksError(
                        f"workers died {TRIES} times over shard {worst} (out of memory?): what is done stays; "
                        "try --workers 1, or leave out its input",
                        exit_code=1,
                    ) from None


def end_with_parent() -> None:
    """In a worker: leave when the command is killed, which a forked process otherwise never hears of, and at once when it
    says so. Ctrl-C of a terminal, which reaches all processes, is the command's alone to answer."""
    for each in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ray(workers: int) -> Any:
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names, or one of this machine. The store must be a place that every
    node sees."""
    from earthworks.corpus.pipeline.ray_executor import Ray

    return Ray(workers)


EXECUTORS: dict[str, Callable[[int], Any]] = {"local": Local, "ray": ray}
