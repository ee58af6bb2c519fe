"""PSNR to the truth, which the paper cannot measure and the diorama can (ours).

Rewards colour grading and blur: read it beside the colour transfer's row and beside sharpness. Writes nothing.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from rmkit.metrics import Column, Metric, Subject


class Psnr(Metric):
    """Peak signal-to-noise ratio of a clip."""

    columns = (
        Column("psnr_truth", "PSNR to truth", "dB", 1, digits=2, floor=0.01, against="truth", shown="always"),
    )

    def measure(self, subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        return {"psnr_truth": psnr(subject.frames["output"](), subject.frames["truth"]())}


def psnr(frames: Iterable[np.ndarray], truth: Iterable[np.ndarray]) -> float:
    """Decibels of one clip, from the mean squared error over all its pixels and frames.

    frames, truth: uint8 [H, W, 3] RGB, equally many of equal size. Infinite for equal clips.
    """
    squared, count = 0.0, 0
    for frame, target in zip(frames, truth, strict=True):
        difference = frame.astype(np.float64) - target
        squared += float((difference**2).sum())
        count += difference.size
    return math.inf if squared == 0 else 10 * math.log10(255**2 * count / squared)


METRIC = Psnr()
