from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Runs end without the drawing of their report, which takes longer than they do."""
    from earthworks.runs import write_bytes
    from earthworks.wgan import training

    def unwritten(runs: list[Path]) -> Path:
        write_bytes(runs[0] / "report.html", b"not drawn")
        return runs[0] / "report.html"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_report", unwritten)
        yield
