import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from example_run import CONFIG, EVALUATION, records
from PIL import Image

from earthworks.report import write_report
from earthworks.runs import EarthworksError

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """The page as parsed by a browser: text without styles and drawings, elements, and whether every tag is closed."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.text, self.elements, self.open = "", [], []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.text += data

    def rows(self):
        return re.sub(r"[ \n]+", " ", self.text)


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


def without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}


def test_the_headline_says_the_measured_numbers(full_run):
    text = read(full_run / "report.html").text
    assert (
        "A model of 3.41 M parameters needs 1.83 [1.79, 1.85] bits per byte of text it was not trained on, "
        "after 400 steps in 4 min 00 s." in text  # 0.6 s a step in all, 0.5 s of it training
    )
    assert "400 training steps in 3 min 20 s" in text
    assert "1.64 M" in text  # 400 x 4096 tokens
    assert "2.50 passes through the training text" in text
    assert "8,192" in text
    assert "62% of the matrix-product ceiling" in text


def test_every_number_of_the_evaluation_is_on_the_page(full_run):
    text = read(full_run / "report.html").rows()
    for shown in (
        "1.826 [1.791, 1.854]",
        "prose1.931 [1.890, 1.970]2.4411.473",
        "code1.422––",
        "bits per byte1.826 [1.791, 1.854]",
        "nats per byte1.27",
        "nats per token4.12",
        "perplexity per token61.8",
        "perplexity per word812",
        "tokens61,234",
        "bytes223,411",
        "documents94",
        "windowsdisjoint",  # a key that the page does not know
    ):
        assert shown in text
    assert "bootstrap interval over documents" in text


def test_the_interval_says_what_was_drawn(make_run):
    run = make_run(evaluation=EVALUATION | {"interval_unit": "window"})
    assert "bootstrap interval over windows" in read(write_report([run])).rows()


def test_one_document_gives_a_number_without_an_interval(make_run):
    run = make_run(metrics=records(4), evaluation=EVALUATION | {"interval": [math.nan, math.nan]})
    text = read(write_report([run])).text
    assert "needs 1.83 bits per byte" in text
    assert "nan" not in text.lower()


def test_the_page_needs_nothing_but_itself(full_run, make_run):
    other = make_run("b", metrics=records())
    for page in (full_run / "report.html", write_report([full_run, other], other / "both.html")):
        source = page.read_text(encoding="utf-8")
        reader = Reader(source)
        tags = {tag for tag, _ in reader.elements}
        assert not tags & {"script", "link", "iframe", "object", "embed", "base"}
        for _, attributes in reader.elements:
            for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert attributes.get(name, "#").startswith(("#", "data:"))
            assert not any(name.startswith("on") for name in attributes)
        assert "@import" not in source
        assert re.findall(r"url\((?!#)", source) == []


def test_every_link_and_clip_within_the_page_has_its_target_and_no_name_is_given_twice(full_run):
    source = (full_run / "report.html").read_text(encoding="utf-8")
    elements = Reader(source).elements
    names = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(names) == len(set(names))
    links = {value[1:] for _, a in elements for key, value in a.items() if key in ("href", "xlink:href")}
    clips = set(re.findall(r"url\(#([^)]*)\)", source))
    assert links
    assert clips
    assert links | clips <= set(names)


@pytest.mark.parametrize("place", ["sample", "passage", "config", "name", "subset", "title", "environment"])
def test_markup_in_the_data_stays_text(make_run, place):
    evil = "<script>alert(1)</script>\"'><img src=http://x>$\\frac$"
    name = "a<b>\"'$x$" if place == "name" else "a"
    config = CONFIG | ({"<script>": evil} if place == "config" else {})
    title = evil if place == "title" else "title"
    passage = {"title": title, "tokens": [[evil if place == "passage" else "x", 2.0]]}
    samples = {1: evil if place == "sample" else "x"}
    subsets = {key: {"bits_per_byte": 1.5} for key in ("x", evil if place == "subset" else "y")}  # in a drawing too
    evaluation = {"subsets": subsets}
    environment = {"command": [evil]} if place == "environment" else {}
    run = make_run(name, config, (), evaluation, passage, samples, environment)
    reader = read(write_report([run]))
    assert {tag for tag, _ in reader.elements} & {"script", "img", "b"} == set()
    assert (name if place == "name" else "alert(1)</script>" if place != "environment" else "alert") in reader.text


def test_sample_text_comes_out_as_it_was_written(make_run):
    text = "\n\n  two  spaces,\ttab &amp; <b>\n    indented\n"
    run = make_run(samples={7: text})
    assert text in read(write_report([run])).text


def test_control_characters_are_shown_and_not_obeyed(make_run):
    run = make_run(samples={7: "a\0b\x1b[31mc\rd\x7f"})
    assert "a␀b␛[31mc␍d␡" in read(write_report([run])).text


def test_samples_are_the_first_the_last_and_some_between(full_run):
    text = read(full_run / "report.html").text
    shown = [int(step) for step in re.findall(r"Sample of step (\d+)", text)]
    assert shown == [0, 100, 200, 300, 400]
    assert "5 of 9; the others are in samples/." in text


def test_a_long_sample_is_cut_and_says_so(make_run):
    run = make_run(samples={1: "x" * 4000 + "y" * 1234})
    text = read(write_report([run])).text
    assert "x\n… 1,234 more characters in samples/step-1.txt" in text
    assert "yy" not in text


def test_a_passage_shows_each_token_with_its_probability_and_bits(full_run):
    reader = read(full_run / "report.html")
    tokens = [(a["class"], a["title"]) for tag, a in reader.elements if tag == "span" and "title" in a]
    assert tokens == [
        ("c0", "p = 0.607, 0.72 bits"),
        ("c2", "p = 0.125, 3.00 bits"),
        ("c6", "p = 1.23e-04, 12.98 bits"),
    ]
    assert "It was the\nwhale" in reader.text
    assert "Held out: chapter 1. 3 tokens, 5.57 bits a token on average." in reader.text
    assert "whaleIt was the↵13.0" in reader.rows()  # the most surprising token, after what came before it


@pytest.mark.parametrize(
    ("bits", "colour"), [(0.5, 0), (1, 1), (1.99, 1), (2, 2), (4, 3), (8.9, 4), (9.1, 5), (12.1, 6), (60, 6)]
)
def test_colours_change_where_the_legend_says(make_run, bits, colour):
    run = make_run(passage={"title": "t", "tokens": [["x", bits * math.log(2)]]})
    elements = read(write_report([run])).elements
    assert [a["class"] for tag, a in elements if tag == "span" and "title" in a] == [f"c{colour}"]


def test_every_setting_is_listed_also_those_the_page_does_not_know(make_run):
    run = make_run(config=CONFIG | {"brand_new": [1, 2.5], "rate": 1e-7}, environment={"cores": 2})
    text = read(write_report([run])).rows()
    for row in ("model.max_distancenull", "brand_new[1, 2.5]", "rate1e-07", "datamy text.txt", "cores2"):
        assert row in text


def test_each_drawing_is_also_a_picture(full_run):
    pictures = {file.stem: Image.open(file) for file in (full_run / "figures").iterdir()}
    assert set(pictures) == {"loss", "held-out", "by-position", "throughput", "optimisation"}
    for picture in pictures.values():
        assert picture.format == "PNG"
        assert picture.width > 1200
        assert len(picture.convert("L").getcolors()) > 20  # not blank


def test_drawings_are_described_and_take_their_colours_from_the_page(full_run):
    source = (full_run / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", source, re.DOTALL)
    assert len(drawings) == 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert len(root.get("aria-label")) > 30
        assert "var(--series-1)" in drawing
        assert set(re.findall(r"#[0-9a-f]{6}", drawing)) <= {"#000000", "#ffffff"}
    for name in re.findall(r"var\((--[a-z0-9-]+)\)", source):
        assert f"{name}:" in source


def test_the_same_run_gives_the_same_page(full_run, tmp_path):
    assert write_report([full_run], tmp_path / "again.html").read_bytes() == (full_run / "report.html").read_bytes()


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"metrics": list(records(1))},
        {"metrics": [{"step": 1}]},
        {"metrics": [{"step": 1, "loss": math.nan, "skipped": True}, {"step": 2, "loss": None}]},
        {"metrics": [without(record, "loss", "tokens_seen", "seconds", "elapsed") for record in records(100)]},
        {"metrics": [{"step": 5, "validation": {"bits_per_byte": 1.5}}]},
        {"metrics": [{"step": 5, "loss": 2.0, "validation": {"nats_per_token": 1.5}}]},
        {"metrics": [{"step": s, "loss": 0.0, "gradient_norm": 0.0, "tokens_per_second": 0.0} for s in range(1, 9)]},
        {"evaluation": {"bits_per_byte": 1.5}},
        {"evaluation": {"compressors": {"prose": {"xz -9": 2.44}}}},
        {"evaluation": {"by_position": [[0, 5.0]]}},
        {"evaluation": {"by_position": []}},
        {"passage": {"tokens": []}},
        {"config": {"kind": "gopher"}, "samples": {0: ""}},
    ],
)
def test_a_run_gives_a_page_of_what_is_there(make_run, parts):
    reader = read(write_report([make_run(**parts)]))
    assert "Configuration" in reader.text
    assert not re.search(r"\b(nan|None|inf)\b", reader.text)


def test_a_run_killed_at_its_first_step_says_so(make_run):
    run = make_run()
    (run / "metrics.jsonl").unlink()
    (run / "samples").rmdir()
    text = read(write_report([run])).text
    assert "A model of 3.41 M parameters, before its first training step." in text


def test_a_run_in_progress_says_how_far_it_is_and_what_was_last_measured(make_run):
    text = read(write_report([make_run(metrics=records(210))])).text
    bits = (4 + 4 * math.exp(-200 / 40)) / 2.3
    assert f"needs {bits:.2f} bits per byte" in text
    assert "190 of 400 steps remain: the run is in progress or was stopped." in text
    assert "at the last validation" in text


def test_a_skipped_update_is_counted_and_does_not_move_the_training_loss(make_run):
    metrics = [{"step": s, "loss": 3.0, "gradient_norm": 1.0} for s in range(1, 201)]
    metrics[198] = {"step": 199, "loss": 1e6, "gradient_norm": 1e9, "skipped": True}
    text = read(write_report([make_run(metrics=metrics)])).rows()
    assert "Red ticks: skipped updates, 1 in total" in text
    assert "Training loss3.00nats per token, mean of the last 3% of updates" in text


def test_a_half_written_last_line_is_left_out(make_run):
    run = make_run(metrics=records(50))
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 51, "lo')
    assert "after 50 steps" in read(write_report([run])).text


def test_a_comparison_lists_only_what_differs(make_run):
    a = make_run("a", CONFIG, records(), EVALUATION, environment={"cores": 2, "python": "3.11.2"})
    changed = CONFIG | {"learning_rate": 0.002, "model": CONFIG["model"] | {"d_model": 96}, "extra": True}
    b = make_run(
        "b", changed, records(300), EVALUATION | {"bits_per_byte": 1.9}, environment={"cores": 8, "python": "3.11.2"}
    )
    page = write_report([a, b])
    assert page == a.parent / "report.html"
    text = read(page).rows()
    differing = text[text.rindex("Differences") :]
    for row in ("learning_rate0.0010.002", "model.d_model12896", "extra–true", "cores28"):
        assert row in differing
    for key in ("optimizer", "num_layers", "parameters", "python", "kind"):
        assert key not in differing
    assert "bits per byte, held out1.83 [1.79, 1.85]1.90 [1.79, 1.85]" in text
    assert "steps400300" in text
    assert "tokens seen1.64 M1.23 M" in text
    assert "time of training steps3 min 20 s2 min 30 s" in text
    assert (
        "a needs the fewest bits per byte of held-out text: 1.83 [1.79, 1.85]. Its interval overlaps that of b" in text
    )


def test_intervals_apart_are_not_called_undecided(make_run):
    low, high = ({"bits_per_byte": bits, "interval": [bits - 0.1, bits + 0.1]} for bits in (1.5, 1.9))
    text = read(write_report([make_run("a", evaluation=high), make_run("b", evaluation=low)])).text
    assert "b needs the fewest bits per byte of held-out text: 1.50 [1.40, 1.60]." in text
    assert "overlaps" not in text


def test_runs_that_do_not_differ_say_so(make_run):
    text = read(write_report([make_run("a", metrics=records(5)), make_run("b", metrics=records(5))])).text
    assert "Every setting is the same." in text
    assert "None of the runs has been measured on held-out text yet." in text


def test_runs_of_the_same_name_are_told_apart_by_their_folders(make_run):
    runs = [make_run(f"{owner}/run", metrics=records(5)) for owner in ("x", "y")]
    page = write_report(runs)
    assert page == runs[0].parent.parent / "report.html"
    assert "x/runy/run" in read(page).rows()


def test_a_comparison_with_a_run_that_has_not_started_is_a_page(make_run):
    text = read(write_report([make_run("_a", metrics=records(120)), make_run("b")])).rows()
    assert "steps1200" in text


def test_the_page_goes_where_it_is_told(make_run, tmp_path):
    run, target = make_run(), tmp_path / "new folder" / "page.html"
    assert write_report([run], target) == target
    assert "Configuration" in read(target).text
    assert not (run / "report.html").exists()


def test_what_is_no_run_is_one_sentence(make_run, tmp_path):
    run = make_run()
    with pytest.raises(EarthworksError, match="a run is named twice"):
        write_report([run, f"{run}/../a"])
    with pytest.raises(EarthworksError, match="there is no run folder at"):
        write_report([tmp_path / "missing"])
    with pytest.raises(EarthworksError, match="no run was named"):
        write_report([])
    with pytest.raises(EarthworksError, match=r"gives the kind 'sandwich'; a report can be made for gopher"):
        write_report([make_run("c", {"kind": "sandwich"})])
    with pytest.raises(EarthworksError, match="gives the kind 'nothing'"):
        write_report([make_run("d", {"seed": 0})])
    with pytest.raises(EarthworksError, match="runs of different kinds cannot be compared"):
        write_report([make_run("e"), make_run("f", {"kind": "sandwich"})])


def test_a_damaged_evaluation_is_left_out_with_one_sentence_on_the_page_and_beside(make_run, capsys):
    run = make_run(metrics=records(20), evaluation=EVALUATION)
    (run / "evaluation.json").write_text(json.dumps(EVALUATION)[:50])
    text = read(write_report([run])).rows()
    sentence = f"{run / 'evaluation.json'} is not readable JSON"
    assert f"Missing or altered: {sentence}" in text
    assert "Loss, nats" not in text
    assert "Learning" in text
    assert capsys.readouterr().err.count(sentence) == 1
