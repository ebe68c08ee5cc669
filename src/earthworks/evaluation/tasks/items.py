"""Items from the rows of a task's file: the exact prompts and the right answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.evaluation.tasks import templates
from earthworks.evaluation.tasks.task_file import Task, located, read_rows
from earthworks.runs import EarthworksError

BETWEEN = "\n\n"  # between examples, and before the question


@dataclass
class Item:
    """One question. `contexts[i]` + `continuations[i]` is option i, or the single pair of a completion.

    `fault` is the reason why it cannot be asked; the other fields are then unused. `answers`: accepted texts of an open
    question.
    """

    index: int  # row number in the file, from 0
    group: str | None = None
    contexts: list[str] = field(default_factory=list)
    continuations: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)  # as in the file: scores are normalised by their lengths
    gold: int = 0
    answers: list[str] = field(default_factory=list)
    fault: str | None = None


def make_items(task: Task, data: Path, *, shots: int = 0, limit: int | None = None, seed: int = 0) -> list[Item]:
    """The items of a task with `shots` examples each; if `limit` is given, a random sample, the same for every model.

    Examples exclude the item itself and rows that ask the same; they are drawn for each item with (seed, row), from the
    rows with the same `examples_by` if the task has it. With an examples_file they are its first `shots` such rows, in
    order. Raises EarthworksError if there are too few examples, or no rows.
    """
    try:
        return asked(task, data, shots, limit, seed)
    except templates.TooMuch as error:  # abort the task: the other rows would take as long
        raise EarthworksError(f"task {task.name} cannot be asked: {error}") from None


def asked(task: Task, data: Path, shots: int, limit: int | None, seed: int) -> list[Item]:
    rows = [
        row for row in enumerate(read_rows(located(task.file, data))) if task.where is None or value(task.where, row[1])
    ]
    if not rows:
        raise EarthworksError(f"{task.file} has no row for task {task.name}")
    chosen = range(len(rows))
    if limit is not None and limit < len(rows):
        drawn = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
        chosen = sorted(drawn.tolist())
    examples = Examples(task, data, [row for _, row in rows], shots, seed) if shots else None
    items = []
    for position in chosen:
        index, row = rows[position]
        try:
            before = render(task.description, row) + (examples.before(position) if examples else "")
            items.append(make_item(task, index, row, before))
        except Fault as fault:
            items.append(Item(index, fault=str(fault)))
    return items


class Fault(EarthworksError):
    """Reason why one row, or the whole task, cannot be asked."""


def make_item(task: Task, index: int, row: dict[str, Any], before: str) -> Item:
    group = str(value(task.group, row)) if task.group else None
    item = Item(index, group)
    if task.kind == "answer":
        answers = value(task.answers, row)
        item.answers = [str(answer) for answer in (answers if isinstance(answers, list) else [answers])]
        item.contexts = [before + render(task.context, row)]
        if not any(answer.strip() for answer in item.answers):
            raise Fault("no accepted answer")
        return item
    if task.kind == "completion":
        continuation = render(task.continuation, row)
        if not continuation.strip():
            raise Fault("an empty continuation")
        item.contexts, item.continuations = [before + render(task.context, row)], [task.separator + continuation]
        item.answers = [continuation]
        return item
    choices = options(task, row)
    item.gold = gold_index(task, row, choices)
    if task.kind == "contexts":
        continuation = render(task.continuation, row)
        item.contexts = [before + choice for choice in choices]
        item.continuations = [task.separator + continuation] * len(choices)
        item.options = [continuation] * len(choices)
    else:
        item.contexts = [before + render(task.context, row)] * len(choices)
        item.continuations = [task.separator + choice for choice in choices]
        item.options = choices
    if not all(option.strip() for option in [*item.options, *choices]):
        raise Fault("an option of zero length")
    return item


def options(task: Task, row: dict[str, Any]) -> list[str]:
    choices = value(task.choices, row)
    if not isinstance(choices, list) or len(choices) < 2:
        raise Fault("fewer than two options")
    return [str(choice) for choice in choices]


def gold_index(task: Task, row: dict[str, Any], choices: list[str]) -> int:
    """Index of the right option; `gold` is that index, or the option itself."""
    gold = value(task.gold, row)
    if isinstance(gold, str) and gold in choices:
        return choices.index(gold)
    try:
        index = int(gold)
    except (TypeError, ValueError, OverflowError):
        raise Fault("a right answer that is none of the options") from None
    if not 0 <= index < len(choices):
        raise Fault("a right answer that is none of the options")
    return index


def render(source: str | None, row: dict[str, Any]) -> str:
    try:
        return templates.render(source, row) if source else ""
    except templates.TooMuch:
        raise
    except Exception as error:  # a user's template may raise anything
        raise Fault(one_line(error)) from None


def value(source: str | None, row: dict[str, Any]) -> Any:
    assert source is not None, "task_from checks the fields of each kind"
    try:
        return templates.evaluate(source, row)
    except templates.TooMuch:
        raise
    except Exception as error:
        raise Fault(one_line(error)) from None


def one_line(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:297]}..."


class Examples:
    """Solved examples that precede the item at a given position."""

    def __init__(self, task: Task, data: Path, rows: list[dict[str, Any]], shots: int, seed: int):
        self.task, self.rows, self.shots, self.seed = task, rows, shots, seed
        self.pool = list(read_rows(located(task.examples_file, data))) if task.examples_file else rows
        self.parts: dict[Any, list[int]] = {}
        for position, row in enumerate(self.pool):
            self.parts.setdefault(self.part(row), []).append(position)
        self.found: dict[int, tuple[str, str] | None] = {}

    def part(self, row: dict[str, Any]) -> Any:
        part = value(self.task.examples_by, row) if self.task.examples_by else None
        if isinstance(part, list | dict):
            raise Fault("examples_by must yield text or a number, not a list or a mapping")
        return part

    def before(self, position: int) -> str:
        """The examples, each followed by a blank line."""
        pool = self.parts.get(self.part(self.rows[position]), [])
        if self.task.examples_file:
            shown = [found[1] for found in map(self.example, pool) if found][: self.shots]
        else:
            shown = self.drawn(position, pool)
        if len(shown) < self.shots:
            raise Fault(f"only {len(shown)} of the requested {self.shots} examples")
        return "".join(each + BETWEEN for each in shown)

    def drawn(self, position: int, pool: list[int]) -> list[str]:
        """Random examples from the pool, without rows that ask the same question."""
        own = question(self.task, self.rows[position])
        shown: list[str] = []
        for place in np.random.default_rng([self.seed, position]).permutation(len(pool)).tolist():
            if len(shown) == self.shots:
                break
            found = self.example(pool[place])
            if found and found[0] != own:
                shown.append(found[1])
        return shown

    def example(self, position: int) -> tuple[str, str] | None:
        """A row's question and its solved form; None for a row that cannot be asked."""
        if position not in self.found:
            try:
                row = self.pool[position]
                self.found[position] = question(self.task, row), solved(self.task, row)
            except Fault:
                self.found[position] = None
        return self.found[position]


def question(task: Task, row: dict[str, Any]) -> str:
    """Key that distinguishes a row from the others."""
    return str(options(task, row)) if task.kind == "contexts" else render(task.context, row)


def solved(task: Task, row: dict[str, Any]) -> str:
    """A rendered example: context, separator, right answer."""
    item = make_item(task, -1, row, "")
    if task.example is not None:
        return item.contexts[0] + task.separator + render(task.example, row)
    if task.kind == "answer":
        return item.contexts[0] + task.separator + item.answers[0]
    return item.contexts[item.gold] + item.continuations[item.gold]


def parts_of(groups: Sequence[str | None], larger: dict[str, list[str]]) -> dict[str, str]:
    """{group: the larger group it belongs to, or itself}."""
    above = {name: large for large, names in larger.items() for name in names}
    return {group: above.get(group, group) for group in groups if group is not None}
