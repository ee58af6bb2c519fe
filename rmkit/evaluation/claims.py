"""What the paper claims (4.3, 4.5), and what the miniature must show: each statement checked by one number, or by others.

Reads data/paper/claims.yaml and metrics.csv; writes nothing (tables.py writes the outcome). A claim that fails is
stated as plainly as one that holds.
"""

import math
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
ORDER = ("realmaster", "edges", "depth", "multi_anchor")
Verdict = Literal["holds", "does not hold", "undecided", "not run"]


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

    def verdict(self, found: Estimate) -> Verdict:
        """Whether the whole interval keeps the bounds, or is beyond one; 0 itself does not, as a tie is not better."""
        if not found.known:
            return "not run"
        least = -math.inf if self.least is None else self.least or math.nextafter(0, 1)
        most = math.inf if self.most is None else self.most or math.nextafter(0, -1)
        if least <= found.low and found.high <= most:
            return "holds"
        return "does not hold" if found.high < least or found.low > most else "undecided"


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


@dataclass(frozen=True)
class Outcome:
    """A claim's number and what it says: undecided where the interval reaches over a bound."""

    claim: Claim
    found: Estimate
    verdict: Verdict
    parts: tuple[Verdict, ...] = ()  # of the claims that it hangs on


@cache
def load() -> tuple[Claim, ...]:
    """All claims, in the order of their file."""
    return tuple(Claim.model_validate(entry) for entry in yaml.safe_load(FILE.read_text()))


def check(frame: pd.DataFrame) -> list[Outcome]:
    """Outcome of every claim, in the order of their file."""
    outcomes: dict[str, Outcome] = {}
    for claim in load():
        if claim.check:
            compare = statistics.difference if claim.check.difference else statistics.ratio
            found = compare(frame, claim.check.metric, *claim.check.methods)
            outcomes[claim.id] = Outcome(claim, found, claim.check.verdict(found))
        else:
            parts = tuple(outcomes[name].verdict for name in claim.every)
            outcomes[claim.id] = Outcome(claim, statistics.NOTHING, _together(parts), parts)
    return list(outcomes.values())


def not_measured(frame: pd.DataFrame) -> str:
    """Why some claims have no verdict: the metrics and methods that metrics.csv lacks."""
    checks = [claim.check for claim in load() if claim.check]
    names = dict.fromkeys(check.metric for check in checks)
    lacking = [name for name in names if not frame.metric.eq(name).any()]
    names = dict.fromkeys(name for check in checks for name in check.methods)
    lacking += [name for name in names if not frame.method.eq(name).any()]
    if not lacking:
        return "Every claim was checked."
    return (
        f"Not run, for want of values: {', '.join(lacking)} (the reasons stand under Table 1). PSNR and "
        "SSIM to the truth stand in for the paper's metrics here; the paper has no truth."
    )


def observed_order(frame: pd.DataFrame, metric: str = "psnr_truth") -> list[tuple[str, float]]:
    """The ablation's methods from best to worst on a metric, with their means."""
    means = [(method, statistics.mean(frame, method, metric)) for method in ORDER]
    better = metrics.columns()[metric].better
    known = [(method, found.value) for method, found in means if found.known]
    return sorted(known, key=lambda entry: -better * entry[1])


def _together(parts: Sequence[Verdict]) -> Verdict:
    """All must hold; one that does not is enough against them; with none known nothing is."""
    if "does not hold" in parts:
        return "does not hold"
    if not set(parts) - {"not run"}:
        return "not run"
    return "holds" if set(parts) == {"holds"} else "undecided"
