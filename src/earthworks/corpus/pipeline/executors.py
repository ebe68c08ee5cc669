"""Executors for the shards of a stage: this process, processes of this machine, or a Ray cluster.

A task is (stage, shard name) on a store. It is a pure function whose last write marks it as done, so any process can
repeat it at any time, and nothing is lost when a process is killed.
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
PATIENCE = 5.0  # seconds between asking a worker to end and killing it
TRIES = 5  # worker deaths during a shard before it is named as the cause


class Local:
    """`workers` processes of this machine, for all stages of a build; with 1 worker, this process itself.

    They are forked where possible, so that they inherit the compiled kernels."""

    def __init__(self, workers: int):
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the workers and wait for them, so that their unfinished files can be removed."""
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
        """Counts of the shards as they finish; a killed worker is replaced.

        Raises EarthworksError with exit code 1 after TRIES deaths during one shard: it needs more memory than there is,
        or crashes the interpreter."""
        if self.workers == 1 or len(shards) == 1:
            for shard in shards:
                yield perform(location, stage, shard)
            return
        waiting, deaths = list(shards), dict.fromkeys(shards, 0)
        suspects: set[str] = set()  # running when a worker died: each is retried alone
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
                        f"workers crashed {TRIES} times on shard {worst} (out of memory?). Finished shards are kept; "
                        "retry with --workers 1, or exclude its input",
                        exit_code=1,
                    ) from None


def end_with_parent() -> None:
    """In a worker: exit when the command is killed, which a forked process would not notice, or at once on its signal.
    Ctrl-C in a terminal reaches all processes, but only the command handles it."""
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
    """Tasks on the Ray cluster at RAY_ADDRESS, or on one of this machine. Every node must be able to access the store."""
    from earthworks.corpus.pipeline.ray_executor import Ray

    return Ray(workers)


EXECUTORS: dict[str, Callable[[int], Any]] = {"local": Local, "ray": ray}
