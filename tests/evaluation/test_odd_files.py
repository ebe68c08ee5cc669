"""Malformed files, untrusted task files, and NaN likelihoods: one clear error each."""

import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bias_examples as examples
import pytest
import torch
import yaml
from bias_examples import Known
from known_models import Uniform
from measured import rendered

from earthworks.evaluation import evaluate_tasks, measure_bias, measure_detection, measure_toxicity, train_classifier
from earthworks.evaluation.bias.bbq import measure_bbq
from earthworks.evaluation.bias.dialect import measure_dialects
from earthworks.evaluation.cards.command import write_card
from earthworks.evaluation.example_files import records_of
from earthworks.evaluation.tasks.command import table
from earthworks.evaluation.tasks.task_file import Task, read_tasks, task_from
from earthworks.evaluation.toxicity import classifier as classifiers
from earthworks.evaluation.toxicity.command import bias_lines
from earthworks.evaluation.toxicity.labelled import read_labelled
from earthworks.runs import EarthworksError, write_result
from earthworks.runs.json_files import RESULTS

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
ODD: list[Any] = [None, 5, -1, 1e300, True, "", "x" * 30_000, [], [[1]], {}, {"a": {"b": None}}, "<b>\x1b[2J\u202e"]
MINE = {
    **{"name": "mine", "category": "own", "kind": "choice", "file": "mine.jsonl", "context": "{{ q }}"},
    **{"choices": "options", "gold": "gold", "examples_by": "g", "group": "g", "where": "q"},
}
ROW = {"q": "one", "options": ["a", "bb"], "gold": 1, "g": "part"}


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path of every key and element, at every depth."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (key,)
        yield from ((key, *rest) for rest in places(child))


def altered(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if new is KeyError:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return copy


def variants(value: Any) -> Iterator[Any]:
    """The value with each part missing, and replaced by odd things: all of them in the full profile, else three in turn."""
    for number, place in enumerate(places(value)):
        for new in (KeyError, *(ODD if FULL else (ODD[(5 * number + step) % len(ODD)] for step in (0, 1, 7)))):
            yield altered(value, place, new)
    yield from ODD


def survives(read: Any) -> bool:
    """Whether it works; otherwise it must raise a one-sentence error."""
    try:
        read()
    except EarthworksError as error:
        sentence = str(error)
    else:
        return True
    assert len(sentence) < 4000
    return False


def lines(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


# every field of every kind of file


def test_a_task_file_with_any_field_replaced_is_measured_or_one_sentence(alphabet, tmp_path):
    lines(tmp_path / "mine.jsonl", ROW, {**ROW, "q": "two"})
    model = (Uniform(), alphabet)
    for number, each in enumerate(variants({**MINE, "shots": 1, "groups": {"all": ["part"]}, "max_tokens": 4})):
        (tmp_path / "mine.yaml").write_text(json.dumps(each))
        survives(lambda n=number: evaluate_tasks(model, tmp_path, [str(tmp_path / "mine.yaml")], shots=(n % 2,)))
    assert survives(lambda: read_tasks(tmp_path / "mine.yaml")) is False
    (tmp_path / "mine.yaml").write_text(json.dumps(MINE))
    assert survives(lambda: evaluate_tasks(model, tmp_path, [str(tmp_path / "mine.yaml")]))


def test_a_row_with_any_field_replaced_is_a_fault_of_that_row(alphabet, tmp_path):
    (tmp_path / "mine.yaml").write_text(json.dumps({key: MINE[key] for key in MINE if key != "where"}))
    model = (Uniform(), alphabet)
    rows = [each for each in variants(ROW) if isinstance(each, dict)]
    lines(tmp_path / "mine.jsonl", *rows, ROW)
    result = evaluate_tasks(model, tmp_path, [str(tmp_path / "mine.yaml")])["results"][0]
    assert result["n"] + sum(result["missing"].values()) == len(rows) + 1
    table({**evaluate_tasks(model, tmp_path, [str(tmp_path / "mine.yaml")])})
    for odd in ([ROW], 5, "text"):
        lines(tmp_path / "mine.jsonl", ROW, odd)
        with pytest.raises(EarthworksError, match=r"mine\.jsonl, line 2, is not a JSON object"):
            evaluate_tasks(model, tmp_path, [str(tmp_path / "mine.yaml")])
    (tmp_path / "mine.jsonl").write_text("[" * 100_000)
    with pytest.raises(EarthworksError, match="line 1, is not a JSON object: nested too deeply"):
        evaluate_tasks(model, tmp_path, [str(tmp_path / "mine.yaml")])


def test_bias_files_with_any_field_replaced_are_measured_or_one_sentence(tmp_path):
    records = examples.bbq(tmp_path, templates=1)
    rest = records[1:]
    for each in variants(records[0]):
        lines(tmp_path / "bbq" / "Colour.jsonl", each, *rest)
        (tmp_path / "bbq" / "Colour.jsonl.gz").unlink(missing_ok=True)
        survives(lambda: measure_bias(Known(), tmp_path, parts=["bbq"]))
    crows = {"sent_more": "a b", "sent_less": "a c", "bias_type": "age"}
    for each in variants(crows):
        lines(tmp_path / "crows_pairs.jsonl", each, *[crows] * 3)
        survives(lambda: measure_bias(Known(), tmp_path, parts=["crows_pairs"]))
    bold = {name: {f"{name}{n}": [f"{name} {n} began as "] for n in range(10)} for name in ("painters", "singers")}
    examples.lexicon(tmp_path)
    for each in itertools.islice(variants({"painters": {"one": ["a ", "b "]}, "singers": {"two": ["c "]}}), 60):
        content = each if not isinstance(each, dict) else {**bold, **each}
        examples.write(tmp_path / "bold_prompts" / "art.json", json.dumps(content))
        if not isinstance(content, dict) or content != bold:
            survives(lambda: records_of_bold(tmp_path))


def records_of_bold(folder: Path) -> None:
    from earthworks.evaluation.bias.groups import bold_prompts

    bold_prompts(folder)


def test_labelled_texts_and_prompts_with_any_field_replaced_are_read_or_one_sentence(tmp_path):
    from earthworks.evaluation.toxicity.prompts import read_prompts

    for shape in ({"text": "a", "label": 1}, {"test_case": "a", "label_gold": "hateful", "target_ident": "b"}):
        for each in variants(shape):
            lines(tmp_path / "labelled.jsonl", shape, each, {**shape, "label": 0, "label_gold": "no"})
            survives(lambda: read_labelled(tmp_path / "labelled.jsonl"))
    for each in variants({"prompt": {"text": "a", "toxicity": 0.5}}):
        lines(tmp_path / "real_toxicity_prompts.jsonl", {"prompt": "b"}, each)
        survives(lambda: read_prompts(tmp_path))


RESULT = {
    **{
        "name": "a",
        "category": "b",
        "kind": "choice",
        "file": "f",
        "shots": 0,
        "digest": "d",
        "n": 2,
        "missing": {"r": 1},
    },
    **{
        "truncated": 0,
        "split": 0,
        "metric": "raw",
        "value": 0.5,
        "interval": [0.1, 0.9],
        "chance": 0.5,
        "majority": None,
    },
    **{"accuracy": {"raw": {"value": 0.5, "interval": [0.1, 0.9]}}, "items": [0, 1], "credit": [0.0, 1.0]},
}
FINDING = {"name": "a", "value": 0.1, "interval": [0, 1], "p_value": 0.5, "p_holm": 0.5, "n": 3, "unit": "pairs"}
TEST = {"auc": 0.7, "interval": [0.6, 0.8], "flagged_toxic": 0.5, "flagged_other": 0.1, "n": 9, "missing": 0}
ROWS = {
    "expected_maximum": 0.5,
    "expected_maximum_interval": [0, 1],
    "toxic_probability": 0.5,
    "prompts": 3,
    "missing": 0,
}
ROWS |= {"toxic_probability_interval": None, "mean": 0.5}
FILES: dict[str, Any] = {
    "tasks.json": {
        **{"results": [RESULT], "absent": [{"name": "c", "category": "b", "shots": 0, "reason": "none"}], "limit": 3},
        **{"seed": 0, "data": "d", "window": 8, "categories": {"b": {"0-shot": {"tasks": 1, "accuracy": 0.5}}}},
    },
    "bias.json": {"findings": [FINDING], "correction": "Holm's", "missing": {"bbq": "none"}, "data": "d", "seed": 0},
    "toxicity.json": {
        **{"scorer": {"name": "s", "held_out": TEST, "cross_corpus": {"w": TEST}, "hatecheck": TEST}, "claim": "c"},
        **{"protocol": {"num": 2, "max_tokens": 3, "top_p": 0.9}, "prompted": {"all": ROWS, "bins": {"[0, 1]": ROWS}}},
    },
    "toxicity_detection.json": {
        **{"data": "d", "texts": 9},
        "models": [{"model": "m", "shots": {"0": {"auc": 0.5, "interval": [0, 1], "cut": 0}}}],
    },
    "evaluation.json": {
        **{"bits_per_byte": 2.0, "interval": [1, 3], "interval_unit": "document", "documents": 3},
        "subsets": {"s": {"bits_per_byte": 2.0, "interval": None}},
    },
    "environment.json": {"processor": "p", "earthworks": "1", "accelerators": ["a"]},
}


def written(path: Path, content: object) -> None:
    """A result with its digest, as a stranger would write it too."""
    if path.name in RESULTS and isinstance(content, dict):
        write_result(path, content)
    else:
        path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_a_card_of_a_run_with_any_part_of_a_file_replaced_is_written_or_one_sentence(tiny_run, tmp_path, name):
    """The error names the file, and nothing in it becomes active in the card."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("checkpoints", "samples", "figures", "report.html"))
    for each, content in FILES.items():
        written(run / each, content)
    write_card(run)
    for content in variants(FILES[name]):
        written(run / name, content)
        try:
            card, sentence = write_card(run).read_text(encoding="utf-8"), name
        except EarthworksError as error:
            card, sentence = "", str(error)
        assert name in sentence
        assert not any(mark in card for mark in ("\x1b", "\u202e"))
        assert "<b>" not in card.split("\n---\n", 1)[-1]  # above it is YAML, where text is quoted
    (run / name).write_text("{")
    with pytest.raises(EarthworksError, match=name):
        write_card(run)


# task files of strangers


@pytest.mark.parametrize(
    "file", ["../secret.jsonl", "/etc/passwd", "a/../../secret.jsonl", "link.jsonl", "folder/secret.jsonl"]
)
def test_a_task_reads_nothing_outside_its_data(alphabet, tmp_path, file):
    lines(tmp_path / "secret.jsonl", ROW)
    data = tmp_path / "data"
    data.mkdir()
    os.symlink(tmp_path / "secret.jsonl", data / "link.jsonl")
    os.symlink(tmp_path, data / "folder")
    for field in ("file", "examples_file"):
        (data / "mine.yaml").write_text(json.dumps({**MINE, "file": "mine.jsonl", field: file}))
        lines(data / "mine.jsonl", ROW)
        with pytest.raises(EarthworksError, match=r"must be in the folder given as --data|which is outside it"):
            evaluate_tasks((Uniform(), alphabet), data, [str(data / "mine.yaml")], shots=(1,))
    text = Task(name="t", category="own", kind="text", file="link.jsonl")
    with pytest.raises(EarthworksError, match="which is outside it"):
        evaluate_tasks((Uniform(), alphabet), data, [text])


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_task_waits_for_no_pipe_and_reads_no_device(alphabet, tmp_path, kind):
    path = tmp_path / "mine.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.symlink("/dev/zero", path)
    (tmp_path / "mine.yaml").write_text(json.dumps(MINE))
    with pytest.raises(EarthworksError, match=r"not a regular file|outside it"):
        evaluate_tasks((Uniform(), alphabet), tmp_path, [str(tmp_path / "mine.yaml")])
    for place in ("crows_pairs.jsonl", "bbq/Age.jsonl", "real_toxicity_prompts.jsonl"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        os.mkfifo(tmp_path / place)
    with pytest.raises(EarthworksError, match="could be measured"):
        measure_bias(Known(), tmp_path, parts=["crows_pairs", "bbq"])
    with pytest.raises(EarthworksError, match="not a regular file"):
        measure_toxicity(Known(), tmp_path, scorer=lambda texts: [0.1] * len(texts))


def test_a_task_file_whose_aliases_unfold_without_end_is_refused(tmp_path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "mine.yaml").write_text("\n".join(levels))
    with pytest.raises(EarthworksError, match=r"mine\.yaml expands to more than"):
        read_tasks(tmp_path / "mine.yaml")


def test_the_package_s_own_tasks_may_name_the_texts_beside_the_data():
    with pytest.raises(EarthworksError, match="must be in the folder"):
        task_from({**MINE, "file": "../text/books/test.jsonl.xz"}, "mine.yaml")
    assert task_from({**MINE, "file": "../text/books/test.jsonl.xz"}, "own.yaml", shipped=True).file.startswith("..")


# BBQ


def questions(stereotyped: list[str], info: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {
            **{"context": f"Two met, {template}.", "question": f"Who was {polarity}?", "label": label},
            **{"ans0": "The Ruritanian", "ans1": "The Graustarkian", "ans2": "Not known", "answer_info": info},
            **{"additional_metadata": {"stereotyped_groups": stereotyped}, "question_polarity": polarity},
            **{"question_index": str(template), "context_condition": "ambig" if label == 2 else "disambig"},
        }
        for template in range(4)
        for polarity in ("neg", "nonneg")
        for label in (2, 0, 1)
    ]


NATIONS = {"ans0": ["Ruritanian", "North"], "ans1": ["Graustarkian", "South"], "ans2": ["Not known", "unknown"]}
RACES = {"ans0": ["DeShawn", "M-Black"], "ans1": ["Donald", "M-White"], "ans2": ["Not known", "unknown"]}
CLASSES = {"ans0": ["the cleaner", "lowSES"], "ans1": ["the lawyer", "highSES"], "ans2": ["Not known", "unknown"]}


@pytest.mark.parametrize(
    ("stereotyped", "info"),
    [
        (["Ruritanian"], NATIONS),
        (["North"], NATIONS),
        (["ruritanian", "Eritrean"], NATIONS),
        (["Black", "African American"], RACES),
        (["low SES"], CLASSES),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_who_always_names_the_stereotyped_has_one_however_the_group_is_named(tmp_path, stereotyped, info, sign):
    lines(tmp_path / "bbq" / "Nations.jsonl", *questions(stereotyped, info))

    def likelihood(context: str, text: str) -> float:
        biased = ("Ruritanian" in text) == ("Who was neg?" in context)
        return -10.0 if "Not" in text else -2.0 + sign * biased

    rows = measure_bbq(Known(likelihood), tmp_path)["categories"]["Nations"]
    assert (rows["ambiguous"]["bias_score"], rows["disambiguated"]["bias_score"]) == (sign, sign)


@pytest.mark.parametrize("stereotyped", [[], ["Bohemian"], ["Ruritanian", "Graustarkian"]])
def test_a_category_whose_stereotyped_answer_is_not_known_is_not_scored(tmp_path, stereotyped):
    """It is named with the record; the others are scored. Alone it is an error."""
    lines(tmp_path / "bbq" / "Nations.jsonl", *questions(stereotyped, NATIONS))
    with pytest.raises(EarthworksError, match=r"record 1 of .*Nations\.jsonl cannot be scored"):
        measure_bbq(Known(), tmp_path)
    examples.bbq(tmp_path)
    result = measure_bias(Known(), tmp_path, parts=["bbq"])
    assert list(result["bbq"]["categories"]) == ["Colour"]
    assert "cannot be scored" in result["bbq"]["not_measured"]["Nations"]
    assert any("Nations: not measured: record 1" in line for line in bias_lines(result))


# NaN


def test_a_text_of_one_window_has_no_interval_and_says_so(alphabet, tmp_path):
    lines(tmp_path / "short.jsonl", {"text": "Ladder letter."})
    task = Task(name="short", category="own", kind="text", file="short.jsonl")
    result = evaluate_tasks((Uniform(), alphabet), tmp_path, [task])
    assert result["results"][0]["interval"] is None
    assert "short, 0-shot: no interval: one window" in table(result)
    assert "nan" not in table(result)


def test_a_diverged_model_is_said_with_exit_code_one(gopher, alphabet, tiny_eval, tmp_path):
    with torch.no_grad():
        gopher.logit_bias.fill_(math.nan)
    lines(tmp_path / "text.jsonl", {"text": "Ladder letter."})
    text = Task(name="t", category="own", kind="text", file="text.jsonl")
    examples.crows_pairs(tmp_path)
    examples.write_records(tmp_path / "labelled.jsonl", examples.labelled(80))
    model = (gopher, alphabet)
    for measure in (
        lambda: evaluate_tasks(model, tiny_eval, ["piqa", "gsm8k"]),
        lambda: evaluate_tasks(model, tiny_eval, ["lambada"]),
        lambda: evaluate_tasks(model, tmp_path, [text]),
        lambda: measure_bias(model, tmp_path, parts=["crows_pairs"]),
        lambda: measure_detection([model], tmp_path / "labelled.jsonl", shots=(0,), max_texts=20),
    ):
        with pytest.raises(EarthworksError, match=r"NaN|diverged") as refusal:
            measure()
        assert refusal.value.exit_code == 1


def test_a_likelihood_of_nothing_gives_no_perplexity_of_1e304(tmp_path):
    lines(tmp_path / "a.jsonl", {"text": "a b"}, {"text": "c d"})
    lines(tmp_path / "b.jsonl", {"text": "e f"}, {"text": "g h"})
    result = measure_dialects(Known(lambda *_: -math.inf), str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    assert {row["perplexity_per_word"] for row in result["corpora"].values()} == {math.inf}
    ties = measure_bias(Known(lambda *_: -math.inf), examples.everything(tmp_path / "bias"), parts=["crows_pairs"])
    assert ties["crows_pairs"]["stereotype_preferred"]["all"] == {"value": 0.5, "difference": 0.0, "n": 40}


# records


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"text": "a", "label": 0}\n{"text": 123, "label": 1}\n',
            "record 2 of .* has 123 in the field text; expected text",
        ),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": NaN}\n', "record 2 .* a label that is neither"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": [1]}\n', "record 2 .* a label that is neither"),
        ('{"text": null, "label": 0}\n', "has no record with text in the field text"),
        ('{"text": "a", "label": 0}\n7\n', "line 2 of .* is not an object"),
    ],
)
def test_a_record_that_is_no_labelled_text_is_named(command, tmp_path, content, words):
    (tmp_path / "labelled.jsonl").write_text(content)
    with pytest.raises(EarthworksError, match=words):
        train_classifier([tmp_path / "labelled.jsonl"])
    assert command("evaluate classifier", tmp_path / "labelled.jsonl", output=tmp_path / "new").refuses(
        "labelled.jsonl"
    )
    assert not (tmp_path / "new").exists()


def test_a_text_of_a_table_may_be_as_long_as_a_book_and_a_comma_too_many_is_named(tmp_path):
    long = "word " * 60_000
    (tmp_path / "a.csv").write_text(f'text,label\n"{long}",1\nb,0\n')
    assert read_labelled(tmp_path / "a.csv").texts == [long, "b"]
    (tmp_path / "a.csv").write_text("text,label\na, with a comma,1\nb,0\n")
    with pytest.raises(EarthworksError, match=r"line 2 of .*a\.csv has 3 fields, but the header has 2"):
        read_labelled(tmp_path / "a.csv")


def test_a_file_that_unfolds_without_end_is_refused(tmp_path, monkeypatch):
    import gzip

    from earthworks.evaluation import example_files as bias_files

    monkeypatch.setattr(bias_files, "LARGEST", 1 << 16)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * (1 << 20)))
    with pytest.raises(EarthworksError, match=r"a\.jsonl\.gz holds more than"):
        records_of(tmp_path / "a.jsonl.gz")


def test_a_classifier_folder_that_was_altered_is_one_sentence(tmp_path, monkeypatch):
    examples.write_records(tmp_path / "labelled.jsonl", examples.labelled(200))
    classifier = train_classifier([tmp_path / "labelled.jsonl"])
    classifier.save(tmp_path / "good")
    loaded = classifiers.LinearClassifier.load(tmp_path / "good")
    assert loaded(["a nasty talk"]) == classifier(["a nasty talk"])
    monkeypatch.setattr(classifiers, "verify_manifest", lambda *_, **__: {})  # as who alters both files would have it
    content = json.loads((tmp_path / "good" / "classifier.json").read_text())
    content["terms"] = {view: terms[:3] for view, terms in content["terms"].items()}
    for number, each in enumerate([*variants(content["measured"]), "terms"]):
        folder = shutil.copytree(tmp_path / "good", tmp_path / f"bad{number}")
        new = content if each == "terms" else {"terms": content["terms"], "measured": each}
        (folder / "classifier.json").write_text(json.dumps(new))
        with pytest.raises(EarthworksError):
            classifiers.LinearClassifier.load(folder)
        shutil.rmtree(folder)
    (tmp_path / "good" / "coefficients.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(EarthworksError, match=r"coefficients\.safetensors is not readable"):
        classifiers.LinearClassifier.load(tmp_path / "good")


# active text


def test_hostile_names_are_shown_by_the_command_and_the_card_and_never_obeyed(tiny_run, tiny_eval, tmp_path, command):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    name, more = "<script>alert(1)</script>", "\x1b[2J\u202e"
    lines(tmp_path / "mine.jsonl", {**ROW, "g": more}, {**ROW, "q": more, "options": [more, "b"]})
    task = {**MINE, "name": name, "category": f"own {name}", "groups": {name + more: [more]}}
    nameless = {**MINE, "name": more}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump([task, nameless]), encoding="utf-8")
    shown = command("evaluate tasks", run, data=tmp_path, tasks=tmp_path / "mine.yaml")
    assert shown.code == 0, shown.err
    assert "expected one line of 1 to" in shown.out
    for text in (shown.out, shown.err):
        assert "\x1b" not in text
        assert "\u202e" not in text
    card = write_card(run).read_text(encoding="utf-8")
    assert "script" not in rendered(card).tags
    assert not any(mark in card.split("\n---\n", 1)[1] for mark in ("\x1b", "\u202e"))
    assert "<script>alert" not in (run / "report.html").read_text(encoding="utf-8")
