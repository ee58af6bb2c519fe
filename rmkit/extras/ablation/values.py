"""Metrics of what the lab shows, those that need no model, and their table (ours).

Reads metrics.csv where the video is the run's; writes results/<profile>/lab/metrics/.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rmkit import baselines, metrics
from rmkit.baselines import truth
from rmkit.evaluation import evaluate, metrics_csv, tables, typeset
from rmkit.evaluation.typeset import Table
from rmkit.extras.ablation import results
from rmkit.extras.ablation.choice import Choice, folder
from rmkit.kit import store, video
from rmkit.method.sampling import Clip
from rmkit.metrics import Subject
from rmkit.profile import Profile

# A second or two for a clip of the miniature.
MEASURED = (
    *("psnr_truth", "ssim_truth", "edge_f1", "sharpness"),
    *("temporal_flickering_distinct", "motion_smoothness_distinct"),
)


def measure(profile: Profile, clip: Clip, name: str, path: Path | None = None) -> dict[str, float]:
    """Metrics of a result by column, from metrics.csv and the store where known.

    name: 'render' or 'truth', or any other with the `path` of its video.
    """
    methods = baselines.every(profile)
    sides = {"render": methods["render"]}
    sides |= {"truth": methods["truth"]} if truth.exists(profile, clip) else {}
    frames = {side: functools.partial(method.stream, profile, clip) for side, method in sides.items()}
    inputs = {side: store.fingerprint(method.path(profile, clip)) for side, method in sides.items()}
    frames["output"] = functools.partial(video.stream, path) if path else frames[name]
    inputs["output"] = store.fingerprint(path) if path else inputs[name]
    if found := _of_run(profile, clip, inputs["output"]):
        return found
    subject = replace(Subject.of(profile, clip, name, frames, inputs), folder=folder(profile))
    (rows,) = evaluate.measured(profile, [([subject], MEASURED)])
    return {str(row["metric"]): float(row["value"]) for row in rows}


def beside(profile: Profile, choice: Choice, result: Path | None) -> dict[str, dict[str, float]]:
    """Metrics of a choice's result and of what it stands beside, by heading: render, the run's own clip, truth."""
    clip, own = choice.clip, results.of_run(profile, choice)
    found = {"Render": measure(profile, clip, "render")}
    if own:
        found["Profile's own"] = measure(profile, clip, f"own-{choice.variant}", own)
    if result:
        found["Result"] = measure(profile, clip, result.stem, result)
    return found | ({"Truth": measure(profile, clip, "truth")} if truth.exists(profile, clip) else {})


def table(measured: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Metrics of several results, by heading, as the tables show them: a row a metric."""
    columns = metrics.columns()
    rows = {}
    for name in (name for name in MEASURED if any(name in each for each in measured.values())):
        column = columns[name]
        unit = f" ({column.unit})" if column.unit else ""
        rows[f"{column.label}{unit} {tables.ARROWS[column.better]}".strip()] = {
            heading: f"{each[name]:.{column.digits}f}" if name in each else ""
            for heading, each in measured.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(measured))


def html(table: pd.DataFrame) -> str:
    """The table for a widget."""
    cells = [[title, *row] for title, row in zip(table.index, table.to_numpy(), strict=True)]
    return typeset.for_widget(Table("lab", "", ["Metric", *table.columns], cells, table, ()))


def _of_run(profile: Profile, clip: Clip, artefact: str) -> dict[str, float]:
    """What metrics.csv says of a video, told by its fingerprint."""
    if not profile.layout.metrics.is_file():
        return {}
    frame = _table(profile.layout.metrics, profile.layout.metrics.stat().st_mtime_ns)
    rows = frame[
        (frame["clip"] == clip.id) & (frame["artefact"] == artefact) & frame["metric"].isin(MEASURED)
    ]
    return dict(zip(rows["metric"], rows["value"], strict=True))


@functools.lru_cache(1)
def _table(path: Path, _changed: int) -> pd.DataFrame:
    return metrics_csv.read(path)
