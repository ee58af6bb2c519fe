"""Where the method reaches its limits: small objects, fast motion, newcomers, over-editing (paper, 3.2, Fig. 7, A, Fig. 14).

Reads the validation clips of a run by every method, the anchors, the truth and the object maps; writes to
results/<profile>/limits/: measured/<id>.json (an item of a stage each), metrics.csv, and the points of the curves, objects.csv
(one row an object and method) and motion.csv (one row a clip, method and speed). Files alone make tables and figures.
"""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from rmkit import baselines
from rmkit.baselines import truth
from rmkit.demos import cuts, limits_clip, objects
from rmkit.demos.limits_clip import ANCHORS, METHODS, OF_OBJECT
from rmkit.evaluation import metrics_csv, statistics
from rmkit.evaluation.typeset import Table, cell
from rmkit.kit import stage, store
from rmkit.method import anchoring, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

VERSION = 1
LABELS = {ANCHORS: "Editor (anchors)"}
OBJECTS = ("method", "clip", "sequence", "object", "kind", "pixels", "size", "arrives", "unseen")
MOTION = ("method", "clip", "sequence", "speed", "pixels", "error", "flicker")
SHOWN = {  # the table's columns: metric, label, decimals
    "covered_small": ("Covered, small", 2),
    "covered_large": ("Covered, large", 2),
    "change_small": ("Change, small", 2),
    "change_large": ("Change, large", 2),
    "flicker_slow": ("Flicker, slow", 2),
    "flicker_fast": ("Flicker, fast", 2),
    "error_slow": ("Error, slow", 1),
    "error_fast": ("Error, fast", 1),
    "newcomer_error": ("Error, newcomers", 1),
    "anchor_change_ratio": ("Change at the ends", 2),
    "object_colour_shift": ("Colour shift", 1),
}


def measure(profile: Profile) -> Path:
    """Measure all validation clips and what `cuts` has enhanced, finished clips untouched; returns metrics.csv's path.

    Prints what does not apply. Raises InputError before 01_data_prep has run.
    """
    clips, layout = sampling.load(profile, "validation"), profile.demo("limits").layout
    sampling.check(profile, clips)
    for sentence in not_applicable(profile):
        print(sentence, flush=True)
    items = [_item(profile, clip, layout.root / "measured" / f"{clip.id}.json") for clip in clips]
    stage.run("limits", items, lambda: partial(_measure, profile))
    rows, points, moving = [], [], []
    for clip, item in zip(clips, items, strict=True):
        found = store.read_json(item.path)
        commit = store.read_sidecar(item.path).get("commit", "unknown")
        for method, named in found["values"].items():
            artefact = found["artefacts"][method]
            rows += [row(profile, clip, method, *value, artefact, commit) for value in named.items()]
        points += [(method, clip.id, clip.sequence, *point) for method, *point in found["objects"]]
        moving += [(method, clip.id, clip.sequence, *point) for method, *point in found["motion"]]
    order = [*METHODS, *cuts.METHODS]
    rows += [row(profile, *one) for one in cuts.measured(profile)]
    rows = sorted(rows, key=lambda row: (order.index(row["method"]), row["clip"]))
    metrics_csv.write(layout.metrics, rows)
    for name, columns, data in (("objects", OBJECTS + OF_OBJECT, points), ("motion", MOTION, moving)):
        text = pd.DataFrame(data, columns=columns).to_csv(index=False, lineterminator="\n")
        store.write_text(layout.root / f"{name}.csv", text)
    return layout.metrics


def row(
    profile: Profile, clip: Clip, method: str, metric: str, value: float, artefact: str, commit: str
) -> metrics_csv.Row:
    """One row in the form of metrics.csv."""
    return {
        "profile": profile.name,
        "method": method,
        "clip": clip.id,
        "metric": metric,
        "value": round(value, 6),
        "sequence": clip.sequence,
        "subsets": ";".join(clip.subsets),
        "options": "flow=dis of the render" if metric.startswith(("error_", "flicker_")) else "",
        "artefact": artefact,
        "commit": commit,
    }


def not_applicable(profile: Profile) -> list[str]:
    """What cannot be measured on this data, a sentence each: 'n/a', a colon, and the reason."""
    clips, found = sampling.load(profile, "validation"), []
    if not any(objects.has_maps(profile, clip) for clip in clips):
        found.append("small objects, newcomers, colours: n/a: this data has no object maps (visible/).")
    if not any(truth.exists(profile, clip) for clip in clips):
        found.append(
            "nearness to the truth, by size, by speed and of newcomers: n/a: this data has no truth."
        )
    return found


def load(profile: Profile, name: str = "metrics") -> pd.DataFrame:
    """metrics.csv, objects.csv or motion.csv of the demonstration, or the shipped record's before it has been run.

    Raises InputError where there is neither.
    """
    demo = profile.demo("limits")
    frame = metrics_csv.to_show(demo)
    if name == "metrics":
        return frame
    folder = demo.layout.reference if metrics_csv.of_record(demo) else demo.layout.root
    found = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)  # a class may be called "NA"
    numbers = [column for column in (*OF_OBJECT, "error", "flicker") if column in found]
    return found.assign(**{column: pd.to_numeric(found[column]) for column in dict.fromkeys(numbers)})


def table(profile: Profile) -> Table:
    """Every method's means of the metrics of SHOWN, with intervals."""
    frame, known = load(profile), baselines.every(profile)
    labels = {name: method.label for name, method in known.items()} | LABELS
    cells, data = [], []
    for method in [name for name in METHODS if frame.method.eq(name).any()]:
        found = {metric: statistics.mean(frame, method, metric) for metric in SHOWN}
        cells.append([labels[method], *(cell(found[metric], SHOWN[metric][1]) for metric in SHOWN)])
        values = {metric: round(estimate.value, 6) for metric, estimate in found.items()}
        data.append({"profile": profile.name, "method": method, **values})
    notes = [
        "Mean over clips [95 % interval, resampled by sequence]. Covered: share of the way from render to truth; change: "
        "beside the truth's; flicker and error in grey levels; colour shift in CIELAB units. "
        f"Small: under {objects.SIZES['small'][1]:.1%} of the picture, large: from {objects.SIZES['large'][0]:.0%}; slow: "
        f"under {objects.SPEEDS['slow'][1]:.1%} of its width between source frames, fast: from "
        f"{objects.SPEEDS['fast'][0]:.0%} (ours).",
        *not_applicable(profile),
    ]
    header = ["Method", *(label for label, _ in SHOWN.values())]
    return Table("limits", f"Limits, profile {profile.name}", header, cells, pd.DataFrame(data), notes)


def _item(profile: Profile, clip: Clip, path: Path) -> stage.Item[Clip]:
    """A clip's measurements, and all that decides them."""
    sequence, times = sampling.sequence_of(profile, clip), sampling.repeats(clip, profile.clips.frames)
    files = {
        name: baselines.every(profile)[name].path(profile, clip)
        for name in limits_clip.methods_of(profile, clip)
        if name != ANCHORS
    }
    files |= {
        f"{ANCHORS}/{m}": anchoring.path(profile, clip, m * times) for m in limits_clip.moments(profile, clip)
    }
    inputs = {name: store.fingerprint(file) for name, file in files.items()}
    if objects.has_maps(profile, clip):
        inputs |= {
            f"visible/{i}": print_ for i, print_ in sequence.visible_fingerprints(clip.source_frames).items()
        }
        engine = sequence.folder / "engine.json"
        inputs |= {"engine": store.fingerprint(engine)} if engine.is_file() else {}
    settings = {**profile.clips.model_dump(), "source_frames": clip.source_frames, "opencv": cv2.__version__}
    return stage.Item(path, store.Recipe("limits", VERSION, settings, inputs), clip)


def _measure(profile: Profile, item: stage.Item[Clip], temporary: Path) -> None:
    clip, prints = item.subject, item.recipe.inputs
    seen, every = limits_clip.scene(profile, clip), range(len(clip.source_frames))
    made: dict = {"values": {}, "artefacts": {}, "objects": [], "motion": []}
    for method in limits_clip.methods_of(profile, clip):
        frames = limits_clip.source_frames(profile, clip, method)
        at = limits_clip.moments(profile, clip) if method == ANCHORS else list(every)
        made["values"][method] = limits_clip.values(seen, method, frames, at)
        own = [print_ for name, print_ in prints.items() if name.split("/")[0] == method]
        made["artefacts"][method] = own[0] if len(own) == 1 else "+".join(print_[:8] for print_ in own)
        if seen.found and method not in ("render", "truth"):
            of_objects = limits_clip.by_object(seen, method, frames, at)
            facts = zip(
                *(seen.found.ids, seen.found.kinds, seen.found.size, seen.found.arrives, seen.found.unseen),
                *(of_objects[name] for name in OF_OBJECT),
                strict=True,
            )
            for number, kind, size, arrives, unseen, *found in facts:
                pixels = round(size * seen.render[0, ..., 0].size, 1)
                point = [number, kind, pixels, round(size, 6), int(arrives), int(unseen)]
                made["objects"].append([method, *point, *(_rounded(value) for value in found)])
        if method != ANCHORS:
            for middle, pixels, error, flicker in limits_clip.by_speed(seen, frames):
                made["motion"].append([method, _rounded(middle), pixels, _rounded(error), _rounded(flicker)])
    temporary.write_text(json.dumps(made, indent=1) + "\n")


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
