"""What a Gopher trained at context 256 makes of 1,024 and 2,048 tokens: loss by position, four ways to read on.

Two models are trained alike (data, steps, seeds), one with relative and one with absolute positions. Read at each length:

- `relative`: as the paper does, the sinusoid goes on beyond the distances that were trained.
- `clamped`: the same weights, distances clamped at 255 (`max_distance`), as the released Transformer-XL code can.
- `window`: the same weights, each token predicted from the 256 before it and no more, windows one token apart: the fair
  rival, which needs no length at all but reads 256 tokens for each.
- `absolute`: its table of 256 learned rows is extended to the length by rows drawn as at the start of training,
  N(0, 0.02^2), seed 0: untrained. (`earthworks gopher evaluate` refuses such a context.)

Every form scores the same targets: held-out passages of `length` tokens, each after an end-of-document token. Loss by
position is in octaves; the last columns are the mean over the positions beyond 256 and its difference from `window`, with
an interval by bootstrap over passages.

    python benchmarks/length.py --data $EARTHWORKS_DATA/text/books/train.jsonl.xz [--steps 1500] [--seeds 3] [--output DIR]

With --output the runs stay, and the same command goes on where it was stopped.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import RESULTS, header, write_result
from numpy.typing import NDArray
from torch import Tensor

from earthworks.corpus import PackedTokens
from earthworks.gopher import Gopher, load, train
from earthworks.gopher.evaluating import clamped, packed_folder
from earthworks.gopher.pretraining.family import finished
from earthworks.runs import RunFolder
from earthworks.statistics import bootstrap_ratio

FORMS = ("relative", "clamped", "window", "absolute")
ROWS_AT_ONCE = 64


def lengthened(model: Gopher, context: int) -> Gopher:
    """A model of absolute positions with as many rows, those beyond its own as at the start of training."""
    other = Gopher(model.config.with_(context=context))
    weights = dict(model.state_dict())
    rows = torch.randn(context, model.config.d_model, generator=torch.Generator().manual_seed(0)) * 0.02
    rows[: model.config.context] = weights["positions.weight"]
    other.load_state_dict(weights | {"positions.weight": rows})
    return other.eval()


def passages(run: str, end: int, length: int, most: int) -> list[Tensor]:
    """Passages of `length` held-out tokens, side by side in their documents, each after an end-of-document token."""
    packed = PackedTokens.open(packed_folder(RunFolder.open(run)))

    def parts() -> Iterator[Tensor]:
        for subset in packed.subsets:
            for tokens, _, _ in packed.validation_documents(subset.name):
                for start in range(0, len(tokens) - length, length):
                    yield torch.tensor([end, *tokens[start : start + length].tolist()])

    return [part for _, part in zip(range(most), parts())]


@torch.no_grad()
def at_once(model: Gopher, tokens: Tensor) -> NDArray[Any]:
    """Nats of each token but the first, everything before it in sight."""
    return model.token_losses(tokens[None, :-1], tokens[None, 1:])[0].numpy()


@torch.no_grad()
def by_window(model: Gopher, tokens: Tensor, window: int) -> NDArray[Any]:
    """Nats of each token, from the `window` tokens before it."""
    nats = at_once(model, tokens[: window + 1])
    inputs, targets = tokens[:-1].unfold(0, window, 1)[1:], tokens[window + 1 :]
    last = [
        model(part, last=1)[:, 0].log_softmax(-1).gather(1, target[:, None])[:, 0]
        for part, target in zip(inputs.split(ROWS_AT_ONCE), targets.split(ROWS_AT_ONCE))
    ]
    return np.concatenate([nats, -torch.cat(last).numpy()]) if last else nats


def trained(data: str, run: Path, steps: int, **settings: Any) -> str:
    """That run, started or resumed as far as it still has to."""
    if (run / "config.yaml").exists():
        if not finished(RunFolder(run), steps):
            train(resume=str(run))
    else:
        train(data, run=str(run), max_steps=steps, **settings)
    return str(run)


def octaves(context: int, length: int) -> list[tuple[int, int]]:
    """From, to: of the positions within the context in two parts, then doubling."""
    edges = [0, context // 2, context]
    while edges[-1] < length:
        edges.append(edges[-1] * 2)
    return list(pairwise(edges))


def measure(runs: dict[str, str], length: int, most: int, context: int) -> dict[str, NDArray[Any]]:
    """form: (passages, length) nats."""
    models = {name: load(run)[0] for name, run in runs.items()}
    tokenizer = load(runs["relative"])[1]
    forms: dict[str, Callable[[Tensor], NDArray[Any]]] = {}
    for name, model in (
        ("relative", models["relative"]),
        ("clamped", clamped(models["relative"], context - 1)),
        ("absolute", lengthened(models["absolute"], length)),
    ):
        forms[name] = lambda tokens, model=model: at_once(model, tokens)
    forms["window"] = lambda tokens: by_window(models["relative"], tokens, context)
    parts = passages(runs["relative"], tokenizer.end_of_document, length, most)
    assert len(parts) >= 2, f"fewer than two held-out passages of {length} tokens: give more data"
    nats = {name: np.stack([form(part) for part in parts]).astype(np.float64) for name, form in forms.items()}
    for name in ("clamped", "window"):  # within the trained length they are the same model
        assert np.allclose(nats[name][:, :context], nats["relative"][:, :context], atol=1e-3)
    return nats


def table(nats: dict[str, NDArray[Any]], length: int, context: int) -> list[str]:
    parts = octaves(context, length)
    columns = [f"{low + 1:,} to {high:,}" for low, high in parts]
    lines = [
        f"| read at {length:,} | {' | '.join(columns)} | beyond {context} | less `window` there, 95 % interval |",
        "| --- " + "| ---: " * (len(parts) + 2) + "|",
    ]
    for name in FORMS:
        each = nats[name]
        cells = [f"{each[:, low:high].mean():.3f}" for low, high in parts]
        beyond = each[:, context:]
        difference = (beyond - nats["window"][:, context:]).sum(1)
        count = np.full(len(each), beyond.shape[1], np.float64)
        low, high = bootstrap_ratio(difference, count, seed=0)
        interval = f"{difference.sum() / count.sum():+.3f} [{low:+.3f}, {high:+.3f}]" if name != "window" else ""
        lines.append(f"| `{name}` | {' | '.join(cells)} | {beyond.mean():.3f} | {interval} |")
    return [*lines, ""]


def figure(nats: dict[str, NDArray[Any]], context: int, path: Path) -> None:
    """Loss by position, smoothed over 64 positions, at the greatest length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chart, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in FORMS:
        curve = nats[name].mean(0)
        width = min(64, len(curve))
        smooth = np.convolve(curve, np.ones(width) / width, "valid")
        axes.plot(np.arange(len(smooth)) + width / 2, smooth, label=name, linewidth=1.2)
    axes.axvline(context, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="tokens before", ylabel="nats a token", title=f"Trained at context {context}")
    axes.legend(frameon=False)
    chart.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--size", default="hamster")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passages", type=int, default=24, help="held-out passages at most, at each length and seed")
    parser.add_argument("--tokenizer", default="bpe")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="keep the runs here")
    parser.add_argument("--name", default="length", help="of the result files")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape: dict[str, Any] = {
        **{"size": arguments.size, "context": arguments.context, "batch": arguments.batch},
        **{"steps": arguments.steps, "tokenizer": arguments.tokenizer, "validation": 0.1},
    }
    if arguments.tokenizer == "bpe":
        shape["vocabulary"] = arguments.vocabulary
    found: dict[int, list[dict[str, NDArray[Any]]]] = {length: [] for length in arguments.lengths}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.output or Path(temporary)
        for seed in range(arguments.seeds):
            runs = {
                name: trained(arguments.data, folder / f"{name}-{seed}", positions=name, seed=seed, **shape)
                for name in ("relative", "absolute")
            }
            for length in arguments.lengths:
                found[length].append(measure(runs, length, arguments.passages, arguments.context))
                print("\n".join(table(found[length][-1], length, arguments.context)), flush=True)
    lines = ["# Longer than trained", "", header(timed=False), ""]
    lines.append(
        f"Size {arguments.size}, context {arguments.context}, {arguments.steps} steps of {arguments.batch} windows, "
        f"{arguments.seeds} seed(s); nats a token by position, lower is better; passages of all seeds together. "
        "Rows of `absolute` beyond the context are untrained, N(0, 0.02^2)."
    )
    lines.append("")
    together: dict[str, NDArray[Any]] = {}
    for length in arguments.lengths:
        together = {name: np.concatenate([each[name] for each in found[length]]) for name in FORMS}
        lines += table(together, length, arguments.context)
    RESULTS.mkdir(exist_ok=True)
    figure(together, arguments.context, RESULTS / f"{arguments.name}.png")
    write_result(arguments.name, "\n".join([*lines, f"![Loss by position]({arguments.name}.png)"]))


if __name__ == "__main__":
    main()
