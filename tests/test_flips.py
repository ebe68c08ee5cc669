"""One byte flipped in every file of a run and of a corpus, one file after another.

What reads the file then refuses it by name, or comes to the same, or says of the file that it is not used: it never
comes to another number in silence, and never to a traceback.
"""

import contextlib
import io
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from earthworks.runs import EarthworksError, RunFolder, read_json, read_metrics
from earthworks.runs.changed_settings import FREE
from tiny_runs import FLEA, TIMINGS, words

PLACES = 10  # bytes of each file that are flipped, one at a time
# Files that no command reads, or that are only shown, as they are.
UNREAD = ("report.html", "README.md", "*.png", "*.svg", "samples/*.txt")
# Numbers of no result: how fast, when, and by whom.
UNSTABLE = re.compile(
    r"[\d.,]+ tokens/s|[\d.,]+ (?:images|points)/s|[\d.,]+ (?:s|ms|min|GiB|MB)\b|20\d\d-\d\d-\d\dT?[\d:+]*|data:[^\"']*"
)


ANT: dict[str, Any] = {
    **{"network": "mlp", "width": 16, "depth": 2, "noise": 4, "batch": 16, "critic_steps": 2, "max_steps": 6},
    **{"evaluate_every": 3, "sample_every": 3, "save_every": 3, "precision": "fp32", "device": "cpu"},
}


@dataclass
class Said:
    """What a command came to: its exit code, its answer, what it said beside, and what it left to compare."""

    code: int
    out: str
    err: str
    left: Any = None


@dataclass
class Subject:
    """Files to be harmed, and the commands that read them.

    `commands` are command lines without the folder, each with what is to be compared of what it leaves."""

    whole: Path
    work: Path
    commands: dict[str, tuple[Callable[[Path], list[object]], Callable[[Path], Any]]]
    unharmed: dict[str, Said] = field(default_factory=dict)

    def fresh(self) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        return Path(shutil.copytree(self.whole, self.work, symlinks=True))

    def outcomes(self, name: str | None = None, place: int = 0, change: int = 0) -> Iterator[tuple[str, Said]]:
        """What every command comes to, each on a fresh copy with one byte of one file changed."""
        for command, (arguments, compared) in self.commands.items():
            folder = self.fresh()
            if name is not None:
                content = bytearray((folder / name).read_bytes())
                content[place] ^= change
                (folder / name).write_bytes(content)
            yield command, spoken(arguments(folder), lambda compared=compared, folder=folder: compared(folder))

    def files(self) -> list[str]:
        found = (path for path in sorted(self.whole.rglob("*")) if path.is_file() and path.stat().st_size)
        return [path.relative_to(self.whole).as_posix() for path in found if not any(path.match(p) for p in UNREAD)]


def spoken(arguments: list[object], compared: Callable[[], Any]) -> Said:
    """Run a command in this process."""
    from earthworks.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        except Exception as error:
            return Said(-1, "", f"{type(error).__name__}: {error}")
    left = None
    if code in (0, 3):
        try:
            left = compared()
        except (EarthworksError, AssertionError) as error:
            left = f"not to be read: {error}"
    return Said(code, UNSTABLE.sub("", out.getvalue()), err.getvalue(), left)


def verdict(whole: Said, harmed: Said, file: str) -> str:
    """Empty when all is well, else what is wrong."""
    name = Path(file).name
    lines = harmed.err.splitlines() or [""]
    answer = harmed.out.splitlines()
    if harmed.code == -1:
        return f"traceback: {lines[0][:150]}"
    if harmed.code in (1, 2):
        return "" if name in lines[-1] else f"refused without its name: {lines[-1][:150]}"
    if harmed.code == whole.code and harmed.out == whole.out and harmed.left == whole.left:
        return ""
    if any(name in line and line not in whole.err and line not in whole.out for line in [*lines, *answer]):
        return ""  # said
    if harmed.out != whole.out:
        return f"another answer in silence: {changed(whole.out, harmed.out)}"
    if isinstance(harmed.left, dict) and isinstance(whole.left, dict):
        return f"another result in silence: {[key for key in whole.left if whole.left[key] != harmed.left.get(key)]}"
    return f"another page in silence: {changed(str(whole.left), str(harmed.left))}"


def changed(before: str, after: str) -> str:
    """The first line that differs, as it was and as it is."""
    pairs = zip(before.splitlines(), after.splitlines())
    a, b = next(((a.strip(), b.strip()) for a, b in pairs if a != b), ("the end", "more or fewer lines"))
    same = next((k for k, (x, y) in enumerate(zip(a, b)) if x != y), 0)
    return f"{a[max(0, same - 30) : same + 30]!r} became {b[max(0, same - 30) : same + 30]!r}"


def silent(subject: Subject, places: int) -> list[str]:
    """A line for each file and command that a flipped byte got past."""
    subject.unharmed = dict(subject.outcomes())
    for command, said in subject.unharmed.items():
        assert said.code == 0, (command, said)
    for command, said in subject.outcomes():  # else every comparison would be of what changes anyway
        assert verdict(subject.unharmed[command], said, "none") == "", command
    found: dict[tuple[str, str, str], int] = {}
    for name in subject.files():
        chance = random.Random(f"{subject.whole.name}/{name}")
        size = (subject.whole / name).stat().st_size
        for place in sorted(chance.sample(range(size), min(places, size))):
            for command, said in subject.outcomes(name, place, chance.choice((1, 2, 4, 16))):
                if wrong := verdict(subject.unharmed[command], said, name):
                    key = (name, command, re.sub(r"\d+", "#", wrong) if wrong.startswith("another") else wrong)
                    found[key] = found.get(key, 0) + 1
    return [f"{name} | {command} | {wrong} ({times})" for (name, command, wrong), times in found.items()]


def results(run: Path) -> dict[str, Any]:
    """All that a run of either kind computed: its last tensors by digest, its state, its log."""
    folder = RunFolder.open(run)
    last = folder.checkpoint(folder.steps()[-1])
    files = read_json(last / "manifest.json")["files"]
    records = read_metrics(folder.metrics_file)
    timings = {*TIMINGS, "images_per_second"}
    return {
        "tensors": {name: entry["sha256"] for name, entry in files.items() if name != "state.json"},
        "state": {key: value for key, value in read_json(last / "state.json").items() if key not in timings},
        "metrics": [{key: record[key] for key in record if key not in timings} for record in records],
        "best": read_json(folder.checkpoints / "best.json"),
    }


def nothing(_: Path) -> None:
    """For a command that leaves nothing to compare beside its answer."""


def page(path: Path) -> str:
    """The words of a report, without pictures, dates and speeds."""
    text = re.sub(r"<(script|style|svg|img).*?(</\1>|>)", " ", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", " ", text)
    text = re.sub(rf"(?m)^\s*(?:{'|'.join(FREE)})\s.*$", "", text)  # settings that may be edited
    return UNSTABLE.sub("", text)


@pytest.fixture(scope="module")
def undrawn_figures() -> Iterator[None]:
    """Reports without the drawing, which takes a hundred times as long as the rest: their tables are what is compared."""
    with pytest.MonkeyPatch.context() as patch:
        drawn = "<svg></svg>"
        patch.setattr(
            Figure,
            "savefig",
            lambda self, file, **_: file.write(drawn if isinstance(file, io.TextIOBase) else drawn.encode()),
        )
        yield


@pytest.fixture(scope="module")
def gopher_run(flea, tmp_path_factory, undrawn_figures) -> Subject:
    """A language model; what is asked of it is about its last checkpoint, which is the best, too."""
    from earthworks.gopher import train

    base = tmp_path_factory.mktemp("gopher")
    (base / "text.txt").write_text(words(400))
    train(str(base / "text.txt"), run=str(base / "whole"), **{**FLEA, "max_steps": 6})
    commands = {
        "gopher evaluate": (lambda run: ["gopher", "evaluate", run, "--json"], nothing),
        "gopher generate": (
            lambda run: ["gopher", "generate", run, "--max_tokens=8", "--prompt=a", "--temperature=0"],
            nothing,
        ),
        "resume": (lambda run: ["gopher", "train", f"--resume={run}", "--max_steps=8"], results),
        "report": (lambda run: ["report", run], lambda run: page(run / "report.html")),
        "card": (lambda run: ["evaluate", "card", run], lambda run: UNSTABLE.sub("", (run / "README.md").read_text())),
    }
    return Subject(base / "whole", base / "run", commands)


def taken(file: Path) -> bytes:
    """The content of a file that a command wrote, which goes, as no command writes over it."""
    content = file.read_bytes()
    file.unlink()
    return content


@pytest.fixture(scope="module")
def gan_run(tmp_path_factory, undrawn_figures) -> Subject:
    from earthworks.cli import main
    from earthworks.wgan import training

    base = tmp_path_factory.mktemp("gan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_report", lambda runs: runs[0])
        training.train("ring", run=str(base / "whole"), **ANT)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["wgan", "diagnose", str(base / "whole")])
    samples = base / "samples.npy"
    commands = {
        "wgan sample": (
            lambda run: ["wgan", "sample", run, "--num=8", f"--output={samples}"],
            lambda _: taken(samples),
        ),
        "wgan diagnose": (lambda run: ["wgan", "diagnose", run], nothing),
        "resume": (lambda run: ["wgan", "train", f"--resume={run}", "--max_steps=8"], results),
        "report": (lambda run: ["report", run], lambda run: page(run / "report.html")),
    }
    return Subject(base / "whole", base / "run", commands)


@pytest.fixture(scope="module")
def packed(flea, gopher_run) -> Subject:
    """Packed tokens that another run is trained on."""
    base = gopher_run.whole.parent
    trained = base / "trained"

    def arguments(folder: Path) -> list[object]:
        shutil.rmtree(trained, ignore_errors=True)
        options = {**FLEA, "data": folder, "run": trained, "max_steps": 3}
        del options["tokenizer"], options["validation"]
        return ["gopher", "train", *(f"--{name}={value}" for name, value in options.items())]

    def compared(_: Path) -> Any:
        config = (trained / "config.yaml").read_text()
        return {**results(trained), "config": config}

    return Subject(gopher_run.whole / "data", base / "packed", {"train on packed tokens": (arguments, compared)})


@pytest.fixture(scope="module")
def corpus(flea, tmp_path_factory, undrawn_figures) -> Subject:
    """A corpus that was built, with documents dropped for every reason."""
    from earthworks.cli import main

    base = tmp_path_factory.mktemp("corpus")
    chance = random.Random(0)
    vocabulary = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(500)]
    words_of = [chance.choices(vocabulary, k=150) for _ in range(8)]
    texts = [
        " ".join(("the", "of", "and")[k // 9 % 3] if k % 9 == 4 else word for k, word in enumerate(each))
        for each in words_of
    ]
    texts += [texts[0], texts[1].replace(texts[1].split()[70], "changed"), "too short", "again and again " * 50]
    (base / "raw.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    build = ["corpus", "build", f"--input={base / 'raw.jsonl'}", "--workers=1"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main([*build, f"--output={base / 'whole'}"])
    trained = base / "trained"

    def train(folder: Path) -> list[object]:
        shutil.rmtree(trained, ignore_errors=True)
        options = {**FLEA, "data": folder, "run": trained, "max_steps": 3}
        return ["gopher", "train", *(f"--{name}={value}" for name, value in options.items())]

    shutil.copytree(base / "whole", base / "corpus")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main([str(each) for each in train(base / "corpus")])
    described = Path(
        shutil.move(trained, base / "described")
    )  # what the card is asked of: training on damage is refused
    commands = {
        "corpus inspect": (lambda folder: ["corpus", "inspect", folder], nothing),
        "corpus build again": (lambda folder: [*build, f"--output={folder}"], nothing),
        "train on the corpus": (train, lambda _: results(trained)),
        "card": (
            lambda folder: ["evaluate", "card", described],
            lambda _: UNSTABLE.sub("", (described / "README.md").read_text()),
        ),
    }
    return Subject(base / "whole", base / "corpus", commands)


@pytest.mark.parametrize(
    ("subject", "places"),
    [
        ("gopher_run", 1),
        *(pytest.param(name, PLACES, marks=pytest.mark.slow) for name in ("gopher_run", "gan_run", "packed", "corpus")),
    ],
)
def test_a_flipped_byte_is_refused_by_name_or_changes_nothing(request, subject, places):
    found = silent(request.getfixturevalue(subject), places)
    assert not found, "\n".join(["", *found])
