"""Log-likelihood of a continuation given a context: the measurement behind every task.

    log P(y | x) = sum_j log p(y_j | </s>, x, y_1, ..., y_{j-1})

`</s>` comes first because every document followed one in training. The model is a Gopher, or any callable from tokens
(batch, time) to logits (batch, time, vocabulary). A Gopher reads a prefix that several sequences share (the options of
a question, the questions after the same examples) once; logits are computed only for the scored tokens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthworks.evaluation.likelihood.generation import sample, write
from earthworks.evaluation.likelihood.model_readers import CallableReader, GopherReader
from earthworks.evaluation.likelihood.shared_prefixes import lexicographic, partition
from earthworks.evaluation.results import Partial
from earthworks.gopher import Gopher
from earthworks.runs import EarthworksError, Progress

TOKENS_AT_ONCE = 4096  # of one forward pass: bounds its memory for any lengths
LOGITS_AT_ONCE = 1 << 23  # 32 MB

Pair = tuple[str, str]  # context, continuation
Run = tuple[int, int, int]  # sequences start .. end - 1, their common prefix


class Likelihood(NamedTuple):
    """log P(continuation | context) in nats, with flags on its reliability."""

    log_likelihood: float  # NaN if the model's logits are, or if the continuation has no token of its own
    greedy: bool = False  # each token of the continuation was the argmax, given those before it
    tokens: int = 1  # of the continuation
    truncated: int = 0  # tokens cut off the left of the context to fit the window
    split: bool = False  # one token spans the end of the context and the start of the continuation


@dataclass(slots=True)
class Encoded:
    """`sequence` starts with </s>; its last `scored` tokens are the continuation."""

    sequence: NDArray[np.int64]
    scored: int
    split: bool = False


class Asked(NamedTuple):
    """Query for the likelihood of `target` after the first `position` + 1 tokens; the result goes to `slot`."""

    position: int
    target: int
    slot: int


class Scorer:
    """`Scorer(model, tokenizer).score([("2 + 2 =", " 4"), ("2 + 2 =", " 5")])`.

    `tokenizer` has `encode(text)`, `end_of_document` and, for generation, `decode(ids)`. `window`: context length in
    tokens, by default that of training. `batch`: maximum rows per forward pass.
    Results are independent of `batch` and of the order of the questions, up to float32 rounding (1e-4 nats).
    """

    identity: dict[str, Any] | None = None  # of the weights, if they come from a run folder

    def __init__(
        self, model: Gopher | Callable[[Tensor], Any], tokenizer: Any, *, window: int | None = None, batch: int = 64
    ):
        gopher = isinstance(model, Gopher)
        if window is None:
            if not gopher:
                raise EarthworksError("window is required: the number of tokens that this model can read at once")
            window = model.config.context
        if window < 1 or batch < 1:
            raise EarthworksError(f"window is {window} and batch {batch}; both must be at least 1")
        if gopher and model.config.positions == "absolute" and window > model.config.context:
            raise EarthworksError(
                f"a window of {window} tokens exceeds the {model.config.context} positions that this model has learned"
            )
        self.reader = GopherReader(model) if isinstance(model, Gopher) else CallableReader(model)
        self.model, self.tokenizer, self.window, self.batch = model, tokenizer, window, batch

    def score(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Likelihood]:
        """Likelihoods of the continuations after their contexts; equal pairs are computed once.

        White space at the end of a context counts as part of the continuation, as in tokenizers that join a space with the
        next word. The two are encoded together; the tokens beyond the number in the context alone are scored.
        A context too long for the window is cut on the left. A continuation too long for it is scored in windows.
        """
        unique = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
        encoded = self.encode(list(unique))
        found = self.score_encoded(encoded, progress)
        return [found[unique[pair]] for pair in pairs]

    def encode(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """Context and continuation as one sequence, with the number of scored tokens."""
        moved = [move_white_space(*pair) for pair in pairs]
        whole = self.tokenize([context + continuation for context, continuation in moved])
        contexts = list(dict.fromkeys(context for context, _ in moved))
        before = dict(zip(contexts, self.tokenize(contexts)))
        encoded = []
        for (context, _), tokens in zip(moved, whole):
            length = len(before[context])
            split = not np.array_equal(tokens[:length], before[context])
            sequence = np.concatenate([[self.tokenizer.end_of_document], tokens]).astype(np.int64)
            encoded.append(Encoded(sequence, max(0, len(tokens) - length), split))
        return encoded

    def tokenize(self, texts: list[str]) -> list[NDArray[np.int64]]:
        if hasattr(self.tokenizer, "encode_batch"):
            return self.tokenizer.encode_batch(texts)
        return [np.asarray(self.tokenizer.encode(text), np.int64) for text in texts]

    def score_encoded(self, encoded: Sequence[Encoded], progress: Progress | None = None) -> list[Likelihood]:
        """Like `score`, for token sequences whose first token is only context."""
        windows = [(index, part) for index, each in enumerate(encoded) for part in cut(each, self.window)]
        sums, greedy = self.score_windows([part for _, part in windows], progress)
        totals: list[list[float]] = [[] for _ in encoded]
        first_choice = [True] * len(encoded)
        for (index, _), value, first in zip(windows, sums, greedy):
            totals[index].append(value)
            first_choice[index] &= first
        return [
            Likelihood(
                math.fsum(total) if each.scored else math.nan,
                first,
                each.scored,
                max(0, len(each.sequence) - 1 - self.window) if each.scored <= self.window else 0,
                each.split,
            )
            for each, total, first in zip(encoded, totals, first_choice)
        ]

    def roll(self, texts: Sequence[str], progress: Progress | None = None) -> list[list[Likelihood]]:
        """log P(text) of each text, by windows that score every token once."""
        parts = [cut(each, self.window) for each in self.encode([("", text) for text in texts])]
        sums, greedy = self.score_windows([part for each in parts for part in each], progress)
        found = iter(zip(sums, greedy))
        return [[Likelihood(*next(found), part.scored, 0, False) for part in each] for each in parts]

    def write(
        self, prompts: Sequence[str], max_tokens: int, progress: Progress | None = None
    ) -> list[tuple[str, bool]]:
        """The greedy line after each prompt, and whether the prompt was too long for the window (`generation.write`)."""
        with self.reader.ready():
            return write(
                self.model,
                self.tokenizer,
                prompts,
                max_tokens=max_tokens,
                window=self.window,
                batch=self.batch,
                progress=progress,
            )

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        top_p: float,
        temperature: float,
        seed: int,
        num: int,
        kept: Partial | None = None,
    ) -> list[list[str]]:
        """`num` random continuations of each prompt (`generation.sample`); `kept`: stores them batch by batch."""
        rows = [prompt for prompt in prompts for _ in range(num)]
        with self.reader.ready(), Progress("continuing", total=len(rows), unit="texts") as progress:
            texts = sample(
                self.model,
                self.tokenizer,
                rows,
                max_tokens=max_tokens,
                top_p=top_p,
                temperature=temperature,
                seed=seed,
                progress=progress,
                kept=kept,
            )
        return [texts[start : start + num] for start in range(0, len(texts), num)]

    @torch.inference_mode()
    def score_windows(
        self, windows: Sequence[Encoded], progress: Progress | None = None
    ) -> tuple[list[float], list[bool]]:
        """Log-likelihood of the last `scored` tokens of each window of at most `self.window` + 1 tokens.

        Summed with fsum, so that equal terms in any order give equal sums and exact ties between options are preserved.
        """
        offsets = np.cumsum([0, *(each.scored for each in windows)])
        values, first = np.full(offsets[-1], np.nan, np.float32), np.zeros(offsets[-1], bool)
        asked: dict[bytes, tuple[NDArray[np.int64], list[Asked]]] = {}
        for each, offset in zip(windows, offsets.tolist()):
            inputs = each.sequence[:-1]
            start = len(inputs) - each.scored
            _, wanted = asked.setdefault(inputs.tobytes(), (inputs, []))
            targets = each.sequence[start + 1 :].tolist()
            wanted += [Asked(start + i, target, offset + i) for i, target in enumerate(targets)]
        sequences = [(inputs, wanted) for inputs, wanted in asked.values() if wanted]
        if progress:
            progress.total = len(sequences)
        with self.reader.ready():
            waiting: list[tuple[Tensor, list[tuple[int, int, int]]]] = []
            for states, chosen in self.read(sequences, progress):
                if chosen:
                    waiting.append(needed(states, chosen))
                    rows = sum(len(part) for part, _ in waiting)
                    if rows * self.reader.vocabulary(states) >= LOGITS_AT_ONCE:
                        self.answer(waiting, values, first)
                        waiting = []
            if waiting:
                self.answer(waiting, values, first)
        slices = [slice(*pair) for pair in pairwise(offsets.tolist())]
        return [math.fsum(values[part].tolist()) for part in slices], [bool(first[part].all()) for part in slices]

    def read(self, sequences: list[tuple[NDArray[np.int64], list[Asked]]], progress: Progress | None):
        """Run the model over all sequences: pairs of states (n, width) and [(state, target, slot), ...]."""
        order = lexicographic([inputs for inputs, _ in sequences])
        inputs = [sequences[index][0] for index in order]
        wanted = [sequences[index][1] for index in order]
        runs = partition(inputs, self.batch if self.reader.remembers else 1, self.reader.pass_cost)
        alone = sorted((start for start, end, _ in runs if end - start == 1), key=lambda row: (len(inputs[row]), row))
        pass_cost = self.reader.pass_cost
        for rows in batches([len(inputs[row]) for row in alone], self.batch, pass_cost):
            part = [alone[row] for row in rows]
            states = self.reader.read(pad([inputs[row] for row in part]))
            yield states.flatten(0, 1), place(part, wanted, 0, states.shape[1])
            if progress:
                progress.advance(len(part))
        together = sorted((run for run in runs if run[1] - run[0] > 1), key=lambda run: (run[2], run[0]))
        for part in alike(together, self.batch, pass_cost):
            yield from self.read_runs(part, inputs, wanted)
            if progress:
                progress.advance(sum(end - start for start, end, _ in part))

    def read_runs(self, runs: list[Run], inputs: list[NDArray[np.int64]], wanted: list[list[Asked]]):
        """Read runs of nearly equal prefixes, all cut to the shortest so that no row needs padding on its left."""
        prefix = min(length for _, _, length in runs)
        heads = np.stack([inputs[start][:prefix] for start, _, _ in runs])
        states, memory = self.reader.remember(heads)
        owner = {row: run for run, (start, end, _) in enumerate(runs) for row in range(start, end)}
        yield (
            states.flatten(0, 1),
            [
                (run * prefix + each.position, each.target, each.slot)
                for row, run in owner.items()
                for each in wanted[row]
                if each.position < prefix
            ],
        )
        tails = sorted((row for row in owner if len(inputs[row]) > prefix), key=lambda row: (len(inputs[row]), row))
        for chosen in batches([len(inputs[row]) - prefix for row in tails], self.batch, self.reader.pass_cost):
            part = [tails[row] for row in chosen]
            states = self.reader.resume(
                pad([inputs[row][prefix:] for row in part]), memory, [owner[row] for row in part]
            )
            yield states.flatten(0, 1), place(part, wanted, prefix, states.shape[1])

    def answer(
        self, waiting: list[tuple[Tensor, list[tuple[int, int, int]]]], values: NDArray[Any], first: NDArray[Any]
    ) -> None:
        """log p(target) and whether it is the argmax, for (state, target, slot) of several batches of states.

        Batches are gathered, because the product with a large vocabulary is up to twice as fast per row with many rows.
        """
        states = torch.cat([part for part, _ in waiting])
        starts = np.cumsum([0, *(len(part) for part, _ in waiting)]).tolist()
        asked = np.array([(start + at, *rest) for start, (_, part) in zip(starts, waiting) for at, *rest in part])
        asked = asked[np.argsort(asked[:, 0], kind="stable")]
        rows = max(1, LOGITS_AT_ONCE // self.reader.vocabulary(states))
        for start in range(0, len(states), rows):
            low, high = np.searchsorted(asked[:, 0], [start, start + rows])
            at, target, slots = asked[low:high].T
            at, target = torch.from_numpy(at - start).to(states.device), torch.from_numpy(target).to(states.device)
            logits = self.reader.logits(states[start : start + rows])
            greatest = logits[at, target] == logits.amax(-1)[at]  # a tied maximum; only the first one counts
            greatest[greatest.clone()] = logits[at[greatest]].argmax(-1) == target[greatest]
            values[slots] = logits.log_softmax(-1)[at, target].cpu().numpy()
            first[slots] = greatest.cpu().numpy()


def needed(states: Tensor, wanted: list[tuple[int, int, int]]) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """The queried states, without duplicates, and the queries with their new indices."""
    unique, where = np.unique([place for place, _, _ in wanted], return_inverse=True)
    kept = states[torch.from_numpy(unique).to(states.device)]
    return kept, [(int(at), target, slot) for at, (_, target, slot) in zip(where, wanted)]


def move_white_space(context: str, continuation: str) -> Pair:
    """("Answer: ", "A") -> ("Answer:", " A")."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def cut(encoded: Encoded, window: int) -> list[Encoded]:
    """Parts of at most `window` inputs that score every token of the continuation once.

    If the continuation fits, one part: the end of the sequence. Otherwise adjacent windows, each starting with the token
    before its first scored one; the last extends back to be full, if possible.
    """
    sequence, scored = encoded.sequence, encoded.scored
    if scored <= window:
        return [Encoded(sequence[-(window + 1) :], scored)] if scored else []
    parts = []
    start = len(sequence) - scored
    while start < len(sequence):
        end = min(len(sequence), start + window)
        parts.append(Encoded(sequence[max(0, end - window - 1) : end], end - start))
        start = end
    return parts


def batches(lengths: Sequence[int], most: int, pass_cost: int) -> list[range]:
    """Ranges of rows of ascending length to read at once: at most `most` rows and TOKENS_AT_ONCE tokens.

    A range ends before its padding would cost more than two passes.
    """
    found = []
    start = padding = 0
    for end in range(1, len(lengths)):
        rows = end - start
        padding += rows * (lengths[end] - lengths[end - 1])
        if rows == most or (rows + 1) * lengths[end] > TOKENS_AT_ONCE or padding > 2 * pass_cost:
            found.append(range(start, end))
            start, padding = end, 0
    return [*found, range(start, len(lengths))] if lengths else []


def alike(runs: list[Run], most: int, pass_cost: int) -> list[list[Run]]:
    """Group runs, sorted by prefix, that can be cut to the shortest prefix: rereading the rest of the prefix in each
    further row costs at most two passes."""
    found: list[list[Run]] = []
    again = 0
    for start, end, prefix in runs:
        if found:
            first = found[-1][0][2]
            again += (end - start - 1) * (prefix - first)
            if again <= 2 * pass_cost and len(found[-1]) < most and (len(found[-1]) + 1) * first <= TOKENS_AT_ONCE:
                found[-1].append((start, end, prefix))
                continue
        found.append([(start, end, prefix)])
        again = 0
    return found


def pad(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(rows, longest), padded with zeros on the right, which a causal model never sees from a real token."""
    padded = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def place(rows: list[int], wanted: list[list[Asked]], prefix: int, width: int) -> list[tuple[int, int, int]]:
    """The queries for positions from `prefix` on, as (state, target, slot); a row has `width` states."""
    return [
        (index * width + each.position - prefix, each.target, each.slot)
        for index, row in enumerate(rows)
        for each in wanted[row]
        if each.position >= prefix
    ]
