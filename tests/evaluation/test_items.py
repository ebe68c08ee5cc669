"""The exact prompts of items."""

import gzip
import json
from dataclasses import replace

import pytest

from earthworks.evaluation.tasks.evaluation import chosen
from earthworks.evaluation.tasks.items import make_items
from earthworks.evaluation.tasks.task_file import read_tasks, shipped_tasks, task_from
from earthworks.runs import EarthworksError


def task(name):
    return chosen([name])[0]


def rows_of(path):
    return [json.loads(line) for line in gzip.open(path)]


def test_shipped_tasks_have_names_of_their_own_and_cover_the_categories():
    tasks = shipped_tasks()
    assert len({each.name for each in tasks}) == len(tasks)
    assert len({each.category for each in tasks}) == 9
    assert len({each.digest for each in tasks}) == len(tasks)


def test_a_digest_changes_with_the_template():
    piqa = task("piqa")
    assert piqa.digest == task("piqa").digest
    assert replace(piqa, context="Q: {{ goal }}\nA:").digest != piqa.digest


def test_mmlu_is_shown_as_its_authors_show_it(tiny_eval):
    row = rows_of(tiny_eval / "knowledge_qa/mmlu_test.jsonl.gz")[0]
    example = rows_of(tiny_eval / "knowledge_qa/mmlu_dev.jsonl.gz")[0]

    def shown(row):
        options = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", row["choices"]))
        return f"{row['question']}\n{options}Answer:"

    zero, one = (make_items(task("mmlu"), tiny_eval, shots=shots)[0] for shots in (0, 1))
    head = "The following are multiple choice questions (with answers) about astronomy.\n\n"
    assert zero.contexts[0] == head + shown(row)
    assert zero.continuations == [" A", " B", " C", " D"]
    assert one.contexts[0] == f"{head}{shown(example)} {'ABCD'[example['answer']]}\n\n{shown(row)}"


def test_examples_are_never_the_question_and_hang_on_the_seed_alone(tiny_eval):
    items = make_items(task("boolq"), tiny_eval, shots=3, seed=1)
    rows = rows_of(tiny_eval / "reading_comprehension/boolq.jsonl.gz")
    for item in items:
        *examples, question = item.contexts[0].split("\n\n")
        assert question == rows[item.index]["query"] + "\nAnswer:"
        assert len(set(examples)) == 3
        assert not any(example.startswith(rows[item.index]["query"]) for example in examples)
        for example in examples:
            row = next(row for row in rows if example.startswith(row["query"] + "\n"))
            assert example == f"{row['query']}\nAnswer: {row['choices'][row['gold']]}"
    again, other = (make_items(task("boolq"), tiny_eval, shots=3, seed=seed) for seed in (1, 2))
    assert [item.contexts for item in again] == [item.contexts for item in items]
    assert [item.contexts for item in other] != [item.contexts for item in items]


def test_a_row_that_asks_the_same_is_no_example(tmp_path):
    rows = [{"query": "same?", "choices": ["no", "yes"], "gold": 1}] * 5 + [
        {"query": "other?", "choices": ["no", "yes"], "gold": 0}
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = replace(task("boolq"), file="rows.jsonl")
    items = make_items(given, tmp_path, shots=1)
    assert [item.fault for item in items] == [None] * 6
    assert all("other?\nAnswer: no\n\nsame?" in item.contexts[0] for item in items[:5])
    assert {item.fault for item in make_items(given, tmp_path, shots=2)[:5]} == {"only 1 of the requested 2 examples"}


def test_a_limit_draws_the_same_rows_whatever_the_shots(tiny_eval):
    drawn = [[item.index for item in make_items(task("boolq"), tiny_eval, limit=5, shots=shots)] for shots in (0, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 5
    other = make_items(task("boolq"), tiny_eval, limit=5, seed=7)
    assert [item.index for item in other] != drawn[0]


def test_many_contexts_and_one_continuation(tiny_eval):
    row = rows_of(tiny_eval / "commonsense/winogrande.jsonl.gz")[3]
    item = make_items(task("winogrande"), tiny_eval)[3]
    assert item.contexts == row["context_options"]
    assert item.continuations == [" " + row["continuation"]] * 2
    assert item.gold == row["gold"]


FAULTS = {
    "an option of zero length": {"query": "q", "choices": ["", "yes"], "gold": 0},
    "fewer than two options": {"query": "q", "choices": ["yes"], "gold": 0},
    "a right answer that is none of the options": {"query": "q", "choices": ["no", "yes"], "gold": 2},
    "'choices' is undefined": {"query": "q", "gold": 1},
    "'query' is undefined": {"choices": ["no", "yes"], "gold": 1},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_named_and_the_others_stay(tmp_path, fault):
    rows = [{"query": "q", "choices": ["no", "yes"], "gold": 1}, FAULTS[fault]]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = make_items(replace(task("boolq"), file="rows.jsonl"), tmp_path)
    assert [item.fault for item in items] == [None, fault]


def test_a_bad_row_is_no_example(tmp_path):
    rows = [{"query": f"q{i}", "choices": ["no", "yes"] if i else ["", "yes"], "gold": 1} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = make_items(replace(task("boolq"), file="rows.jsonl"), tmp_path, shots=2)
    assert [item.fault for item in items] == ["an option of zero length", None, None, None]
    assert not any("q0" in item.contexts[0] for item in items[1:])


def test_a_condition_over_a_field_that_is_not_there_is_the_tasks_fault(tiny_eval):
    with pytest.raises(EarthworksError, match="'colour' is undefined"):
        make_items(replace(task("boolq"), where="colour == 1"), tiny_eval)


def test_a_template_cannot_reach_the_machine(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"query": "q", "choices": ["a", "b"], "gold": 0}))
    given = replace(task("boolq"), file="rows.jsonl", context="{{ query.__class__.__mro__ }}")
    assert "unsafe" in (make_items(given, tmp_path)[0].fault or "")


GOOD = {"name": "mine", "category": "own", "kind": "choice", "file": "f", "context": "c", "choices": "x", "gold": "0"}


@pytest.mark.parametrize("missing", ["name", "category", "kind", "file", "context", "choices", "gold"])
def test_a_task_without_a_field_it_needs_is_refused_by_that_name(missing):
    with pytest.raises(EarthworksError, match=f"lacks the field '{missing}'"):
        task_from({key: value for key, value in GOOD.items() if key != missing}, "mine.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"kind": "riddle"}, "riddle"), ({"metric": "best"}, "best"), ({"contxt": "c"}, "contxt")],
)
def test_a_task_with_a_wrong_field_is_refused_by_that_name(change, words):
    with pytest.raises(EarthworksError, match=words):
        task_from({**GOOD, **change}, "mine.yaml")


def test_a_file_that_holds_no_yaml_is_one_sentence(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: [")
    with pytest.raises(EarthworksError, match="not valid YAML"):
        read_tasks(path)
    with pytest.raises(EarthworksError, match=r"none\.yaml does not exist"):
        read_tasks(tmp_path / "none.yaml")
    path.write_text("- just text")
    with pytest.raises(EarthworksError, match="is not a task"):
        read_tasks(path)
