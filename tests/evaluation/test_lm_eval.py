"""Agreement with lm-evaluation-harness, and with the likelihoods of its Hugging Face adapter."""

import socket

import numpy as np
import pytest

from earthworks.evaluation import evaluate_tasks
from earthworks.evaluation.likelihood.scorer import Scorer
from earthworks.evaluation.tasks.evaluation import chosen
from earthworks.evaluation.tasks.lm_eval_adapter import adapter, write_lm_eval_tasks
from earthworks.evaluation.tasks.task_file import Task, shipped_tasks
from earthworks.runs import EarthworksError

OFFLINE = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "DISABLE_MULTIPROC": "1"}
THEIRS = {"raw": "acc", "per_character": "acc_norm", "per_byte": "acc_bytes", "unconditional": "acc_mutual_info"}
TINY = ["hellaswag", "piqa", "winogrande", "boolq", "mmlu", "blimp", "lambada", "operators"]


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """No network, and a temporary cache of converted files; set before datasets is imported."""
    pytest.importorskip("lm_eval")

    def refuse(*_):
        raise AssertionError("a socket was opened")

    with pytest.MonkeyPatch.context() as patch:
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(socket.socket, "connect", refuse)
        yield


def harness(model, tokenizer, folder, tasks, data, **given):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    names = write_lm_eval_tasks(folder, tasks, data, **given)
    found = simple_evaluate(
        model=adapter(model, tokenizer),
        tasks=list(names),
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        num_fewshot=0,
        bootstrap_iters=0,
    )
    assert found is not None
    return {task.name: found["results"][name] for name, task in names.items()}


def agrees(ours, theirs):
    """Every number that both give, to 1e-4."""
    if ours["kind"] == "text":
        assert ours["value"] == pytest.approx(theirs["bits_per_byte,none"], abs=1e-4)
        return
    if ours["kind"] == "completion":
        assert ours["value"] == pytest.approx(theirs["acc,none"], abs=1e-4)
        assert np.log(ours["perplexity"]) == pytest.approx(np.log(theirs["perplexity,none"]), abs=1e-4)
        return
    for rule, accuracy in ours["accuracy"].items():
        assert accuracy["value"] == pytest.approx(theirs[f"{THEIRS[rule]},none"], abs=1e-4), (ours["name"], rule)


@pytest.mark.parametrize("shots", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_harness_measures_the_same(gopher, alphabet, tiny_eval, tmp_path, shots):
    novels = Task(name="novels", category="language modelling", kind="text", file="../text/books/test.jsonl")
    tasks = [task for task in chosen([*TINY, novels]) if task.few_shot or not shots]
    theirs = harness(gopher, alphabet, tmp_path, tasks, tiny_eval, shots=shots)
    ours = evaluate_tasks((gopher, alphabet), tiny_eval, tasks, shots=[shots])
    assert len(ours["results"]) == len(theirs) == len(tasks)
    for each in ours["results"]:
        agrees(each, theirs[each["name"]])


def test_the_harness_reads_what_the_model_writes(gopher, alphabet):
    from lm_eval.api.instance import Instance

    lm = adapter(gopher, alphabet)
    prompts = ["earth works", "gopher digs deep " * 20]
    asked = [Instance("generate_until", {}, (prompt, {"until": ["\n"], "max_gen_toks": 9}), 0) for prompt in prompts]
    wanted = [text for text, _ in Scorer(gopher, alphabet).write(prompts, 9)]
    assert lm.generate_until(asked) == wanted


def test_a_model_of_transformers_gets_the_likelihoods_of_its_own_adapter(tmp_path):
    """GPT-2 with random weights, in the harness's `hf` adapter and as a callable in ours."""
    pytest.importorskip("accelerate")  # the adapter imports it
    transformers = pytest.importorskip("transformers")
    import tokenizers
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    from earthworks.corpus import Tokenizer

    own = Tokenizer.train(["earth works gopher digs mound tunnel deep root, stone and clay. " * 50], 400)
    library = tokenizers.Tokenizer.from_str(own.file_content().decode())
    library.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", own.end_of_document)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token="</s>", eos_token="</s>", pad_token="</s>", split_special_tokens=True
    )
    torch.manual_seed(0)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
    ends = {"bos_token_id": own.end_of_document, "eos_token_id": own.end_of_document}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=own.vocabulary, **shape, **ends)).eval()
    pairs = [("earth works", " gopher digs"), ("", "tunnel deep"), ("the clay ", "root"), ("stone " * 60, " and clay")]
    pairs += [(f"mound {n}", f" {'deep ' * n}root") for n in range(1, 12)]
    lm = HFLM(pretrained=model, tokenizer=fast, batch_size=4, device="cpu", add_bos_token=True)
    theirs = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)
    ours = Scorer(model, own, window=64).score(pairs)
    np.testing.assert_allclose([each.log_likelihood for each in ours], [nats for nats, _ in theirs], atol=1e-4)
    assert [each.greedy for each in ours] == [bool(greedy) for _, greedy in theirs]


@pytest.mark.slow
@pytest.mark.parametrize("shots", [0, 1])
def test_the_harness_measures_the_same_on_every_real_task(gopher, alphabet, real_data, tmp_path, shots):
    tasks = [task for task in shipped_tasks() if task.kind != "answer" and (not shots or task.few_shot)]
    theirs = harness(gopher, alphabet, tmp_path, tasks, real_data / "eval", shots=shots, limit=10)
    ours = evaluate_tasks((gopher, alphabet), real_data / "eval", tasks, shots=[shots], limit=10)
    assert len(ours["results"]) >= 20
    for each in ours["results"]:
        if each["shots"] == shots:
            agrees(each, theirs[each["name"]])


def test_a_file_of_somebody_else_is_not_overwritten(tiny_eval, tmp_path):
    (task,) = (each for each in shipped_tasks() if each.name == "piqa")
    for name in ("earthworks_piqa.yaml", "earthworks_piqa.jsonl"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(EarthworksError, match="already exists"):
            write_lm_eval_tasks(folder, [task], tiny_eval)
        assert (folder / name).read_text() == "mine"
    for _ in range(2):  # its own it writes anew
        write_lm_eval_tasks(tmp_path / "own", [task], tiny_eval)
