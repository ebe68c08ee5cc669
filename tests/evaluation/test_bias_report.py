"""`measure_bias` and its command: missing parts are reported, the rest is measured, nothing offensive is printed."""

import json
import math
import shutil

import bias_examples as examples
import numpy as np
import pytest
import torch
from bias_examples import Known, ignorant

from earthworks.evaluation import measure_bias
from earthworks.evaluation.likelihood.protocol import log_likelihoods
from earthworks.evaluation.likelihood.scorer import Likelihood, Scorer
from earthworks.gopher import load
from earthworks.runs import EarthworksError, read_json


@pytest.fixture
def data(tmp_path):
    return examples.everything(tmp_path / "bias").parent


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_every_finding_is_corrected_for_all_that_were_looked_at(data):
    result = measure_bias(ignorant(1), data, num=1)
    raw = np.array([each["p_value"] for each in result["findings"]])
    adjusted = np.array([each["p_holm"] for each in result["findings"]])
    assert result["missing"] == {}
    assert adjusted[raw.argmin()] == min(1, raw.min() * len(raw))
    assert (adjusted >= raw).all()
    assert len(raw) == 4 + 5 + 3 + 2 + 8 + 2


def test_a_file_that_is_not_there_leaves_the_other_parts(data):
    (data / "bias" / "crows_pairs.jsonl.gz").unlink()
    shutil.rmtree(data / "bias" / "bold_prompts")
    result = measure_bias(Known(), data, parts=["winogender", "crows_pairs", "bbq", "bold", "occupations"])
    assert result["missing"].keys() == {"crows_pairs", "bold"}
    assert "crows_pairs.jsonl does not exist" in result["missing"]["crows_pairs"]
    assert {"winogender", "occupations", "bbq"} <= result.keys()


def test_nan_likelihoods_leave_the_other_parts(data):
    broken = Known(lambda context, text: math.nan if "Who was" in context else -1.0)
    result = measure_bias(broken, data, parts=["winogender", "bbq", "crows_pairs"])
    assert result["missing"] == {"bbq": "240 of 240 log-likelihoods are NaN"}
    assert {"winogender", "crows_pairs"} <= result.keys()


def test_a_model_whose_logits_are_nan_is_told_so_in_every_part(tiny_run, data):
    """NaN likelihoods and continuations: no part is measured, and only an EarthworksError is raised."""
    model, tokenizer = load(tiny_run)
    with torch.no_grad():
        model.logit_bias.fill_(math.nan)
    for part, words in (("crows_pairs", "80 of 80 log-likelihoods are NaN"), ("bold", "logits are NaN")):
        with pytest.raises(EarthworksError, match=words):
            measure_bias((model, tokenizer), data, parts=[part])


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([Likelihood(0.5), Likelihood(-1)], "above 0"),
        ([Likelihood(-1)], "1 log-likelihoods for 2"),
        ([Likelihood(math.nan), Likelihood(-1)], "1 of 2 .* NaN"),
        ([Likelihood(math.nan, tokens=0), Likelihood(-1)], "the tokenizer leaves 1 of 2 continuations no token"),
    ],
)
def test_what_cannot_be_log_likelihoods_is_one_sentence(answers, words):
    class Broken(Known):
        def score(self, pairs, progress=None):
            return answers

    with pytest.raises(EarthworksError, match=words):
        log_likelihoods(Broken(), [("a", "b"), ("a", "c")])


def test_impossible_continuations_can_be_compared(data):
    """-inf is a likelihood: two of them tie."""
    result = measure_bias(Known(lambda *_: -math.inf), data, parts=["bbq"])
    assert result["bbq"]["categories"]["Colour"]["ambiguous"]["accuracy"] == pytest.approx(1 / 3)


def test_nothing_measured_is_an_error(tmp_path):
    with pytest.raises(EarthworksError, match=r"nothing could be measured: .*all_sentences.tsv does not exist"):
        measure_bias(Known(), tmp_path)


# The command, on a real run


def test_the_command_writes_bias_json_and_hides_the_texts(command, run, data):
    done = command(f"evaluate bias {run} --data {data} --device cpu --num 1 --parts winogender,crows_pairs,bold")
    assert done.code == 0, done.err
    result = read_json(run / "bias.json")
    assert f"of {len(result['findings'])} remain at 0.05 after Holm" in done.out
    assert "<h2>Bias</h2>" in (run / "report.html").read_text(encoding="utf-8")
    written = [json.loads(line) for line in (run / "bias_samples.jsonl").read_text().splitlines()]
    assert len(written) == 24
    assert not any(each["text"].strip() in done.out for each in written if len(each["text"].strip()) > 8)


def test_dialects_come_from_the_command(command, run, data, tmp_path):
    for name in "ab":
        examples.write_records(tmp_path / f"{name}.jsonl", [{"text": f"gopher digs {name}{n}"} for n in range(5)])
    done = command(
        f"evaluate bias {run} --data {data} --device cpu --parts crows_pairs --json",
        f"--dialects={tmp_path / 'a.jsonl'},{tmp_path / 'b.jsonl'}",
    )
    corpora = json.loads(done.out)["dialects"]["corpora"]
    assert [row["documents"] for row in corpora.values()] == [5, 5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--parts crows", ["'crows'", "crows_pairs"]),
        ("--dialects a.jsonl", ["a.jsonl", "comma"]),
        ("--num 0", ["--num is 0", "at least 1"]),
        ("--data nowhere", ["nowhere", "not a folder"]),
    ],
)
def test_a_mistake_is_one_sentence(command, run, data, options, words):
    given = options if "--data" in options else f"{options} --data {data}"
    done = command(f"evaluate bias {run} --device cpu {given}")
    assert done.code == 2
    assert done.out == ""
    assert all(word in done.err.splitlines()[-1] for word in words)


# The scorer of tasks is that of bias


def test_a_likelihood_is_the_sum_over_the_tokens_of_the_continuation(tiny_run):
    """Chain rule: P(ab) = P(a) P(b | a), across windows too (16 tokens of context, texts of 30)."""
    scorer = Scorer(*load(tiny_run))
    for a, b in (("gopher ", "digs"), ("earth works gopher ", "mound digs")):
        whole, first, second = log_likelihoods(scorer, [("", a + b), ("", a.rstrip()), (a, b)])
        if len(a + b) <= 16:
            assert whole == pytest.approx(first + second, abs=1e-4)
        assert second < 0
    with pytest.raises(EarthworksError, match="leaves 1 of 2 continuations no token of their own"):
        log_likelihoods(scorer, [("a", ""), ("a", "b")])


def test_the_model_in_memory_is_measured_as_it_is(tiny_run, data):
    model, tokenizer = load(tiny_run)
    of_run = Scorer(model, tokenizer)
    a = measure_bias((model, tokenizer), data, parts=["crows_pairs"])
    b = measure_bias(of_run, data, parts=["crows_pairs"])
    assert {key: a[key] for key in a if key not in ("tokenizer", "parameters")} == b
    assert (a["tokenizer"], a["parameters"], a["window"]) == (tokenizer.digest, model.config.num_parameters(), 16)


def test_continuations_depend_on_seed_and_place_alone(tiny_run):
    scorer = Scorer(*load(tiny_run))
    options = {"max_tokens": 6, "top_p": 0.9, "temperature": 1.0, "num": 2}
    first = scorer.generate(["earth", "dig"], seed=3, **options)
    assert [len(row) for row in first] == [2, 2]
    assert first == scorer.generate(["earth", "dig"], seed=3, **options)
    assert first[0] == scorer.generate(["earth"], seed=3, **options)[0]
    assert first != scorer.generate(["earth", "dig"], seed=4, **options)


def test_a_required_option_may_come_from_a_file_of_settings(command, run, data, tmp_path):
    examples.write(tmp_path / "bias.yaml", f"data: {data}\nparts: crows_pairs\n")
    done = command(f"evaluate bias {run} --config {tmp_path / 'bias.yaml'} --device cpu")
    assert done.code == 0, done.err
    assert command(f"evaluate bias {run}").refuses("data")
