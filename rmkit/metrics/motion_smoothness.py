"""Motion Smoothness: how well every second frame follows from its two neighbours (paper, 4.1).

VBench's arithmetic around an interpolator. VBench's is AMT-S (`motion_smoothness_amt`), whose weights are under a
non-commercial licence; this stand-in for everybody needs none: optical flow by DIS. Writes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rmkit.metrics import Column, Measure, Metric, Subject
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
Interpolator = Callable[[np.ndarray, np.ndarray], np.ndarray]
_NAME = "Motion Smoothness (flow interpolator)"
_DIS = {"floor": 2e-5, "options": {"interpolator": "dis_flow"}, "shown": "always"}


class MotionSmoothness(Metric):
    """Motion Smoothness by optical flow; VBench's own numbers are not comparable with it."""

    version = VERSION
    columns = (
        Column("motion_smoothness", _NAME, "", 1, **_DIS, paper=True),
        Column("motion_smoothness_distinct", f"{_NAME}, distinct frames", "", 1, distinct=True, **_DIS),
    )

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        return by(flow_midpoint)

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        return (
            f"{_NAME}: VBench's arithmetic with an optical-flow interpolator (DIS) in place "
            "of AMT-S; not comparable with VBench's own numbers. `distinct`: on the source's frames, without the "
            "repetition from 8 to 16 fps; the others at 16 fps, as in the paper."
        )


def by(interpolate: Interpolator) -> Measure:
    """The function that gives the value of each column by an interpolator."""

    def measure(subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        return {column.name: motion_smoothness(subject.output(column), interpolate) for column in columns}

    return measure


def motion_smoothness(frames: Iterable[np.ndarray], interpolate: Interpolator | None = None) -> float:
    """Score of one clip, 0..1, higher is smoother; a last odd frame without a right neighbour is left out.

    frames: uint8 [H, W, 3] RGB, three or more. interpolate(left, right): the frame half-way, float
    [H, W, 3] in 0..255; its result is truncated to uint8, as VBench does.
    """
    interpolate = interpolate or flow_midpoint
    errors: list[float] = []
    left = middle = None
    for i, frame in enumerate(frames):
        if i % 2:
            middle = frame
            continue
        if left is not None:
            predicted = np.clip(interpolate(left, frame), 0, 255).astype(np.uint8)
            errors.append(float(np.mean(cv2.absdiff(np.ascontiguousarray(middle), predicted))))
        left = frame
    if not errors:
        raise ValueError("motion smoothness needs three frames or more")
    return (255.0 - float(np.mean(errors))) / 255.0


def flow_midpoint(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The frame half-way between two, float32 [H, W, 3]: both warped along their flow, then averaged.

    Flow to the middle is combined from both directions as in Super SloMo (Jiang et al. 2018, eq. 4).
    """
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey_left = cv2.cvtColor(np.ascontiguousarray(left), cv2.COLOR_RGB2GRAY)
    grey_right = cv2.cvtColor(np.ascontiguousarray(right), cv2.COLOR_RGB2GRAY)
    forward = dis.calc(grey_left, grey_right, None)  # [H, W, 2], pixels
    backward = dis.calc(grey_right, grey_left, None)
    to_left = 0.25 * (backward - forward)
    return 0.5 * (_warp(left, to_left) + _warp(right, -to_left))


def _warp(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Frame sampled at x + flow(x), bilinear, edges repeated."""
    h, w = frame.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    places = x + flow[..., 0], y + flow[..., 1]
    return cv2.remap(frame.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


METRIC = MotionSmoothness()
