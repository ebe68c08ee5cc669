"""What a narrow sinusoid costs: the same small model, text, order and number of steps, at several widths d_position.

d_position = d_model is the paper's. A narrow one makes relative attention plain flash attention over d_head + d_position
features (`augmented`, docs/attention.md), so its price in loss has to be known. One tokenizer and one packing of the novels
of text/books/train; for every seed the widths are trained one after the other on the same batches in the same order (their
first weights differ: another width draws other numbers). Loss: nats a token on the held-out part, at the trained context
and at four times its length. Differences are taken within a seed; their interval is Student's, over the seeds.

    python benchmarks/narrow_positions.py --data $EARTHWORKS_DATA [--size gerbil] [--steps 600] [--seeds 3] [--output DIR]

With --output the runs stay, and the same command goes on where it was stopped.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from harness import header, write_result

CONTEXT = 256
BEYOND = 4  # times the trained context, as a second measurement
HELD_OUT = 131_072  # tokens measured
SAME = ("context", "batch", "max_steps", "precision", "sample_every", "evaluate_every", "save_every", "size")


def train_all(arguments: argparse.Namespace, folder: Path, widths: list[int]) -> dict[tuple[int, int], Path]:
    """(seed, d_position) -> its run, those of a seed one after the other."""
    from earthworks.gopher import train
    from earthworks.gopher.pretraining import run as pretraining
    from earthworks.gopher.pretraining.family import finished
    from earthworks.runs import RunFolder

    pretraining.MEASURED_TOKENS = HELD_OUT
    given = {"context": CONTEXT, "batch": arguments.batch, "max_steps": arguments.steps, "size": arguments.size}
    given |= {"sample_every": 10**9, "evaluate_every": 10**9}
    data = str(arguments.data / "text" / "books" / "train.jsonl.xz")
    more = {"vocabulary": arguments.vocabulary}
    runs: dict[tuple[int, int], Path] = {}
    for seed in range(arguments.seeds):
        for width in widths:
            run = runs[seed, width] = folder / f"seed-{seed}-width-{width}"
            if not finished(RunFolder(run), arguments.steps):
                if (run / "config.yaml").exists():
                    train(resume=str(run))
                else:
                    train(data, run=str(run), seed=seed, d_position=width, **given, **more)
            if not is_first_of(runs):
                continue
            data, more = str(run / "data"), {}  # its tokens and its choices are everybody's
            settled = RunFolder(run).read_config()
            given = {name: settled[name] for name in SAME}
    return runs


def is_first_of(runs: dict[tuple[int, int], Path]) -> bool:
    return len(runs) == 1


def losses(run: Path) -> tuple[float, float]:
    """Nats a token on the held-out part, at the trained context and beyond it."""
    from earthworks.gopher import evaluate

    near = evaluate(run, max_tokens=HELD_OUT)["nats_per_token"]
    return near, evaluate(run, context=BEYOND * CONTEXT, max_tokens=HELD_OUT)["nats_per_token"]


def interval(differences: list[float]) -> str:
    """Mean and Student's 95 % interval of independent differences, one for each seed."""
    from scipy.stats import t

    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.4f}"
    half = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def main() -> None:
    from earthworks.gopher import GopherConfig
    from earthworks.runs import RunFolder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", default="gerbil", help="5 layers, 8 heads of 32, width 256")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128], help="beside d_model")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16, help=f"sequences of {CONTEXT} tokens")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    full = GopherConfig.preset(arguments.size).d_model
    widths = [*arguments.widths, full]
    with tempfile.TemporaryDirectory() as temporary:
        runs = train_all(arguments, arguments.output or Path(temporary), widths)
        measured = {key: losses(run) for key, run in runs.items()}
        parameters = {width: RunFolder(runs[0, width]).read_config()["parameters"] for width in widths}
        precision = RunFolder(runs[0, full]).read_config()["precision"]
    lines = ["# What a narrow position sinusoid costs", "", header(timed=False), ""]
    lines += [
        f"{arguments.size} (d_model {full}), context {CONTEXT}, {arguments.steps} steps of "
        f"{arguments.batch * CONTEXT:,} tokens, {precision}, {arguments.seeds} seeds; nats a token over the first",
        f"{HELD_OUT:,} held-out tokens. Differences from d_position = d_model within a seed: mean [95 % interval over",
        "seeds, Student's]; positive is worse.",
        "",
        f"| d_position | parameters | loss by seed, context {CONTEXT} | difference | at {BEYOND * CONTEXT} | difference |",
        "| ---: | ---: | --- | --- | --- | --- |",
    ]
    for width in widths:
        cells = [f"{width}", f"{parameters[width]:,}"]
        for i in range(2):
            values = [measured[seed, width][i] for seed in range(arguments.seeds)]
            base = [measured[seed, full][i] for seed in range(arguments.seeds)]
            cells.append(", ".join(f"{value:.4f}" for value in values))
            cells.append("" if width == full else interval([a - b for a, b in zip(values, base)]))
        lines.append("| " + " | ".join(cells) + " |")
    write_result("narrow_positions", "\n".join(lines))


if __name__ == "__main__":
    main()
