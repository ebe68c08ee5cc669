"""Baselines of every shipped task on the real files."""

import math

import pytest
from known_models import Chance, Uniform

from earthworks.evaluation import evaluate_tasks
from earthworks.evaluation.tasks.evaluation import chosen
from earthworks.evaluation.tasks.items import make_items
from earthworks.evaluation.tasks.task_file import shipped_tasks

CHOICES = [task.name for task in shipped_tasks() if task.kind in ("choice", "contexts")]
# chance and majority from the README of the data
FLOORS = {
    "hellaswag": (0.25, 0.255),
    "piqa": (0.5, 0.505),
    "winogrande": (0.5, 0.504),
    "siqa": (0.5, 0.516),
    "commonsense_qa": (0.25, 0.403),
    "boolq": (0.5, 0.622),
    "arc_easy": (0.25, 0.267),
    "mmlu": (0.25, 0.285),
    "fever": (1 / 3, 0.341),
    "fever_symmetric": (0.5, 0.5),
    "blimp": (0.5, None),
}


@pytest.fixture(scope="module")
def by_lot(request):
    import os
    from pathlib import Path

    if "EARTHWORKS_DATA" not in os.environ:
        pytest.skip("EARTHWORKS_DATA is not set")
    data = Path(os.environ["EARTHWORKS_DATA"]) / "eval"
    return data, {each["name"]: each for each in evaluate_tasks(Chance(0), data, CHOICES)["results"]}


@pytest.mark.parametrize("name", CHOICES)
def test_options_scored_by_lot_are_at_chance(by_lot, name):
    """|z| < 4, the variance of an item of k options being (1 - 1/k) / k."""
    data, results = by_lot
    shares = [1 / len(item.options) for item in make_items(chosen([name])[0], data) if not item.fault]
    found = results[name]
    assert found["n"] == len(shares)
    deviation = math.sqrt(sum(p * (1 - p) for p in shares)) / len(shares)
    assert abs(found["accuracy"]["raw"]["value"] - found["chance"]) < 4 * deviation


@pytest.mark.parametrize("name", FLOORS)
def test_chance_and_majority_are_those_of_the_data(by_lot, name):
    _, results = by_lot
    chance, majority = FLOORS[name]
    assert results[name]["chance"] == pytest.approx(chance, abs=5e-4)
    assert results[name]["majority"] == (majority if majority is None else pytest.approx(majority, abs=5e-4))


def test_no_real_item_is_at_fault_but_two_of_big_bench_hard_whose_answer_is_no_letter(by_lot):
    _, results = by_lot
    missing = {name: each["missing"] for name, each in results.items() if each["missing"]}
    assert missing == {"bbh_choice": {"a right answer that is none of the options": 2}}


def test_every_task_can_be_asked_with_examples(real_data):
    for task in shipped_tasks():
        if task.kind != "text":
            items = make_items(task, real_data / "eval", shots=2 if task.few_shot else 0, limit=20)
            assert not [item.fault for item in items if item.fault], task.name


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOICES)
def test_a_uniform_model_prefers_the_shortest_option_of_every_real_task(real_data, alphabet, name):
    """On BLiMP that is 0.472, not chance: the good sentence is longer more often than shorter."""
    task = chosen([name])[0]
    limit = None if name in ("winogrande", "siqa", "strategy_qa", "misconceptions") else 1000
    items = make_items(task, real_data / "eval", limit=limit)
    credit = 0.0
    for item in items:
        lengths = [len(text.encode()) for text in item.continuations]
        credit += (lengths[item.gold] == min(lengths)) / lengths.count(min(lengths))
    found = evaluate_tasks((Uniform(64), alphabet), real_data / "eval", [name], limit=limit)["results"][0]
    assert found["accuracy"]["raw"]["value"] == pytest.approx(credit / len(items), abs=1e-9)


def test_the_shorter_sentence_of_blimp_is_the_good_one_472_times_in_1000(real_data):
    credit = 0.0
    items = make_items(chosen(["blimp"])[0], real_data / "eval")
    for item in items:
        good, bad = (len(text.encode()) for text in item.continuations)
        credit += 1.0 if good < bad else 0.5 if good == bad else 0.0
    assert credit / len(items) == pytest.approx(0.472, abs=5e-4)
