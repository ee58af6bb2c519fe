"""Means with 95 % intervals: the unit is the clip, resampled by sequence (clips of one are correlated).

The paper states no interval (4.1); all of this is ours. Reads metrics.csv; writes nothing.
"""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from rmkit.errors import InputError
from rmkit.profile import Profile

RESAMPLES = 9999
CONFIDENCE = 0.95
REFERENCE = "realmaster"
FEWEST = 8  # sequences in a sample, from which an unpaired difference has a verdict (ours)
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


def to_show(profile: Profile) -> pd.DataFrame:
    """What tables and figures are made of: the run's metrics.csv, or the shipped record's before there is one.

    Raises InputError as `load` does where there is neither.
    """
    return read(file(profile.layout.reference)) if of_record(profile) else load(profile)


def of_record(profile: Profile) -> bool:
    """Whether `to_show` gives the shipped record, as nothing has been measured here."""
    return not profile.layout.metrics.is_file() and file(profile.layout.reference) is not None


def require_run(profile: Profile) -> None:
    """Raise InputError where `to_show` gives the record: what an unfinished run has left must not stand beside it."""
    if of_record(profile):
        raise InputError("the shipped record has its values alone, and nothing has been measured here.")


def file(folder: Path) -> Path | None:
    """The table of a folder: metrics.csv, as a run writes it, or metrics.csv.gz, as the record has it; None without one."""
    return next(
        (path for path in (folder / "metrics.csv", folder / "metrics.csv.gz") if path.is_file()), None
    )


def with_demos(folder: Path) -> pd.DataFrame:
    """The values of a run's folder and of its demonstrations' folders, whose methods are called <demo>/<method>.

    Raises InputError where there is no table, and for one that is damaged.
    """
    if not (path := file(folder)):
        raise InputError(f"{folder / 'metrics.csv'} does not exist: give the folder of a finished run.")
    frames = [read(path)]
    for part in sorted(sub for sub in folder.iterdir() if sub.is_dir() and file(sub)):
        frame = read(file(part))
        frames.append(frame.assign(method=f"{part.name}/" + frame.method))
    return pd.concat(frames, ignore_index=True)


def read(path: Path) -> pd.DataFrame:
    """A file of the form of metrics.csv; what was not run or does not apply has no value (NaN).

    Raises InputError when the file is damaged: not a csv, a column missing, a value that is no number or there twice.
    """
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values={"value": ["", "not run", "n/a"]})
        if lacking := [column for column in COLUMNS if column not in frame]:
            raise ValueError(f"no column {lacking[0]}")
        twice = frame[frame.duplicated(["method", "clip", "metric"]) & frame.value.notna()]
        if len(twice):
            raise ValueError(
                "two rows are of " + ", ".join(map(str, twice.iloc[0][["method", "clip", "metric"]]))
            )
        return frame.astype({"value": float})
    except ValueError as error:  # pandas' own are of this kind
        raise InputError(f"{path} is not a whole table of metrics ({error}): make it again.") from None


def mean(frame: pd.DataFrame, method: str, metric: str, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a method's values over clips."""
    _, values, sequences = _values(frame, method, metric)
    return ratio_of_sums(values, np.ones(len(values)), sequences, confidence)


def difference(
    frame: pd.DataFrame, metric: str, method: str, other: str = REFERENCE, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean over clips of (method - other), on the clips that both have."""
    a, b, sequences = _paired(frame, metric, method, other)
    return ratio_of_sums(a - b, np.ones(len(a)), sequences, confidence)


def median(
    frame: pd.DataFrame, metric: str, method: str, less: str | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """Median of a method's values over clips (less another's, clip by clip); sequences are resampled, as for a mean."""
    values, sequences = _of_sample(frame, metric, method, less)
    if not len(values):
        return NOTHING
    names, which = np.unique(sequences, return_inverse=True)
    value, clips, count = float(np.median(values)), len(values), len(names)
    if count < 2:
        return Estimate(value, math.nan, math.nan, clips, count, "one sequence")
    if np.ptp(values) <= 1e-12:
        return Estimate(value, value, value, clips, count, "no spread")
    by_sequence = tuple(tuple(values[which == i].tolist()) for i in range(count))
    low, high, name = _of_median(by_sequence, confidence)
    return Estimate(value, low, high, clips, count, name)


def two_sample(
    frame: pd.DataFrame, other: pd.DataFrame, metric: str, method: str, less: str | None = None
) -> Estimate:
    """Mean of a method's values in `frame` minus that in `other`, a sample of other clips: nothing is paired.

    less: a second method, whose value is taken from the first's clip by clip before (a gain). Sequences are resampled in
    each sample by itself; BCa as in `ratio_of_sums`. `sequences` is that of the smaller sample: with fewer than FEWEST show
    its `spread` and give no verdict.
    """
    samples = [_of_sample(one, metric, method, less) for one in (frame, other)]
    if not all(len(values) for values, _ in samples):
        return NOTHING
    value = float(samples[0][0].mean() - samples[1][0].mean())
    sums = [(_sums(values, names), _sums(np.ones(len(values)), names)) for values, names in samples]
    clips, count = sum(len(values) for values, _ in samples), min(len(totals) for totals, _ in sums)
    if count < 2:
        return Estimate(value, math.nan, math.nan, clips, count, "one sequence")
    if all(np.allclose(totals / counts, (totals / counts)[0], rtol=0, atol=1e-12) for totals, counts in sums):
        return Estimate(value, value, value, clips, count, "no spread")
    low, high, name = _unpaired(*(tuple(map(tuple, of_sample)) for of_sample in sums))
    return Estimate(value, low, high, clips, count, name)


def spread(frame: pd.DataFrame, metric: str, method: str, less: str | None = None) -> Estimate:
    """Mean of a method's values (less another's, clip by clip), with the lowest and highest mean of a sequence as bounds."""
    values, names = _of_sample(frame, metric, method, less)
    if not len(values):
        return NOTHING
    means = _sums(values, names) / _sums(np.ones(len(values)), names)
    return Estimate(float(values.mean()), means.min(), means.max(), len(values), len(means), "range")


def ratio(frame: pd.DataFrame, metric: str, method: str, other: str) -> Estimate:
    """Mean of method over mean of other, on the clips that both have."""
    a, b, sequences = _paired(frame, metric, method, other)
    return ratio_of_sums(a, b, sequences)


def win_rate(
    frame: pd.DataFrame,
    metric: str,
    method: str,
    better: int,
    other: str = REFERENCE,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Share of clips on which a method beats the other (ties count half), with Wilson's interval.

    better: 1 where more is better, -1 where less is. The interval's width is that of as many trials as there are
    sequences: clips of one are correlated, and counting each would claim too much.
    """
    a, b, sequences = _paired(frame, metric, method, other)
    if not len(a):
        return NOTHING
    gains = better * (a - b)
    rate = float(((gains > 0) + 0.5 * (gains == 0)).mean())
    trials = len(np.unique(sequences))
    low, high = wilson(rate, trials, normal_quantile(confidence))
    return Estimate(rate, low, high, len(a), trials, "Wilson")


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """What an interval of this confidence reaches to on either side, in standard deviations: 1.959964 for 95 %."""
    return round(NormalDist().inv_cdf((1 + confidence) / 2), 6)


def wilson(rate: float, trials: float, z: float) -> tuple[float, float]:
    """Wilson's interval (1927, eq. 4) of a share of so many trials; z: the quantile."""
    centre = rate + z**2 / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    low, high = ((centre + side * spread) / (1 + z**2 / trials) for side in (-1, 1))
    return low, high


def p_values(
    frame: pd.DataFrame, metric: str, methods: Sequence[str], other: str = REFERENCE
) -> dict[str, float]:
    """Two-sided p of each method's difference to the other: Wilcoxon's signed ranks, corrected by Holm.

    On the means of sequences, which are independent where clips are not. Methods without a common clip, and those that
    differ on fewer than two sequences, are left out.
    """
    raw: dict[str, float] = {}
    for method in methods:
        a, b, sequences = _paired(frame, metric, method, other)
        means = _sums(a - b, sequences) / _sums(np.ones(len(a)), sequences)
        if (means != 0).sum() > 1:
            raw[method] = _wilcoxon(means)
    ranked = sorted(raw, key=raw.get)
    scaled = [min(1.0, (len(raw) - rank) * raw[method]) for rank, method in enumerate(ranked)]
    return dict(zip(ranked, np.maximum.accumulate(scaled).tolist(), strict=True))


def _wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of the signed ranks: exact up to 13 differences, without zeros and ties up to 50; normal beyond."""
    from scipy.stats import permutation_test, rankdata, wilcoxon

    sizes = np.abs(differences[differences != 0])
    if len(differences) > 13 or len(np.unique(sizes)) == len(differences):
        return float(wilcoxon(differences).pvalue)
    # What wilcoxon does with zeros or ties, in a hundredth of its time: it ranks anew for every choice of signs.
    ranks = rankdata(sizes) * np.sign(differences[differences != 0])
    found = permutation_test(
        (ranks,), np.sum, permutation_type="samples", vectorized=True, n_resamples=2 ** len(ranks)
    )
    return float(found.pvalue)


def ratio_of_sums(
    numerator: np.ndarray, denominator: np.ndarray, sequences: np.ndarray, confidence: float = CONFIDENCE
) -> Estimate:
    """sum(numerator) / sum(denominator) with its interval from resampling whole sequences.

    With a denominator of ones this is a mean. BCa by scipy.stats.bootstrap; where its correction is undefined
    the percentile interval; none for fewer than two sequences.
    """
    if not len(numerator):
        return NOTHING
    a, b = _sums(numerator, sequences), _sums(denominator, sequences)
    value = float(a.sum() / b.sum())
    clips, count = len(numerator), len(a)
    if count < 2:
        return Estimate(value, math.nan, math.nan, clips, count, "one sequence")
    if np.allclose(a / b, value, rtol=0, atol=1e-12):
        return Estimate(value, value, value, clips, count, "no spread")
    low, high, name = _interval(tuple(a.tolist()), tuple(b.tolist()), confidence)
    return Estimate(value, low, high, clips, count, name)


@functools.lru_cache(maxsize=2048)  # tables, figures and report ask for the same ones
def _interval(
    a: tuple[float, ...], b: tuple[float, ...], confidence: float = CONFIDENCE
) -> tuple[float, float, str]:
    """Bounds of a ratio of sums over sequences, and the name of the method."""
    return _bounds((a, b), lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis), True, confidence)


@functools.lru_cache(maxsize=2048)
def _of_median(values: tuple[tuple[float, ...], ...], confidence: float) -> tuple[float, float, str]:
    """The same of a median; values: those of each sequence."""
    padded = np.full((len(values), max(map(len, values))), np.nan)
    for row, of_sequence in zip(padded, values, strict=True):
        row[: len(of_sequence)] = of_sequence

    def of_drawn(drawn: np.ndarray, axis: int) -> np.ndarray:
        return np.nanmedian(padded[drawn], axis=(-2, -1))

    return _bounds((np.arange(len(values)),), of_drawn, False, confidence)


@functools.lru_cache(maxsize=2048)
def _unpaired(a: tuple[tuple[float, ...], ...], b: tuple[tuple[float, ...], ...]) -> tuple[float, float, str]:
    """The same of a difference of two means; a and b: sums and counts of each sequence of a sample."""
    samples = [np.array(a), np.array(b)]

    def difference(*drawn: np.ndarray, axis: int) -> np.ndarray:
        sums = [
            np.take(sample, which, axis=1).sum(axis=axis)
            for sample, which in zip(samples, drawn, strict=True)
        ]
        return sums[0][0] / sums[0][1] - sums[1][0] / sums[1][1]

    # Which sequences are drawn: of each its sum and its count must stay together.
    return _bounds(tuple(np.arange(sample.shape[1]) for sample in samples), difference, False)


def _bounds(
    data: tuple, statistic: Callable[..., np.ndarray], paired: bool, confidence: float = CONFIDENCE
) -> tuple[float, float, str]:
    """Bounds and the name of the method; a fixed seed, so that a table can be made twice."""
    from scipy.stats import bootstrap

    for name in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = bootstrap(
                data,
                statistic,
                paired=paired,
                vectorized=True,
                n_resamples=RESAMPLES,
                confidence_level=confidence,
                method=name,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return float(found.low), float(found.high), name
    return math.nan, math.nan, "undefined"


def _of_sample(
    frame: pd.DataFrame, metric: str, method: str, less: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Values of a method, or its differences to another on the clips that both have, and their sequences."""
    if less is None:
        return _values(frame, method, metric)[1:]
    a, b, sequences = _paired(frame, metric, method, less)
    return a - b, sequences


def _sums(values: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Sum of the values of each sequence, in the order of their names."""
    _, which = np.unique(sequences, return_inverse=True)
    return np.bincount(which, values)


def _paired(
    frame: pd.DataFrame, metric: str, method: str, other: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of two methods, and sequences, of the clips that both have."""
    clips, a, sequences = _values(frame, method, metric)
    others, b, _ = _values(frame, other, metric)
    _, of_a, of_b = np.intersect1d(clips, others, return_indices=True)
    return a[of_a], b[of_b], sequences[of_a]


def _values(frame: pd.DataFrame, method: str, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips in order, their values and their sequences."""
    # A report asks this two thousand times: arrays, as pandas' own selection takes ten times as long.
    values = frame["value"].to_numpy(float)
    wanted = (frame["method"].to_numpy() == method) & (frame["metric"].to_numpy() == metric)
    rows = np.flatnonzero(wanted & ~np.isnan(values))
    clips = frame["clip"].to_numpy()[rows]
    order = np.argsort(clips)
    return clips[order], values[rows][order], frame["sequence"].to_numpy()[rows][order]
