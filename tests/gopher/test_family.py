"""A family reads the same tokens in the same order, whatever interrupts it."""

import os
import shlex
import shutil
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from earthworks.corpus import PackedTokens
from earthworks.gopher import GopherConfig, train
from earthworks.gopher.config import FAMILY, SIZES, SMALL_FAMILY
from earthworks.gopher.pretraining import run as pretraining
from earthworks.gopher.pretraining.family import PAPER_RATES, members, paper_rate
from earthworks.gopher.pretraining.task import Pretraining
from earthworks.runs import EarthworksError, RunFolder, lock, read_json, read_metrics
from tiny_runs import FLEA, results

pytestmark = pytest.mark.usefixtures("sizes")

SHARED = {name: value for name, value in FLEA.items() if name != "size"}


@pytest.fixture(scope="module")
def sizes(flea):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "mite", (1, 1, 4, 8))
        yield


def make(text: Path, run: Path, **changes) -> Path:
    return train(str(text), run=str(run), family="mite,flea", **{**SHARED, **changes})


@pytest.fixture(scope="module")
def family(sizes, tmp_path_factory, tiny_text) -> Path:
    return make(tiny_text, tmp_path_factory.mktemp("family") / "run")


def test_the_sizes_are_trained_on_one_packed_corpus_for_equal_tokens(family):
    mite, flea = (RunFolder(path) for path in members(family))
    assert (mite.path.name, flea.path.name) == ("mite", "flea")
    assert not (mite.path / "data").exists()
    assert {config["data"] for config in (mite.read_config(), flea.read_config())} == {str(family / "data")}
    for column in ("tokens", "tokens_seen", "epoch"):
        one, other = ([record[column] for record in read_metrics(run.metrics_file)] for run in (mite, flea))
        assert one == other
    assert read_json(mite.path / "evaluation.json")["bytes"] == read_json(flea.path / "evaluation.json")["bytes"]
    assert [run.read_config()["parameters"] for run in (mite, flea)] == [
        GopherConfig.preset(size, vocabulary=257, context=16).num_parameters() for size in ("mite", "flea")
    ]


def test_a_member_is_the_run_that_its_size_alone_would_be(family, tiny_text, tmp_path):
    alone = train(str(tiny_text), run=str(tmp_path / "run"), **FLEA)
    assert results(alone) == results(family / "flea")


def test_all_sizes_read_the_same_windows(monkeypatch, tiny_text, tmp_path):
    read: dict[str, list] = {}
    update, windows = Pretraining.update, PackedTokens.windows
    current = []

    def updated(task, step):
        current[:] = [str(task.run.path)]
        return update(task, step)

    def noted(self, *given):
        rows = windows(self, *given)
        read.setdefault(current[0], []).append(rows.tobytes())
        return rows

    monkeypatch.setattr(Pretraining, "update", updated)
    monkeypatch.setattr(PackedTokens, "windows", noted)
    run = make(tiny_text, tmp_path / "run")
    assert read[str(run / "mite")] == read[str(run / "flea")]
    assert len(read[str(run / "flea")]) == SHARED["max_steps"]


@pytest.mark.parametrize("stopped", ["mite", "flea"])
def test_a_family_that_was_interrupted_resumes_as_if_it_had_not_been(
    command, monkeypatch, tiny_text, tmp_path, family, stopped
):
    update = Pretraining.update

    def interrupted(task, step):
        if step == 3 and task.run.path.name == stopped and task.run.config_file.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return update(task, step)

    monkeypatch.setattr(Pretraining, "update", interrupted)
    run = tmp_path / "my run"
    outcome = command("gopher train", data=tiny_text, run=run, family="mite,flea", **SHARED)
    assert outcome.refuses("stopped by SIGTERM after step 4 of 10", code=75)
    line = outcome.err.strip().split("continue with: ")[1]
    assert line == f"earthworks gopher train --resume '{run}'"
    monkeypatch.undo()
    _, *arguments = shlex.split(line)
    assert command(" ".join(arguments[:2]), *arguments[2:]).code == 0
    for size in ("mite", "flea"):
        assert results(run / size) == results(family / size)


def test_the_same_command_again_passes_over_what_is_finished_and_makes_what_is_missing(tiny_text, tmp_path, family):
    run = make(tiny_text, tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in (run / "mite").rglob("*")}
    packed = {file: file.stat().st_mtime_ns for file in (run / "data").rglob("*")}
    shutil.rmtree(run / "flea")
    make(tiny_text, run)
    assert {file: file.stat().st_mtime_ns for file in (run / "mite").rglob("*")} == before
    assert {file: file.stat().st_mtime_ns for file in (run / "data").rglob("*")} == packed
    assert results(run / "flea") == results(family / "flea")


def test_a_reader_who_holds_locks_stops_no_size_and_what_it_kept_out_is_made_up(
    command, monkeypatch, tiny_text, tmp_path, family
):
    run = tmp_path / "run"
    (run / "mite").mkdir(parents=True)
    given = {"data": tiny_text, "run": run, "family": "mite,flea", **SHARED}
    undrawn = pretraining.write_report

    def drawn(runs):
        with lock(runs[0], "report.html"):
            return undrawn(runs)

    monkeypatch.setattr(pretraining, "PATIENCE", 0)
    monkeypatch.setattr(pretraining, "write_report", drawn)
    with lock(run / "mite", "evaluation.json"), lock(run / "mite", "report.html"):
        outcome = command("gopher train", **given)
    assert outcome.code == 0
    assert f"then run earthworks report {run / 'mite'}" in outcome.err
    assert not (run / "mite" / "report.html").exists()
    undrawn([run / "mite"])  # as a person does, by earthworks report
    assert command("gopher train", **given).code == 0
    for size in ("mite", "flea"):
        assert results(run / size) == results(family / size)


@pytest.mark.parametrize("named", ["[mite]", "../../mite", "mite,/tmp", "3", "mite,cow"])
def test_a_family_of_a_stranger_stays_in_its_folder(command, family, tmp_path, named):
    run = shutil.copytree(family, tmp_path / "run")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("family: mite,flea", f"family: {named}"))
    assert command(f"evaluate scaling {run}").refuses("config.yaml", "put the file back")


def test_a_member_that_leads_out_of_its_family_is_not_read(family, tmp_path):
    run = shutil.copytree(family, tmp_path / "run")
    shutil.move(run / "mite", tmp_path / "elsewhere")
    (run / "mite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EarthworksError, match="is outside it"):
        members(run)


def test_another_command_for_the_same_folder_is_refused(command, tiny_text, family):
    for changes in ({"batch": 8}, {"seed": 1}, {"max_steps": 12}, {"optimizer": "adam"}):
        outcome = command("gopher train", data=tiny_text, run=family, family="mite,flea", **{**SHARED, **changes})
        (name,) = changes
        assert outcome.refuses(f"was started with --{name} ", f"--resume {family}")
    outcome = command("gopher train", data=tiny_text, run=family, family="flea,mite", **SHARED)
    assert outcome.refuses("was started with --family mite,flea")


def test_more_steps_are_made_by_all(command, tiny_text, tmp_path):
    run = make(tiny_text, tmp_path / "run")
    assert command("gopher train", resume=run, max_steps=12).code == 0
    assert [RunFolder(path).steps()[-1] for path in members(run)] == [12, 12]


def test_minutes_are_shared_out_so_that_all_make_the_same_steps(tiny_text, tmp_path):
    given = {name: value for name, value in SHARED.items() if name not in ("max_steps", "batch", "context")}
    run = train(str(tiny_text), run=str(tmp_path / "run"), family="mite,flea", minutes=0.02, **given)
    steps = {RunFolder(path).steps()[-1] for path in members(run)}
    assert steps == {RunFolder(run).read_config()["max_steps"]}
    assert steps.pop() >= 20


def test_the_papers_sizes_have_the_papers_rates_and_those_between_are_between():
    assert [paper_rate(size) for size in FAMILY] == pytest.approx(PAPER_RATES)
    for size in SMALL_FAMILY:
        assert paper_rate(size) == pytest.approx(6e-4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "between", (12, 16, 64, 1024))  # 196M: between 117M and 417M
        assert 2e-4 < paper_rate("between") < 6e-4


def test_the_paper_s_recipe_takes_the_papers_rate_and_others_their_own(tiny_text, tmp_path):
    changes = {"optimizer": "adam", "schedule": "gopher", "learning_rate": None, "embedding_rate": None, "max_steps": 1}
    run = make(tiny_text, tmp_path / "paper", **changes)
    assert [RunFolder(path).read_config()["learning_rate"] for path in members(run)] == pytest.approx([6e-4, 6e-4])
    run = make(tiny_text, tmp_path / "linear", **{**changes, "schedule": "linear"})
    assert RunFolder(run / "mite").read_config()["learning_rate"] == 3e-3
    run = make(tiny_text, tmp_path / "given", **{**changes, "learning_rate": 1e-2})
    assert RunFolder(run / "mite").read_config()["learning_rate"] == 1e-2


def test_the_small_family_is_six_sizes_about_twice_each():
    counts = [GopherConfig.preset(size).num_body_parameters() for size in SMALL_FAMILY]
    ratios = [larger / smaller for smaller, larger in pairwise(counts)]
    assert 0.2e6 < counts[0] < 0.3e6
    assert 6e6 < counts[-1] < 7e6
    assert all(1.5 < ratio < 2.3 for ratio in ratios)


def test_the_body_is_all_but_embedding_logits_and_learned_positions():
    given = {"num_layers": 2, "num_heads": 2, "d_head": 4, "d_model": 8, "context": 16}
    bodies = {
        GopherConfig(**given, vocabulary=vocabulary, tied=tied).num_body_parameters()
        for vocabulary in (11, 500)
        for tied in (True, False)
    }
    assert len(bodies) == 1
    absolute = [GopherConfig(**{**given, "context": c}, positions="absolute").num_body_parameters() for c in (16, 64)]
    assert absolute[0] == absolute[1]


@pytest.mark.parametrize(
    ("family", "options", "complaint"),
    [
        ("flea", {}, "expected two or more different sizes"),
        ("flea,flea", {}, "expected two or more different sizes"),
        ("flea,cow", {}, "there is no size 'cow'"),
        (",", {}, "expected two or more different sizes"),
        ("", {}, "--family is empty"),
        ("mite,flea", {"size": "flea"}, "leave out --size"),
        ("mite,flea", {"init": "x"}, "leave out --init"),
    ],
)
def test_what_is_no_family_is_one_sentence_and_leaves_nothing(command, tiny_text, tmp_path, family, options, complaint):
    outcome = command("gopher train", data=tiny_text, run=tmp_path / "run", family=family, **{**SHARED, **options})
    assert outcome.refuses(complaint)
    assert not (tmp_path / "run").exists()


def test_members_of_a_single_run_are_itself(tiny_run, tmp_path):
    assert members(tiny_run) == [tiny_run]
    with pytest.raises(EarthworksError, match="there is no run folder"):
        members(tmp_path / "none")
