"""What the paper claims (3.2 to 5, A), and what the miniature must show: each checked by one number, or by others.

Reads data/paper/claims.yaml, metrics.csv of the run and of its demonstrations, and the user study's table; writes nothing
(tables.py writes the outcome). A claim that fails is stated as plainly as one that holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import pandas as pd
from pydantic import ValidationError, model_validator

from rmkit import metrics
from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.evaluation import metrics_csv, statistics
from rmkit.evaluation.statistics import Estimate
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile, Settings

FILE = REPOSITORY / "data" / "paper" / "claims.yaml"
ORDER = ("realmaster", "edges", "depth", "multi_anchor")
Verdict = Literal["holds", "does not hold", "undecided", "not run"]
Part = Literal["weather", "carla", "limits"]  # the demonstrations that measure
STUDY = "study"  # the user study's table, among the frames of the parts
KINDS = ("difference", "ratio", "mean", "two_sample", "preferred")


class Check(Settings):
    """A number of one metric, found in one of KINDS' ways (claims.yaml says how), and the bounds it must keep."""

    metric: str
    part: Part | None = None  # whose metrics.csv; None: the run's
    difference: tuple[str, str] | None = None
    ratio: tuple[str, str] | None = None
    mean: str | None = None
    two_sample: str | None = None
    preferred: str | None = None
    least: float | None = None
    most: float | None = None
    fewest: int = 1  # sequences, for a verdict

    @model_validator(mode="after")
    def _complete(self) -> "Check":
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"a check has a {', '.join(KINDS[:-1])} or {KINDS[-1]}, one of them")
        if self.two_sample and not self.part:
            raise ValueError("a check by two_sample has a part, whose clips are set against the run's")
        if self.least is None and self.most is None:
            raise ValueError("a check has a bound: least, most or both")
        return self

    @property
    def kind(self) -> str:
        """Which of KINDS it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def methods(self) -> tuple[str, ...]:
        """The two that are compared, or the one that is measured."""
        named = getattr(self, self.kind)
        return (named,) if isinstance(named, str) else named

    def find(self, run: pd.DataFrame, parts: Mapping[str, pd.DataFrame]) -> Estimate:
        """The number, with nothing known where its part has not been run or has no value of it."""
        if self.preferred:
            return _preferred(parts.get(STUDY), self.preferred, self.metric)
        frame = parts.get(self.part) if self.part else run
        if frame is None:
            return statistics.NOTHING
        if self.two_sample:
            return statistics.two_sample(frame, run, self.metric, self.two_sample)
        if self.mean:
            return statistics.mean(frame, self.mean, self.metric)
        return getattr(statistics, self.kind)(frame, self.metric, *self.methods)

    def verdict(self, found: Estimate) -> Verdict:
        """Whether the whole interval keeps the bounds, or is beyond one; 0 itself does not, as a tie is not better."""
        if not found.known:
            return "not run"
        if found.sequences < self.fewest:
            return "undecided"
        least = -math.inf if self.least is None else self.least or math.nextafter(0, 1)
        most = math.inf if self.most is None else self.most or math.nextafter(0, -1)
        if least <= found.low and found.high <= most:
            return "holds"
        return "does not hold" if found.high < least or found.low > most else "undecided"


class Claim(Settings):
    """One statement of a section of the paper, or of this kit about its miniature.

    It has a check, or says of which earlier claims `every` one must hold, or why it is `not_run`. exploratory: it was added
    after its number had been seen; headline: it stands in the first lines of the report, whatever came out.
    """

    id: str
    section: str
    statement: str
    check: Check | None = None
    every: tuple[str, ...] = ()
    not_run: str | None = None
    exploratory: bool = False
    headline: bool = False

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
    """All claims, in the order of their file; raises InputError for an entry that is none."""
    entries, found = profiles.read_yaml(FILE), []
    if not isinstance(entries, list):
        raise InputError(f"{FILE} must be a list of claims.")
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(Claim.model_validate(entry))
        except ValidationError as error:
            raise InputError(f"{FILE}: entry {number}: {profiles.first_mistake(error)}") from None
    return tuple(found)


def measured_beside(profile: Profile) -> dict[str, pd.DataFrame]:
    """What claims read beside the run's metrics.csv, by name: each part that has been run, and the user study.

    Of the shipped record where the run's own values are the record's. Raises InputError for a damaged file.
    """
    of_record, found = metrics_csv.of_record(profile), {}
    for part in get_args(Part):
        layout = profile.demo(part).layout
        path = layout.reference / "metrics.csv" if of_record else layout.metrics
        if path.is_file():
            found[part] = metrics_csv.read(path)
    study = profile.layout.tables / f"{STUDY}.csv"
    return found | ({STUDY: pd.read_csv(study)} if study.is_file() and not of_record else {})


def check(run: pd.DataFrame, parts: Mapping[str, pd.DataFrame] | None = None) -> list[Outcome]:
    """Outcome of every claim, in the order of their file; parts: as `measured_beside` gives them (none have been run)."""
    outcomes: dict[str, Outcome] = {}
    for claim in load():
        if claim.check:
            found = claim.check.find(run, parts or {})
            outcomes[claim.id] = Outcome(claim, found, claim.check.verdict(found))
        else:
            held = tuple(outcomes[name].verdict for name in claim.every)
            outcomes[claim.id] = Outcome(claim, statistics.NOTHING, _together(held), held)
    return list(outcomes.values())


def not_measured(run: pd.DataFrame, parts: Mapping[str, pd.DataFrame] | None = None) -> str:
    """Why some claims have no verdict: the metrics and methods that metrics.csv lacks, and the parts that were not run."""
    parts, checks = parts or {}, [claim.check for claim in load() if claim.check]
    of_run = [check for check in checks if not check.part and not check.preferred]
    names = dict.fromkeys(check.metric for check in of_run)
    lacking = [name for name in names if not run.metric.eq(name).any()]
    names = dict.fromkeys(name for check in of_run for name in check.methods)
    lacking += [name for name in names if not run.method.eq(name).any()]
    sentences = []
    if lacking:
        sentences.append(
            f"Not run, for want of values: {', '.join(lacking)} (the reasons stand under Table 1). PSNR and "
            "SSIM to the truth stand in for the paper's metrics here; the paper has no truth."
        )
    if absent := [part for part in get_args(Part) if part not in parts]:
        sentences.append(f"Not run, as their notebooks have measured nothing here: {', '.join(absent)}.")
    if STUDY not in parts:
        sentences.append("Not run, as nobody has taken part: the user study.")
    return " ".join(sentences) or "Every claim was checked."


def observed_order(frame: pd.DataFrame, metric: str = "psnr_truth") -> list[tuple[str, float]]:
    """The ablation's methods from best to worst on a metric, with their means."""
    means = [(method, statistics.mean(frame, method, metric)) for method in ORDER]
    better = metrics.columns()[metric].better
    known = [(method, found.value) for method, found in means if found.known]
    return sorted(known, key=lambda entry: -better * entry[1])


def _preferred(study: pd.DataFrame | None, against: str, question: str) -> Estimate:
    """The study's share of trials with its interval by person and clip; nothing where it has not asked that."""
    if study is None:
        return statistics.NOTHING
    for row in study[(study.against == against) & (study.question == question)].itertuples():
        return Estimate(row.preferred, row.low, row.high, row.trials, row.participants, "Wilson")
    return statistics.NOTHING


def _together(parts: Sequence[Verdict]) -> Verdict:
    """All must hold; one that does not is enough against them; with none known nothing is."""
    if "does not hold" in parts:
        return "does not hold"
    if not set(parts) - {"not run"}:
        return "not run"
    return "holds" if set(parts) == {"holds"} else "undecided"
