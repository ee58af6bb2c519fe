"""What the paper claims (4.3, 4.5), and what the miniature must show: each statement checked by one number, or by others.

Reads data/paper/claims.yaml and metrics.csv; writes nothing (tables.py writes the outcome). A claim that fails is
stated as plainly as one that holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import pandas as pd
import yaml
from pydantic import model_validator

from rmkit import metrics
from rmkit.evaluation import statistics
from rmkit.evaluation.statistics import Estimate
from rmkit.paths import REPOSITORY
from rmkit.profile import Settings

FILE = REPOSITORY / "data" / "paper" / "claims.yaml"


class Check(Settings):
    """A number of a run, `difference` a - b or `ratio` a / b of two methods' means, and the bounds it must keep."""

    metric: str
    difference: tuple[str, str] | None = None
    ratio: tuple[str, str] | None = None
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Check":
        if (self.difference is None) == (self.ratio is None):
            raise ValueError("a check has a difference or a ratio, one of them")
        if self.least is None and self.most is None:
            raise ValueError("a check has a bound: least, most or both")
        return self

    @property
    def methods(self) -> tuple[str, str]:
        """The two that are compared."""
        return self.difference or self.ratio

    def inside(self, found: Estimate) -> bool:
        """Whether the whole interval keeps the bounds; 0 itself does not, as a tie is not better."""
        above = self.least is None or (found.low >= self.least if self.least else found.low > 0)
        return above and (self.most is None or (found.high <= self.most if self.most else found.high < 0))

    def outside(self, found: Estimate) -> bool:
        """Whether the whole interval breaks a bound."""
        below = self.least is not None and (found.high < self.least if self.least else found.high <= 0)
        return below or (self.most is not None and (found.low > self.most if self.most else found.low >= 0))


class Claim(Settings):
    """One statement of a section of the paper, or of this kit about its miniature.

    It has a check, or says of which earlier claims `every` one must hold, or why it is `not_run`.
    """

    id: str
    section: str
    statement: str
    check: Check | None = None
    every: tuple[str, ...] = ()
    not_run: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        if sum(map(bool, (self.check, self.every, self.not_run))) != 1:
            raise ValueError(f"claim {self.id} has a check, every or not_run, one of them")
        return self


Verdict = Literal["holds", "does not hold", "undecided", "not run"]


@dataclass(frozen=True)
class Outcome:
    """A claim's number and what it says: undecided where the interval reaches over a bound."""

    claim: Claim
    found: Estimate
    verdict: Verdict
    parts: tuple[Verdict, ...] = ()  # of the claims that it hangs on


ORDER = ("realmaster", "edges", "depth", "multi_anchor")


@cache
def load() -> tuple[Claim, ...]:
    """All claims, in the order of their file."""
    return tuple(Claim.model_validate(entry) for entry in yaml.safe_load(FILE.read_text()))


def check(frame: pd.DataFrame) -> list[Outcome]:
    """Outcome of every claim, in the order of their file."""
    outcomes: dict[str, Outcome] = {}
    for claim in load():
        parts = tuple(outcomes[name].verdict for name in claim.every)
        if claim.check:
            outcomes[claim.id] = _check(frame, claim, claim.check)
        else:
            outcomes[claim.id] = Outcome(claim, statistics.NOTHING, _together(parts), parts)
    return list(outcomes.values())


def not_measured(frame: pd.DataFrame) -> str:
    """Why some claims have no verdict: the metrics and methods that metrics.csv lacks."""
    measured, run = set(frame.metric), set(frame.method)
    checks = [claim.check for claim in load() if claim.check]
    lacking = dict.fromkeys(c.metric for c in checks if c.metric not in measured)
    absent = dict.fromkeys(m for c in checks for m in c.methods if m not in run)
    if not lacking and not absent:
        return "Every claim was checked."
    return (
        f"Not run, for want of values: {', '.join([*lacking, *absent])} (the reasons stand under Table 1). PSNR and "
        "SSIM to the truth stand in for the paper's metrics here; the paper has no truth."
    )


def observed_order(frame: pd.DataFrame, metric: str = "psnr_truth") -> list[tuple[str, float]]:
    """The ablation's methods from best to worst on a metric, with their means."""
    means = [(method, statistics.mean(frame, method, metric)) for method in ORDER]
    better = metrics.columns()[metric].better
    known = [(method, found.value) for method, found in means if found.known]
    return sorted(known, key=lambda entry: -better * entry[1])


def _check(frame: pd.DataFrame, claim: Claim, check: Check) -> Outcome:
    compare = statistics.difference if check.difference else statistics.ratio
    found = compare(frame, check.metric, *check.methods)
    if not found.known:
        return Outcome(claim, found, "not run")
    if check.inside(found):
        return Outcome(claim, found, "holds")
    return Outcome(claim, found, "does not hold" if check.outside(found) else "undecided")


def _together(parts: Sequence[Verdict]) -> Verdict:
    """All must hold; one that does not is enough against them; with none known nothing is."""
    if "does not hold" in parts:
        return "does not hold"
    if not set(parts) - {"not run"}:
        return "not run"
    return "holds" if set(parts) == {"holds"} else "undecided"
