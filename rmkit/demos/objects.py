"""Objects and motion of a clip, from the engine's object maps and the render: what the limits are measured on (paper, 3.2, A).

Reads the data set's `visible/` and, where the diorama wrote it, engine.json; writes nothing. Sizes are shares of the
picture's area, speeds shares of its width from one source frame to the next; the edges of the bins are ours, set before
anything was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rmkit import sources
from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

SIZES = {"small": (0.0, 0.005), "medium": (0.005, 0.05), "large": (0.05, np.inf)}
SPEEDS = {"slow": (0.0, 0.005), "fast": (0.02, np.inf)}  # what lies between is neither
SCENERY = ("wall", "ground", "road", "sky")  # classes that are no objects
LATE = 0.1  # an object is absent from a frame in which it has less of its largest area
LEAST_PEAK = 0.001  # of the picture: a newcomer that never gets larger is none
LEAST_GAP = 1.0  # grey levels between render and truth: below, there is no way to cover


@dataclass(frozen=True)
class Objects:
    """The objects of a clip's D source frames, N of them.

    index: [D, H, W], the number of the object at each pixel, N where there is none; area: [N, D], pixels.
    """

    ids: tuple[int, ...]
    kinds: tuple[str, ...]  # classes; '' where the data set has none
    index: np.ndarray
    area: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """Mean share of the picture while seen, [N]."""
        return self.area.sum(axis=1) / (self.area > 0).sum(axis=1) / self.index[0].size

    @property
    def arrives(self) -> np.ndarray:
        """Which are newcomers, bool [N]: absent from the first frame, and of some size later."""
        peak = self.area.max(axis=1)
        return (self.area[:, 0] < LATE * peak) & (peak >= LEAST_PEAK * self.index[0].size)

    @property
    def unseen(self) -> np.ndarray:
        """Which newcomers are absent from the last frame too, bool [N]: no anchor of the ends shows them."""
        return self.arrives & (self.area[:, -1] < LATE * self.area.max(axis=1))

    def sums(self, values: np.ndarray, frames: Sequence[int]) -> np.ndarray:
        """Sum of values [M, H, W] over each object's pixels in M of the source frames: [N]."""
        index = self.index[list(frames)].ravel()
        return np.bincount(index, values.ravel(), minlength=len(self.ids) + 1)[: len(self.ids)]


def find(profile: Profile, clip: Clip) -> Objects:
    """The objects of a clip; raises InputError where its data set has no object maps."""
    sequence = sampling.sequence_of(profile, clip)
    visible = sequence.visible(clip.source_frames)  # [D, h, w]
    visible = sampling.crop_to(visible, profile.clips.height, profile.clips.width)
    return of_map(visible, classes(sequence) or {})


def classes(sequence: sources.Sequence) -> dict[int, str] | None:
    """The class of each object by its number, as the diorama tells it; None where the data set has no engine.json."""
    engine = sequence.folder / "engine.json"
    if not engine.is_file():
        return None
    return {int(n): entry["class"] for n, entry in store.read_json(engine, "restore it")["objects"].items()}


def of_map(visible: np.ndarray, kinds: dict[int, str]) -> Objects:
    """The objects of an object-id map, integers [D, H, W], 0 background; kinds: class by id, of some or none."""
    every, which = np.unique(visible, return_inverse=True)
    ids = [int(number) for number in every if number and kinds.get(int(number)) not in SCENERY]
    place = {number: i for i, number in enumerate(ids)}
    numbers = np.array([place.get(int(number), len(ids)) for number in every])
    index = numbers[which.reshape(visible.shape)]
    area = [np.bincount(frame.ravel(), minlength=len(ids) + 1)[: len(ids)] for frame in index]
    return Objects(tuple(ids), tuple(kinds.get(number, "") for number in ids), index, np.array(area).T)


def difference(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean absolute difference over colours: two uint8 [D, H, W, 3] to float32 [D, H, W], grey levels."""
    return cv2.absdiff(frames, others) @ np.full(3, 1 / 3, np.float32)


def covered(to_truth: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Share of the way from render to truth that an output covers: 1 - |out - truth| / |render - truth|.

    to_truth: sums of |out - truth| of each object, gap: of |render - truth|. 1: the truth; 0: as far as the render; below
    0: further. NaN where the gap is 0.
    """
    return 1 - _ratio(to_truth, gap)


def changed(change: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """How much an output changes the render beside what the truth changes: |out - render| / |truth - render|, of sums."""
    return _ratio(change, gap)


def bin_means(values: np.ndarray, of: np.ndarray, bins: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean of the values whose `of` lies in each bin (from the lower edge, below the upper); empty bins are left out."""
    found = {}
    for name, (low, high) in bins.items():
        chosen = values[(of >= low) & (of < high) & ~np.isnan(values)]
        if chosen.size:
            found[name] = float(chosen.mean())
    return found


def flow(render: np.ndarray) -> np.ndarray:
    """Where each pixel of a source frame was in the frame before it, by DIS on the render, float32 [D - 1, H, W, 2], pixels.

    The render and not the output: every method is measured on the same motion, and none can hide its own.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in render]
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs = zip(grey[1:], grey[:-1], strict=True)
    return np.stack([estimator.calc(frame, before, None) for frame, before in pairs])


def speed(motion: np.ndarray) -> np.ndarray:
    """Length of the flow as a share of the picture's width: [D - 1, H, W, 2] to [D - 1, H, W]."""
    return np.hypot(motion[..., 0], motion[..., 1]) / motion.shape[2]


def flicker(frames: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Change that motion does not explain: |frame - its predecessor moved along the flow|, float32 [D - 1, H, W]."""
    height, width = motion.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    moved = [
        cv2.remap(before, grid + step, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for before, step in zip(frames[:-1], motion, strict=True)
    ]
    return difference(frames[1:], np.stack(moved))


def colour_shift(
    objects: Objects, frames: np.ndarray, others: np.ndarray, moments: Sequence[int]
) -> np.ndarray:
    """Distance of each object's mean colour in CIELAB's a and b between two versions of M source frames: [N], NaN unseen."""
    pixels = objects.area[:, list(moments)].sum(axis=1)
    means = []
    for pictures in (frames, others):
        lab = np.stack([cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for p in pictures])
        means.append([_ratio(objects.sums(lab[..., i], moments), pixels) for i in (1, 2)])
    return np.hypot(*np.subtract(*means))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) > 0)


def has_maps(profile: Profile, clip: Clip) -> bool:
    """Whether the data set tells which object a pixel belongs to."""
    try:
        sampling.sequence_of(profile, clip).visible_fingerprints(clip.source_frames)
    except InputError:
        return False
    return True
