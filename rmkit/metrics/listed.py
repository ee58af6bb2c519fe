"""The metrics: one file each, from a stream of frames to a number; here, the list of those in use.

A metric's options are part of its name (`temporal_flickering_distinct`) or written beside its values.
Reads and writes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np

from rmkit.metrics.dino import cls_distance, key_distance, patch_distance
from rmkit.metrics.edge_f1 import THRESHOLDS, TOLERANCE, edge_f1
from rmkit.metrics.motion_smoothness import motion_smoothness
from rmkit.metrics.psnr import psnr
from rmkit.metrics.sharpness import sharpness
from rmkit.metrics.ssim import ssim
from rmkit.metrics.temporal_flickering import temporal_flickering


@dataclass(frozen=True)
class Metric:
    """One column of the tables: how it is computed, and how it reads."""

    name: str
    label: str
    unit: str
    better: int  # 1: higher is better, -1: lower, 0: neither (compare with a reference)
    compute: Callable[..., float] | None  # of frames or features; None: of faces, or rated by a judge
    against: Literal["truth", "render"] | None = None  # what each frame is compared with
    distinct: bool = False  # on the source's own frames, without the repetition that raises the rate
    options: Mapping[str, str] = field(default_factory=dict)

    def of(
        self, frames: Iterator[np.ndarray], other: Iterator | None, times: int, **model: Callable
    ) -> float:
        """Value for one clip; `other`: what it is compared with; `times`: how often a source frame is shown.

        model: what `compute` takes beside frames, by its name there.
        """
        if self.distinct:
            return self.compute(every(frames, times), **model)
        return self.compute(frames, other) if self.against else self.compute(frames, **model)


def every(frames: Iterable[np.ndarray], times: int) -> Iterator[np.ndarray]:
    """Every `times`-th frame, the first included."""
    return islice(frames, 0, None, times)


_CANNY = {"canny": "-".join(map(str, THRESHOLDS)), "tolerance": str(TOLERANCE)}
_FLOW, _AMT = {"interpolator": "dis_flow"}, {"interpolator": "amt_s"}
ALL = (
    Metric("psnr_truth", "PSNR to truth", "dB", 1, psnr, against="truth"),
    Metric("ssim_truth", "SSIM to truth", "", 1, ssim, against="truth", options={"window": "gauss"}),
    Metric("edge_f1", "Edge F1 to render", "", 1, edge_f1, against="render", options=_CANNY),
    Metric("temporal_flickering", "Temporal Flickering", "", 1, temporal_flickering),
    Metric(
        "temporal_flickering_distinct",
        "Temporal Flickering, distinct frames",
        "",
        1,
        temporal_flickering,
        distinct=True,
    ),
    Metric(
        "motion_smoothness", "Motion Smoothness (flow interpolator)", "", 1, motion_smoothness, options=_FLOW
    ),
    Metric(
        "motion_smoothness_distinct",
        "Motion Smoothness (flow interpolator), distinct frames",
        "",
        1,
        motion_smoothness,
        distinct=True,
        options=_FLOW,
    ),
    Metric("sharpness", "Sharpness", "grey levels squared", 0, sharpness),
)
# Where a profile names AMT-S, the paper's interpolator: never in one column with the other's.
AMT = (
    Metric("motion_smoothness_amt", "Motion Smoothness (AMT-S)", "", 1, motion_smoothness, options=_AMT),
    Metric(
        "motion_smoothness_amt_distinct",
        "Motion Smoothness (AMT-S), distinct frames",
        "",
        1,
        motion_smoothness,
        distinct=True,
        options=_AMT,
    ),
)
# Where a profile names a feature model; its name stands beside their values.
FEATURES = (
    Metric("dino", "DINO to render", "", -1, cls_distance, against="render"),
    Metric("dino_patch", "DINO (patches) to render", "", -1, patch_distance, against="render"),
    Metric("dino_keys", "DINO (keys) to render", "", -1, key_distance, against="render"),
    Metric("dino_truth", "DINO to truth", "", -1, cls_distance, against="truth"),
)
_ENDS, _MIDDLES = {"frames": "5 linspace"}, {"frames": "5 midpoints"}
FACES = (
    Metric("arcface", "ArcFace", "cosine", 1, None, against="render", options=_ENDS),
    Metric("arcface_mid5", "ArcFace, midpoints", "cosine", 1, None, against="render", options=_MIDDLES),
    Metric("arcface_min", "ArcFace, minimum", "cosine", 1, None, against="render", options=_ENDS),
    Metric("arcface_coverage", "Faces matched", "share", 1, None, against="render", options=_ENDS),
)
JUDGED = (
    Metric("gpt_rs", "GPT-RS no-ref", "1-10", 1, None),
    Metric("gpt_rs_ref", "GPT-RS with-ref", "1-10", 1, None),
)
# Where a profile names it: a classifier of ours, which is not the paper's judge and never stands in its column.
OFFLINE = (
    Metric("offline_judge", "Offline judge, 1-10 (ours)", "1-10", 1, None, options={"frames": "5 linspace"}),
)
SPREADS = tuple(Metric(f"{m.name}_spread", m.label, "", 0, None) for m in JUDGED)
BY_NAME = {metric.name: metric for metric in ALL + AMT + FACES + FEATURES + JUDGED + OFFLINE + SPREADS}


def shown(names: Iterable[str]) -> tuple[Metric, ...]:
    """Metrics that have a column: all that need no model, the paper's in any case, and what else `names` has."""
    present = {"arcface", "dino", *(metric.name for metric in JUDGED), *names}
    asked = AMT + FACES + FEATURES + JUDGED + OFFLINE
    return ALL + tuple(metric for metric in asked if metric.name in present)
