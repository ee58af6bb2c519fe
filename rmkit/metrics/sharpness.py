"""Sharpness: variance of the Laplacian of the luma, mean over frames.

A blur scores well on PSNR, Temporal Flickering and Motion Smoothness; this is the number that gives it away
(ours; the paper argues the same about a baseline in 4.3 without a number). Writes nothing.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rmkit.metrics import Column, Metric, Subject
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd


class Sharpness(Metric):
    """Fine detail of a clip, to be near the truth's and not high."""

    columns = (
        Column("sharpness", "Sharpness", "grey levels squared", 0, digits=0, floor=0.1, shown="always"),
    )

    def measure(self, subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        return {"sharpness": sharpness(subject.frames["output"]())}

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        return "" if rows.empty else "Sharpness: variance of the Laplacian; to be near the truth's, not high."


def sharpness(frames: Iterable[np.ndarray]) -> float:
    """Mean over frames of the variance of the Laplacian (3x3, four neighbours) of 8-bit luma.

    frames: uint8 [H, W, 3] RGB. In squared grey levels; compare only clips of one size and content.
    """
    values = []
    for frame in frames:
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        values.append(float(cv2.Laplacian(grey, cv2.CV_64F).var()))
    return float(np.mean(values))


METRIC = Sharpness()
