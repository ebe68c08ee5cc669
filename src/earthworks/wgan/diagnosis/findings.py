"""What a diagnosis consists of: faults with their evidence, and what could not be judged."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A fault: its name, a sentence with the measured numbers, what to do about it, and the numbers again by name."""

    name: str
    sentence: str
    advice: str
    evidence: dict[str, float]


@dataclass(frozen=True)
class Undecided:
    """A question that the run does not answer, and why."""

    question: str
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything found out about one run after `steps` steps. `examined` names the questions that were answered."""

    run: str
    steps: int
    findings: list[Finding] = field(default_factory=list)
    undecided: list[Undecided] = field(default_factory=list)
    examined: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """No fault was found, and nothing was left open."""
        return not self.findings and not self.undecided

    @property
    def verdict(self) -> str:
        if self.findings:
            return f"{len(self.findings)} found: {', '.join(finding.name for finding in self.findings)}"
        if not self.examined:
            return "too early to say"
        return "healthy" if self.healthy else "nothing found, but not everything could be judged"

    def __str__(self) -> str:
        lines = [f"{self.run} after {self.steps:,} steps: {self.verdict}."]
        for finding in self.findings:
            lines += ["", f"{finding.name}: {finding.sentence}", f"  What to do: {finding.advice}"]
        if self.undecided:
            lines += ["", "Not judged:", *(f"  {each.question}: {each.reason}" for each in self.undecided)]
        if not self.findings and self.examined:
            lines += ["", f"Looked for and not found: {', '.join(self.examined)}."]
            lines += ["How good the samples are is another question: earthworks wgan evaluate measures it."]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {**asdict(self), "healthy": self.healthy, "verdict": self.verdict}
