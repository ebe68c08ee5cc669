"""Six sizes on the same text and tokens: the law of their losses, and which of the paper's category claims can be seen.

    python benchmarks/scaling.py --data $EARTHWORKS_DATA [--minutes 30 | --tokens 2e6] [--seeds 3] [--limit 80]

Trained on text/ without what the tasks measure on (the novels of validation and test, wikitext-2, tiny Shakespeare): novels,
film reviews, openings of Wikipedia articles, speeches. One tokenizer, one packing, equal tokens in the same order for every
size; the three smallest with several seeds; the fourth size also on an eighth, a quarter and a half of the tokens, each
with a schedule of its own length. Then the tasks of eval/, seed 0 of every size, `--limit` items of each (those answered by
writing are left out: at this size nothing is right). The law is fitted on five sizes and predicts the sixth, beside a
straight line in log-log; the result says which is nearer, and whether the measurement lies within the interval.

About half of `--minutes` goes to training. With --output the runs stay, and the same command goes on where it was stopped.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import RESULTS, header, quiet, write_result

TEXTS = ("books/train", "movie_reviews/train", "wikipedia_snippets/train", "speeches/train")
CONTEXT = 256
HELD_OUT = 65_536  # tokens that every run is measured on
TRAINING_SHARE = 0.5  # of the minutes
SEEDED = 3  # the smallest sizes are trained with several seeds
SERIES, SHARES = 3, (8, 4, 2)  # which size is trained on fewer tokens, and on which parts of them
FAMILY_SHARE = (
    0.69  # of the operations of training: one family; the rest are two more seeds of three sizes, and the series
)


def train_all(arguments: argparse.Namespace, folder: Path) -> list[Path]:
    """Every run, or what is missing of them; those of seed 0 first."""
    from earthworks.gopher import train
    from earthworks.gopher.pretraining import budget
    from earthworks.gopher.pretraining import run as pretraining
    from earthworks.gopher.pretraining.family import finished, members
    from earthworks.runs import RunFolder

    pretraining.MEASURED_TOKENS = (
        HELD_OUT  # at the end of each of so many short runs it would read as much as it trained on
    )
    data = ",".join(str(arguments.data / "text" / f"{name}.jsonl.xz") for name in TEXTS)
    sizes = arguments.sizes.split(",")
    given: dict[str, Any] = {"context": CONTEXT, "vocabulary": 4096, "sample_every": 10**9}
    if arguments.tokens:
        given["batch"] = max(4, round(budget.batch_tokens(arguments.tokens) / CONTEXT))
        given["max_steps"] = max(1, round(arguments.tokens / given["batch"] / CONTEXT))
    else:
        given["minutes"] = TRAINING_SHARE * FAMILY_SHARE * arguments.minutes
    family = train(data, run=str(folder / "seed-0"), family=arguments.sizes, **given)
    settled = RunFolder(family).read_config()
    same = {name: settled[name] for name in ("context", "batch", "max_steps", "precision", "sample_every")}
    runs = members(family)
    packed = str(family / "data")
    for seed in range(1, arguments.seeds):
        run = str(folder / f"seed-{seed}")
        runs += members(train(packed, run=run, family=",".join(sizes[:SEEDED]), seed=seed, **same))
    for share in SHARES:
        run = folder / f"{sizes[SERIES]}-1-{share}"
        steps = max(1, settled["max_steps"] // share)
        runs.append(run)
        if finished(RunFolder(run), steps):
            continue
        if (run / "config.yaml").exists():
            train(resume=str(run))
        else:
            train(packed, run=str(run), size=sizes[SERIES], **{**same, "max_steps": steps})
    return runs


def measure_tasks(runs: list[Path], arguments: argparse.Namespace) -> None:
    from earthworks.evaluation import evaluate_tasks
    from earthworks.evaluation.tasks.task_file import shipped_tasks
    from earthworks.runs import write_json

    tasks = [task for task in shipped_tasks() if task.kind != "answer"]
    shots = [int(each) for each in arguments.shots.split(",")]
    for run in runs:
        if not (run / "tasks.json").exists():
            found = evaluate_tasks(run, arguments.data / "eval", tasks, shots=shots, limit=arguments.limit)
            write_json(run / "tasks.json", found)


def main() -> None:
    from earthworks.evaluation import compare_family
    from earthworks.evaluation.scaling.command import lines
    from earthworks.evaluation.scaling.page import headline, write_page
    from earthworks.gopher.config import SMALL_FAMILY
    from earthworks.runs import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tokens", type=float, help="train on so many instead of for a share of the minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=80)
    parser.add_argument("--shots", default="0,2")
    parser.add_argument("--sizes", default=",".join(SMALL_FAMILY))
    parser.add_argument("--output", type=Path, help="keep the runs, the page and the figures here")
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    arguments = parser.parse_args()
    if not arguments.busy:
        quiet()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.output or Path(temporary)
        runs = train_all(arguments, folder)
        trained = time.monotonic()
        measure_tasks(runs[: len(arguments.sizes.split(","))], arguments)
        measured = time.monotonic()
        result = compare_family(runs, max_tokens=HELD_OUT)
        write_json(folder / "scaling.json", result)
        write_page(result, folder)
        figures = sorted((folder / "figures").glob("scaling-*.png"))
        RESULTS.mkdir(exist_ok=True)
        for figure in figures:
            shutil.copy(figure, RESULTS / figure.name)
    text = [
        header(),
        f"- time: {(trained - started) / 60:.0f} min training, {(measured - trained) / 60:.0f} min tasks",
        "",
    ]
    text += [headline(result), "", "```", *lines(result), "```", ""]
    text += [f"![{figure.stem}]({figure.name})" for figure in figures]
    write_result("scaling", "\n".join(text))


if __name__ == "__main__":
    main()
