"""Shots: the stretches of a sequence without a hard cut, and how many clips lie in them (paper, 3.3; the rest is ours).

Reads the data set (`sources`), or the cuts listed in `data.cuts`; writes what is found to `cuts/<sequence>.json`, so that a
second call decodes nothing.
"""

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from rmkit import sources
from rmkit.errors import InputError
from rmkit.kit import stage, store
from rmkit.paths import resolve
from rmkit.profile import Profile

VERSION = 1


def of(profile: Profile, label: str, sequences: Sequence[sources.Sequence]) -> dict[str, list[range]]:
    """Frames of every shot by sequence: between cuts, and where frames are missing.

    label: of the progress. Raises InputError where `data.cuts` does not fit, and before any picture is decoded where some
    cannot be used.
    """
    cuts = _listed(profile, sequences) if profile.data.cuts else _found(profile, label, sequences)
    return {
        each.id: [range(*ends) for ends in pairwise(sorted({0, *each.breaks, *cuts[each.id], len(each)}))]
        for each in sequences
    }


def find_cuts(frames: Iterable[np.ndarray], ratio: float, fps: int) -> list[int]:
    """Indices of first frames after a hard cut, by PySceneDetect's adaptive detector.

    A cut changes `ratio` times as much as the two frames before it and after it do: shadows that jump and
    cameras that move fast change every frame and are no cuts. A cut with fewer frames around it is not seen.
    """
    detector = AdaptiveDetector(adaptive_threshold=ratio, min_scene_len=2, window_width=2)
    cuts: list[int] = []
    for i, frame in enumerate(frames):
        found = detector.process_frame(FrameTimecode(i, Fraction(fps)), frame[..., ::-1])
        cuts += [cut.frame_num for cut in found]
    return cuts


def windows(spare: Iterable[int], stride: int) -> int:
    """How many clips start at every `stride` frames of shots that are `spare` frames longer than a clip."""
    return sum(frames // stride + 1 for frames in spare if frames >= 0)


def largest_stride(spare: Sequence[int], need: int, count: int) -> int:
    """The largest stride that gives `count` clips of `need` frames: `need` where they need not overlap; else 1."""
    return next((stride for stride in range(need, 1, -1) if windows(spare, stride) >= count), 1)


def _found(profile: Profile, label: str, sequences: Sequence[sources.Sequence]) -> dict[str, list[int]]:
    """Cuts by sequence; those of sequences whose files have not changed are known."""
    ratio = profile.data.cut_ratio
    items = [
        stage.Item(
            profile.layout.cuts / f"{each.id}.json",
            store.Recipe("cuts", VERSION, {"ratio": ratio}, {"pictures": each.stamp(range(len(each)))}),
            each,
        )
        for each in sequences
    ]
    for item in items:
        if not item.is_done:
            item.subject.check(range(len(item.subject)))

    def make(item: stage.Item[sources.Sequence], temporary: Path) -> None:
        temporary.write_text(json.dumps(find_cuts(item.subject.stream(), ratio, item.subject.fps)))

    stage.run(f"cuts of {label}", items, lambda: make)
    return {item.subject.id: store.read_json(item.path) for item in items}


def _listed(profile: Profile, sequences: Sequence[sources.Sequence]) -> dict[str, list[int]]:
    """Cuts by sequence as the file `data.cuts` gives them."""
    path = resolve(profile.data.cuts)
    try:
        listed = json.loads(path.read_bytes())
        cuts = {each.id: listed.get(each.id) for each in sequences}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f'data.cuts: {path} is not a list of cuts such as {{"<sequence>": [12, 40]}} ({error}).'
        ) from None
    for each in sequences:
        found = cuts[each.id]
        if found is None:
            raise InputError(
                f"data.cuts: {path} does not name {each.id}: give it [] where it is one shot, or leave data.cuts out to "
                "have cuts found."
            )
        if not isinstance(found, list) or any(
            type(cut) is not int or not 0 < cut < len(each) for cut in found
        ):
            raise InputError(
                f"data.cuts: {path} must give {each.id} whole numbers from 1 to {len(each) - 1}, the first frames after a "
                f"cut, counted from 0; not {str(found)[:80]}."
            )
    return cuts
