"""Tokens a second while writing: Earthworks in fp32, bf16 and int8 against transformers' `generate`, on equal models.

8 layers, 16 heads of 32, width 512, vocabulary 8,192, random weights; the peer is a Llama with as many parameters, tied
too, with the faster of its dynamic and static caches. Everybody answers the same prompts greedily, whole calls are timed
(reading the prompt and, with us, storing the weights included), forms take turns, medians count. The last columns: what
share that is of the tokens a second at which the stored matrices could merely be read, timed as the faster of a
matrix-vector product and a sum over as many bytes; and milliseconds to store the weights.

With --data, also what the rounding costs: a small model is trained on it (or --run gives one), and the logits of each
form along held-out text are compared with those of fp32: relative error |l - l'| / |l - mean l|, KL divergence in nats a
token, the share of places with the same likeliest token, and nats a token.

    python benchmarks/decoding.py --data $EARTHWORKS_DATA/text/books/train.jsonl.xz [--batches 1 8] [--new 128] [--busy]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import header, quiet, write_result
from torch import Tensor

from earthworks.gopher import Cache, Gopher, GopherConfig, generate, load, train
from earthworks.gopher.decoding.decoder import Decoder

STORED = ("fp32", "bf16", "int8")
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
VOCABULARY = 8192


class Numbers:
    """A tokenizer whose text is the numbers of its tokens."""

    end_of_document = 0

    def encode(self, text: str) -> list[int]:
        return [int(number) for number in text.split()]

    def decode_stream(self) -> "Numbers":
        return self

    def step(self, token: int) -> str:
        return f"{token} "

    def end(self) -> str:
        return ""


def ours() -> Gopher:
    model = Gopher(GopherConfig.preset("44M", vocabulary=VOCABULARY)).eval()
    with torch.no_grad():
        model.logit_bias[Numbers.end_of_document] = -1e9  # nobody ends before the others
    return model


def llama(num_parameters: int, layers: int) -> Any:
    """A Llama of as many parameters: what its attention leaves goes to the feed-forward's width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    d, heads = 512, 16
    inner = round(((num_parameters - VOCABULARY * d) / layers - 4 * d * d) / (3 * d))
    shape = {"hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads}
    config = LlamaConfig(intermediate_size=inner, vocab_size=VOCABULARY, tie_word_embeddings=True, **shape)
    return LlamaForCausalLM(config).eval()


def matrices(model: Gopher) -> int:
    """Weights that a step reads."""
    config = model.config
    layer = 4 * config.d_model * config.d_attention + 2 * config.d_model * config.d_feedforward
    return config.num_layers * layer + config.vocabulary * config.d_model


def reading(num_bytes: int) -> float:
    """Seconds to read so many bytes: the faster of a matrix-vector product and a sum, the least of nine."""
    matrix = torch.ones(num_bytes // (4 * 2048), 2048)
    vector = torch.ones(2048)
    return min(seconds(function) for _ in range(9) for function in (lambda: matrix @ vector, lambda: matrix.sum()))


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def speed(arguments: argparse.Namespace) -> list[str]:
    torch.manual_seed(0)
    model, tokenizer = ours(), Numbers()
    peer = llama(model.config.num_parameters(), model.config.num_layers)
    count = sum(parameter.numel() for parameter in peer.parameters())
    peers = {"fp32": peer, "bf16": llama(model.config.num_parameters(), model.config.num_layers).bfloat16()}
    lines = [
        f"Earthworks {model.config.num_parameters():,} parameters, Llama {count:,}; prompt {arguments.prompt} tokens, "
        f"{arguments.new} new ones, {arguments.threads} threads; medians of {arguments.repeats} rounds.",
        "",
        "| batch | form | tokens/s | / `generate`, same format | / `generate`, bf16 | of reading alone | storing, ms |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for batch in arguments.batches:
        if not arguments.busy:
            quiet()
        prompts = torch.randint(1, VOCABULARY, (batch, arguments.prompt))
        texts = [" ".join(map(str, row[1:].tolist())) for row in prompts]  # the end of document stands before them

        def write(stored: str, texts: list[str] = texts) -> None:
            options: Any = {"temperature": 0, "precision": stored, "max_tokens": arguments.new}
            answers = generate(model, tokenizer, texts, **options)
            assert all(len(answer.tokens) == arguments.new for answer in answers)

        def write_peer(stored: str, cache: str, prompts: Tensor = prompts) -> None:
            options: Any = {"min_new_tokens": arguments.new, "cache_implementation": cache, "pad_token_id": 0}
            written = peers[stored].generate(prompts, max_new_tokens=arguments.new, do_sample=False, **options)
            assert written.shape[1] == arguments.prompt + arguments.new

        forms: dict[str, Callable[[], None]] = {stored: lambda stored=stored: write(stored) for stored in STORED}
        for stored in peers:
            for cache in ("dynamic", "static"):
                forms[f"generate {stored} {cache}"] = lambda stored=stored, cache=cache: write_peer(stored, cache)
        times: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(arguments.repeats + 1):
            for name, function in forms.items():
                times[name].append(seconds(function))
        rate = {name: batch * arguments.new / statistics.median(each[1:]) for name, each in times.items()}
        best = {stored: max(rate[f"generate {stored} {cache}"] for cache in ("dynamic", "static")) for stored in peers}
        for stored in STORED:
            limit = 1 / reading(matrices(model) * BYTES[stored])
            storing = min(
                seconds(lambda stored=stored: Decoder(model, stored, Cache(model.config), 1, 8)) for _ in range(5)
            )
            same = f"{rate[stored] / best[stored]:.2f}" if stored in best else ""
            lines.append(
                f"| {batch} | {stored} | {rate[stored]:,.0f} | {same} | {rate[stored] / best['bf16']:.2f} | "
                f"{rate[stored] / batch / limit:.0%} of {limit:,.0f} steps/s | {1000 * storing:.0f} |"
            )
        lines += [f"| {batch} | {name} | {rate[name]:,.0f} | | | | |" for name in list(forms)[len(STORED) :]]
        print("\n".join(lines[-len(forms) :]), flush=True)
    return lines


@torch.no_grad()
def rounding(run: str, passages: int, length: int) -> list[str]:
    """What each form's logits are off from those of fp32, along `passages` of held-out text read token by token."""
    from earthworks.corpus import PackedTokens
    from earthworks.gopher.evaluating import packed_folder
    from earthworks.runs import RunFolder

    model, _ = load(run)
    packed = PackedTokens.open(packed_folder(RunFolder.open(run)))
    text = np.concatenate([tokens for tokens, _, _ in packed.validation_documents(packed.subsets[0].name)])
    starts = np.linspace(0, len(text) - length - 1, passages).astype(int)
    tokens = torch.from_numpy(np.stack([text[start : start + length + 1] for start in starts]).astype(np.int64))
    logits = {}
    for stored in STORED:
        with Decoder(model, stored, Cache(model.config), passages, length) as decoder:
            logits[stored] = torch.stack([decoder.step(tokens[:, at]).double() for at in range(length)], 1)
    exact, targets = logits["fp32"], tokens[:, 1:, None]
    log_p = exact.log_softmax(-1)
    lines = [
        f"A Gopher of {model.config.num_parameters():,} parameters, {passages} passages of {length} held-out tokens.",
        "",
        "| form | relative error of logits | KL from fp32, nats | same likeliest token | nats a token |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for stored, found in logits.items():
        log_q = found.log_softmax(-1)
        spread = exact - exact.mean(-1, keepdim=True)
        error = float((found - exact).norm() / spread.norm())
        divergence = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
        same = float((found.argmax(-1) == exact.argmax(-1)).double().mean())
        nats = -float(log_q.gather(-1, targets).mean())
        lines.append(f"| {stored} | {error:.2%} | {divergence:.1e} | {same:.2%} | {nats:.4f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", help="text to train a small model on, for what the rounding costs")
    parser.add_argument("--run", help="a trained run to measure the rounding on instead")
    parser.add_argument("--steps", type=int, default=600, help="of that training")
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = speed(arguments)
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run
        if arguments.data and not run:
            shape: Any = {"size": "hamster", "context": 256, "max_steps": arguments.steps}
            run = str(train(arguments.data, run=f"{folder}/run", validation=0.1, seed=0, **shape))
        if run:
            lines += ["", "## What the rounding costs", "", *rounding(run, arguments.passages, 256)]
    write_result("decoding", "\n".join(["# Decoding", "", header(), "", *lines]))


if __name__ == "__main__":
    main()
