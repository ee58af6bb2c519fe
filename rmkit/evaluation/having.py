"""Which methods have rows in metrics.csv, on how many clips, and why one has none or a cell is empty.

Of a frame as metrics_csv.py reads it; reads and writes nothing itself.
"""

from collections.abc import Sequence

import pandas as pd

from rmkit import baselines, metrics
from rmkit.metrics import Column
from rmkit.profile import Profile


def measured_clips(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, int]:
    """On how many clips each method has been measured: by the metric that has most."""
    known = frame.dropna(subset="value").groupby(["method", "metric"]).size().groupby("method").max()
    return {name: int(known.get(name, 0)) for name in names}


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the validation clips: all but the real footage's."""
    return frame[frame.method != "real"]


def why_no_row(profile: Profile, method: str) -> str:
    """Why a method has no row in metrics.csv: 'not run' or 'n/a', a colon, and the reason."""
    if method == "real":
        return next(metric for metric in metrics.every() if metric.rates_real).why_no_row(profile)
    found = baselines.every(profile)[method]
    return found.why_not(profile) or found.no_row


def missing(profile: Profile, frame: pd.DataFrame, method: str, column: Column | None = None) -> str:
    """What stands in an empty cell: a metric that does not apply, or a method or metric that was not run."""
    if not frame.method.eq(method).any():
        return why_no_row(profile, method).split(":")[0]
    if column is None or frame.metric.eq(column.name).any():
        return "n/a"
    return metrics.metric_of(column.name).why_no_row(profile).split(":")[0]
