"""Temporal Flickering, with VBench's arithmetic on the same decoded frames (paper, 4.1; FACTS of VBench).

Reads frames one by one, so that the length of a clip costs no memory. Writes nothing.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from rmkit.metrics import Column, Metric, Subject

_NAME = "Temporal Flickering"
_SHOWN = {"floor": 2e-5, "shown": "always"}


class TemporalFlickering(Metric):
    """VBench's Temporal Flickering of a clip."""

    columns = (
        Column("temporal_flickering", _NAME, "", 1, **_SHOWN, paper=True),
        Column("temporal_flickering_distinct", f"{_NAME}, distinct frames", "", 1, distinct=True, **_SHOWN),
    )

    def measure(self, subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        return {column.name: temporal_flickering(subject.output(column)) for column in columns}


def temporal_flickering(frames: Iterable[np.ndarray]) -> float:
    """Score of one clip, 0..1, higher is steadier: (255 - mean |difference of neighbours|) / 255.

    frames: uint8 [H, W, 3] RGB, two or more. Rounds where VBench (`vbench/temporal_flickering.py`)
    rounds: every pair's mean, and the mean over pairs, are float32.
    """
    differences: list[np.float32] = []
    before: np.ndarray | None = None
    for frame in frames:
        # VBench decodes to BGR; a float32 sum depends on the order of its terms.
        frame = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
        if before is not None:
            # In uint8: the same values as in float32, at a quarter of the memory.
            differences.append(cv2.absdiff(before, frame).astype(np.float32).mean())
        before = frame
    if not differences:
        raise ValueError("temporal flickering needs two frames or more")
    return (255.0 - np.mean(np.array(differences)).item()) / 255.0


METRIC = TemporalFlickering()
