"""One clip of the limits: what it is measured against, and every number of a method on it (paper, 3.2, Fig. 7, A).

Reads a clip by every method, its anchors, its truth and its object maps; writes nothing. data/paper/claims.yaml defines the
metrics.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from rmkit import baselines
from rmkit.baselines import truth
from rmkit.demos import objects
from rmkit.method import anchoring, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

ANCHORS = "anchors"  # the editor's frames: a method here, at its own moments
METHODS = (
    *("render", "colour_transfer", *baselines.EXTERNAL, ANCHORS),
    *("edges", "realmaster", "vae_ceiling", "truth"),
)
# Speeds of the curve: edges of its bins, shares of the width between source frames.
CURVE = (0.0, 0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, np.inf)
OF_OBJECT = ("covered", "changed", "error", "colour_shift")


class Scene(NamedTuple):
    """What every method on a clip is measured against; D source frames."""

    render: np.ndarray  # uint8 [D, H, W, 3]
    truth: np.ndarray | None  # the same, where there is one
    found: objects.Objects | None  # where there are object maps
    flow: np.ndarray  # [D - 1, H, W, 2]
    speed: np.ndarray  # [D - 1, H, W]


def methods_of(profile: Profile, clip: Clip) -> list[str]:
    """Those of METHODS that have this clip."""
    known = baselines.every(profile)
    there = [n for n in METHODS if n in known and clip in known[n].having(profile, [clip])]
    there = [name for name in there if known[name].path(profile, clip).is_file()]
    return [n for n in METHODS if n in there or (n == ANCHORS and moments(profile, clip))]


def moments(profile: Profile, clip: Clip) -> list[int]:
    """Source frames of a clip that have an accepted anchor; none where one of its ends was refused."""
    count, times = profile.clips.frames, sampling.repeats(clip, profile.clips.frames)
    if anchoring.refused(profile, clip, anchoring.indices(profile, "edges")):
        return []
    every = [i for i in anchoring.indices(profile, "multi_anchor") if i % times == 0 and i < count]
    there = [i for i in every if anchoring.path(profile, clip, i).is_file()]
    return [i // times for i in there if not anchoring.refused(profile, clip, [i])]


def source_frames(profile: Profile, clip: Clip, method: str) -> np.ndarray:
    """A method's frames where the source has one (of repeated ones the first), uint8 [D, H, W, 3]; anchors at `moments`."""
    times = sampling.repeats(clip, profile.clips.frames)
    if method == ANCHORS:
        at = [moment * times for moment in moments(profile, clip)]
        return np.stack(list(anchoring.load(profile, clip, at).values()))
    stream = baselines.every(profile)[method].stream(profile, clip)
    return np.stack(list(islice(stream, 0, None, times)))


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


def values(seen: Scene, method: str, frames: np.ndarray, at: Sequence[int]) -> dict[str, float]:
    """The metrics of a method on a clip, as data/paper/claims.yaml defines them; `frames` are of the source frames `at`."""
    found, last = {}, len(seen.render) - 1
    ends = [list(at).index(end) for end in (0, last) if end in at]
    change = objects.difference(frames, seen.render[at])
    if seen.truth is not None and method != "truth":
        error = objects.difference(frames, seen.truth[at])
        gap = objects.difference(seen.truth[at], seen.render[at])
        if method != "render" and len(ends) == 2:
            found["anchor_change_ratio"] = float(change[ends].sum() / gap[ends].sum())
        if len(at) > last:
            third = slice(len(at) // 3, len(at) - len(at) // 3)
            found["middle_gap"] = float(error[third].mean() - error[ends].mean())
            binned = objects.bin_means(error[1:], seen.speed, objects.SPEEDS)
            found |= _spread("error", binned, "slow", "fast")
            if seen.found:
                found |= _newcomers(seen.found, error)
    if len(at) > last:
        binned = objects.bin_means(objects.flicker(frames, seen.flow), seen.speed, objects.SPEEDS)
        found |= _spread("flicker", binned, "slow", "fast")
    if seen.found and method != "render":
        of_objects = by_object(seen, method, frames, at)
        if not np.isnan(of_objects["colour_shift"]).all():
            found["object_colour_shift"] = float(np.nanmean(of_objects["colour_shift"]))
        for name, metric in (("covered", "covered"), ("changed", "change")):
            binned = objects.bin_means(of_objects[name], seen.found.size, objects.SIZES)
            found |= _spread(metric, binned, "small", "large")
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
    for low, high in pairwise(CURVE):
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
