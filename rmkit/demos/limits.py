"""Where the method reaches its limits: small objects, fast motion, newcomers, over-editing (paper, 3.2, Fig. 7, A, Fig. 14).

Reads the validation clips of a run by every method, the anchors, the truth and the object maps; writes to
results/<profile>/limits/: clips/<id>.json (an item of a stage each), metrics.csv, and the points of the curves, objects.csv
(one row an object and method) and motion.csv (one row a clip, method and speed). Files alone make tables and figures.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from rmkit import baselines, metrics
from rmkit.baselines import truth
from rmkit.demos import cuts, objects
from rmkit.evaluation import evaluate, statistics
from rmkit.evaluation.typeset import Table, cell
from rmkit.kit import stage, store, video
from rmkit.method import anchoring, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

VERSION = 1
ANCHORS = "anchors"  # the editor's frames: a method here, at its own moments
METHODS = (
    *("render", "colour_transfer", *baselines.EXTERNAL, ANCHORS),
    *("edges", "realmaster", "vae_ceiling", "truth"),
)
LABELS = {ANCHORS: "Editor (anchors)"}
# Speeds of the curve: edges of its bins, shares of the width between source frames.
CURVE = (0.0, 0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, np.inf)
OBJECTS = ("method", "clip", "sequence", "object", "kind", "pixels", "size", "arrives", "unseen")
OF_OBJECT = ("covered", "changed", "error", "colour_shift")
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


class Scene(NamedTuple):
    """What every method on a clip is measured against; D source frames."""

    render: np.ndarray  # uint8 [D, H, W, 3]
    truth: np.ndarray | None  # the same, where there is one
    found: objects.Objects | None  # where there are object maps
    flow: np.ndarray  # [D - 1, H, W, 2]
    speed: np.ndarray  # [D - 1, H, W]


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
        found, commit = json.loads(item.path.read_text()), store.read_sidecar(item.path).get("commit", "unknown")
        for method, values in found["values"].items():
            rows += [row(profile, clip, method, *value, found["artefacts"][method], commit) for value in values.items()]
        points += [(method, clip.id, clip.sequence, *point) for method, *point in found["objects"]]
        moving += [(method, clip.id, clip.sequence, *point) for method, *point in found["motion"]]
    order = [*METHODS, *cuts.METHODS]
    rows += [row(profile, *one) for one in cuts.measured(profile)]
    rows = sorted(rows, key=lambda row: (order.index(row["method"]), row["clip"]))
    evaluate.write(layout.metrics, rows)
    for name, columns, data in (("objects", OBJECTS + OF_OBJECT, points), ("motion", MOTION, moving)):
        text = pd.DataFrame(data, columns=columns).to_csv(index=False, lineterminator="\n")
        store.write_text(layout.root / f"{name}.csv", text)
    return layout.metrics


def row(
    profile: Profile, clip: Clip, method: str, metric: str, value: float, artefact: str, commit: str
) -> evaluate.Row:
    """One row in the form of metrics.csv."""
    return {
        **{"profile": profile.name, "method": method, "clip": clip.id, "metric": metric},
        **{"value": round(value, 6), "sequence": clip.sequence, "subsets": ";".join(clip.subsets)},
        "options": "flow=dis of the render" if metric.startswith(("error_", "flicker_")) else "",
        **{"artefact": artefact, "commit": commit},
    }


def not_applicable(profile: Profile) -> list[str]:
    """What cannot be measured on this data, a sentence each: 'n/a', a colon, and the reason."""
    clips, found = sampling.load(profile, "validation"), []
    if not any(objects.has_maps(profile, clip) for clip in clips):
        found.append("small objects, newcomers, colours: n/a: this data has no object maps (visible/).")
    if not any(truth.exists(profile, clip) for clip in clips):
        found.append("nearness to the truth, by size, by speed and of newcomers: n/a: this data has no truth.")
    return found


def load(profile: Profile, name: str = "metrics") -> pd.DataFrame:
    """metrics.csv, objects.csv or motion.csv of the demonstration, or the shipped record's before it has been run.

    Raises InputError where there is neither.
    """
    demo = profile.demo("limits")
    frame = statistics.to_show(demo)
    if name == "metrics":
        return frame
    folder = demo.layout.reference if statistics.of_record(demo) else demo.layout.root
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values={key: [""] for key in OF_OBJECT})


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


def moments(profile: Profile, clip: Clip) -> list[int]:
    """Source frames of a clip that have an accepted anchor, those of the ends alone where one of them is refused: none."""
    count, times = profile.clips.frames, sampling.repeats(clip, profile.clips.frames)
    if anchoring.refused(profile, clip, anchoring.indices(profile, "edges")):
        return []
    every = [i for i in anchoring.indices(profile, "multi_anchor") if i % times == 0 and i < count]
    there = [i for i in every if anchoring.path(profile, clip, i).is_file()]
    return [i // times for i in there if not anchoring.refused(profile, clip, [i])]


def scene(profile: Profile, clip: Clip) -> Scene:
    """All of a clip that its outputs are compared with."""
    render = source_frames(profile, clip, "render")
    motion = objects.flow(render)
    return Scene(
        render,
        source_frames(profile, clip, "truth") if truth.exists(profile, clip) else None,
        objects.find(profile, clip) if objects.has_maps(profile, clip) else None,
        motion,
        objects.speed(motion),
    )


def source_frames(profile: Profile, clip: Clip, method: str) -> np.ndarray:
    """A method's frames where the source has one (of repeated ones the first), uint8 [D, H, W, 3]; anchors at `moments`."""
    times = sampling.repeats(clip, profile.clips.frames)
    if method == ANCHORS:
        at = [moment * times for moment in moments(profile, clip)]
        return np.stack(list(anchoring.load(profile, clip, at).values()))
    stream = baselines.every(profile)[method].stream(profile, clip)
    return np.stack(list(islice(stream, 0, None, times)))


def values(seen: Scene, method: str, frames: np.ndarray, at: Sequence[int]) -> dict[str, float]:
    """The metrics of a method on a clip, as data/paper/claims.yaml defines them; `frames` are of the source frames `at`."""
    found, last = {}, len(seen.render) - 1
    ends = [list(at).index(end) for end in (0, last) if end in at]
    change = objects.difference(frames, seen.render[at])
    if seen.truth is not None and method != "truth":
        error, gap = objects.difference(frames, seen.truth[at]), objects.difference(seen.truth[at], seen.render[at])
        if method != "render" and len(ends) == 2:
            found["anchor_change_ratio"] = float(change[ends].sum() / gap[ends].sum())
        if len(at) > last:
            third = slice(len(at) // 3, len(at) - len(at) // 3)
            found["middle_gap"] = float(error[third].mean() - error[ends].mean())
            by_speed = objects.bin_means(error[1:], seen.speed, objects.SPEEDS)
            found |= _spread("error", by_speed, "slow", "fast")
            if seen.found:
                found |= _newcomers(seen.found, error)
    if len(at) > last:
        by_speed = objects.bin_means(objects.flicker(frames, seen.flow), seen.speed, objects.SPEEDS)
        found |= _spread("flicker", by_speed, "slow", "fast")
    if seen.found and method != "render":
        of_objects = by_object(seen, method, frames, at)
        if not np.isnan(of_objects["colour_shift"]).all():
            found["object_colour_shift"] = float(np.nanmean(of_objects["colour_shift"]))
        for name, metric in (("covered", "covered"), ("changed", "change")):
            by_size = objects.bin_means(of_objects[name], seen.found.size, objects.SIZES)
            found |= _spread(metric, by_size, "small", "large")
    return {metric: value for metric, value in found.items() if np.isfinite(value)}


def by_object(seen: Scene, method: str, frames: np.ndarray, at: Sequence[int]) -> dict[str, np.ndarray]:
    """What is measured of each of a clip's objects: OF_OBJECT, [N] each, NaN where it does not apply."""
    found, nothing = seen.found, np.full(len(seen.found.ids), np.nan)
    shift = objects.colour_shift(found, frames, seen.render[at], at)
    known = dict.fromkeys(OF_OBJECT, nothing) | {"colour_shift": shift}
    if seen.truth is None or method in ("render", "truth"):
        return known
    pixels = found.area[:, list(at)].sum(axis=1)
    pairs = {"change": (frames, seen.render[at]), "error": (frames, seen.truth[at])}
    pairs["gap"] = (seen.truth[at], seen.render[at])
    sums = {name: found.sums(objects.difference(*pair), at) for name, pair in pairs.items()}
    gap = np.where(sums["gap"] >= objects.LEAST_GAP * np.maximum(pixels, 1), sums["gap"], 0)
    return known | {
        "covered": objects.covered(sums["error"], gap),
        "changed": objects.changed(sums["change"], gap),
        "error": np.divide(sums["error"], pixels, out=nothing.copy(), where=pixels > 0),
    }


def by_speed(seen: Scene, frames: np.ndarray) -> Iterator[tuple[float, int, float, float]]:
    """Points of the curve of a clip: middle of the bin (geometric, of CURVE), pixels, mean error, mean flicker."""
    flicker = objects.flicker(frames, seen.flow)
    error = np.full_like(flicker, np.nan)
    if seen.truth is not None:
        error = objects.difference(frames, seen.truth)[1:]
    for low, high in zip(CURVE[:-1], CURVE[1:], strict=True):
        chosen = (seen.speed >= low) & (seen.speed < high)
        if chosen.any():
            middle = float(np.sqrt(max(low, CURVE[1] / 2) * min(high, 2 * CURVE[-2])))
            yield middle, int(chosen.sum()), float(error[chosen].mean()), float(flicker[chosen].mean())


def _spread(name: str, by_bin: dict[str, float], low: str, high: str) -> dict[str, float]:
    """A metric for each bin, and the gap from one bin to another where the clip has both."""
    found = {f"{name}_{of}": value for of, value in by_bin.items()}
    if low in by_bin and high in by_bin:
        found[f"{name}_gap"] = by_bin[high] - by_bin[low]
    return found


def _newcomers(found: objects.Objects, error: np.ndarray) -> dict[str, float]:
    """Error on the newcomers' own pixels, between the ends."""
    inner, values = range(1, len(error) - 1), {}
    sums, pixels = found.sums(error[list(inner)], inner), found.area[:, list(inner)].sum(axis=1)
    for metric, chosen in (("newcomer_error", found.arrives), ("unseen_error", found.unseen)):
        if pixels[chosen].sum():
            values[metric] = float(sums[chosen].sum() / pixels[chosen].sum())
    return values


def _item(profile: Profile, clip: Clip, path: Path) -> stage.Item[Clip]:
    """A clip's measurements, and all that decides them."""
    sequence, times = sampling.sequence_of(profile, clip), sampling.repeats(clip, profile.clips.frames)
    files = {name: baselines.every(profile)[name].path(profile, clip) for name in methods_of(profile, clip) if name != ANCHORS}
    files |= {f"{ANCHORS}/{m}": anchoring.path(profile, clip, m * times) for m in moments(profile, clip)}
    inputs = {name: store.fingerprint(file) for name, file in files.items()}
    if objects.has_maps(profile, clip):
        inputs |= {f"visible/{i}": print_ for i, print_ in sequence.visible_fingerprints(clip.source_frames).items()}
        engine = sequence.folder / "engine.json"
        inputs |= {"engine": store.fingerprint(engine)} if engine.is_file() else {}
    settings = {**profile.clips.model_dump(), "source_frames": clip.source_frames, "opencv": cv2.__version__}
    return stage.Item(path, store.Recipe("limits", VERSION, settings, inputs), clip)


def methods_of(profile: Profile, clip: Clip) -> list[str]:
    """Those of METHODS that have this clip."""
    known = baselines.every(profile)
    there = [n for n in METHODS if n in known and clip in known[n].having(profile, [clip])]
    there = [name for name in there if known[name].path(profile, clip).is_file()]
    return [n for n in METHODS if n in there or (n == ANCHORS and moments(profile, clip))]


def _measure(profile: Profile, item: stage.Item[Clip], temporary: Path) -> None:
    clip, prints = item.subject, item.recipe.inputs
    seen, every = scene(profile, clip), range(len(clip.source_frames))
    made: dict = {"values": {}, "artefacts": {}, "objects": [], "motion": []}
    for method in methods_of(profile, clip):
        frames = source_frames(profile, clip, method)
        at = moments(profile, clip) if method == ANCHORS else list(every)
        made["values"][method] = values(seen, method, frames, at)
        own = [print_ for name, print_ in prints.items() if name.split("/")[0] == method]
        made["artefacts"][method] = own[0] if len(own) == 1 else "+".join(print_[:8] for print_ in own)
        if seen.found and method not in ("render", "truth"):
            of_objects = by_object(seen, method, frames, at)
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
            for middle, pixels, error, flicker in by_speed(seen, frames):
                made["motion"].append([method, _rounded(middle), pixels, _rounded(error), _rounded(flicker)])
    temporary.write_text(json.dumps(made, indent=1) + "\n")


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
