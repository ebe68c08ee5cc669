"""`earthworks gopher generate` and `evaluate`: the functions of the same names, with terminal output."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from earthworks.gopher import evaluating
from earthworks.gopher.decoding.decoder import Stored, choose_stored
from earthworks.gopher.evaluating import no_interval
from earthworks.gopher.generation import Generated, generate
from earthworks.gopher.loading import load
from earthworks.gopher.scoring import Windows
from earthworks.runs import EarthworksError, Progress, RunFolder, json_text, shown
from earthworks.runs.files import read_regular
from earthworks.runs.progress import note
from earthworks.runs.terminal import say
from earthworks.training import checkpoint as checkpoints
from earthworks.training.precision import choose_device

MOST_PROMPT = 1 << 24  # bytes of prompts that are read


def generate_text(
    run: str,
    *,
    prompt: str = "",
    prompts: str | None = None,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: str | None = None,
    seed: int = 0,
    precision: Stored = "auto",
    checkpoint: str = "best",
    device: str = "auto",
    json: bool = False,
) -> str | None:
    """Generate text with a run's model, streaming it as it is produced.

    Args:
        run: the run folder.
        prompt: start of the text; `-` reads it from standard input.
        prompts: a file with one prompt per line, answered as one batch.
        max_tokens: maximum number of tokens to generate.
        temperature: 0 takes the most likely token; 1 is the model's own distribution.
        top_k: sample from the k most likely tokens only.
        top_p: sample from the fewest tokens that hold this much probability.
        repetition_penalty: above 1, tokens that already occurred become less likely.
        stop: stop before this text.
        seed: random seed; the same seed and precision give the same text.
        precision: format of the weights: `fp32`, `bf16`, `int8` (on the CPU; half the bytes of bf16), or `auto`.
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        json: print a list of prompt, text, tokens and the reason for stopping.
    """
    model, tokenizer = load(run, checkpoint, choose_device(device))
    note(f"from {checkpoints.choose(RunFolder.open(run), checkpoint)}")
    stored = choose_stored(precision, model.embedding.weight)
    texts = [read_prompt() if prompt == "-" else prompt] if prompts is None else lines_of(prompts)
    longest = max(len(tokenizer.encode(text)) for text in texts) + max_tokens
    if longest > model.config.context:
        if model.config.positions == "absolute":
            raise EarthworksError(
                f"prompt and text take {longest} tokens, but this model has {model.config.context} absolute positions: "
                "shorten the prompt or --max_tokens"
            )
        note(f"notice: up to {longest} tokens, more than the {model.config.context} the model was trained on")
    single = len(texts) == 1 and not json

    def write(stream: Callable[[int, str], None]) -> list[Generated]:
        return generate(
            model,
            tokenizer,
            texts,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            stop=[stop] if stop else (),
            seed=seed,
            precision=stored,
            stream=stream,
        )

    started = time.perf_counter()
    if single:
        say(texts[0], end="")
        answers = write(lambda _row, piece: say(piece, end=""))
        say("")
    else:
        with Progress("writing", unit="pieces of text") as progress:
            answers = write(lambda _row, _piece: progress.advance())
    seconds = time.perf_counter() - started
    count = sum(len(answer.tokens) for answer in answers)
    note(f"{count:,} tokens in {seconds:.1f} s, {count / seconds:,.0f} tokens/s, weights in {stored}")
    if single:
        if any(shown(text) != text for text in (texts[0], answers[0].text)):
            note("notice: control characters are shown as \\u....; --json keeps them")
        return None
    if json:
        fields = ("prompt", "text", "tokens", "reason")
        records = [{name: getattr(answer, name) for name in fields} for answer in answers]
        return json_text(records)
    return "\n\n".join(f"[{index}] {answer.prompt}{answer.text}" for index, answer in enumerate(answers))


def read_prompt() -> str:
    """The text on standard input; bytes that are not UTF-8 are replaced, with a notice."""
    content = sys.stdin.buffer.read(MOST_PROMPT + 1)
    if len(content) > MOST_PROMPT:
        raise EarthworksError(f"standard input holds more than {MOST_PROMPT >> 20} MiB: give a shorter prompt")
    return decoded(content, "standard input")


def decoded(content: bytes, source: str) -> str:
    """Bytes as text; what is not UTF-8 is replaced, with a notice."""
    text = content.decode(errors="replace")
    if text.encode() != content:
        note(f"notice: the text on {source} is not valid UTF-8: invalid bytes are read as \ufffd")
    return text


def lines_of(file: str) -> list[str]:
    """The prompts in a file, one per line; empty lines are left out."""
    text = decoded(read_regular(Path(file), MOST_PROMPT), f"--prompts {file}")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise EarthworksError(f"--prompts {file} has no text: write one prompt per line")
    return lines


def evaluate(
    run: str,
    *,
    data: str | None = None,
    context: int | None = None,
    windows: Windows = "sliding",
    max_tokens: int | None = None,
    max_distance: int | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    seed: int = 0,
    verify: bool = False,
    json: bool = False,
) -> "Answer":
    """Measure the model of a run: bits per byte, perplexity, loss by position.

    Args:
        run: the run folder.
        data: text to measure on; by default the run's own held-out part.
        context: tokens that the model sees at once; may exceed the trained context.
        windows: `sliding` (every token but the first sees at least half a context) or `disjoint`.
        max_tokens: stop after this number of tokens.
        max_distance: clamp greater distances to this one (default: as trained).
        checkpoint: `best` (lowest validation), `last`, or a step.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: seed of the bootstrap.
        verify: check all of the run's tokens against their SHA-256 first, not only those held out.
        json: print everything as JSON.
    """
    result = evaluating.evaluate(
        run,
        data,
        context=context,
        windows=windows,
        max_tokens=max_tokens,
        max_distance=max_distance,
        checkpoint=checkpoint,
        device=device,
        seed=seed,
        verify=verify,
    )
    diverged = not math.isfinite(result["nats_per_token"])
    if diverged:
        note(f"notice: the model of {run} diverged: its loss on this text is not finite")
    if json:
        return Answer(json_text(result), int(diverged))
    rows = {"all": result, **result.get("subsets", {})}
    lines = [
        f"{'':<24}{'bits/byte':>10}  {'95 % interval':<17}{'nats/token':>11}{'ppl/token':>11}{'ppl/word':>12}{'tokens':>12}"
    ]
    for name, row in rows.items():
        low, high = row["interval"]
        interval = f"[{low:.4f}, {high:.4f}]" if math.isfinite(low) else "none"
        lines.append(
            f"{name[:24]:<24}{row['bits_per_byte']:>10.4f}  {interval:<17}{row['nats_per_token']:>11.4f}"
            f"{row['perplexity_per_token']:>11.2f}{row['perplexity_per_word']:>12.1f}{row['tokens']:>12,}"
        )
    lines.append(
        f"{result['windows']} windows of {result['context']} tokens, every token scored once; "
        + (f"interval over {result['interval_unit']}s" if math.isfinite(result["interval"][0]) else no_interval(result))
    )
    return Answer("\n".join(lines), int(diverged))


class Answer(str):
    """What a command prints, and its exit code."""

    exit_code: int

    def __new__(cls, text: str, exit_code: int) -> "Answer":
        answer = super().__new__(cls, text)
        answer.exit_code = exit_code
        return answer
