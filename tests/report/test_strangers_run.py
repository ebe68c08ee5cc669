"""Untrusted run folders cost at most a notice: nothing hangs, nothing outside is read, the rest has its page."""

import json
import os
import random
import re
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from example_run import EVALUATION, records, write_run
from measured_by_hand import BIAS, DETECTION, TASKS, TOXICITY, WGAN
from test_report_page import Reader, read

from earthworks.report import write_report
from earthworks.report.figures import draw
from earthworks.report.numbers import LONGEST
from earthworks.report.page import MOST_ROWS
from earthworks.runs import EarthworksError, new_folder

SAMPLES = [
    {"prompt": "a", "text": "b", "toxicity": 0.5, "sentiment": 0.1},
    {"prompt": "c", "text": "d", "toxicity": 0.1},
]
PASSAGE = {"title": "t", "tokens": [["a", 1.0], ["b", 2.0]]}
FILES = {
    "evaluation.json": EVALUATION,
    "passage.json": PASSAGE,
    "environment.json": {"python": "3.11", "command": ["earthworks", "x"]},
    "tasks.json": TASKS,
    "bias.json": BIAS,
    "toxicity.json": TOXICITY,
    "toxicity_detection.json": DETECTION,
}


def whole(path: Path) -> Path:
    """A run with every file that a report reads."""
    run = write_run(path, metrics=records(20), samples={1: "one", 20: "two"})
    for name, value in FILES.items():
        (run / name).write_text(json.dumps(value))
    for name in ("bias_samples.jsonl", "toxicity_samples.jsonl"):
        (run / name).write_text("".join(json.dumps(each) + "\n" for each in SAMPLES))
    return run


def points(path: Path) -> Path:
    """A run of a GAN on points, with every file that a report reads."""
    lines = [
        {"step": s, "gap": 1.0 / s, "slope": 1.0, "critic_gradient_norm": 1.0, "generator_gradient_norm": 0.1}
        | {
            "images_per_second": 100.0,
            "elapsed": 0.1 * s,
            "validation": {"sliced_2": 1 / s, "quality": 0.5, "modes": 8},
        }
        for s in range(1, 9)
    ]
    run = write_run(path, {"kind": "wgan", "data": "ring", "objective": "gp"}, lines)
    (run / "evaluation.json").write_text(json.dumps(WGAN))
    np.save(run / "samples" / "step-8.npy", np.eye(2, dtype=np.float32))
    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are painted and not rendered: a tenth of the time."""
    from matplotlib.figure import Figure

    def savefig(_figure, file, format, **_):
        file.write(b"tEXtSoftware\0Earthworks " if format == "png" else "<svg></svg>")

    monkeypatch.setattr(Figure, "savefig", savefig)


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("undrawn")
def test_a_run_with_everything_has_every_section_and_nothing_left_out(tmp_path, capsys):
    sections = headings(write_report([whole(tmp_path / "run")]))
    assert sections == [
        *("Learning", "On held-out text", "Tasks", "Bias", "Toxicity", "Toxicity detection"),
        *("A passage as the model reads it", "Samples over time", "Loss by position", "Speed and optimisation"),
        *("Configuration", "Environment"),
    ]
    assert headings(write_report([points(tmp_path / "gan")])) == [
        *("Samples", "The critic", "Distances", "Measured", "Gradients", "Configuration", "Environment")
    ]
    assert capsys.readouterr().err == ""


# Odd values in place of the expected ones


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every value in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def replaced(value: object, path: tuple, other: object) -> object:
    if not path:
        return other
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(value[key], tuple(rest), other)
    return copy


OTHERS = [
    *(None, True, 0, -1, 7, 1e308, -1e308, 1e-320, 10**400, "", "nan", "x" * 100_000, "$\\frac{", "\ud800\0\x1b[2J"),
    *([], {}, [[]], {"": None}, [None] * 3, list(range(3000)), {str(k): {"x": [k]} for k in range(300)}, [["a", "b"]]),
]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("share", range(2))
def test_any_value_may_stand_anywhere_and_there_is_a_page_all_the_same(tmp_path, share):
    """One value of one file at a time; the other sections are still there. $EARTHWORKS_FUZZ tries more of them."""
    runs = whole(tmp_path / "run"), points(tmp_path / "gan")
    mutations = [
        (run, name, value, place)
        for run, files in zip(runs, (FILES, {"evaluation.json": WGAN}))
        for name, value in files.items()
        for place in places(value)
    ]
    choose = random.Random(share)
    for _ in range(int(os.environ.get("EARTHWORKS_FUZZ", "8"))):
        run, name, value, place = choose.choice(mutations)
        (run / name).write_text(json.dumps(replaced(value, place, choose.choice(OTHERS))))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = headings(write_report([run]))
        assert len(found) >= 4, (name, place)
        assert {"Learning", "Samples over time"} <= set(found) or {"The critic", "Distances"} <= set(found)
        (run / name).write_text(json.dumps(value))


@pytest.mark.usefixtures("undrawn")
def test_any_value_may_stand_in_a_line_of_the_log(tmp_path):
    run = whole(tmp_path / "run")
    lines = list(records(20))
    lines[9]["validation"] = {"nats_per_token": 1.0, "bits_per_byte": 1.0, "subsets": {"a": {"bits_per_byte": 1.0}}}
    choose = random.Random(0)
    for _ in range(6):
        k = choose.choice((9, 19))
        changed = [
            *lines[:k],
            replaced(lines[k], choose.choice(places(lines[k])), choose.choice(OTHERS)),
            *lines[k + 1 :],
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
        assert {"On held-out text", "Configuration"} <= set(headings(write_report([run])))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "config",
    [
        {"kind": "gopher", "parameters": "many", "max_steps": [3], "data": None},
        {"kind": "gopher", "model": [[[[]]]], 7: {8: 9}, "x": {"y": {"z": "w" * 100_000}}},
        {"kind": "wgan", "objective": {}, "data": [1]},
    ],
)
def test_settings_may_be_of_any_type(tmp_path, config):
    assert "Configuration" in headings(write_report([write_run(tmp_path / "a", config, [{"step": 1}])]))
    runs = [write_run(tmp_path / name, config | {"seed": name}, [{"step": 1}]) for name in "bc"]
    assert "Differences" in headings(write_report(runs))


# Files of other types and sizes


def ends_in_a_sentence(
    *arguments: object, memory: int = 3 << 30, seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """The real command under limits of memory and time; no traceback."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    command = [sys.executable, "-m", "earthworks.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, preexec_fn=limit)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["pipe", "device", "link", "sparse", "folder", "numbers", "deep"])
def test_files_that_are_none_are_left_out_by_name(tmp_path, kind, capsys):
    run = whole(tmp_path / "run")
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({**EVALUATION, "secret": "of another folder"}))
    names = [name for name in FILES if name != "toxicity.json"]  # without it nobody asks for the texts
    names += ["metrics.jsonl", "samples/step-1.txt", "toxicity_samples.jsonl"]
    if kind == "link":  # of what RunFolder.open does not look at
        names = ["samples/step-1.txt", "samples/step-20.txt"]
    for name in names:
        path = run / name
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind in ("device", "link"):
            path.symlink_to("/dev/zero" if kind == "device" and name.startswith("samples") else secret)
        elif kind == "sparse":
            with path.open("wb") as file:
                file.truncate(10 << 30)
        elif kind == "folder":
            path.mkdir()
        elif kind == "numbers":
            path.write_text("[" + "1," * 9_000_000 + "1]")
        else:
            path.write_text("[" * 100_000)
    if kind == "device":
        with pytest.raises(EarthworksError, match="which is outside it and is not read"):
            write_report([run])
        return
    page = write_report([run]).read_text(encoding="utf-8")
    assert "of another folder" not in page
    said = capsys.readouterr().err
    for name in names:
        if name.startswith("samples/") and kind in ("numbers", "deep"):
            continue  # text like any other
        assert f"{run / name}" in said or f"the file {name!r}, which is outside" in said
    assert "Configuration" in page


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "samples", "figures", "report.html", "tasks.json"])
def test_a_part_that_is_a_link_out_of_the_run_is_refused(tmp_path, name):
    run = whole(tmp_path / "run")
    outside = tmp_path / "outside"
    if name in ("samples", "figures"):
        outside.mkdir()
        (outside / "loss.png").write_bytes(b"mine")
    else:
        outside.write_text("kind: gopher\n")
    if (run / name).is_dir():
        for file in (run / name).iterdir():
            file.unlink()
        (run / name).rmdir()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(EarthworksError, match="outside it and is not read or written"):
        write_report([run])
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("undrawn")
def test_figures_that_are_a_link_within_the_run_are_not_written_through(tmp_path):
    run = whole(tmp_path / "run")
    (run / "figures").symlink_to(run / "samples")
    with pytest.raises(EarthworksError, match="figures is a link"):
        write_report([run])
    assert sorted(file.name for file in (run / "samples").iterdir()) == ["step-1.txt", "step-20.txt"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "kind: gopher\na: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefghi", "bcdefghij"))),
        ("config.yaml", f"kind: gopher\nlong: &a {'x' * 500_000}\nmany: [{', '.join(['*a'] * 100_000)}]\n"),
        ("config.yaml", "kind: gopher\nn: 0x" + "f" * 100_000),
        ("config.yaml", "kind: gopher\nn: " + "1:1" * 100_000),
        ("config.yaml", "kind: gopher\na0: &a0 []\n" + "".join(f"a{k}: &a{k} [*a{k - 1}]\n" for k in range(1, 900))),
    ],
    ids=["values", "text", "digits", "sixties", "levels"],
)  # fmt: skip
def test_a_configuration_that_unfolds_is_refused_in_no_time(tmp_path, name, content):
    run = write_run(tmp_path / "run", metrics=records(3))
    (run / name).write_text(content)
    done = ends_in_a_sentence("report", run)
    assert done.returncode == 2
    assert done.stderr.startswith(f"earthworks: {run / name} ")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("undrawn")
def test_a_picture_or_an_array_that_promises_more_than_it_holds_is_left_out(tmp_path, capsys):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    header = str({"descr": "<f8", "fortran_order": False, "shape": (10**12, 2)}).ljust(117) + "\n"
    absurd = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([[print]], dtype=object), allow_pickle=True)
    run = points(tmp_path / "run")
    for step, (content, suffix) in enumerate(
        [(bomb, "png"), (bomb[:40], "png"), (absurd, "npy"), (objects.read_bytes(), "npy")], 1
    ):
        (run / "samples" / f"step-{step}.{suffix}").write_bytes(content)
    (run / "samples" / "step-8.npy").unlink()
    (run / "samples" / "step-².npy").write_bytes(b"")
    assert "Samples" not in headings(write_report([run]))
    said = capsys.readouterr().err
    assert all(f"step-{step}." in said for step in (1, 2, 3, 4))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_page_of_a_great_deal_stays_small(tmp_path):
    run = whole(tmp_path / "run")
    tasks = {**TASKS, "results": TASKS["results"] * 4000}
    (run / "tasks.json").write_text(json.dumps(tasks))
    (run / "bias.json").write_text(json.dumps({**BIAS, "findings": BIAS["findings"] * 300}))
    subsets = {f"subset {k}": {"bits_per_byte": 1.0} for k in range(5000)}
    (run / "evaluation.json").write_text(json.dumps({**EVALUATION, "subsets": subsets, "remark": "y" * 10_000_000}))
    (run / "passage.json").write_text(json.dumps({"title": "t" * 50_000, "tokens": [["a", 1.0]] * 100_000}))
    page = write_report([run])
    assert page.stat().st_size < 6_000_000
    text = read(page).rows()
    assert f"{len(tasks['results']) - MOST_ROWS:,} more rows are not shown." in text
    assert f"{10_000_000 - LONGEST:,} more characters" in text
    assert "t" * 50_000 not in text
    assert "more than the limit of 60" in text
    assert "more than the limit of 200" in text


# Hostile text


HOSTILE = (
    "</span></text></pre></td></title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    "\"' onmouseover=alert(1) x='<svg onload=alert(1)><a href=javascript:alert(1)>{{ 7 * 7 }}{% raw %}<!-- --><![CDATA[ ]]>"
    "&lt;b&gt;\0\x1b]0;title\x07\x9b2J\u202egnp.exe\ud800$\\frac{$^{_{"
)


def hostile(value: object) -> object:
    """The same with every text, keys that are names included, made hostile; what the report compares with stays."""
    if isinstance(value, dict):
        return {key if known_key(key) else HOSTILE + key: hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) and value not in ("bits_per_byte", "wasserstein_1") else value


def known_key(key: str) -> bool:
    return re.fullmatch(r"[a-z_0-9]+|\d+-shot", key) is not None


def elements(page: Path) -> dict[str, int]:
    """Counts of each tag with its attributes on the page, and of those in drawings."""
    found: dict[str, int] = {}
    for tag, attributes in Reader(page.read_text(encoding="utf-8")).elements:
        key = f"{tag} {sorted(attributes)}"
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize("make", [whole, points])
def test_hostile_text_in_every_string_adds_no_tag_and_no_attribute(tmp_path, make):
    kind = "gopher" if make is whole else "wgan"
    benign, evil = make(tmp_path / "benign"), make(tmp_path / "evil")
    for run, change in ((benign, lambda value: value), (evil, hostile)):
        for file in [*run.glob("*.json"), *run.glob("*.jsonl")]:
            lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
            file.write_text("".join(json.dumps(change(json.loads(line))) + "\n" for line in lines))
        config = json.dumps(change({"data": "x", "objective": "y", "model": {"Name": ["z"]}}) | {"kind": kind})
        (run / "config.yaml").write_text(config)  # JSON is YAML
        for file in run.glob("samples/*.txt"):
            file.write_bytes(change(file.read_text()).encode(errors="surrogatepass"))
    pages = [write_report([run]) for run in (benign, evil)]
    one, other = map(elements, pages)
    assert {key: count for key, count in other.items() if drawn_by_page(key)} == {
        key: count for key, count in one.items() if drawn_by_page(key)
    }
    assert not {"script", "img", "a ['href', 'onmouseover']"} & {key.split(" ")[0] for key in other}
    assert not any("'on" in key for key in other)
    source = pages[1].read_text(encoding="utf-8")
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source)
    assert "49" not in re.sub(r"\d\d\d+|\.\d+", "", Reader(source).text)  # 7 * 7: no template is run
    assert "Missing or altered" not in source
    assert "\\u202egnp.exe" in source


def drawn_by_page(key: str) -> bool:
    """Not of a drawing, whose glyphs and marks differ with the length of a label."""
    return key.split(" ")[0] not in {"path", "g", "use", "text", "tspan", "defs", "rect", "clippath"}


@pytest.mark.slow
def test_a_label_is_drawn_verbatim_and_not_longer_than_a_figure_can_show():
    def paint(axes):
        axes[0, 0].plot([1], [1], label="a\0b\x1b" + "y" * 1_000_000)
        axes[0, 0].set_title("$\\frac{" + "\u202e" + "\n" * 1000)
        axes[0, 0].set_yticks([1], ["\ud800" + "z" * 1_000_000])
        axes[0, 0].legend()

    svg = draw("x", "d\0" + "w" * 1_000_000, paint).svg
    assert len(svg) < 50_000
    for shown in ("$\\frac{\\u202e", "a␀b␛yyy", "\N{REPLACEMENT CHARACTER}zzz", "d␀www"):
        assert shown in svg


# Overwriting files


@pytest.mark.usefixtures("undrawn")
def test_a_persons_own_report_and_figures_survive(tmp_path, capsys):
    run = whole(tmp_path / "run")
    (run / "figures").mkdir()
    (run / "figures" / "loss.png").write_bytes(b"\x89PNG mine")
    write_report([run])
    assert (run / "figures" / "loss.png").read_bytes() == b"\x89PNG mine"
    assert "loss.png was not written by Earthworks and is kept" in capsys.readouterr().err
    assert b"Earthworks" in (run / "figures" / "held-out.png").read_bytes()
    for target, report in ((run / "report.html", None), (tmp_path / "mine.html", tmp_path / "mine.html")):
        target.write_text("<h1>my thesis</h1>")
        with pytest.raises(EarthworksError, match="was not written by Earthworks: choose another name"):
            write_report([run], report)
        assert target.read_text() == "<h1>my thesis</h1>"
    other = whole(tmp_path / "other")
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(EarthworksError, match="was not written by Earthworks"):
        write_report([run, other])
    assert (tmp_path / "report.html").read_text() == "mine"


def test_a_page_and_figures_of_ours_are_written_anew_also_those_of_before_they_carried_a_mark(tmp_path, capsys):
    run = whole(tmp_path / "run")
    first = write_report([run]).read_bytes()
    (run / "report.html").write_bytes(re.sub(rb"<meta name=.generator.*?>", b"", first))
    figure = run / "figures" / "loss.png"
    figure.write_bytes(figure.read_bytes().replace(b"Software\0Earthworks ", b"Software\0Matplotlib "))
    assert write_report([run]).read_bytes() == first
    assert b"Software\0Earthworks" in figure.read_bytes()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("undrawn")
def test_a_link_at_the_name_of_the_page_is_not_followed(tmp_path):
    run = whole(tmp_path / "run")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "page.html").symlink_to(tmp_path / "precious")
    with pytest.raises(EarthworksError, match="was not written by Earthworks"):
        write_report([run], tmp_path / "page.html")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_being_trained_and_pruned_has_its_page(tmp_path, monkeypatch):
    """Between listing and reading, a sample disappears and the log grows by half a line."""
    from earthworks.report.pages import language_model

    run = whole(tmp_path / "run")
    build = language_model.learning

    def meanwhile(read):
        (run / "samples" / "step-1.txt").unlink(missing_ok=True)
        with (run / "metrics.jsonl").open("a") as log:
            log.write('{"step": 21, "lo')
        return build(read)

    monkeypatch.setattr(language_model, "learning", meanwhile)
    page = write_report([run]).read_text(encoding="utf-8")
    assert "step-1.txt does not exist" in page
    assert "Step 20" in page


@pytest.mark.usefixtures("undrawn")
def test_steps_that_the_log_does_not_have_are_said_on_the_page(tmp_path, capsys):
    run = whole(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[4] = lines[4][:30] + "\0" + lines[4][30:]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert "has no readable line for step 5" in read(write_report([run])).text
    assert "has no readable line for step 5" in capsys.readouterr().err
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(20)))
    with (run / "metrics.jsonl").open("rb") as log:
        written = {"bytes": len(log.read()), "sha256": "of other bytes"}
    with new_folder(run / "checkpoints" / "step-20") as checkpoint:
        (checkpoint / "state.json").write_text(json.dumps({"step": 20, "log": written}))
    assert "is not as it was written up to step 20" in read(write_report([run])).text
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing: the measurements of 20 steps are lost" in read(write_report([run])).text


def test_two_reports_at_once_both_end_well(tmp_path):
    """Each writes under its own names; a writer that arrives while the other renames gets an error."""
    run = whole(tmp_path / "run")
    command = [sys.executable, "-m", "earthworks.cli", "report", str(run)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in both]
    assert 0 in [code for _, _, code in ends]
    for out, err, code in ends:
        assert out == f"{run / 'report.html'}\n" if code == 0 else "is being given its report.html" in err
    assert not [path.name for path in run.rglob(".*")]
    read(run / "report.html")
