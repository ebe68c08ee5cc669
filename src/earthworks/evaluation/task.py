"""A task: what is shown to the model, what it may answer, what is right. Data never lies in the package, tasks do.

    name: piqa
    category: common sense
    kind: choice
    file: commonsense/piqa_valid.jsonl.gz        # relative to --data
    context: "Question: {{ goal }}\\nAnswer:"      # a Jinja template over the fields of a row
    choices: "[sol1, sol2]"                      # an expression over them
    gold: label

kind        the model's score of an item                                          needs
choice      log P(separator + choice | context), for each choice                  context, choices, gold
contexts    log P(separator + continuation | context), for each context           choices (the contexts), continuation, gold
completion  is every token of the continuation the likeliest (teacher-forced)     context, continuation
answer      greedy text up to the end of the line, compared after normalisation   context, answers
text        log P(text)                                                           nothing: the rows are documents

A minimal pair is a choice after an empty context; a claim to judge is a choice between its labels.
"""

import gzip
import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from earthworks.runs import EarthworksError

Kind = Literal["choice", "contexts", "completion", "answer", "text"]
Metric = Literal["raw", "per_character", "per_byte", "unconditional"]
NEEDS: dict[str, tuple[str, ...]] = {
    "choice": ("context", "choices", "gold"),
    "contexts": ("choices", "continuation", "gold"),
    "completion": ("context", "continuation"),
    "answer": ("context", "answers"),
    "text": (),
}
CATEGORIES = (
    "language modelling",
    "reading comprehension",
    "fact checking",
    "question answering",
    "common sense",
    "MMLU",
    "BIG-bench",
    "logic and maths",
    "linguistics",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task as its YAML says it; see the head of this file. Templates and expressions are Jinja's.

    `description` (a template) stands once before examples and context, `separator` between context and answer. `metric`
    is the accuracy that the table shows first. `group` (an expression) names the part an item belongs to, `groups`
    gathers parts under larger names. `where` (an expression) chooses rows.
    `shots` is the number of examples that the paper gave; they come from `examples_file`, or from the other rows of the
    file, of the same part where `examples_by` is given. `example` (a template) is how the answer of an example is shown,
    where it is not the right one itself; `few_shot: false` where examples make no sense.
    """

    name: str
    category: str
    kind: Kind
    file: str
    context: str | None = None
    choices: str | None = None
    continuation: str | None = None
    gold: str | None = None
    answers: str | None = None
    description: str | None = None
    separator: str = " "
    metric: Metric = "raw"
    group: str | None = None
    groups: Mapping[str, list[str]] = field(default_factory=dict)
    where: str | None = None
    shots: int = 0
    few_shot: bool = True
    examples_file: str | None = None
    examples_by: str | None = None
    example: str | None = None
    max_tokens: int = 48
    extract: Literal["number"] | None = None
    last_bytes: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what the model is shown and how it is judged; the first 12 digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def task_from(values: Any, where: str) -> Task:
    """A task from a mapping read at `where`; every fault is one sentence that names the field."""
    if not isinstance(values, dict):
        raise EarthworksError(f"{where} holds no task: expected a mapping with name, category, kind and file")
    name = values.get("name", "?")
    known = [each.name for each in fields(Task)]
    for key in values:
        if key not in known:
            raise EarthworksError(f"task {name} of {where} has the field {key!r}; a task knows {', '.join(known)}")
    for key in ("name", "category", "kind", "file"):
        if not isinstance(values.get(key), str):
            raise EarthworksError(f"task {name} of {where} lacks the field {key!r}, which must be text")
    kind = values["kind"]
    for key, choices in (("kind", get_args(Kind)), ("metric", get_args(Metric))):
        if key in values and values[key] not in choices:
            raise EarthworksError(
                f"task {name} of {where} has {key} {values[key]!r}; it must be one of {', '.join(choices)}"
            )
    for key in NEEDS[kind]:
        if not isinstance(values.get(key), str):
            raise EarthworksError(f"task {name} of {where} lacks the field {key!r}, which kind {kind} needs")
    return Task(**values)


def shipped_tasks() -> list[Task]:
    """The tasks of the package, by category."""
    folder = resources.files("earthworks.evaluation").joinpath("tasks")
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name)
    tasks = [task_from(values, each.name) for each in files for values in yaml.safe_load(each.read_text("utf-8"))]
    return sorted(tasks, key=lambda task: CATEGORIES.index(task.category))


def read_tasks(path: str | Path, absent: list[dict[str, Any]] | None = None) -> list[Task]:
    """The tasks of a YAML file: one mapping, or a list of them.

    A task that is at fault is raised, or added to `absent` with its reason, where that is given, and the others returned.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise EarthworksError(f"the task file {path} could not be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EarthworksError(f"the task file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    tasks = []
    for each in values if isinstance(values, list) and values else [values]:
        try:
            tasks.append(task_from(each, str(path)))
        except EarthworksError as error:
            if absent is None:
                raise
            known = each if isinstance(each, dict) else {}
            name, category = (str(known.get(key, "?")) for key in ("name", "category"))
            absent.append({"name": name, "category": category, "shots": 0, "reason": str(error)})
    return tasks


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines, plain or .gz or .xz."""
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("not an object")
                    yield row
    except FileNotFoundError:
        raise EarthworksError(f"{path} does not exist") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise EarthworksError(f"{path} could not be read: {error}") from None
    except ValueError as error:
        raise EarthworksError(f"{path}, line {number or 1}, is not a JSON object: {error}") from None
