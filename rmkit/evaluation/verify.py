"""Verification: whether a run came out as the shipped one, within what another seed changes (ours).

Reads metrics.csv of the run and of its demonstrations (whose methods are called <demo>/<method> here), and metrics.csv.gz,
tolerances.csv and profile.yaml in results/reference/<profile>/; writes nothing. `spread` writes the last two, from runs that differ in their seed alone.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from rmkit import baselines, metrics
from rmkit import profile as profiles
from rmkit.baselines import real
from rmkit.errors import InputError
from rmkit.evaluation import metrics_csv
from rmkit.kit import store
from rmkit.profile import Profile

# Two runs differ by the square root of 2 more than each does from their mean, and a few seeds may show too little: 6 is
# 4.2 deviations of a difference, 2 % by chance with 4 runs and 0.5 % with 7 (Student's t).
MULTIPLE = 6
FEWEST = 2  # runs beside the reference
MEAN = "the mean"
# Of what a demonstration measures by itself: shares, and grey levels that hang on optical flow.
OWN_FLOOR = 0.05
COLUMNS = ["method", "metric", "tolerance", "clip_tolerance", "seeds"]
# Settings that may differ between runs that are compared: where and how fast, not what.
FREE = {
    "extends": True,
    "seed": True,
    "judge": True,
    "data": {"root"},
    "carla": {"root"},
    "models": {"device", "offload"},
}
WRITE_IT = "write it with `rmkit verify --spread RUN_FOLDER ...`"


# Method, metric, which value (the mean, or a clip and how many of them differ), in the reference, here, its tolerance.
Difference = tuple[str, str, str, float, float, float]


def verify(profile: Profile) -> int:
    """Compare a run's metrics.csv with the shipped one, print what differs, and return 0 (agrees) or 1 (differs).

    Every mean over clips and every clip's value, of each method and metric; what only one of the two has counts as a
    difference. Raises InputError where they cannot be compared: a file is missing, other settings, other clips.
    """
    folder = profile.layout.reference
    expected = _reference(profile)
    tolerances = _tolerances(folder / "tolerances.csv")
    _require_settings(profile, folder / "profile.yaml")
    metrics_csv.load(profile)  # what to run first, where there is none
    found = metrics_csv.with_demos(profile.layout.root)
    # Ratings of a judge that the shipped run did not have, and of the user's own footage, have no counterpart.
    unshipped = found.metric.isin(_rated()) & ~found.metric.isin(expected.metric)
    found = found[~unshipped & (found.method != real.Real.name)]
    _require_comparable(expected, found, str(profile.layout.metrics))
    reference, here = _values(expected), _values(found)
    lone, far = unmatched(reference, here), differences(reference, here, tolerances)
    pairs = len(_pairs(reference))
    print(f"{profile.layout.metrics}: {pairs} means over clips and {len(reference)} values of clips")
    print(f"beside {folder}, tolerances from {tolerances.seeds.min():.0f} seeds")
    for sentence in lone:
        print(f"  {sentence}")
    if far:
        print(f"  {'method':16} {'metric':28} {'reference':>12} {'here':>12} {'tolerance':>10}  of")
    for method, metric, what, there, value, tolerance in far:
        print(f"  {method:16} {metric:28} {there:12.6g} {value:12.6g} {tolerance:10.3g}  {what}")
    if not lone and not far:
        print("pass: all agree.")
        return 0
    means = sum(what == MEAN for _, _, what, *_ in far)
    some = f"{means} of {pairs} means, single clips of {len(far) - means} of {pairs}"
    print(f"differs: {some}, {len(lone)} without a counterpart.")
    return 1


def differences(reference: pd.Series, here: pd.Series, tolerances: pd.DataFrame) -> list[Difference]:
    """What is further apart than its tolerance, on the clips that both have; means first, then clips.

    reference, here: values by method, metric and clip; tolerances: as in tolerances.csv, by method and metric. Raises
    InputError where one is lacking.
    """
    found: list[Difference] = []
    both = pd.concat([reference, here], axis=1, keys=["reference", "here"]).dropna()
    for (method, metric), values in both.groupby(level=["method", "metric"], sort=False):
        if (method, metric) not in tolerances.index:
            raise InputError(f"tolerances.csv has no row for {method}, {metric}: {WRITE_IT}.")
        mean, clip = tolerances.loc[(method, metric), ["tolerance", "clip_tolerance"]]
        if _apart(*values.mean(), mean):
            found.append((method, metric, MEAN, *values.mean(), mean))
        far = values[[_apart(*pair, clip) for pair in values.to_numpy()]].droplevel(["method", "metric"])
        if len(far):
            worst = (far.reference - far.here).abs().idxmax()
            what = f"{worst}, the furthest of {len(far)} (of {len(values)} clips)"
            found.append((method, metric, what, *far.loc[worst], clip))
    return sorted(found, key=lambda difference: difference[2] != MEAN)


def unmatched(reference: pd.Series, here: pd.Series) -> list[str]:
    """Methods, then their metrics, then clips, that only one of the two has: a sentence each."""
    sentences, columns = [], metrics.columns()
    for side, a, b in (("only in the reference", reference, here), ("only here", here, reference)):
        methods, pairs = set(b.index.unique("method")), _pairs(b)
        only = a[~a.index.isin(b.index)]
        for (method, metric), values in only.groupby(level=["method", "metric"], sort=False):
            if method not in methods:
                sentences.append(f"{method}: {side}.")
            elif (method, metric) not in pairs:
                sentences.append(f"{method}, {metric}: {side}.")
            elif metric not in columns or not columns[metric].optional:
                clips = values.index.unique("clip")
                sentences.append(f"{method}, {metric}: {side} for {len(clips)} clips, {clips[0]} the first.")
    return list(dict.fromkeys(sentences))  # a method once, not once a metric


def spread(profile: Profile, folders: Sequence[Path]) -> int:
    """Write tolerances.csv and profile.yaml beside the reference, from it and runs with other seeds; returns 0.

    Tolerance of a mean over clips: MULTIPLE standard deviations over the runs, the reference among them; of a clip's
    value: as many of the clip that varies most. A mean is never taken as steadier than clips that vary on their own
    would make it. Neither is below the metric's floor, numerical noise; of methods without randomness it is the floor.
    Raises InputError for fewer than FEWEST runs, runs of other clips or metrics, one given twice, and methods without
    randomness that differ.
    """
    if len(folders) < FEWEST:
        raise InputError(f"a spread needs {FEWEST} runs or more beside the reference; {len(folders)} given.")
    expected, target = _reference(profile), profile.layout.reference
    runs = {str(target): _values(expected)}
    for folder in folders:
        run = str(folder)
        frame = metrics_csv.with_demos(folder)
        _require_comparable(expected, frame, run)
        runs[run] = _values(frame)
        if lone := unmatched(runs[str(target)], runs[run]):
            raise InputError(f"{folder} and the reference do not measure the same: {lone[0]}")
    if len(runs) <= len(folders):
        raise InputError("one folder is given twice, or is the reference: each run needs a seed of its own.")
    for a, b in combinations(runs, 2):
        if runs[a].equals(runs[b]):
            raise InputError(f"{a} and {b} hold the same values: each run needs a seed of its own.")
    rows = []
    fixed = {name for name, method in baselines.every(profile).items() if method.fixed}
    for (method, metric), values in pd.concat(runs, axis=1).groupby(level=["method", "metric"], sort=False):
        is_fixed = method.rpartition("/")[2] in fixed
        rows.append((method, metric, *_tolerance(method, metric, values, is_fixed), len(runs)))
    settings = profile.model_dump(mode="json", exclude=FREE)
    store.write_text(target / "profile.yaml", yaml.safe_dump(settings, sort_keys=False))
    store.write_text(target / "tolerances.csv", pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False))
    print(f"{target / 'tolerances.csv'}: {len(rows)} tolerances from {len(runs)} runs.")
    return 0


def _tolerance(method: str, metric: str, values: pd.DataFrame, is_fixed: bool) -> tuple[float, float]:
    """Tolerance of the mean and of a clip, from values [clips, runs]; spread's docstring has the rule."""
    column = metrics.columns().get(metric)
    if column is None and "/" not in method:
        raise InputError(f"{method}, {metric}: there is no such metric in this version of the kit.")
    floor = column.floor if column else OWN_FLOOR
    if is_fixed and metric not in _rated():
        if (values.max(axis=1) - values.min(axis=1)).max() > floor:
            raise InputError(
                f"{method}, {metric} differs between these runs and knows no seed: they are of different settings or data."
            )
        return floor, floor
    each = values.std(axis=1).dropna()  # a clip without a matched face in all runs but one has none
    independent = np.sqrt((each**2).mean() / len(each)) if len(each) else 0.0
    mean = MULTIPLE * max(values.mean().std(), independent)
    clip = MULTIPLE * each.max() if len(each) else mean
    if not np.isfinite([mean, clip]).all():
        raise InputError(f"{method}, {metric} is not a finite number in every run: its spread is not known.")
    return tuple(float(f"{max(floor, value):.4g}") for value in (mean, clip))


def _rated() -> set[str]:
    """The columns of metrics that ask a judge, whose answers vary even where the video does not."""
    return {column.name for metric in metrics.every() if metric.rates_real for column in metric.columns}


def _apart(a: float, b: float, tolerance: float) -> bool:
    """Whether two values differ: equal infinities do not, an infinity and a number do."""
    return a != b and not abs(a - b) <= tolerance


def _reference(profile: Profile) -> pd.DataFrame:
    folder = profile.layout.reference
    if not metrics_csv.file(folder):
        known = sorted(path.parent.name for path in folder.parent.glob("*/metrics.csv*"))
        raise InputError(
            f"{folder / 'metrics.csv.gz'} does not exist: profiles with a reference are {', '.join(known) or 'none'}."
        )
    return metrics_csv.with_demos(folder)


def _tolerances(path: Path) -> pd.DataFrame:
    """tolerances.csv by method and metric; raises InputError when it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path} does not exist, and none is made up: {WRITE_IT}.")
    try:
        frame = pd.read_csv(path).set_index(COLUMNS[:2])[COLUMNS[2:]].astype(float)
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): {WRITE_IT}.") from None
    if frame.empty or not (np.isfinite(frame) & (frame > 0)).all(axis=None):
        raise InputError(f"{path} holds something else than positive numbers: {WRITE_IT}.")
    if frame.index.has_duplicates:
        raise InputError(f"{path} has two rows of one method and metric: {WRITE_IT}.")
    return frame


def _require_settings(profile: Profile, path: Path) -> None:
    """Raise InputError unless the profile is the reference's, but for its seed and what is FREE."""
    if not path.is_file():
        raise InputError(f"{path} does not exist, so the reference's settings are not known: {WRITE_IT}.")
    both = [p.model_dump(mode="json", exclude=FREE) for p in (profile, profiles.load(path))]
    here, there = (pd.json_normalize(settings).to_dict("records")[0] for settings in both)  # by dotted key
    if other := [key for key in here | there if here.get(key) != there.get(key)]:
        key = other[0]
        raise InputError(
            f"this profile's settings are not the reference's: {key} is {here.get(key)} here and {there.get(key)} in "
            f"{path} ({len(other)} differ)."
        )


def _require_comparable(expected: pd.DataFrame, found: pd.DataFrame, where: str) -> None:
    """Raise InputError unless both are of the same clips, and each metric was measured with the same options."""
    clips, wanted = set(found["clip"]), set(expected["clip"])
    if clips != wanted:
        raise InputError(
            f"{where} is of other clips than the reference: {len(wanted - clips)} are only in the reference and "
            f"{len(clips - wanted)} only here, {min(clips ^ wanted)} the first."
        )
    here, there = (frame.groupby("metric").options.unique().map(set) for frame in (found, expected))
    for metric in there.index.intersection(here.index):
        if here[metric] != there[metric]:
            said = [" or ".join(sorted(options)) or "no options" for options in (here[metric], there[metric])]
            raise InputError(
                f"{where}: {metric} was measured with {said[0]}, in the reference with {said[1]}."
            )


def _values(frame: pd.DataFrame) -> pd.Series:
    """Values by method, metric and clip, of rows that have one."""
    return frame.dropna(subset="value").set_index(["method", "metric", "clip"]).value


def _pairs(values: pd.Series) -> set[tuple[str, str]]:
    """Every method and metric that has values."""
    return set(values.index.droplevel("clip"))
