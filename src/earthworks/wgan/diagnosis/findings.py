"""Types of a diagnosis: faults with their evidence, and undecided questions."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A fault: name, sentence with the measured numbers, remedy, and the numbers by name."""

    name: str
    sentence: str
    advice: str
    evidence: dict[str, float]


@dataclass(frozen=True)
class Undecided:
    """A question that could not be answered, and the reason."""

    question: str
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of one run after `steps` steps. `examined` lists the faults that were ruled out."""

    run: str
    steps: int
    findings: list[Finding] = field(default_factory=list)
    undecided: list[Undecided] = field(default_factory=list)
    examined: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether no fault was found and nothing is undecided."""
        return not self.findings and not self.undecided

    @property
    def verdict(self) -> str:
        if self.findings:
            return f"{len(self.findings)} found: {', '.join(finding.name for finding in self.findings)}"
        if not self.examined:
            return "too early to tell"
        return "healthy" if self.healthy else "nothing found, but not everything could be judged"

    def __str__(self) -> str:
        lines = [f"{self.run} after {self.steps:,} steps: {self.verdict}."]
        for finding in self.findings:
            lines += ["", f"{finding.name}: {finding.sentence}", f"  What to do: {finding.advice}"]
        if self.undecided:
            lines += ["", "Not judged:", *(f"  {each.question}: {each.reason}" for each in self.undecided)]
        if not self.findings and self.examined:
            lines += ["", f"Looked for and not found: {', '.join(self.examined)}."]
            lines += ["To measure the quality of the samples, run earthworks wgan evaluate."]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {**asdict(self), "healthy": self.healthy, "verdict": self.verdict}
