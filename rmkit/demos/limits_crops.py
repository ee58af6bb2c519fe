"""Crops that show what fails: small objects, newcomers, fast steps, a row a method (paper, Fig. 7 and 14).

Reads the clips themselves, at the places that results/<profile>/limits/*.csv name; writes nothing.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from rmkit.demos import limits, limits_clip, limits_figures, objects
from rmkit.demos.limits_clip import ANCHORS
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

CROP = 0.25  # least side of a crop, of the picture's height


def small_objects(profile: Profile, clip: Clip, count: int = 6) -> Image.Image:
    """A clip's small objects that RealMaster covers least, enlarged: a column an object, a row a method."""
    points = limits.load(profile, "objects")
    mine = points[(points["clip"] == clip.id) & (points.method == "realmaster") & points.covered.notna()]
    worst = mine[mine["size"] < objects.SIZES["small"][1]].nsmallest(count, "covered").object
    if worst.empty:
        raise InputError(f"clip {clip.id} has no small object that was measured.")
    found, anchored = objects.find(profile, clip), limits_clip.moments(profile, clip)
    places = [_place(found, int(number), anchored or range(len(found.index))) for number in worst]
    return _crops(profile, clip, ("render", ANCHORS, "realmaster", "vae_ceiling", "truth"), places)


def newcomer(profile: Profile, clip: Clip, count: int = 5) -> Image.Image:
    """The largest newcomer of a clip, at some moments between the ends: a row a method."""
    found = objects.find(profile, clip)
    numbers = np.flatnonzero(found.arrives)
    if not len(numbers):
        raise InputError(f"nothing comes into clip {clip.id} after its first frame.")
    which = numbers[found.area[numbers].max(axis=1).argmax()]
    inner = [i for i in np.flatnonzero(found.area[which]) if 0 < i < len(found.index) - 1]
    window = _window(np.isin(found.index[inner], which).any(axis=0))
    places = [(moment, window) for moment in video.spread(inner, count)]
    return _crops(profile, clip, ("render", "edges", "realmaster", "truth"), places, found.kinds[which])


def fastest(profile: Profile, clip: Clip, count: int = 4) -> Image.Image:
    """The source frames of a clip around its fastest step, a row a method."""
    render = limits_clip.source_frames(profile, clip, "render")
    mean = objects.speed(objects.flow(render)).mean(axis=(1, 2))
    first = int(np.clip(mean.argmax() - count // 2 + 1, 0, len(render) - count))
    whole = (slice(None), slice(None))
    return _crops(
        profile, clip, ("render", "edges", "realmaster", "truth"), [(first + i, whole) for i in range(count)]
    )


def most(profile: Profile, metric: str, method: str, other: str | None = None) -> Clip:
    """The validation clip on which a metric (or its difference between two methods, either way) is largest."""
    values = _by_clip(profile, metric, method)
    if other:
        values = (values - _by_clip(profile, metric, other)).dropna().abs()
    return _named(profile, values.idxmax())


def crowded(profile: Profile) -> Clip:
    """The validation clip with the most small objects."""
    points = limits.load(profile, "objects")
    small = points[(points.method == "realmaster") & (points["size"] < objects.SIZES["small"][1])]
    small = small.dropna(subset="covered")
    if small.empty:
        raise InputError("no small object was measured on this data.")
    return _named(profile, small["clip"].value_counts().index[0])


def _by_clip(profile: Profile, metric: str, method: str) -> pd.Series:
    """A method's values by clip; raises InputError where there are none."""
    frame = limits.load(profile)
    values = frame[(frame.metric == metric) & (frame.method == method)].set_index("clip").value.dropna()
    if values.empty:
        raise InputError(f"{metric} of {method} was not measured on this data.")
    return values


def _named(profile: Profile, name: str) -> Clip:
    return next(clip for clip in sampling.load(profile, "validation") if clip.id == name)


def _place(found: objects.Objects, number: int, at: Sequence[int]) -> tuple[int, tuple[slice, slice]]:
    """The moment (of some) at which an object is largest, and a square around it."""
    which = found.ids.index(number)
    moment = max(at, key=lambda i: found.area[which, i])
    mask = found.index[moment] == which
    return moment, _window(mask if mask.any() else (found.index == which).any(axis=0))


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """A square around a mask, half as large again and no smaller than CROP, inside the picture."""
    ys, xs = np.nonzero(mask)
    side = max(np.ptp(ys), np.ptp(xs), 1) * 1.5
    side = int(min(max(side, CROP * mask.shape[0]), *mask.shape))
    corner = [
        int(np.clip((c.min() + c.max() - side) // 2, 0, size - side))
        for c, size in zip((ys, xs), mask.shape, strict=True)
    ]
    return slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side)


def _crops(
    profile: Profile,
    clip: Clip,
    methods: Sequence[str],
    places: Sequence[tuple[int, tuple[slice, slice]]],
    kind: str = "",
) -> Image.Image:
    """A sheet: a row a method that has the clip, a column a place (moment and window); kind: of what is shown."""
    rows, there = [], limits_clip.methods_of(profile, clip)
    for method in [method for method in methods if method in there]:
        frames = limits_clip.source_frames(profile, clip, method)
        at = limits_clip.moments(profile, clip) if method == ANCHORS else list(range(len(frames)))
        shown = [frames[at.index(moment)][window] for moment, window in places]
        label = limits_figures.style(profile, method)["label"]
        rows.append((f"{label}\n{kind}" if kind and not rows else label, shown))
    return video.contact_sheet(rows, 120 if len(places) > 4 else 192)
