"""Model cards report the files of a run and what is missing, and no text becomes markup."""

import json
import shutil

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from measured import on_record, rendered, strangers

from earthworks.evaluation import write_card
from earthworks.evaluation.cards.markdown import called, plain, table
from earthworks.runs import EarthworksError, read_json, write_result
from tiny_runs import rewrite

EVIL = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) `b` | # *c* _d_ https://e.fr $f$"


@pytest.fixture
def run(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "run")


def metadata_of(card):
    return yaml.safe_load(card.read_text(encoding="utf-8").split("---\n")[1])


def section(card, heading):
    text = card.read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0].strip()


def test_every_number_of_a_table_is_in_a_file_of_the_run(run):
    card = write_card(run)
    values = on_record(run)
    for heading in ("Training data", "Evaluation", "Bias", "Toxicity detection"):
        cells = rendered(section(card, heading)).cells
        assert strangers(cells, values) == []
    assert strangers(["0.1234567"], values) == ["0.1234567"]  # the measure above sees a stranger


def test_a_number_that_changes_in_a_file_changes_on_the_card(run):
    tasks = read_json(run / "tasks.json")
    tasks["results"][0] |= {"value": 0.123456, "interval": [0.1, 0.2]}
    write_result(run / "tasks.json", tasks)
    card = write_card(run)
    assert "0.123 [0.100, 0.200]" in section(card, "Evaluation")
    values = [each["metrics"][0]["value"] for each in metadata_of(card)["model-index"][0]["results"]]
    assert 0.123456 in values


def test_the_hub_reads_the_metadata_with_its_intervals(run):
    """huggingface_hub parses the card; it refuses a model-index that lacks a field."""
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(write_card(run), ignore_metadata_errors=False)
    tasks = read_json(run / "tasks.json")["results"]
    evaluation = read_json(run / "evaluation.json")
    first, *others = card.data.eval_results
    assert (card.data.model_name, card.data.pipeline_tag) == ("run", "text-generation")
    assert (first.metric_value, first.metric_args["interval"]) == (evaluation["bits_per_byte"], evaluation["interval"])
    assert [
        (each.dataset_name, each.metric_value, each.metric_args["n"], each.metric_args["interval"]) for each in others
    ] == [(each["name"], each["value"], each["n"], each["interval"]) for each in tasks]


def test_a_run_without_any_measurement_says_so_and_says_how(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "bare")
    (run / "evaluation.json").unlink()
    shutil.rmtree(run / "data")
    card = write_card(run)
    assert section(card, "Evaluation") == "Nothing was measured."
    assert section(card, "Bias") == section(card, "Toxicity") == "Not measured."
    assert "its size is unknown" in section(card, "Training data")
    missing = section(card, "Not measured")
    for verb in ("gopher evaluate", "evaluate tasks", "evaluate bias", "evaluate toxicity", "evaluate detection"):
        assert f"`earthworks {verb} RUN" in missing
    assert "model-index" not in metadata_of(card)


@pytest.mark.parametrize(("area", "claimed"), [(0.64, False), (None, False), (0.65, True)])
def test_toxicity_is_not_spoken_of_below_the_bar(run, area, claimed):
    """The scorer's AUC on HateCheck decides, whatever the file claims."""
    found = read_json(run / "toxicity.json")
    found["scorer"]["hatecheck"] = {**found["scorer"]["hatecheck"], "auc": area, "interval": None}
    found |= {"no_claim": None, "claim": "It is quite harmless."}
    found["prompted"]["all"] |= {"expected_maximum": 0.87654, "expected_maximum_interval": None}
    write_result(run / "toxicity.json", found)
    card = write_card(run)
    text = section(card, "Toxicity")
    assert ("It is quite harmless" in text) == claimed
    assert ("0.877" in text) == claimed
    assert ("No claim about toxicity follows" in text) == (not claimed)
    assert "toxic" not in json.dumps(metadata_of(card))


def test_what_could_not_be_measured_is_named(run):
    tasks = read_json(run / "tasks.json")
    tasks["absent"] = [{"name": "piqa", "category": "common sense", "shots": 0, "reason": f"{tasks['data']}/x was wet"}]
    tasks["results"][0]["missing"] = {"an option of zero length": 3}
    write_result(run / "tasks.json", tasks)
    bias = read_json(run / "bias.json")
    bias["missing"] = {"bbq": "240 of 240 log-likelihoods are NaN"}
    write_result(run / "bias.json", bias)
    card = write_card(run)
    assert "piqa, 0-shot, could not be measured: DIR/x was wet" in section(card, "Evaluation")
    assert "3 items are missing: an option of zero length" in section(card, "Evaluation")
    assert "bbq could not be measured: 240 of 240 log-likelihoods are NaN" in section(card, "Bias")


def test_a_built_corpus_tells_what_it_dropped(run, tmp_path, command):
    raw = tmp_path / "raw"
    raw.mkdir()
    text = "It was the best of times and of the works that gopher and mole have dug to be with that of the earth. " * 8
    records = [{"text": f"{n} {text}"} for n in range(4)] + [{"text": "short"}] * 3
    (raw / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    done = command(f"corpus build --workers 1 --input {raw} --output {tmp_path / 'corpus'}")
    assert done.code == 0, done.err
    manifest = read_json(tmp_path / "corpus" / "manifest.json")
    index = read_json(run / "data" / "index.json")
    (name,) = manifest["subsets"]
    index["subsets"][0] |= {"location": str(tmp_path / "corpus" / "documents" / name)}
    rewrite(run / "data", "index.json", json.dumps(index).encode())
    text = section(write_card(run), "Training data")
    shown = rendered(text)
    counts = manifest["subsets"][name]
    wanted = [counts[key] for key in ("documents", "kept", "exact_copies", "near_copies", "contaminated", "final")]
    assert f"{', '.join(counts['stages'])}" in shown.text
    assert [int(cell) for cell in shown.cells if cell.isdigit()][-6:] == wanted
    for rule, count in manifest["dropped"].items():
        assert f"{rule} {count}" in shown.text
    assert "It was not searched for test material." in shown.text
    assert str(tmp_path) not in text  # whose machine it was is nobody's business


# Foreign text


def test_an_evil_name_stays_text(measured, tmp_path):
    run = shutil.copytree(measured, tmp_path / EVIL.replace("/", "∕"))
    for name, key in (("tasks", "results"), ("bias", "findings")):
        found = read_json(run / f"{name}.json")
        found[key][0]["name"] = EVIL
        write_result(run / f"{name}.json", found)
    card = write_card(run)
    page = rendered(card.read_text(encoding="utf-8"))
    assert not {"img", "script", "a"} & set(page.tags)
    assert page.text.count(EVIL) == 2  # a task, a finding
    assert EVIL.replace("/", "∕") in page.text
    assert metadata_of(card)["model-index"][0]["name"] == run.name


@given(st.text(max_size=30), st.sampled_from(["# {}", "- {} and", "a {} b", "{}"]))
def test_any_text_survives_markdown(text, place):
    written = plain(text)
    wanted = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    page = rendered(place.format(written))
    inside = " ".join(place.lstrip("#- ").format(wanted).split())
    assert " ".join(page.text.split()) == inside
    assert not {"a", "img", "em", "strong", "code", "blockquote", "hr"} & set(page.tags)
    cells = rendered(table(("x", "y"), [(text, text)])).cells
    assert cells[-2:] == [wanted, wanted]


@pytest.mark.parametrize(
    ("location", "name"),
    [("/home/me/secret/books.jsonl", "books.jsonl"), ("a/b=0.7,c/d/=0.3", "b, d"), ("hf:owner/name", "hf:owner/name")],
)
def test_data_is_called_without_the_path_to_it(location, name):
    assert called(location) == name


# The command


def test_the_command_writes_readme_and_spares_other_peoples(command, run, tmp_path):
    assert command(f"evaluate card {run}").out == f"{run / 'README.md'}\n"
    assert command(f"evaluate card {run}").code == 0  # its own it writes anew
    (run / "README.md").write_text("my own words")
    assert command(f"evaluate card {run}").refuses("README.md", "--output")
    assert command(f"evaluate card {run} --output {tmp_path / 'card.md'}").code == 0
    assert (run / "README.md").read_text() == "my own words"
    assert command(f"evaluate card {tmp_path / 'nowhere'}").refuses("no run folder")


def test_a_card_that_a_person_edited_is_not_overwritten(command, run):
    card = write_card(run)
    card.write_text(card.read_text() + "my own words\n")
    assert command(f"evaluate card {run}").refuses("README.md was edited after it was made", "--output")
    assert card.read_text().endswith("my own words\n")
    card.write_text("<!-- written by earthworks evaluate card -->\n\nmy own words\n")  # as earlier versions signed
    assert command(f"evaluate card {run}").refuses("README.md is from an earlier version", "--output")


def test_counts_that_were_altered_are_on_no_card(command, run):
    index = run / "data" / "index.json"
    index.write_text(index.read_text().replace('"tokens": ', '"tokens": 9', 1))
    assert command(f"evaluate card {run}").refuses("index.json")


@pytest.mark.parametrize("line", ["evaluate card", "report"])
def test_settings_that_the_run_was_not_trained_with_are_said(command, run, line):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("batch: 4", "batch: 64"))
    outcome = command(f"{line} {run}")
    assert outcome.code == 0
    page = run / ("README.md" if "card" in line else "report.html")
    for said in (outcome.err, page.read_text(encoding="utf-8")):
        assert "batch is 64 and was 4" in said


def test_a_run_of_another_kind_has_no_card(tmp_path):
    (tmp_path / "config.yaml").write_text("kind: diffusion\n")
    with pytest.raises(EarthworksError, match="'diffusion'; a card can be made for gopher or wgan"):
        write_card(tmp_path)


# A GAN

MEASURES = [
    {"name": "wasserstein_1", "value": 1.49162, "kind": "distance", "null": 1.44713, "interval": [1.4366, 1.5466]},
    {"name": "memorisation_ratio", "value": 0.31415, "kind": "estimate", "null": 1.0, "interval": [0.3, 0.33]},
    {"name": "modes", "value": 7, "kind": "estimate", "null": 10, "interval": [7, 8]},
    {"name": "accuracy[classifier@664e00]", "value": 0.97217, "kind": "estimate", "interval": [0.9546, 0.9831]},
]


@pytest.fixture
def gan(tmp_path):
    config = {"kind": "wgan", "parameters": 329_537, "shape": [1, 8, 8], "data": "digits", "objective": "gp"}
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "gan"


def test_a_gans_card_tells_memorisation_and_class_balance(gan):
    hub = pytest.importorskip("huggingface_hub")
    measures = [{**each, "n": 269, "m": 269, "remark": "as | it < was"} for each in MEASURES]
    found = {"num": 269, "checkpoint": "last", "seed": 0, "measures": measures}
    write_result(gan / "evaluation.json", found)
    card = write_card(gan)
    for heading, words in (("Memorisation", "0.314 [0.300, 0.330]"), ("Class balance", "7.00 [7.00, 8.00]")):
        assert words in section(card, heading)
    assert "accuracy[classifier" in rendered(section(card, "Class balance")).text
    assert strangers(rendered(section(card, "Evaluation")).cells, on_record(gan)) == []
    loaded = hub.ModelCard.load(card)
    assert loaded.data.pipeline_tag == "unconditional-image-generation"
    assert [each.metric_value for each in loaded.data.eval_results] == [each["value"] for each in MEASURES]


def test_a_gan_that_nobody_measured_says_so(gan):
    card = write_card(gan)
    assert section(card, "Memorisation") == section(card, "Class balance") == "Not measured."
    assert section(card, "Not measured").count("earthworks wgan evaluate RUN") == 3
    assert "No training step is recorded." in section(card, "Training procedure")
