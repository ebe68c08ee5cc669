"""Training a Gopher against Hugging Face's Llama of equal parameters: tokens a second, in turn, on this machine's cores.

8 layers, 16 heads of 32, width 512, vocabulary 8,192 (Llama: SwiGLU of 1,536, which makes the matrices of a layer equal in
number), 2,048 tokens a step, fused AdamW, gradients clipped at 1, random tokens. Ours is the whole update of `earthworks
gopher train`; Llama's is forward, backward, clip, step, zero_grad. `bf16`: float32 weights under autocast, for both.
`bf16-master`, `bf16-sr`: bf16 weights, Llama's updated in bf16 as they are, which loses small updates and is the least
that can be done. Share of the ceiling: operations of the model (three times the forward pass) over those of a square bf16
matrix product, timed on as many threads. The table `44M` has ours alone.

    python benchmarks/training_speed.py [--threads 1,2] [--contexts 256,1024] [--precisions bf16,bf16-master] [--repeats 9]
    python benchmarks/training_speed.py --profile    # where the time goes, by torch.profiler; nothing is written
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from harness import header, quiet, write_result
from random_tokens import training_task
from torch import Tensor

from earthworks.gopher import GopherConfig
from earthworks.gopher.cost import training_flops
from earthworks.training.precision import autocast, matmul_ceiling

CPU = torch.device("cpu")
SHAPE = {"num_layers": 8, "num_heads": 16, "d_head": 32, "d_model": 512, "vocabulary": 8192}
TOKENS = 2048
COLUMNS = (
    *("threads", "context", "precision", "ours, tokens/s", "Llama, tokens/s", "ratio, median (lowest, highest)"),
    *("ours, share of ceiling", "Llama, share of ceiling"),
)


def llama(precision: str) -> tuple[torch.nn.Module, Callable[[Tensor], None]]:
    """The model, and its update."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width = SHAPE["d_model"]
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=3 * width,  # three matrices of 3 d^2 against our two of 4 d^2 and W_R of d^2
        num_hidden_layers=SHAPE["num_layers"],
        num_attention_heads=SHAPE["num_heads"],
        vocab_size=SHAPE["vocabulary"],
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).train()
    if precision not in ("fp32", "bf16"):
        model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def update(tokens: Tensor) -> None:
        with autocast(precision, CPU):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())

    return model, update


def llama_flops(context: int) -> float:
    """Of one token, forward and backward, counted as `training_flops` counts ours."""
    layers, d, vocabulary = SHAPE["num_layers"], SHAPE["d_model"], SHAPE["vocabulary"]
    products = layers * (4 * d * d + 3 * d * 3 * d) + vocabulary * d
    return 3 * (2 * products + layers * d * (context + 1) * 2)


def compare(threads: int, context: int, precision: str, repeats: int, clock: Callable[[], float]) -> tuple[str, str]:
    """A row of the table, and what was compared."""
    config = GopherConfig(**SHAPE, context=context)
    task = training_task(config, CPU, batch=TOKENS // context, precision=precision)
    model, llama_update = llama(precision)
    pairs = []
    for repeat in range(repeats + 2):
        tokens = torch.randint(SHAPE["vocabulary"], (TOKENS // context, context))
        started = clock()
        task.update(repeat)
        middle = clock()
        llama_update(tokens)
        pairs.append((middle - started, clock() - middle))
    pairs = pairs[2:]
    ours, theirs = (TOKENS / statistics.median(column) for column in zip(*pairs))
    ratios = sorted(b / a for a, b in pairs)
    ceiling = matmul_ceiling(CPU, torch.bfloat16)
    shares = ours * training_flops(config, context) / ceiling, theirs * llama_flops(context) / ceiling
    row = (
        f"| {threads} | {context:,} | {precision} | {ours:,.0f} | {theirs:,.0f} | {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f}, {ratios[-1]:.2f}) | {shares[0]:.0%} | {shares[1]:.0%} |"
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    return row, f"Parameters: ours {config.num_parameters():,}, Llama {count:,}."


def preset_row(threads: int, context: int, precision: str, repeats: int, clock: Callable[[], float]) -> str:
    """The paper's smallest size with its vocabulary of 32,000."""
    config = GopherConfig.preset("44M", context=context)
    task = training_task(config, CPU, batch=TOKENS // context, precision=precision)
    seconds = []
    for repeat in range(repeats + 1):
        started = clock()
        task.update(repeat)
        seconds.append(clock() - started)
    rate = TOKENS / statistics.median(seconds[1:])
    share = rate * training_flops(config, context) / matmul_ceiling(CPU, torch.bfloat16)
    return f"| {threads} | {context:,} | {precision} | {rate:,.0f} | {share:.0%} |"


def profile(context: int, precision: str) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    task = training_task(GopherConfig(**SHAPE, context=context), CPU, batch=TOKENS // context, precision=precision)
    _, llama_update = llama(precision)
    tokens = torch.randint(SHAPE["vocabulary"], (TOKENS // context, context))
    for name, update in (("ours", lambda: task.update(1)), ("Llama", lambda: llama_update(tokens))):
        update()
        with profiled(activities=[ProfilerActivity.CPU]) as seen:
            update()
        print(f"{name}, context {context}, {precision}")
        print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--contexts", default="256,1024")
    parser.add_argument("--precisions", default="bf16,bf16-master")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--no_preset", action="store_true", help="without the table of 44M")
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    parser.add_argument(
        "--cpu_time", action="store_true", help="count the processor's time, for a glance while it is shared"
    )
    arguments = parser.parse_args()
    contexts, precisions = [int(x) for x in arguments.contexts.split(",")], arguments.precisions.split(",")
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rows, preset_rows, counts = [], [], ""
    for threads in [int(x) for x in arguments.threads.split(",")]:
        torch.set_num_threads(threads)
        for context in contexts:
            for precision in precisions:
                if arguments.profile:
                    profile(context, precision)
                    continue
                if not arguments.busy:
                    quiet()
                matmul_ceiling.cache_clear()
                row, counts = compare(threads, context, precision, arguments.repeats, clock)
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
                if not arguments.no_preset:
                    preset_rows.append(preset_row(threads, context, precision, max(3, arguments.repeats // 3), clock))
                    print(preset_rows[-1], file=sys.stderr, flush=True)
    if arguments.profile:
        return
    lines = ["# Training on a CPU: tokens a second", "", header(), ""]
    lines += [f"{counts} {TOKENS:,} tokens a step; {os.cpu_count()} cores in this machine.", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|" + " ---: |" * len(COLUMNS), *rows]
    if preset_rows:
        lines += ["", "The preset `44M`, vocabulary 32,000, ours alone:", ""]
        lines += ["| threads | context | precision | tokens/s | share of ceiling |", "|" + " ---: |" * 5, *preset_rows]
    if arguments.busy or arguments.cpu_time:
        print("\n".join(lines))
    else:
        write_result("training_speed", "\n".join(lines))


if __name__ == "__main__":
    main()
