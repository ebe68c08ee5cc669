"""Training the 417M and the 1.4B of the paper on one GPU: tokens a second, share of the peak, memory.

Context 2,048, AdamW, random tokens; a step of `--tokens`, in microbatches of `--micro_batch` sequences (halved where they do
not fit). Model operations are three times those of the forward pass (`training_flops`); their share is given of the
data sheet's dense bf16 peak where the device is known (MFU), and of a square matrix product timed here.

    python benchmarks/training_gpu.py [--sizes 417M,1.4B] [--precisions bf16,bf16-sr,bf16-master] [--steps 10]
    python benchmarks/training_gpu.py --tiny    # a small size on any device, to see that the script works; not written
"""

import argparse
import statistics
import sys
import time

import torch
from harness import header, write_result
from random_tokens import training_task

from earthworks.gopher import GopherConfig
from earthworks.gopher.cost import training_flops
from earthworks.training.precision import matmul_ceiling, release_memory

# dense bf16 operations a second, from NVIDIA's data sheets (SXM; the sheets' headline numbers count sparsity twice)
PEAKS = {"H200": 989.4e12, "H100": 989.4e12, "A100": 312e12}
COLUMNS = (
    *("size", "parameters", "precision", "microbatch", "tokens/s, median (lowest, highest)", "MFU", "of the product"),
    "peak memory, GiB",
)


def measure(size: str, precision: str, device: torch.device, arguments: argparse.Namespace) -> str:
    config = GopherConfig.preset(size, context=arguments.context)
    batch = max(1, arguments.tokens // config.context)
    micro_batch = min(batch, arguments.micro_batch)
    task = training_task(config, device, batch=batch, precision=precision, micro_batch=micro_batch)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rates = []
    for step in range(arguments.steps + 2):
        started = time.perf_counter()
        task.update(step)  # waits for the device at its end
        rates.append(batch * config.context / (time.perf_counter() - started))
    rates = sorted(rates[2:])
    flops = statistics.median(rates) * training_flops(config, config.context)
    peak = peak_of(device)
    shares = f"{flops / peak:.1%}" if peak else "-", f"{flops / matmul_ceiling(device, torch.bfloat16):.1%}"
    memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else "-"
    return (
        f"| {size} | {config.num_parameters():,} | {precision} | {task.micro_batch} | {statistics.median(rates):,.0f} "
        f"({rates[0]:,.0f}, {rates[-1]:,.0f}) | {shares[0]} | {shares[1]} | {memory} |"
    )


def peak_of(device: torch.device) -> float | None:
    """The data sheet's peak, or None for a device that is not in the table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="417M,1.4B")
    parser.add_argument("--precisions", default="bf16,bf16-sr,bf16-master")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=1 << 17, help="of one update")
    parser.add_argument("--micro_batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.sizes, arguments.context, arguments.tokens, arguments.steps = "shrew", 32, 64, 2
    elif not torch.cuda.is_available():
        sys.exit("there is no CUDA device here: run this on one, or see with --tiny that the script works")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = peak_of(device)
    ceiling = matmul_ceiling(device, torch.bfloat16)
    lines = ["# Training on one GPU", "", header(), ""]
    known = f"of the data sheet's {peak / 1e12:,.0f} TFLOP/s" if peak else "not given: no peak is known for this device"
    lines += [f"MFU is {known}; a square bf16 product reached {ceiling / 1e12:,.3g} TFLOP/s here.", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|" + " ---: |" * len(COLUMNS)]
    for size in arguments.sizes.split(","):
        for precision in arguments.precisions.split(","):
            lines.append(measure(size, precision, device, arguments))
            print(lines[-1], file=sys.stderr, flush=True)
            release_memory(device)
    if arguments.tiny:
        print("\n".join(lines))
    else:
        write_result("training_gpu", "\n".join(lines))


if __name__ == "__main__":
    main()
