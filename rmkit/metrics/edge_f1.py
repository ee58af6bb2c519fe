"""Edge F1 against the render: whether the output's outlines lie where the game's do (ours; not in the paper).

The reference-free stand-in for geometry kept: it needs no truth, so it works on real recordings. Writes nothing.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from rmkit.method import structure
from rmkit.metrics import Column, Metric, Subject

THRESHOLDS = (100, 200)  # of Canny, those of the control video
TOLERANCE = 1  # pixels an outline may be off


class EdgeF1(Metric):
    """Agreement of a clip's outlines with the render's."""

    columns = (
        Column(
            *("edge_f1", "Edge F1 to render", "", 1),
            floor=2e-3,
            against="render",
            options={"canny": "-".join(map(str, THRESHOLDS)), "tolerance": str(TOLERANCE)},
            shown="always",
        ),
    )
    uses = (structure,)

    def measure(self, subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        return {"edge_f1": edge_f1(subject.frames["output"](), subject.frames["render"]())}


def edge_f1(frames: Iterable[np.ndarray], renders: Iterable[np.ndarray]) -> float:
    """Harmonic mean of precision and recall of edge pixels, counted over the whole clip, 0 to 1.

    frames, renders: uint8 [H, W, 3] RGB, equally many of equal size. An edge pixel counts as found when the other
    picture has one at most a pixel away. 1 when neither has an edge.
    """
    hits, total = np.zeros(2), np.zeros(2)  # of the output, of the render
    for frame, render in zip(frames, renders, strict=True):
        edges = [structure.canny(picture, THRESHOLDS) for picture in (frame, render)]
        for side, (own, other) in enumerate((edges, edges[::-1])):
            hits[side] += np.count_nonzero(own & _near(other))
            total[side] += np.count_nonzero(own)
    if not hits.all():
        return 0.0 if total.any() else 1.0
    precision, recall = hits / total
    return float(2 * precision * recall / (precision + recall))


def _near(edges: np.ndarray) -> np.ndarray:
    return cv2.dilate(edges, np.ones((2 * TOLERANCE + 1,) * 2, np.uint8))


METRIC = EdgeF1()
