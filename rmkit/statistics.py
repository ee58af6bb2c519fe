"""Means with 95 % intervals: the unit is the clip, resampled by sequence (clips of one are correlated).

The paper states no interval (4.1); all of this is ours. Reads metrics.csv; writes nothing.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rmkit.errors import InputError
from rmkit.profile import Profile

RESAMPLES = 9999
CONFIDENCE = 0.95
REFERENCE = "realmaster"
COLUMNS = ("method", "clip", "metric", "value", "sequence", "options")  # those that are read here and after


@dataclass(frozen=True)
class Estimate:
    """A mean (or a ratio of means) with its interval, and how much data stands behind it."""

    value: float
    low: float
    high: float
    clips: int
    sequences: int
    interval: str  # BCa, percentile, or why there is none

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)


NOTHING = Estimate(math.nan, math.nan, math.nan, 0, 0, "no data")


def load(profile: Profile) -> pd.DataFrame:
    """metrics.csv as a frame; raises InputError before 05_evaluation has measured anything."""
    path = profile.layout.metrics
    if not path.is_file():
        raise InputError(f"{path} does not exist: run 05_evaluation (or `make reproduce`) first.")
    return read(path)


def read(path: Path) -> pd.DataFrame:
    """A file of the form of metrics.csv; what was not run or does not apply has no value (NaN).

    Raises InputError when the file is damaged: not a csv, a column missing, a value that is no number.
    """
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values={"value": ["", "not run", "n/a"]})
        if lacking := [column for column in COLUMNS if column not in frame]:
            raise ValueError(f"no column {lacking[0]}")
        return frame.astype({"value": float})
    except ValueError as error:  # pandas' own are of this kind
        raise InputError(f"{path} is not a whole table of metrics ({error}): make it again.") from None


def mean(frame: pd.DataFrame, method: str, metric: str) -> Estimate:
    """Mean of a method's values over clips."""
    values, sequences = _values(frame, method, metric)
    return ratio_of_sums(values.to_numpy(), np.ones(len(values)), sequences)


def difference(frame: pd.DataFrame, metric: str, method: str, other: str = REFERENCE) -> Estimate:
    """Mean over clips of (method - other), on the clips that both have."""
    a, b, sequences = _paired(frame, metric, method, other)
    return ratio_of_sums((a - b).to_numpy(), np.ones(len(a)), sequences)


def ratio(frame: pd.DataFrame, metric: str, method: str, other: str) -> Estimate:
    """Mean of method over mean of other, on the clips that both have."""
    a, b, sequences = _paired(frame, metric, method, other)
    return ratio_of_sums(a.to_numpy(), b.to_numpy(), sequences)


def win_rate(frame: pd.DataFrame, metric: str, method: str, better: int, other: str = REFERENCE) -> Estimate:
    """Share of clips on which a method beats the other (ties count half), with Wilson's interval.

    better: 1 where more is better, -1 where less is. The interval's width is that of as many trials as there are
    sequences: clips of one are correlated, and counting each would claim too much.
    """
    a, b, sequences = _paired(frame, metric, method, other)
    if not len(a):
        return NOTHING
    gains = better * (a - b)
    rate = float(((gains > 0) + 0.5 * (gains == 0)).mean())
    count = sequences.nunique()
    low, high = wilson(rate, count)
    return Estimate(rate, low, high, len(a), count, "Wilson")


def wilson(rate: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `trials` (Wilson 1927, eq. 4)."""
    z = 1.959964
    centre = rate + z**2 / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    return (centre - spread) / (1 + z**2 / trials), (centre + spread) / (1 + z**2 / trials)


def p_values(
    frame: pd.DataFrame, metric: str, methods: Sequence[str], other: str = REFERENCE
) -> dict[str, float]:
    """Two-sided p of each method's difference to the other: Wilcoxon's signed ranks, corrected by Holm.

    On the means of sequences, which are independent where clips are not. Methods without a common clip, and those that
    differ on fewer than two sequences, are left out.
    """
    from scipy.stats import wilcoxon

    raw: dict[str, float] = {}
    for method in methods:
        a, b, sequences = _paired(frame, metric, method, other)
        means = (a - b).groupby(sequences).mean()
        if (means != 0).sum() > 1:
            raw[method] = float(wilcoxon(means).pvalue)
    corrected, highest = {}, 0.0
    for rank, method in enumerate(sorted(raw, key=raw.get)):
        highest = max(highest, min(1.0, (len(raw) - rank) * raw[method]))
        corrected[method] = highest
    return {method: corrected[method] for method in raw}


def ratio_of_sums(
    numerator: np.ndarray, denominator: np.ndarray, sequences: Sequence[str] | pd.Series
) -> Estimate:
    """sum(numerator) / sum(denominator) with its interval from resampling whole sequences.

    With a denominator of ones this is a mean. BCa by scipy.stats.bootstrap; where its correction is undefined
    the percentile interval; none for fewer than two sequences.
    """
    if not len(numerator):
        return NOTHING
    sums = pd.DataFrame({"a": numerator, "b": denominator}).groupby(np.asarray(sequences)).sum()
    a, b = sums["a"].to_numpy(), sums["b"].to_numpy()
    value = float(a.sum() / b.sum())
    clips, count = len(numerator), len(sums)
    if count < 2:
        return Estimate(value, math.nan, math.nan, clips, count, "one sequence")
    if np.allclose(a / b, value, rtol=0, atol=1e-12):
        return Estimate(value, value, value, clips, count, "no spread")
    low, high, name = _interval(tuple(a.tolist()), tuple(b.tolist()))
    return Estimate(value, low, high, clips, count, name)


@functools.lru_cache(maxsize=2048)  # tables, figures and report ask for the same ones
def _interval(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, str]:
    """Bounds and the name of the method; a fixed seed, so that a table can be made twice."""
    from scipy.stats import bootstrap

    for name in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = bootstrap(
                (a, b),
                lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
                paired=True,
                vectorized=True,
                n_resamples=RESAMPLES,
                confidence_level=CONFIDENCE,
                method=name,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return float(found.low), float(found.high), name
    return math.nan, math.nan, "undefined"


def _paired(
    frame: pd.DataFrame, metric: str, method: str, other: str
) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Values of two methods, and sequences, by clip: of the clips that both have."""
    a, sequences = _values(frame, method, metric)
    b, _ = _values(frame, other, metric)
    both = a.index.intersection(b.index)
    return a[both], b[both], sequences[both]


def _values(frame: pd.DataFrame, method: str, metric: str) -> tuple[pd.Series, pd.Series]:
    """Values and sequences by clip."""
    chosen = frame[(frame.method == method) & (frame.metric == metric)].dropna(subset="value")
    chosen = chosen.set_index("clip").sort_index()
    return chosen["value"].astype(float), chosen["sequence"]
