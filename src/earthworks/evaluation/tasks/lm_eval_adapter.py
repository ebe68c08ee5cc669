"""Adapter to lm-evaluation-harness, and export of our tasks to its format. Requires the extra `eval`.

    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model = adapter(*earthworks.gopher.load("runs/a"))
    simple_evaluate(model=model, tasks=["hellaswag"])                       # its own tasks, from the network

    names = write_lm_eval_tasks("folder", shipped_tasks(), "eval/")         # ours, from files, offline
    manager = TaskManager(include_path="folder", include_defaults=False)
    simple_evaluate(model=model, tasks=list(names), task_manager=manager, num_fewshot=0, bootstrap_iters=0)

The harness splits context and continuation, sums, normalises and averages; we only supply the token likelihoods.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from earthworks.evaluation.likelihood.generation import write
from earthworks.evaluation.likelihood.scorer import Encoded, Scorer
from earthworks.evaluation.tasks.items import make_items
from earthworks.evaluation.tasks.measuring import texts_of
from earthworks.evaluation.tasks.task_file import Task
from earthworks.runs import json_text, read_yaml, write_bytes
from earthworks.runs.errors import missing_extra
from earthworks.runs.files import refuse_existing


def adapter(model: Any, tokenizer: Any, *, window: int | None = None, batch: int = 64) -> Any:
    """An `lm_eval.api.model.TemplateLM` of (model, tokenizer); arguments as for `Scorer`.

    A context starts after an end-of-document token, like every document in training.
    """
    try:
        from lm_eval.api.model import TemplateLM
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    except ImportError:
        raise missing_extra("lm-eval", "eval", "the adapter to lm-evaluation-harness") from None

    class EarthworksLM(TemplateLM):
        def __init__(self) -> None:
            super().__init__()
            self.scorer = Scorer(model, tokenizer, window=window, batch=batch)

        @property
        def eot_token_id(self) -> int:
            return tokenizer.end_of_document

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            ids = np.asarray(tokenizer.encode(string)).tolist()
            return ids if add_special_tokens is False else [self.eot_token_id, *ids]

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            encoded = [Encoded(np.array([*before, *after], np.int64), len(after)) for _, before, after in requests]
            return [(each.log_likelihood, each.greedy) for each in self.scorer.score_encoded(encoded)]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            found = []
            for (text,) in (request.args for request in requests):
                ids = self.tok_encode(text, add_special_tokens=False)
                windows = get_rolling_token_windows(ids, self.prefix_token_id, self.scorer.window, context_len=1)
                parts = [(None, *make_disjoint_window(pair)) for pair in windows]
                found.append(sum(nats for nats, _ in self._loglikelihood_tokens(parts)))
            return found

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            found = []
            for context, settings in (request.args for request in requests):
                until = settings.get("until") or []
                text, _ = write(
                    model,
                    tokenizer,
                    [context],
                    max_tokens=settings.get("max_gen_toks", 256),
                    window=self.scorer.window,
                    batch=1,
                    stop=[until] if isinstance(until, str) else until,
                )[0]
                found.append(text)
            return found

    return EarthworksLM()


def write_lm_eval_tasks(
    folder: str | Path,
    tasks: Sequence[Task],
    data: str | Path,
    *,
    shots: int = 0,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, Task]:
    """Write our tasks as lm-eval YAML, with their items as JSON Lines; return {name in lm-eval: task}.

    Items are rendered with their examples, so that the harness uses exactly our prompts: run it with num_fewshot=0.
    Open answers are left out, because only our own code compares them.
    """
    folder = Path(folder).resolve()
    written = {}
    for task in (each for each in tasks if each.kind in FORMS):
        name = f"earthworks_{task.name}"
        rows = rows_of(task, Path(data), shots, limit, seed)
        refuse_foreign(folder, name)
        lines = "".join(json_text(row, indent=None) + "\n" for row in rows)
        write_bytes(folder / f"{name}.jsonl", lines.encode())
        config = {
            "task": name,
            "dataset_path": "json",
            # absolute: not relative to the working directory
            "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
            "test_split": "test",
            "target_delimiter": task.separator,
            "num_fewshot": 0,
            "metadata": {"version": task.digest},
            **FORMS[task.kind],
        }
        write_bytes(folder / f"{name}.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
        written[name] = task
    return written


def refuse_foreign(folder: Path, name: str) -> None:
    """Raise EarthworksError if NAME.yaml or NAME.jsonl exists and was not written by `write_lm_eval_tasks`."""
    there = folder / f"{name}.yaml"
    config = read_yaml(there) if os.path.lexists(there) else None
    if not isinstance(config, dict) or config.get("task") != name or "metadata" not in config:
        for file in (there, folder / f"{name}.jsonl"):
            refuse_existing(file)


def rows_of(task: Task, data: Path, shots: int, limit: int | None, seed: int) -> list[dict[str, Any]]:
    """The rendered items, with the fields named in FORMS."""
    if task.kind == "text":
        return [{"context": "", "continuation": text} for text in texts_of(task, data, limit)]
    return [
        {
            "context": item.contexts[0],
            "contexts": item.contexts,
            "options": item.options,
            "gold": item.gold,
            "continuation": item.options[0] if task.kind == "contexts" else item.continuations[0],
        }
        for item in make_items(task, data, shots=shots, limit=limit, seed=seed)
        if item.fault is None
    ]


def metrics(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


FORMS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "metric_list": metrics("acc", "acc_norm", "acc_bytes", "acc_mutual_info"),
    },
    "contexts": {  # the harness's form for many contexts and one continuation: doc_to_text is the index of the right context
        "output_type": "multiple_choice",
        "doc_to_text": "gold",
        "doc_to_choice": "contexts",
        "doc_to_target": "continuation",
        "metric_list": metrics("acc"),
    },
    "completion": {
        "output_type": "loglikelihood",
        "doc_to_text": "context",
        "doc_to_target": "continuation",
        "metric_list": [
            *metrics("acc"),
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        ],
    },
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "context",
        "doc_to_target": "continuation",
        "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    },
}
