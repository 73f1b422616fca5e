"""What the doctor says: findings with their evidence and cure, and what it could not decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kfusion.json_values import none_if_not_finite

# From what keeps a model from learning to what is good to know.
SEVERITIES = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        name: Of the check, such as "inputs_not_scaled".
        severity: "error": training cannot succeed, or its scores mean nothing; "warning": it costs
            score; "note": good to know.
        subject: What it was found in: an input, column, layer, branch or history, by its name.
        evidence: What was measured, with its numbers.
        effect: What it does to training or to scores.
        cure: A line of code that cures it.
        values: The numbers of the evidence by name.
    """

    name: str
    severity: str
    subject: str
    evidence: str
    effect: str
    cure: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(
                f"`severity` must be one of {SEVERITIES}. Received: {self.severity!r}."
            )

    def __str__(self) -> str:
        return (
            f"{self.severity}: {self.name} ({self.subject})\n"
            f"  found:  {self.evidence}\n"
            f"  effect: {self.effect}\n"
            f"  cure:   {self.cure}"
        )


@dataclasses.dataclass(frozen=True)
class Undecided:
    """A check that could not be made, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"not decided: {self.name}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All findings, the gravest first, and the checks that could not decide.

    A diagnosis is true if anything was found; iterating gives the findings.

    Attributes:
        findings: List of `Finding`.
        undecided: List of `Undecided`.
        num_checks: Int, how many checks were made.
    """

    findings: Sequence[Finding]
    undecided: Sequence[Undecided] = ()
    num_checks: int = 0

    @property
    def names(self) -> list[str]:
        """Names of what was found, each once."""
        return list(dict.fromkeys(finding.name for finding in self.findings))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        head = f"{len(self.findings)} findings in {self.num_checks} checks"
        return "\n".join([head, *map(str, self.findings), *map(str, self.undecided)])

    def to_dict(self) -> dict[str, Any]:
        """All of it as values that JSON holds."""
        return {
            "num_checks": self.num_checks,
            "findings": [none_if_not_finite(dataclasses.asdict(each)) for each in self.findings],
            "undecided": [dataclasses.asdict(each) for each in self.undecided],
        }


def to_diagnosis(said: Sequence[Finding | Undecided], num_checks: int) -> Diagnosis:
    """Sorts what checks said: the gravest findings first, otherwise as they came."""
    findings = [each for each in said if isinstance(each, Finding)]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    undecided = [each for each in said if isinstance(each, Undecided)]
    return Diagnosis(findings, undecided, num_checks)
