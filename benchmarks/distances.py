"""Exact and sliced distances: seconds, and the value, against POT and SciPy.

Exact W_1 between two Gaussian clouds a unit apart, n + n points, n in 256, 1024, 4096, d in 2, 64: `earthworks`
(transport.wasserstein: value, plan and potentials), `pot` (ot.dist and ot.emd2), `scipy` (cdist and
linear_sum_assignment). Sliced W_2 with 200 directions of 4,096 + 4,096 points: `earthworks`, `pot`. Everything from the
points to the number, float64; each once unmeasured (compilation, imports), then in turns; medians. SciPy's turn is left
out where one takes over a minute. One thread: the exact solvers of all three use no more, and the thread pools of three
libraries in one process wait for each other.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/distances.py [--sizes 256 1024] [--repeats 5] [--busy]
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import ot
import torch
from harness import header, quiet, write_result
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from earthworks.transport import sliced_wasserstein, wasserstein
from earthworks.transport.sliced import random_directions

ALLOWED, EXTRA = 1.25, 0.002  # the bar: times the better peer, plus seconds
SLICED = 10  # the bar for sliced: times as fast as POT


def clouds(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    y[:, 0] += 1
    return x, y


def timed(function: Callable[[], float]) -> tuple[float, float]:
    started = time.perf_counter()
    value = float(function())
    return time.perf_counter() - started, value


def in_turns(contestants: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median seconds of each; all must give the same value."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    values = {}
    left_out = set()
    for turn in range(1 + repeats):
        for name, function in contestants.items():
            if name in left_out:
                continue
            taken, values[name] = timed(function)
            if turn or taken > 60:
                seconds[name].append(taken)
            if taken > 60:
                left_out.add(name)
            print(name, f"{taken:.4f} s", file=sys.stderr, flush=True)
    first = next(iter(values.values()))
    for name, value in values.items():
        assert abs(value - first) <= 1e-9 * abs(first), f"{name} gives {value}, not {first}"
    return {name: statistics.median(each) for name, each in seconds.items()}


def exact(n: int, d: int, repeats: int) -> tuple[dict[str, float], str]:
    x, y = clouds(n, d)
    u, v = x.numpy(), y.numpy()

    def pot() -> float:
        return ot.emd2([], [], ot.dist(u, v, metric="euclidean"), numItermax=10**7)

    def scipy() -> float:
        costs = cdist(u, v)
        return costs[linear_sum_assignment(costs)].mean()

    solver = wasserstein(x, y).solver
    return in_turns({"earthworks": lambda: float(wasserstein(x, y)), "pot": pot, "scipy": scipy}, repeats), solver


def sliced(n: int, d: int, repeats: int) -> dict[str, float]:
    x, y = clouds(n, d)
    u, v = x.numpy(), y.numpy()
    directions = random_directions(200, d, 0)
    theirs = directions.numpy().T.copy()
    return in_turns(
        {
            "earthworks": lambda: float(sliced_wasserstein(x, y, directions=directions)),
            "pot": lambda: ot.sliced_wasserstein_distance(u, v, projections=theirs),
        },
        repeats,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if any(os.environ.get(pool) != "1" for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")):
        sys.exit("set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1: each contestant gets one thread")

    one = ["| n | d | earthworks | solver | pot | scipy | ours / better | bar | |", "|" + " ---: |" * 8 + " --- |"]
    for n in arguments.sizes:
        for d in arguments.dimensions:
            if not arguments.busy:
                quiet()
            seconds, solver = exact(n, d, arguments.repeats)
            ours, better = seconds["earthworks"], min(seconds["pot"], seconds["scipy"])
            bar = ALLOWED * better + EXTRA
            one.append(
                f"| {n:,} | {d} | {ours:.4f} | {solver} | {seconds['pot']:.4f} | {seconds['scipy']:.4f} "
                f"| {ours / better:.2f} | {bar:.4f} | {'met' if ours <= bar else 'missed'} |"
            )
    two = ["| n | d | earthworks | pot | pot / ours | |", "|" + " ---: |" * 5 + " --- |"]
    for d in arguments.dimensions:
        n = max(arguments.sizes)
        if not arguments.busy:
            quiet()
        seconds = sliced(n, d, arguments.repeats)
        ratio = seconds["pot"] / seconds["earthworks"]
        verdict = "met" if ratio >= SLICED else "missed"
        two.append(f"| {n:,} | {d} | {seconds['earthworks']:.4f} | {seconds['pot']:.4f} | {ratio:.1f} | {verdict} |")
    text = [
        "# Distances: time",
        "",
        header(),
        f"- POT {ot.__version__}; one thread; medians of {arguments.repeats} turns; float64",
        "",
        f"Exact W_1, seconds. The bar: {ALLOWED} x the better of POT and SciPy + {EXTRA * 1000:.0f} ms. Values agree to",
        "1e-9.",
        "",
        *one,
        "",
        f"Sliced W_2 along the same 200 directions, seconds. The bar: {SLICED} times as fast as POT.",
        "",
        *two,
    ]
    write_result("distances", "\n".join(text))


if __name__ == "__main__":
    main()
