"""metrics.csv: a row a clip, method and metric, with what it was measured on; of a run, or of the shipped record.

Reads and writes files of this form: a run's, its demonstrations', a record's (packed), a user's own scores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.profile import Profile

COLUMNS = ["profile", "method", "clip", "metric", "value"]
PROVENANCE = ["sequence", "subsets", "options", "artefact", "commit"]
NEEDED = ("method", "clip", "metric", "value", "sequence", "options")  # those that are read here and after

Row = dict[str, str | float]


def write(target: Path, rows: Sequence[Mapping[str, str | float]], more: Sequence[str] = ()) -> None:
    """Rows as metrics.csv has them, and `more` columns, by rename; left alone when nothing changes."""
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *PROVENANCE, *more], dtype=object)
    text = frame.to_csv(index=False, na_rep="nan", lineterminator="\n")
    if not (target.is_file() and target.read_text() == text):
        store.write_text(target, text)


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
        if lacking := [column for column in NEEDED if column not in frame]:
            raise ValueError(f"no column {lacking[0]}")
        twice = frame[frame.duplicated(["method", "clip", "metric"]) & frame.value.notna()]
        if len(twice):
            raise ValueError(
                "two rows are of " + ", ".join(map(str, twice.iloc[0][["method", "clip", "metric"]]))
            )
        return frame.astype({"value": float})
    except ValueError as error:  # pandas' own are of this kind
        raise InputError(f"{path} is not a whole table of metrics ({error}): make it again.") from None
