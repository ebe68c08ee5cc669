"""Tasks from file to table: models of known skill, missing files, bad rows, and no network."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from known_models import Memory, Uniform

from earthworks.evaluation import evaluate_tasks
from earthworks.evaluation.tasks.command import table
from earthworks.evaluation.tasks.evaluation import chosen
from earthworks.evaluation.tasks.items import make_items
from earthworks.evaluation.tasks.task_file import Task
from earthworks.runs import EarthworksError, read_json

PRESENT = ["hellaswag", "piqa", "winogrande", "boolq", "mmlu", "blimp", "fever", "lambada", "operators"]
MINE = {
    "name": "mine",
    "category": "own",
    "kind": "choice",
    "context": "{{ q }}",
    "choices": "options",
    "gold": "gold",
    "file": "mine.jsonl",
}


def by_name(result):
    return {each["name"]: each for each in result["results"]}


def test_a_uniform_model_prefers_the_shortest_option(tiny_eval, alphabet):
    result = by_name(evaluate_tasks((Uniform(), alphabet), tiny_eval, PRESENT))
    for task in chosen(PRESENT):
        if task.kind not in ("choice", "contexts"):
            continue
        credit = []
        for item in make_items(task, tiny_eval):
            lengths = [len(text.encode()) for text in item.continuations]
            credit.append((lengths[item.gold] == min(lengths)) / lengths.count(min(lengths)))
        assert result[task.name]["accuracy"]["raw"]["value"] == pytest.approx(sum(credit) / len(credit), abs=1e-9)
        assert result[task.name]["n"] == 12


def test_a_uniform_model_needs_log2_v_bits_a_byte(tiny_eval, alphabet):
    task = Task(name="novels", category="language modelling", kind="text", file="../text/books/test.jsonl")
    found = evaluate_tasks((Uniform(), alphabet), tiny_eval, [task])["results"][0]
    assert found["value"] == pytest.approx(math.log2(257), rel=1e-6)
    assert found["interval"] == pytest.approx([math.log2(257)] * 2, rel=1e-6)
    assert found["tokens"] == found["bytes"]
    short = evaluate_tasks((Uniform(), alphabet), tiny_eval, [task], limit=1)["results"][0]
    assert short["bytes"] == min(1000, found["bytes"])


def test_a_model_that_knows_the_file_by_heart_is_always_right(tiny_eval, alphabet):
    texts = []
    for task in chosen(PRESENT):
        items = make_items(task, tiny_eval)
        texts += [item.contexts[item.gold] + item.continuations[item.gold] for item in items]
    result = by_name(evaluate_tasks((Memory(texts), alphabet), tiny_eval, ["piqa", "lambada", "operators"], window=512))
    assert result["piqa"]["accuracy"]["raw"]["value"] == 1
    assert result["operators"]["value"] == 1
    assert result["lambada"]["value"] == 1
    assert result["lambada"]["perplexity"] == pytest.approx(1, abs=1e-3)
    assert result["lambada"]["interval"][1] == 1
    assert result["lambada"]["interval"][0] < 1


def test_open_answers_are_written_and_compared(tiny_eval, alphabet):
    task = chosen(["natural_questions"])[0]
    items = make_items(task, tiny_eval)
    memory = Memory([f"{item.contexts[0]} The {item.answers[0].upper()}.\nQ: more" for item in items[::2]])
    result = evaluate_tasks((memory, alphabet), tiny_eval, [task], window=512)["results"][0]
    known = {item.contexts[0] for item in items[::2]}
    assert result["value"] == sum(item.contexts[0] in known for item in items) / len(items)
    assert result["metric"] == "exact_match"


def test_what_cannot_be_measured_is_named_beside_what_was(tiny_eval, alphabet):
    result = evaluate_tasks((Uniform(), alphabet), tiny_eval, ["piqa", "gsm8k"], shots=(0, 50))
    assert [(each["name"], each["shots"]) for each in result["results"]] == [("piqa", 0)]
    reasons = {(each["name"], each["shots"]): each["reason"] for each in result["absent"]}
    assert "gsm8k_test.jsonl.gz does not exist" in reasons["gsm8k", 0]
    assert "of the requested 50 examples" in reasons["piqa", 50]


def test_a_task_with_a_missing_field_leaves_the_others_of_its_file_and_is_named(tiny_eval, alphabet, tmp_path):
    shutil.copytree(tiny_eval / "commonsense", tmp_path / "commonsense")
    good = MINE
    (tmp_path / "mine.jsonl").write_text(json.dumps({"q": "one", "options": ["a", "bb"], "gold": 1}))
    bad = {key: good[key] for key in good if key != "gold"} | {"name": "lacking"}
    (tmp_path / "mine.yaml").write_text(json.dumps([bad, good]))
    result = evaluate_tasks((Uniform(), alphabet), tmp_path, ["piqa", str(tmp_path / "mine.yaml")])
    assert [each["name"] for each in result["results"]] == ["piqa", "mine"]
    (absent,) = result["absent"]
    assert (absent["name"], absent["category"]) == ("lacking", "own")
    assert "task lacking of" in absent["reason"]
    assert "lacks the field 'gold'" in absent["reason"]
    assert "lacks the field 'gold'" in table(result)
    (tmp_path / "mine.yaml").write_text("[]")
    with pytest.raises(EarthworksError, match=r"mine\.yaml is not a task"):
        evaluate_tasks((Uniform(), alphabet), tiny_eval, [str(tmp_path / "mine.yaml")])


class Joining:
    """Bytes, but "ab" is one token: 255."""

    end_of_document = 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode().replace(b"ab", b"\xff"), np.uint8).astype(np.int64)


def test_a_tokenizer_that_splits_the_boundary_loses_that_item_alone_and_the_table_counts(tiny_eval, tmp_path):
    """After "xa" the option "b" has no token of its own, "bc" has one of two; both are reported."""
    rows = [{"q": "xa", "options": o, "gold": 0} for o in (["b", "cc"], ["bc", "cc"], ["d", "e"])]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.yaml").write_text(json.dumps({**MINE, "separator": ""}))
    result = evaluate_tasks((Uniform(), Joining()), tmp_path, [str(tmp_path / "mine.yaml")])
    (found,) = result["results"]
    assert (found["n"], found["items"]) == (2, [1, 2])
    assert found["missing"] == {"the tokenizer leaves the answer no token of its own": 1}
    assert found["split"] == 2
    assert "1 items are missing: the tokenizer leaves the answer no token of its own" in table(result)
    assert "one token spans the end of the context and the answer" in table(result)


def test_a_prompt_longer_than_the_window_is_counted_in_the_table(tiny_eval, alphabet):
    result = evaluate_tasks((Uniform(context=16), alphabet), tiny_eval, ["boolq"])
    assert result["results"][0]["truncated"] == result["results"][0]["n"] == 12
    assert " 100%" in table(result)


def test_a_model_that_cannot_write_leaves_what_is_not_written(tiny_eval, gopher, alphabet):
    """Open answers of a diverged model are absent with a sentence, and the model is as it was."""
    gopher.train()
    with torch.no_grad():
        gopher.logit_bias.fill_(math.nan)
    with pytest.raises(EarthworksError, match="logits are NaN"):
        evaluate_tasks((gopher, alphabet), tiny_eval, ["natural_questions"])
    assert gopher.training


def test_likelihoods_that_are_no_numbers_are_missing_and_counted(tiny_eval, alphabet):
    def model(tokens):
        logits = torch.zeros(*tokens.shape, 257)
        logits[(tokens == ord("7")).any(1)] = float("nan")  # the prompt of question 7
        return logits

    found = evaluate_tasks((model, alphabet), tiny_eval, ["boolq"], window=256)["results"][0]
    assert (found["n"], found["missing"]) == (11, {"a likelihood that is not a finite number": 1})
    assert 7 not in found["items"]
    with pytest.raises(EarthworksError, match="every item is missing"):
        evaluate_tasks((lambda t: torch.full((*t.shape, 257), math.nan), alphabet), tiny_eval, ["boolq"], window=256)


def test_mmlu_is_averaged_over_questions_and_groups_without_any_say_so(tiny_eval, alphabet):
    found = evaluate_tasks((Uniform(), alphabet), tiny_eval, ["mmlu"])["results"][0]
    assert found["groups"]["STEM"]["n"] == found["groups"]["humanities"]["n"] == 6
    assert found["groups"]["social sciences"] == {"n": 0, "value": None}
    mean = sum(group["n"] * group["value"] for group in found["groups"].values() if group["n"]) / 12
    assert found["value"] == pytest.approx(mean)


def test_a_category_weighs_its_tasks_alike_and_corrects_for_chance(tiny_eval, alphabet):
    result = evaluate_tasks((Uniform(), alphabet), tiny_eval, ["hellaswag", "piqa"])
    a, b = result["results"]
    mean = result["categories"]["common sense"]["0-shot"]
    assert mean["accuracy"] == pytest.approx((a["value"] + b["value"]) / 2)
    assert mean["above_chance"] == pytest.approx(((a["value"] - 0.25) / 0.75 + (b["value"] - 0.5) / 0.5) / 2)


def test_shots_of_the_paper_and_tasks_without_shots(tiny_eval, alphabet):
    result = evaluate_tasks((Uniform(1024), alphabet), tiny_eval, ["mmlu", "blimp", "piqa"], shots="paper")
    assert {each["name"]: each["shots"] for each in result["results"]} == {"mmlu": 5, "blimp": 0, "piqa": 0}
    assert by_name(result)["mmlu"]["truncated"] == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tasks": ["hellswag"]}, "unknown task 'hellswag'"),
        ({"tasks": []}, "--tasks is empty"),
        ({"limit": 0}, "limit is 0"),
        ({"shots": "five"}, "shots is 'five'"),
        ({"shots": (-1,)}, "shots is"),
    ],
)
def test_mistakes_are_one_sentence(tiny_eval, alphabet, given, words):
    with pytest.raises(EarthworksError, match=words):
        evaluate_tasks((Uniform(), alphabet), tiny_eval, **given)


def test_the_command_measures_a_run_and_keeps_the_table(tiny_run, tiny_eval, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    rows = [{"q": "one", "options": ["a", "bb"], "gold": 1}, {"q": "two", "options": ["", "b"], "gold": 1}]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.yaml").write_text(json.dumps(MINE))
    tiny_eval = shutil.copytree(tiny_eval, tmp_path, dirs_exist_ok=True)
    given = f"piqa,blimp,gsm8k,{tmp_path / 'mine.yaml'}"
    shown = command("evaluate tasks", run, data=tiny_eval, tasks=given, window=64)
    assert shown.code == 0, shown.err
    assert "<h2>Tasks</h2>" in (run / "report.html").read_text(encoding="utf-8")
    for words in (
        "common sense",
        "linguistics",
        "own",
        "gsm8k_test.jsonl.gz does not exist",
        "an option of zero length",
    ):
        assert words in shown.out
    result = json.loads(command("evaluate tasks", run, "--json", data=tiny_eval, tasks=given, window=64).out)
    kept = read_json(run / "tasks.json")
    assert result["categories"] == kept["categories"]
    assert "credit" not in result["results"][0]
    assert len(kept["results"][0]["credit"]) == kept["results"][0]["n"] == 12
    assert [each["name"] for each in kept["results"]] == ["piqa", "blimp", "mine"]


def test_mistakes_at_the_command_line(tiny_run, tiny_eval, tmp_path, command):
    assert command("evaluate tasks", tiny_run, data=tmp_path / "none").refuses("is not a folder", "--data")
    assert command("evaluate tasks", tiny_run, data=tiny_eval, shots="x").refuses("--shots", "0,5")
    assert command("evaluate tasks", tmp_path, data=tiny_eval).refuses("config.yaml")
    assert command("evaluate tasks", tiny_run, data=tmp_path).refuses("no task could be measured")
