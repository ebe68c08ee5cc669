"""A run's page shows every number of the measurements, and untrusted text as text."""

import json
import re
import shutil

import pytest
from measured import Reader, on_record, strangers
from PIL import Image

from earthworks.report.page import Page, render
from earthworks.report.pages import harms
from earthworks.report.pages.abilities import abilities
from earthworks.report.reading import Reading
from earthworks.runs import RunFolder, read_json, write_result

EVIL = "</span></pre><script>alert('no')</script><img src=x onerror=alert(1)>"


@pytest.fixture
def run(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "run")


def part(run, heading):
    """One section of the page that the run has, as HTML."""
    page = (run / "report.html").read_text(encoding="utf-8")
    return page.split(f"<h2>{heading}</h2>")[1].split("</section>")[0]


def anew(run, section):
    """A section rendered again by its function, as the HTML of a page."""
    return render(Page("", "", [], [section(Reading(RunFolder(run)))]))


@pytest.mark.parametrize("heading", ["Tasks", "Bias", "Toxicity", "Toxicity detection"])
def test_every_number_of_a_table_is_in_a_file_of_the_run(measured, heading):
    shown = Reader(part(measured, heading))
    assert strangers(shown.cells, on_record(measured)) == []


def test_every_task_and_every_finding_has_its_line(run):
    cells = Reader(part(run, "Tasks")).cells
    tasks = [each["name"] for each in read_json(run / "tasks.json")["results"]]
    assert [cell for cell in cells if cell in tasks][: len(tasks)] == tasks
    findings = [each["name"] for each in read_json(run / "bias.json")["findings"]]
    assert [cell for cell in Reader(part(run, "Bias")).cells if cell in findings] == findings


def test_missing_parts_are_on_the_page(run):
    tasks = read_json(run / "tasks.json")
    tasks["absent"] = [{"name": "piqa", "category": "common sense", "shots": 0, "reason": "a rainy day"}]
    tasks["results"][0]["missing"] = {"an option of zero length": 3}
    write_result(run / "tasks.json", tasks)
    bias = read_json(run / "bias.json")
    bias["missing"] = {"bbq": "240 of 240 log-likelihoods are NaN"}
    write_result(run / "bias.json", bias)
    cells = Reader(anew(run, abilities)).cells
    assert "a rainy day" in cells
    assert "3 items are missing: an option of zero length" in cells
    assert any(re.fullmatch(r"12 of 12 items lost the start of their context", cell) for cell in cells)
    assert "240 of 240 log-likelihoods are NaN" in Reader(anew(run, harms.bias)).cells


def test_no_claim_below_the_bar_and_the_scorers_tests_first(run):
    """The notice comes before the tables, and the first table is the scorer's test results."""
    shown = Reader(part(run, "Toxicity"))
    assert "No claim about toxicity follows from these numbers" in shown.text.split("The scorer:")[0]
    assert shown.cells[:2] == ["tested on", "AUC"]


def test_what_was_written_is_folded_and_blurred_and_needs_no_script(run):
    html = part(run, "Toxicity")
    written = [json.loads(line) for line in (run / "toxicity_samples.jsonl").read_text(encoding="utf-8").splitlines()]
    veils = re.findall(r'<label class="veil"><input type="checkbox"[^>]*>.*?</label>', html, re.DOTALL)
    assert len(veils) == min(10, len(written))
    assert html.index("<details><summary>Samples:") < html.index(veils[0])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert re.search(r"\.veil span \{[^}]*filter: blur", page)
    assert re.search(r"\.veil input:checked ~ span \{[^}]*filter: none", page)
    assert "script" not in Reader(page).tags
    highest = max(each["toxicity"] for each in written)
    assert f"toxicity {highest:.3f}" in veils[0]


def test_foreign_text_stays_text(run):
    for name, key in (("tasks", "results"), ("bias", "findings")):
        found = read_json(run / f"{name}.json")
        found[key][0]["name"] = EVIL
        write_result(run / f"{name}.json", found)
    record = {"prompt": EVIL, "text": EVIL, "toxicity": 1.0}
    (run / "toxicity_samples.jsonl").write_text(json.dumps(record) + "\n")
    pages = [Reader(anew(run, section)) for section in (abilities, harms.bias, harms.toxicity)]
    assert not {"script", "img"} & {tag for page in pages for tag in page.tags}
    assert [page.text.count(EVIL) > 0 for page in pages] == [True] * 3


def test_the_figures_are_drawn_and_chance_is_in_them(run):
    names = ("abilities", "few-shot", "bias", "toxicity", "detection")
    for name in names:
        assert Image.open(run / "figures" / f"{name}.png").size[0] > 900
    html = part(run, "Tasks")
    assert html.count("chance") > 2
    assert "chance</text>" in html.replace("\n", "")


def test_a_finding_is_filled_when_its_corrected_p_value_is_small(run):
    """The colour of the marker's face in the drawing: none of the blue faces where nothing remains."""
    counts = {}
    for p in (0.05, 0.051):
        found = read_json(run / "bias.json")
        for each in found["findings"]:
            each["p_holm"] = p
        write_result(run / "bias.json", found)
        svg = re.search(r"<svg.*?</svg>", anew(run, harms.bias), re.DOTALL)[0]
        counts[p] = len(re.findall(r'<use [^>]*style="fill: var\(--series-1\)', svg))
    assert counts == {0.05: len(found["findings"]), 0.051: 0}


def test_a_run_without_measurements_has_none_of_these_sections(tiny_run):
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    for heading in ("Tasks", "Bias", "Toxicity"):
        assert f"<h2>{heading}</h2>" not in page
