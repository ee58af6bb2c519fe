"""What somebody chooses to see of a run, and what it comes to: estimates by method, metric and run (ours).

Metrics, methods, clips, statistic, interval, order, a second run beside; `chosen` makes a table and a plot of it. Reads
metrics.csv of one or two runs (the shipped record's before there is one), without torch; writes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from rmkit import baselines, metrics
from rmkit.baselines import Folder, Method
from rmkit.errors import InputError
from rmkit.evaluation import having, metrics_csv, statistics
from rmkit.evaluation.statistics import Estimate
from rmkit.metrics import Column
from rmkit.profile import Profile

STATISTICS = ("mean", "median", "difference", "win rate")
LEVELS = (0.95, 0.9, 0.99, None)  # of the interval; None: none is shown
EVEN = {"difference": 0.0, "win rate": 0.5}  # what says that two methods are alike


@dataclass(frozen=True)
class Choice:
    """What is shown. Empty metrics or methods: the paper's columns, and every method that was measured."""

    metrics: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    subset: str = ""  # a label of clips; '': all clips
    statistic: str = "mean"  # one of STATISTICS
    other: str = statistics.REFERENCE  # what a difference or a win is against
    confidence: float | None = statistics.CONFIDENCE
    decimals: int | None = None  # None: as many as each metric has in the tables
    sort: str = ""  # a metric, best first, or 'method' by label; '': the order of the tables
    hide_not_run: bool = True
    beside: str = ""  # another run, one of `runs`


def runs(profile: Profile) -> dict[str, Path]:
    """The folders that can be set beside the profile's run: other runs under results/, and the shipped records."""
    results = profile.layout.run.parent
    found = {folder.name: folder for folder in sorted(results.glob("*")) if metrics_csv.file(folder)}
    found |= {f"{folder.name} as shipped": folder for folder in sorted((results / "reference").glob("*"))}
    shown = metrics_csv.file(
        profile.layout.reference if metrics_csv.of_record(profile) else profile.layout.run
    )
    return {name: folder for name, folder in found.items() if metrics_csv.file(folder) not in (None, shown)}


def subsets(frame: pd.DataFrame) -> dict[str, int]:
    """The labels that clips have, each with the number of clips."""
    labels = frame.drop_duplicates("clip").subsets.str.split(";").explode()
    return {name: int(count) for name, count in labels[labels != ""].value_counts().items()}


class Found:
    """What a choice comes to: its columns, its methods in order, and their estimates, one a run and their difference.

    Raises InputError for a choice that cannot be met: an unknown name, or nothing measured.
    """

    def __init__(self, profile: Profile, choice: Choice):
        self.profile, self.choice = profile, choice
        whole = metrics_csv.to_show(profile)
        self.here = f"{profile.name} as shipped" if metrics_csv.of_record(profile) else profile.name
        self.frame = _of_subset(whole, choice.subset)
        self.frames = [self.frame]
        if choice.beside:
            folder = _known(choice.beside, runs(profile), "run")
            self.frames.append(_of_subset(metrics_csv.read(metrics_csv.file(folder)), choice.subset))
        self.frames = [
            frame[frame.metric.isin(choice.metrics)] if choice.metrics else frame for frame in self.frames
        ]
        known, labelled = metrics.columns(), baselines.every(profile)
        for name in dict.fromkeys(name for frame in self.frames for name in frame.method):
            labelled.setdefault(name, Folder(name, name))  # of another run, whose profile is not here
        _known(choice.statistic, STATISTICS, "statistic")
        _known(choice.other, labelled, "method")
        wanted = choice.metrics or [column.name for column in metrics.papers_first(whole.metric)[0]]
        self.columns = [_known(name, known, "metric") for name in wanted]
        chosen = [_known(name, labelled, "method") for name in choice.methods or labelled]
        self.estimates = {(m.name, c.name): self._estimates(m, c) for m in chosen for c in self.columns}
        if choice.hide_not_run:
            self.columns = [c for c in self.columns if any(self._has(m, c) for m in chosen)]
            chosen = [m for m in chosen if any(self._has(m, c) for c in self.columns)]
        if not self.columns or not chosen:
            raise InputError(
                "nothing of this choice has been measured: choose other metrics, methods or clips."
            )
        # A mean of the easier half is no better mean: what has fewer clips stands last, and apart.
        counts = {method: self.clips(method) for method in chosen}
        fewer = [method for method in chosen if counts[method] < max(counts.values())]
        self.apart = len(fewer)
        ordered = sorted(self._sorted(chosen), key=lambda method: method in fewer)
        self.methods = {method: method.label for method in ordered}

    @property
    def names(self) -> list[str]:
        """The runs, and their difference where there are two."""
        beside = self.choice.beside
        return [self.here, beside, "difference"] if beside else [self.here]

    def clips(self, method: Method) -> int:
        """On how many clips of this run the method has a value that is shown."""
        return max(self.estimates[method.name, column.name][0].clips for column in self.columns)

    def missing(self, method: Method, column: Column) -> str:
        """What stands in a cell without a value."""
        if method.name not in baselines.every(self.profile):
            return "not run"  # here; the other run has it
        return having.missing(self.profile, self.frame, method.name, column)

    def caption(self) -> str:
        """The choice in a sentence or two."""
        choice, labels = self.choice, {name: m.label for name, m in baselines.every(self.profile).items()}
        other = labels.get(choice.other, choice.other)
        kind = {
            "difference": f"Mean difference to {other}, clip by clip",
            "win rate": f"Win rate against {other}",
        }
        clips = f"clips labelled {choice.subset}" if choice.subset else "all validation clips"
        parts = [f"{kind.get(choice.statistic, choice.statistic.capitalize())}, {clips}"]
        parts.append(f"{' and '.join(self.names[:2])}" if choice.beside else f"profile {self.here}")
        if choice.confidence:
            parts.append(f"{choice.confidence:.0%} intervals".replace("%", " %"))
        if choice.sort:
            by = "name" if choice.sort == "method" else metrics.columns()[choice.sort].label
            parts.append(f"sorted by {by}")
        return "; ".join(parts)

    def notes(self) -> list[str]:
        """What stands under the table."""
        notes = []
        if self.choice.confidence:
            level = f"{self.choice.confidence:.0%}".replace("%", " %")
            how = "Wilson, of as many trials as sequences" if self.choice.statistic == "win rate" else ""
            notes.append(f"[{level} interval, {how or 'resampled by sequence'}].")
        if self.choice.beside:
            notes.append(
                f"Difference: {self.names[0]} − {self.names[1]}, paired on the clips that both have."
            )
        if self.choice.hide_not_run:
            notes.append("Methods and metrics without a value are hidden.")
        return notes

    def _has(self, method: Method, column: Column) -> bool:
        return any(found.known for found in self.estimates[method.name, column.name])

    def _sorted(self, methods: Sequence[Method]) -> list[Method]:
        """Best first by the chosen metric, those without a value last; else as in the tables."""
        by = self.choice.sort
        if not by:
            return list(methods)
        if by == "method":
            return sorted(methods, key=lambda method: method.label.lower())
        better = _known(by, metrics.columns(), "metric").better or 1
        if self.choice.statistic == "win rate":
            better = 1  # a share of wins is better high, whatever it counts
        found = {m: self._of_run(self.frame, m.name, metrics.columns()[by]).value for m in methods}
        return sorted(methods, key=lambda m: math.inf if math.isnan(found[m]) else -better * found[m])

    def _estimates(self, method: Method, column: Column) -> list[Estimate]:
        found = [self._of_run(frame, method.name, column) for frame in self.frames]
        return [*found, self._between(method.name, column)] if len(self.frames) > 1 else found

    def _of_run(self, frame: pd.DataFrame, method: str, column: Column) -> Estimate:
        """The statistic of one method in one run."""
        choice, level = self.choice, self.choice.confidence or statistics.CONFIDENCE
        if choice.statistic in EVEN and (method == choice.other or _undecided(choice, column)):
            return statistics.NOTHING
        if choice.statistic == "mean":
            found = statistics.mean(frame, method, column.name, level)
        elif choice.statistic == "median":
            found = statistics.median(frame, column.name, method, confidence=level)
        elif choice.statistic == "difference":
            found = statistics.difference(frame, column.name, method, choice.other, level)
        else:
            found = statistics.win_rate(frame, column.name, method, column.better, choice.other, level)
        return found if choice.confidence else replace(found, low=math.nan, high=math.nan)

    def _between(self, method: str, column: Column) -> Estimate:
        """This run less the other, clip by clip: of the values, of the differences or of the wins that are shown."""
        level = self.choice.confidence or statistics.CONFIDENCE
        here, there = (_by_clip(frame, self.choice, method, column) for frame in self.frames)
        both = pd.concat([here.assign(method="here"), there.assign(method="there")])
        if self.choice.statistic == "median":
            found = statistics.median(both, column.name, "here", "there", level)
        else:
            found = statistics.difference(both, column.name, "here", "there", level)
        return found if self.choice.confidence else replace(found, low=math.nan, high=math.nan)


def _by_clip(frame: pd.DataFrame, choice: Choice, method: str, column: Column) -> pd.DataFrame:
    """What the statistic is taken of: a method's values, or its difference to the other, or 1, ½ and 0 for its wins."""
    of_metric = frame[frame.metric == column.name]
    rows = of_metric[of_metric.method == method]
    if choice.statistic not in EVEN:
        return rows
    gains = rows.value - rows["clip"].map(
        of_metric[of_metric.method == choice.other].set_index("clip")["value"]
    )
    if choice.statistic == "win rate":
        better = column.better * gains
        gains = ((better > 0) + 0.5 * (better == 0)).where(better.notna())
    return rows.assign(value=math.nan if method == choice.other or _undecided(choice, column) else gains)


def _undecided(choice: Choice, column: Column) -> bool:
    """Whether nobody can win by this metric: neither more nor less of it is better."""
    return choice.statistic == "win rate" and not column.better


def _of_subset(frame: pd.DataFrame, subset: str) -> pd.DataFrame:
    """The rows of clips with that label; all for ''. Raises InputError where no clip has it."""
    if not subset:
        return frame
    rows = frame[frame.subsets.str.split(";").map(lambda labels: subset in labels)]
    if rows.empty:
        raise InputError(
            f"no clip is labelled '{subset}'; there are {', '.join(subsets(frame)) or 'no labels'}."
        )
    return rows


def _known(name: str, among: "Mapping[str, Any] | Sequence[str]", kind: str) -> Any:
    """among[name]; InputError with what there is for an unknown name."""
    if name not in among:
        raise InputError(f"'{name}' is no {kind} here; there are {', '.join(among) or 'none'}.")
    return among[name] if isinstance(among, Mapping) else name
