"""Relative attention on a CUDA device: milliseconds and memory of a forward and backward pass, bfloat16.

Forms, at the shapes of the paper's 417M and 1.4B layers (12 and 16 heads of 128), from q, k, v to their gradients and those
of u, v and W_R, the projection of the sinusoid included:

    plain       flash attention without positions: what the position term costs is measured against it
    band        the Triton kernel, d_position = d_model
    sdpa        the position term as an additive mask, d_position = d_model
    flex        FlexAttention, compiled, reading a compact table [batch, heads, time, distance] in its score_mod
    skewed      blocks of queries, d_position = d_model
    augmented   flash attention over d_head + d_position features, at d_position 64 and 128 (a narrower model)

Before they are timed all are compared with `math` in float64. The forms take turns; the table shows medians. Memory is the
peak beyond the inputs. `band` and `flex` are compiled before the clock starts; those seconds stand in the table.

    python benchmarks/attention_gpu.py [--contexts 1024 2048 4096] [--batch 8] [--repeats 20]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from harness import header, write_result
from torch import Tensor

from earthworks.gopher.attention.relative import position_table, relative_attention

SHAPES = {"417M": (12, 128, 1536), "1.4B": (16, 128, 2048)}  # heads, d_head, d_model
NARROW = (64, 128)
TOLERANCE = 0.03  # of bfloat16 against float64, relative, in the norm

Form = Callable[..., Tensor]


def plain(q: Tensor, k: Tensor, v: Tensor, w_r: Tensor, u: Tensor, v_bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def ours(backend: str) -> Form:
    return lambda *tensors: relative_attention(*tensors, backend=backend)


def flex() -> Form:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention)
    masks: dict[int, Any] = {}

    def form(q: Tensor, k: Tensor, v: Tensor, w_r: Tensor, u: Tensor, v_bias: Tensor) -> Tensor:
        time, d_head = q.shape[2], q.shape[3]
        if time not in masks:
            masks[time] = create_block_mask(lambda b, h, i, j: i >= j, None, None, time, time, device=q.device)
        scaled = ((q + v_bias[:, None]) / d_head**0.5).to(q.dtype)
        by_distance = scaled @ position_table(w_r.to(q.dtype), time).mT

        def add_position(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score + by_distance[b, h, i, torch.where(i >= j, i - j, 0)]

        query = (q + u[:, None]).to(q.dtype)
        answer: Any = compiled(query, k, v, score_mod=add_position, block_mask=masks[time])
        return answer

    return form


def inputs(batch: int, time: int, heads: int, d_head: int, d_position: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = 3 * [(batch, heads, time, d_head)] + [(heads, d_head, d_position)] + 2 * [(heads, d_head)]
    tensors = [torch.randn(shape, device="cuda") for shape in shapes]
    tensors[3] *= d_position**-0.5
    return [x.to(dtype if i < 3 else torch.float32).requires_grad_() for i, x in enumerate(tensors)]


def check(name: str, form: Form, heads: int, d_head: int, d_position: int) -> None:
    """Output and gradients at a time that is no multiple of any tile, against float64; raises AssertionError."""
    tensors = inputs(2, 333, heads, d_head, d_position, torch.bfloat16)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    y, expected = form(*tensors), relative_attention(*exact, backend="math")
    weight = torch.randn_like(y)
    gradients = torch.autograd.grad(y, tensors, weight), torch.autograd.grad(expected, exact, weight.double())
    for i, (one, other) in enumerate(zip((y, *gradients[0]), (expected, *gradients[1]))):
        off = ((one.double() - other).norm() / other.norm()).item()
        assert off < TOLERANCE, f"{name}: tensor {i} is off by {off:.3f}"


def one_pass(form: Form, tensors: list[Tensor], weight: Tensor) -> tuple[float, float]:
    """Milliseconds of a forward and backward pass and MB of memory beyond what was there before."""
    for x in tensors:
        x.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    form(*tensors).backward(weight)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end), (torch.cuda.max_memory_allocated() - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(
            "attention_gpu.py measures CUDA kernels and this machine has no CUDA device: run it where there is one"
        )
    lines = ["# Relative attention on a GPU", "", header().rsplit("\n", 1)[0], ""]  # cores are not what is busy here
    lines += [f"{arguments.batch} sequences, bfloat16, forward + backward, medians of {arguments.repeats}.", ""]
    lines += ["| shape | context | form | d_position | ms | x plain | Mtokens/s | MB | first call, s |"]
    lines += ["| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for shape in arguments.shapes:
        heads, d_head, d_model = SHAPES[shape]
        forms: dict[tuple[str, int], Form] = {("plain", d_model): plain, ("flex", d_model): flex()}
        forms |= {(name, d_model): ours(name) for name in ("band", "sdpa", "skewed")}
        forms |= {("augmented", width): ours("augmented") for width in NARROW}
        first = {}
        for (name, width), form in forms.items():
            started = time.perf_counter()
            if name != "plain":
                check(name, form, heads, d_head, width)
            first[name, width] = time.perf_counter() - started
        for context in arguments.contexts:
            measured: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in forms}
            for repeat in range(arguments.repeats + 2):
                for (name, width), form in forms.items():
                    tensors = inputs(arguments.batch, context, heads, d_head, width, torch.bfloat16)
                    try:
                        found = one_pass(form, tensors, torch.randn_like(tensors[0]))
                    except torch.OutOfMemoryError:
                        found = (float("nan"), float("nan"))
                    if repeat >= 2:
                        measured[name, width].append(found)
            middle = {key: tuple(statistics.median(column) for column in zip(*rows)) for key, rows in measured.items()}
            reference = middle["plain", d_model][0]
            for (name, width), (ms, megabytes) in middle.items():
                rate = arguments.batch * context / ms / 1e3
                cells = (
                    shape,
                    f"{context:,}",
                    name,
                    "" if name == "plain" else width,
                    f"{ms:.3f}",
                    f"{ms / reference:.2f}",
                )
                cells += (f"{rate:.2f}", f"{megabytes:,.0f}", f"{first[name, width]:.1f}")
                lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
                print(lines[-1], flush=True)
    write_result("attention_gpu", "\n".join(lines))


if __name__ == "__main__":
    main()
