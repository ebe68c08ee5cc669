"""Task definitions: prompt, options and right answer. The package ships task files, never their data.

    name: piqa
    category: common sense
    kind: choice
    file: commonsense/piqa_valid.jsonl.gz        # relative to --data
    context: "Question: {{ goal }}\\nAnswer:"      # a Jinja template over the fields of a row
    choices: "[sol1, sol2]"                      # an expression over the fields
    gold: label

kind        score of an item                                                      needs
choice      log P(separator + choice | context), for each choice                  context, choices, gold
contexts    log P(separator + continuation | context), for each context           choices (the contexts), continuation, gold
completion  whether each token of the continuation is the argmax (teacher-forced) context, continuation
answer      greedy text up to the end of the line, compared after normalisation   context, answers
text        log P(text)                                                           nothing: each row is a document

A minimal pair is a choice after an empty context; judging a claim is a choice between its labels.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from earthworks.corpus.readers.streams import LONGEST_LINE, blocks, lines
from earthworks.runs import EarthworksError
from earthworks.runs.files import inside, open_regular
from earthworks.runs.json_files import parse_json
from earthworks.runs.yaml_files import parse_yaml, read_yaml

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
    """A task as defined in YAML; see the module docstring. Templates and expressions are Jinja's.

    `description` (a template) comes once before examples and context, `separator` between context and answer. `metric`
    is the accuracy that the table shows first. `group` (an expression) names an item's group, `groups` maps larger
    groups to lists of these. `where` (an expression) selects rows.
    `shots` is the paper's number of examples; they come from `examples_file`, or from the other rows of the file, limited
    to the same value of `examples_by` if given. `example` (a template) renders the answer of an example if it differs
    from the right answer; `few_shot: false` if examples make no sense.
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
        """The first 12 digits of the SHA-256 of everything that determines prompts and scoring."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def files(self) -> list[str]:
        """The files with its rows and examples."""
        return [self.file, self.examples_file] if self.examples_file else [self.file]


def optional(kind: type) -> Any:
    return lambda value: value is None or isinstance(value, kind)


def whole(least: int) -> Any:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def gathers(value: Any) -> bool:
    lists = value.values() if isinstance(value, dict) and all(isinstance(key, str) for key in value) else [None]
    return all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists)


# Check and description of each optional field of a task file.
FORMS: dict[str, tuple[Any, str]] = {
    **{
        name: (optional(str), "text")
        for name in ("context", "choices", "continuation", "gold", "answers", "description", "group", "where")
        + ("examples_file", "examples_by", "example")
    },
    "separator": (lambda value: isinstance(value, str), "text"),
    "groups": (gathers, "a mapping of names to lists of names"),
    "shots": (whole(0), "a whole number, at least 0"),
    "max_tokens": (whole(1), "a whole number, at least 1"),
    "last_bytes": (lambda value: value is None or whole(1)(value), "a whole number, at least 1"),
    "few_shot": (lambda value: isinstance(value, bool), "true or false"),
    "extract": (lambda value: value in (None, "number"), "number"),
}
LONGEST_NAME = 100


def task_from(values: Any, where: str, *, shipped: bool = False) -> Task:
    """A task from a mapping read from `where`; every error names the field.

    The files of a task that is not `shipped` with the package must be in the --data folder.
    """
    if not isinstance(values, dict):
        raise EarthworksError(f"{where} is not a task: expected a mapping with name, category, kind and file")
    name = str(values.get("name", "?"))[:LONGEST_NAME]
    known = [each.name for each in fields(Task)]
    for key in values:
        if key not in known:
            shown = repr(key)[:LONGEST_NAME]
            raise EarthworksError(f"task {name} of {where} has the unknown field {shown}; known are {', '.join(known)}")
    for key in ("name", "category", "kind", "file"):
        if not isinstance(values.get(key), str):
            raise EarthworksError(f"task {name} of {where} lacks the field {key!r}, which must be text")
    for key in ("name", "category"):
        if not (0 < len(values[key].strip()) <= LONGEST_NAME and values[key].isprintable()):
            raise EarthworksError(
                f"task {name} of {where} has a {key} of {len(values[key])} characters; expected one line of 1 to "
                f"{LONGEST_NAME} printable characters"
            )
    kind = values["kind"]
    for key, choices in (("kind", get_args(Kind)), ("metric", get_args(Metric))):
        if key in values and values[key] not in choices:
            raise EarthworksError(
                f"task {name} of {where} has {key} {str(values[key])[:40]!r}; it must be one of {', '.join(choices)}"
            )
    for key in NEEDS[kind]:
        if not isinstance(values.get(key), str):
            raise EarthworksError(f"task {name} of {where} lacks the field {key!r}, which kind {kind} needs")
    for key, (valid, expected) in FORMS.items():
        if key in values and not valid(values[key]):
            raise EarthworksError(f"task {name} of {where} has {key} {str(values[key])[:40]!r}; it must be {expected}")
    task = Task(**values)
    for file in task.files:
        if not shipped and (PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts):
            raise EarthworksError(
                f"task {name} of {where} names the file {file[:LONGEST_NAME]!r}; it must be in the folder given as --data"
            )
    return task


def located(file: str, data: Path) -> Path:
    """Path of a task's file: inside the data folder after following links.

    Only tasks of the package or made in Python may name a file outside it (`../text/...`): `task_from` enforces this.
    """
    pure = PurePosixPath(file)
    return data / file if pure.is_absolute() or ".." in pure.parts else inside(data, file)


def shipped_tasks() -> list[Task]:
    """The tasks of the package, by category."""
    folder = Path(__file__).parent / "definitions"
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name)
    tasks = [
        task_from(values, each.name, shipped=True)
        for each in files
        for values in parse_yaml(each.read_bytes(), each.name)
    ]
    return sorted(tasks, key=lambda task: CATEGORIES.index(task.category))


def read_tasks(path: str | Path, absent: list[dict[str, Any]] | None = None) -> list[Task]:
    """The tasks of a YAML file, which holds a mapping or a list of mappings.

    An invalid task raises, or, if `absent` is given, is added to it with the reason while the others are returned.
    """
    values = read_yaml(path, what=f"the task file {path}")
    tasks = []
    for each in values if isinstance(values, list) and values else [values]:
        try:
            tasks.append(task_from(each, str(path)))
        except EarthworksError as error:
            if absent is None:
                raise
            known = each if isinstance(each, dict) else {}
            name, category = (str(known.get(key, "?"))[:LONGEST_NAME] for key in ("name", "category"))
            absent.append({"name": name, "category": category, "shots": 0, "reason": str(error)})
    return tasks


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file, plain or .gz, .xz or .zst."""
    with open_regular(path) as raw:
        for number, line in enumerate(lines(blocks(raw, str(path))), 1):
            if line is None:
                raise EarthworksError(f"{path}, line {number}, is longer than {LONGEST_LINE >> 20} MiB")
            if not line.strip():
                continue
            try:
                row = parse_json(line.decode("utf-8"))
                if not isinstance(row, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                raise EarthworksError(f"{path}, line {number}, is not a JSON object: {error}") from None
            yield row
