"""Choice tasks scored on one model: CPU time of earthworks against lm-evaluation-harness's own `hf` adapter.

    pip install 'earthworks[eval,hf]' accelerate
    OMP_NUM_THREADS=2 python benchmarks/evaluation.py --data $EARTHWORKS_DATA [--limit 100] [--repeats 3]

Both score the same (context, option) pairs with the same weights, from text to log-likelihoods. The model is GPT-2's
decoder with 30 million random parameters, once with a vocabulary of 8,192 and once with GPT-2's 50,257: a Gopher with
layer norms and absolute positions, and the same weights in a GPT2LMHeadModel for the adapter, which gets the batch size
of `--peer_batch` that is fastest for it. Nothing is timed before the likelihoods agree. In turns; medians. The last
columns are Gopher's own architecture, of equal size, on our side.
"""

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import header, quiet, write_result

from earthworks.corpus import Tokenizer, read
from earthworks.evaluation.likelihood.scorer import Scorer
from earthworks.evaluation.tasks.evaluation import chosen
from earthworks.evaluation.tasks.items import Item, make_items
from earthworks.gopher import Gopher, GopherConfig

TASKS = ("hellaswag", "piqa", "winogrande", "arc_easy", "boolq", "mmlu", "truthful_qa", "blimp")
FEW_SHOT = "astronomy"  # the subject of MMLU whose questions all follow the same five examples
WINDOW = 1024
SHAPES = (
    {"num_layers": 8, "num_heads": 8, "d_head": 64, "d_model": 512, "vocabulary": 8192},
    {"num_layers": 6, "num_heads": 6, "d_head": 64, "d_model": 384, "vocabulary": 50257},
)


def gpt2_of(model: Gopher) -> Any:
    """The same function as a GPT2LMHeadModel. GPT-2 keeps its matrices (in, out) and has more biases: those are 0."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    other = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocabulary,
            n_positions=config.context,
            n_embd=config.d_model,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            bos_token_id=0,
            eos_token_id=0,
            activation_function="gelu",
            layer_norm_epsilon=config.norm_epsilon,
        )
    )
    own = model.state_dict()
    renamed = {"transformer.wte.weight": own["embedding.weight"], "transformer.wpe.weight": own["positions.weight"]}
    pairs = {"final_norm": "transformer.ln_f"}
    for layer in range(config.num_layers):
        theirs, ours = f"transformer.h.{layer}", f"blocks.{layer}"
        pairs[f"{ours}.attention_norm"], pairs[f"{ours}.feedforward_norm"] = f"{theirs}.ln_1", f"{theirs}.ln_2"
        for name, matrix in (
            ("attention.query_key_value", "attn.c_attn"),
            ("attention.output", "attn.c_proj"),
            ("feedforward.up", "mlp.c_fc"),
            ("feedforward.down", "mlp.c_proj"),
        ):
            weight = own[f"{ours}.{name}.weight"]
            renamed[f"{theirs}.{matrix}.weight"] = weight.T.contiguous()
            renamed[f"{theirs}.{matrix}.bias"] = own.get(f"{ours}.{name}.bias", torch.zeros(len(weight)))
    renamed.update({f"{b}.{part}": own[f"{a}.{part}"] for a, b in pairs.items() for part in ("weight", "bias")})
    assert not own["logit_bias"].any(), "GPT-2 has no bias on its logits"
    renamed["lm_head.weight"] = renamed["transformer.wte.weight"]
    other.load_state_dict(renamed)
    return other.eval()


def hugging_face(tokenizer: Tokenizer) -> Any:
    """The same tokens from transformers, `</s>` before every text that is encoded with special tokens."""
    import tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    library = tokenizers.Tokenizer.from_str(tokenizer.file_content().decode())
    end = "</s>"
    library.post_processor = TemplateProcessing(single=f"{end} $A", special_tokens=[(end, tokenizer.end_of_document)])
    return PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token=end, eos_token=end, pad_token=end, split_special_tokens=True
    )


def peer(model: Any, tokenizer: Any, batch: int) -> Callable[[Sequence[tuple[str, str]]], list[float]]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device="cpu", add_bos_token=True)

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
        return [nats for nats, _ in lm.loglikelihood(requests, disable_tqdm=True)]

    return score


def questions(data: Path, names: Sequence[str], limit: int) -> dict[str, list[tuple[str, str]]]:
    """The pairs that every contestant scores, by task."""
    found = {}
    for task in chosen(names):
        items = make_items(task, data / "eval", limit=limit)
        if task.name == "mmlu":
            few = replace(task, where=f"subject == '{FEW_SHOT}'")
            found[f"mmlu, {FEW_SHOT}, 5-shot"] = pairs_of(make_items(few, data / "eval", shots=5, limit=limit))
        found[task.name] = pairs_of(items)
    return found


def pairs_of(items: list[Item]) -> list[tuple[str, str]]:
    return [pair for item in items for pair in zip(item.contexts, item.continuations)]


def compare(
    shape: dict[str, int],
    tokenizer: Tokenizer,
    pairs: dict[str, list[tuple[str, str]]],
    batches: list[int],
    repeats: int,
) -> list[str]:
    """A table: CPU seconds by task, ratios of medians."""
    torch.manual_seed(0)
    plain = Gopher(GopherConfig(**shape, context=WINDOW, norm="layer", norm_epsilon=1e-5, positions="absolute")).eval()
    ours, gopher = Scorer(plain, tokenizer), Scorer(Gopher(GopherConfig(**shape, context=WINDOW)).eval(), tokenizer)
    gpt2, theirs = gpt2_of(plain), hugging_face(tokenizer)
    adapters = {f"hf {batch}": peer(gpt2, theirs, batch) for batch in batches}
    rows, worst = [], 0.0
    totals = np.zeros(3)
    for name, asked in pairs.items():
        contestants: dict[str, Callable[[], Any]] = {
            **{each: partial(score, asked) for each, score in adapters.items()},
            "ours": partial(ours.score, asked),
            "gopher": partial(gopher.score, asked),
        }
        reference = np.array(contestants[f"hf {batches[0]}"]())
        worst = max(worst, float(np.abs(reference - [each.log_likelihood for each in ours.score(asked)]).max()))
        assert worst < 1e-3, f"{name}: the likelihoods differ by {worst} nats: nothing to compare"
        seconds: dict[str, list[float]] = {each: [] for each in contestants}
        for _ in range(repeats):
            for each, run in contestants.items():
                started = time.process_time()
                run()
                seconds[each].append(time.process_time() - started)
        medians = {each: statistics.median(times) for each, times in seconds.items()}
        best = min((each for each in medians if each.startswith("hf")), key=medians.__getitem__)
        times = np.array([medians[best], medians["ours"], medians["gopher"]])
        totals += times
        rows.append((name, len(asked), f" ({best.split()[1]})", *times))
        print(
            f"{name}: {len(asked)} options, {best} {times[0]:.2f} s, ours {times[1]:.2f} s", file=sys.stderr, flush=True
        )
    rows.append(("all", sum(map(len, pairs.values())), "", *totals))
    million = sum(parameter.numel() for parameter in plain.parameters()) / 1e6
    lines = [
        f"{million:.1f} M parameters, vocabulary {shape['vocabulary']:,}, window {WINDOW}, {torch.get_num_threads()} "
        f"threads. CPU seconds; the likelihoods differ by at most {worst:.1e} nats.",
        "",
        "| task | options | lm-eval `hf` (batch) | earthworks, same weights | times | earthworks, Gopher | times |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, n, batch, peer_s, ours_s, gopher_s in rows:
        lines.append(
            f"| {name} | {n:,} | {peer_s:.2f}{batch} | {ours_s:.2f} | {peer_s / ours_s:.1f} "
            f"| {gopher_s:.2f} | {peer_s / gopher_s:.1f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("EARTHWORKS_DATA"))
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer_batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if not arguments.data:
        sys.exit("give --data, or set EARTHWORKS_DATA")
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    logging.disable(logging.WARNING)
    data = Path(arguments.data)
    novels = islice((document.text for document in read(str(data / "text/books/train.jsonl.xz"))), 8)
    tokenizer = Tokenizer.train(novels, SHAPES[0]["vocabulary"])
    pairs = questions(data, arguments.tasks, arguments.limit)
    if not arguments.busy:
        quiet()
    tables = [compare(shape, tokenizer, pairs, arguments.peer_batch, arguments.repeats) for shape in SHAPES]
    lines = ["# Likelihood of options: speed", "", header()]
    for table in tables:
        lines += ["", *table]
    write_result("evaluation", "\n".join(lines))


if __name__ == "__main__":
    main()
