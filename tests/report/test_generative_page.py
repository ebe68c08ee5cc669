"""The page of a GAN: samples, critic and distances; before the first step, and compared with another run."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_report_page import Reader, read

from earthworks.report import write_report
from earthworks.runs import read_metrics, write_result
from earthworks.wgan import train

ANT = {
    **{"network": "mlp", "width": 16, "depth": 2, "noise": 4, "batch": 16, "critic_steps": 2, "max_steps": 12},
    **{"evaluate_every": 3, "sample_every": 3, "save_every": 6, "device": "cpu"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Finished runs with the pages they wrote themselves; `lines` are points of one dimension."""
    folder = tmp_path_factory.mktemp("gans")
    random = np.random.default_rng(0)
    np.save(folder / "line.npy", random.normal(size=(60, 1)))
    np.save(folder / "space.npy", random.normal(size=(60, 5)))
    return {
        "ring": train("ring", run=str(folder / "ring"), **ANT),
        "digits": train("digits", run=str(folder / "digits"), objective="clip", **ANT),
        "line": train(str(folder / "line.npy"), run=str(folder / "line"), **ANT),
        "space": train(str(folder / "space.npy"), run=str(folder / "space"), **ANT),
    }


def figures(page: Reader) -> set[str]:
    return {a["aria-label"] for tag, a in page.elements if tag == "svg" and "aria-label" in a}


@pytest.mark.parametrize("name", ["ring", "digits", "line", "space"])
def test_a_finished_run_has_its_page_and_a_file_of_every_figure(runs, name):
    page = read(runs[name] / "report.html")
    text = page.rows()
    objective = "clip" if name == "digits" else "gp"
    assert f"A generator trained by the objective {objective} on" in text
    assert "after 12 steps in" in text
    for title in ("Samples", "The critic", "Distances", "Gradients"):
        assert title in text
    assert {file.stem for file in (runs[name] / "figures").glob("*.png")} >= {
        "samples",
        "critic",
        "quality",
        "gradients",
    }
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object"}


def test_the_numbers_of_the_last_validation_are_shown(runs):
    last = read_metrics(runs["ring"] / "metrics.jsonl")[-1]["validation"]
    text = read(runs["ring"] / "report.html").rows()
    assert f"{last['quality']:.1%} of its samples are within 3 standard deviations of a centre" in text
    assert f"on {last['modes']} modes" in text
    assert f"{last['gap_held_out']:.3g}"[:4] in text
    assert "not a distance" in text


def test_the_measures_of_an_evaluation_stand_with_their_null_interval_and_n(runs, tmp_path):
    shutil.copytree(runs["digits"], tmp_path / "run")
    measures = [
        {"name": "wasserstein_1", "value": 3.4567, "interval": [3.4, 3.5], "null": 2.789, "kind": "distance", "n": 180},
        {"name": "coverage", "value": 0.5, "interval": [float("nan"), float("nan")], "null": None, "n": None},
    ]
    write_result(tmp_path / "run" / "evaluation.json", {"measures": measures})
    text = read(write_report([tmp_path / "run"])).rows()
    assert "Exact W1 to held-out" in text
    assert "3.457" in text or "3.46" in text
    assert "real against real 2.79" in text
    assert "[3.40, 3.50]" in text or "[3.400, 3.500]" in text
    assert "nan" not in text.lower()


def test_a_run_before_its_first_step_has_a_page(runs, tmp_path):
    shutil.copy(runs["ring"] / "config.yaml", tmp_path)
    text = read(write_report([tmp_path])).rows()
    assert "A generator trained by the objective gp on ring, before its first step." in text
    assert "Samples" not in re.sub("Settings.*", "", text)


def test_a_run_killed_after_its_first_step_and_one_with_a_skipped_step_have_pages(runs, tmp_path):
    records = read_metrics(runs["ring"] / "metrics.jsonl")
    shutil.copy(runs["ring"] / "config.yaml", tmp_path)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(records[0]) + "\n")
    assert "after 1 steps" in read(write_report([tmp_path])).text
    records[4] |= {"loss": None, "gap": None, "slope": None, "critic_gradient_norm": None, "skipped": 2}
    records[5]["validation"]["reverse_kl"] = None
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = read(write_report([tmp_path])).text
    assert "after 12 steps" in text
    assert "nan" not in text.lower()


def test_two_runs_stand_side_by_side_with_what_differs(runs, tmp_path):
    text = read(write_report([runs["ring"], runs["digits"]], tmp_path / "both.html")).rows()
    assert "2 runs compared" in text
    assert "compare distances" in text
    assert re.search(r"objective ?gp ?clip", text)
    assert re.search(r"steps ?12 ?12", text)
    last = [read_metrics(runs[name] / "metrics.jsonl")[-1]["validation"]["sliced_2"] for name in ("ring", "digits")]
    assert all(f"{value:.2f}"[:3] in text for value in last)


def test_a_run_is_compared_with_one_before_its_first_step(runs, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(runs["ring"] / "config.yaml", tmp_path / "new")
    text = read(write_report([runs["ring"], tmp_path / "new"], tmp_path / "both.html")).rows()
    assert re.search(r"steps ?12 ?0", text)
    assert read(write_report([tmp_path / "new", Path(shutil.copytree(tmp_path / "new", tmp_path / "newer"))])).rows()
