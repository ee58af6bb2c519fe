"""What the paper claims (4.3, 4.5), and what the miniature must show: each statement checked by one number.

Reads data/paper/claims.yaml and metrics.csv; writes nothing (tables.py writes the outcome). A claim that fails is
stated as plainly as one that holds.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import pandas as pd
import yaml
from pydantic import model_validator

from rmkit import metrics, statistics
from rmkit.paths import REPOSITORY
from rmkit.profile import Settings
from rmkit.statistics import Estimate

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
    """One statement of a section of the paper, or of this kit about its miniature."""

    id: str
    section: str
    statement: str
    check: Check


@dataclass(frozen=True)
class Outcome:
    """A claim's number and what it says: undecided where the interval reaches over a bound."""

    claim: Claim
    found: Estimate
    verdict: Literal["holds", "does not hold", "undecided", "not run"]


ORDER = ("realmaster", "edges", "depth", "multi_anchor")


@cache
def load() -> tuple[Claim, ...]:
    """All claims, in the order of their file."""
    return tuple(Claim.model_validate(entry) for entry in yaml.safe_load(FILE.read_text()))


def check(frame: pd.DataFrame) -> list[Outcome]:
    """Outcome of every claim, in the order of their file."""
    return [_check(frame, claim) for claim in load()]


def not_measured(frame: pd.DataFrame) -> str:
    """Why some claims have no verdict: the metrics and methods that metrics.csv lacks."""
    measured, run = set(frame.metric), set(frame.method)
    lacking = dict.fromkeys(c.check.metric for c in load() if c.check.metric not in measured)
    absent = dict.fromkeys(m for c in load() for m in c.check.methods if m not in run)
    if not lacking and not absent:
        return "Every claim was checked."
    return (
        f"Not run, for want of values: {', '.join([*lacking, *absent])} (the reasons stand under Table 1). PSNR and "
        "SSIM to the truth stand in for the paper's metrics here; the paper has no truth."
    )


def observed_order(frame: pd.DataFrame, metric: str = "psnr_truth") -> list[tuple[str, float]]:
    """The ablation's methods from best to worst on a metric, with their means."""
    means = [(method, statistics.mean(frame, method, metric)) for method in ORDER]
    better = metrics.BY_NAME[metric].better
    known = [(method, found.value) for method, found in means if found.known]
    return sorted(known, key=lambda entry: -better * entry[1])


def _check(frame: pd.DataFrame, claim: Claim) -> Outcome:
    compare = statistics.difference if claim.check.difference else statistics.ratio
    found = compare(frame, claim.check.metric, *claim.check.methods)
    if not found.known:
        return Outcome(claim, found, "not run")
    if claim.check.inside(found):
        return Outcome(claim, found, "holds")
    return Outcome(claim, found, "does not hold" if claim.check.outside(found) else "undecided")
