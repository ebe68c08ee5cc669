"""Relative attention at the width of the 44M preset (16 heads, d_head 32, d_position 512): seconds and peak memory.

Forward and backward, float32 and bfloat16, from the fused projection's output to its gradient and that of W_R, contexts
256 to 4,096, in four forms: `tiled` and `skewed` (ours), `shifted` (the steps of the released Transformer-XL code, written
plainly below) and `plain` (torch's fused causal attention without any positions: what the position term costs is measured
against it). Each measurement is a fresh process; the forms take turns; the table shows medians. Memory is the peak resident
size less that before the first pass, when torch, the inputs and a small warm-up are already in memory.

    python benchmarks/attention_memory.py [--contexts 256 512 1024 2048 4096] [--batch 2] [--repeats 3] [--busy]
"""

import argparse
import functools
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import header, quiet, write_result

HEADS, D_HEAD, D_POSITION = 16, 32, 512
FORMS = ("plain", "shifted", "skewed", "tiled")
PRECISIONS = {"float32": 1e-4, "bfloat16": 1e-2}  # and by how much the norms of two forms' results may differ


def measure(form: str, precision: str, context: int, batch: int, passes: int) -> dict[str, float]:
    """In this process: median seconds of a forward and backward pass, and MB of peak memory beyond the inputs'."""
    import torch
    import torch.nn.functional as F

    from earthworks.gopher.attention.relative import position_table, relative_attention

    def plain(q: Any, k: Any, v: Any, w_r: Any, u: Any, v_bias: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def shifted(q: Any, k: Any, v: Any, w_r: Any, u: Any, v_bias: Any) -> Any:
        # As released: distances descend; a zero column, read again with rows one longer, shifts each row by one more.
        time = q.shape[2]
        content = (q + u[:, None]).to(q.dtype) @ k.mT
        position = (q + v_bias[:, None]).to(q.dtype) @ position_table(w_r.to(q.dtype), time).flip(1).mT
        position = F.pad(position, (1, 0)).view(*q.shape[:2], time + 1, time)[:, :, 1:].reshape(content.shape)
        logits = (content + position) * (1 / math.sqrt(D_HEAD))
        future = torch.ones(time, time, dtype=torch.bool).triu(1)
        return logits.masked_fill(future, -math.inf).softmax(-1, dtype=torch.float32).to(v.dtype) @ v

    ours = functools.partial(relative_attention, backend=form)
    function = {"plain": plain, "shifted": shifted}.get(form, ours)
    torch.manual_seed(0)
    dtype = getattr(torch, precision)
    w_r = (torch.randn(HEADS, D_HEAD, D_POSITION) / math.sqrt(D_POSITION)).requires_grad_()
    biases = [torch.randn(HEADS, D_HEAD, requires_grad=True) for _ in range(2)]

    def once(x: Any, weight: Any) -> float:
        q, k, v = (part.view(*x.shape[:2], HEADS, D_HEAD).transpose(1, 2) for part in x.chunk(3, dim=-1))
        y = function(q, k, v, w_r, *biases).transpose(1, 2).reshape(weight.shape)
        y.backward(weight)
        return y.detach().float().norm().item()

    def data(time: int) -> tuple[Any, Any]:
        x = torch.randn(batch, time, 3 * HEADS * D_HEAD).to(dtype).requires_grad_()
        return x, torch.randn(batch, time, HEADS * D_HEAD).to(dtype)

    once(*data(64))
    x, weight = data(context)
    x.grad = torch.zeros_like(x)
    before = peak_memory()
    seconds = []
    for _ in range(passes):
        started = time.perf_counter()
        norm = once(x, weight)
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "megabytes": peak_memory() - before, "norm": norm}


def peak_memory() -> float:
    """Largest resident size of this program so far, MB (10^6 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage gives on Linux begins with the parent's
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement")
    parser.add_argument("--passes", type=int, default=3, help="passes in each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    parser.add_argument("--child", nargs=3, metavar=("FORM", "PRECISION", "CONTEXT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        form, precision, context = arguments.child
        print(json.dumps(measure(form, precision, int(context), arguments.batch, arguments.passes)))
        return
    options = ["--batch", str(arguments.batch), "--passes", str(arguments.passes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    results: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    cases = list(itertools.product(PRECISIONS, arguments.contexts))
    for _ in range(arguments.repeats):
        for precision, context in cases:
            if not arguments.busy:
                quiet()
            for form in FORMS:
                command = [sys.executable, __file__, *options, "--child", form, precision, str(context)]
                child = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
                results.setdefault((precision, context, form), []).append(json.loads(child.stdout))
                print(precision, context, form, child.stdout.strip(), file=sys.stderr, flush=True)
            *_, shifted, skewed, tiled = (results[precision, context, form][-1]["norm"] for form in FORMS)
            for ours in (skewed, tiled):
                assert math.isclose(ours, shifted, rel_tol=PRECISIONS[precision]), (
                    f"the forms disagree at context {context}: {ours}, {shifted}"
                )

    def middle(precision: str, context: int, form: str, key: str) -> float:
        return statistics.median(result[key] for result in results[precision, context, form])

    lines = ["# Relative attention: time and memory", "", header(), ""]
    lines.append(
        f"{arguments.batch} sequence(s), {HEADS} heads of {D_HEAD}, d_position {D_POSITION}, forward + backward,"
    )
    lines.append(f"{arguments.threads} threads; MB = 10^6 bytes of peak memory beyond torch and the inputs.")
    columns = ["precision", "context", *(f"{form}, s" for form in FORMS)]
    columns += ["tiled / plain", "skewed / plain", "shifted / plain", *(f"{form}, MB" for form in FORMS)]
    lines += ["", f"| {' | '.join(columns)} |", "| --- " + "| ---: " * (len(columns) - 1) + "|"]
    for precision, context in cases:
        seconds = {form: middle(precision, context, form, "seconds") for form in FORMS}
        cells = [precision, f"{context:,}", *(f"{seconds[form]:.4f}" for form in FORMS)]
        cells += [f"{seconds[form] / seconds['plain']:.2f}" for form in ("tiled", "skewed", "shifted")]
        cells += [f"{middle(precision, context, form, 'megabytes'):,.0f}" for form in FORMS]
        lines.append("| " + " | ".join(cells) + " |")
    write_result("attention_memory", "\n".join(lines))


if __name__ == "__main__":
    main()
