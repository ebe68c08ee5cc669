import math

import pytest
from example_run import EVALUATION, records, write_run

from earthworks.report import write_report


@pytest.fixture
def make_run(tmp_path):
    """`make_run(name, **parts)` writes a run folder of the given parts."""
    return lambda name="a", *arguments, **parts: write_run(tmp_path / name, *arguments, **parts)


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """A finished run with everything that a page can show, and its page."""
    run = write_run(
        tmp_path_factory.mktemp("runs") / "a",
        metrics=records(),
        evaluation=EVALUATION,
        passage={"title": "Held out: chapter 1", "tokens": [["It was", 0.5], [" the\n", math.log(8)], ["whale", 9.0]]},
        samples={step: f"Sample of step {step}.\n    indented" for step in range(0, 401, 50)},
        environment={"python": "3.11.2", "command": ["earthworks", "--data", "my text.txt"]},
    )
    assert write_report([run]) == run / "report.html"
    return run
