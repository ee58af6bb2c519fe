"""Edge F1 against the render: whether the output's outlines lie where the game's do (ours; not in the paper).

The reference-free stand-in for geometry kept: it needs no truth, so it works on real recordings. Inside regions of the
picture where somebody asks for it: a change of weather rightly changes ground and sky. Writes nothing.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from rmkit.method import structure
from rmkit.metrics import Column, Metric, Subject

THRESHOLDS = (100, 200)  # of Canny, those of the control video
TOLERANCE = 1  # pixels an outline may be off
MOST_GAIN = 6.0  # by which contrast is raised inside a region, to the render's
OPTIONS = {"canny": "-".join(map(str, THRESHOLDS)), "tolerance": str(TOLERANCE)}
# What the numbers in a stream of "regions", uint8 [H, W], stand for; 0 is all else.
PERSON, THING, GROUND, SKY = 1, 2, 3, 4
REGIONS = {"persons_f1": (PERSON,), "objects_f1": (PERSON, THING), "ground_f1": (GROUND,), "sky_f1": (SKY,)}
_EVERYWHERE = {"floor": 2e-3, "against": "render", "options": OPTIONS}
_INSIDE = {**_EVERYWHERE, "beside": "regions", "asked": True, "optional": True}


class EdgeF1(Metric):
    """Agreement of a clip's outlines with the render's."""

    columns = (
        Column("edge_f1", "Edge F1 to render", "", 1, **_EVERYWHERE, shown="always"),
        Column("persons_f1", "Edge F1 in persons", "", 1, 3, **_INSIDE),
        Column("objects_f1", "Edge F1 in persons and things", "", 1, 3, **_INSIDE),
        Column("ground_f1", "Edge F1 in the ground", "", 0, 3, **_INSIDE),
        Column("sky_f1", "Edge F1 in the sky", "", 0, 3, **_INSIDE),
    )
    uses = (structure,)

    def measure(self, subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        found = {}
        for column in columns:
            sides = subject.frames["output"](), subject.frames["render"]()
            if column.beside is None:
                found[column.name] = edge_f1(*sides)
            elif any(part.any() for part in _parts(subject, column)):
                found[column.name] = edge_f1(*sides, _parts(subject, column))
        return found


def _parts(subject: Subject, column: Column) -> Iterator[np.ndarray]:
    """Where in each frame the column is measured, bool [H, W]."""
    return (np.isin(numbers, REGIONS[column.name]) for numbers in subject.frames["regions"]())


def edge_f1(
    frames: Iterable[np.ndarray], renders: Iterable[np.ndarray], inside: Iterable[np.ndarray] | None = None
) -> float:
    """Harmonic mean of precision and recall of edge pixels, counted over the whole clip, 0 to 1.

    frames, renders: uint8 [H, W, 3] RGB, equally many of equal size. An edge pixel counts as found when the other
    picture has one at most a pixel away. inside: bool [H, W] of each frame, where edge pixels are counted, and a pixel
    around it, where its outline lies; there the frame is given the render's contrast first, since fog pales an outline
    without moving it. None: everywhere, as it is. 1 when neither has an edge.
    """
    hits, total = np.zeros(2), np.zeros(2)  # of the output, of the render
    parts = itertools.repeat(None) if inside is None else inside
    for (frame, render), part in zip(zip(frames, renders, strict=True), parts, strict=inside is not None):
        counted = 255 if part is None else _near(part.astype(np.uint8) * 255)
        if part is not None:
            frame = with_contrast(frame, render, counted > 0)
        edges = [structure.canny(picture, THRESHOLDS) for picture in (frame, render)]
        for side, (own, other) in enumerate((edges, edges[::-1])):
            hits[side] += np.count_nonzero(own & counted & _near(other))
            total[side] += np.count_nonzero(own & counted)
    if not hits.all():
        return 0.0 if total.any() else 1.0
    precision, recall = hits / total
    return float(2 * precision * recall / (precision + recall))


def with_contrast(frame: np.ndarray, render: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The frame with the render's brightness and contrast inside bool [H, W]: uint8 [H, W, 3] to the same.

    At most MOST_GAIN times its own contrast, beyond which there is noise.
    """
    if not inside.any():
        return frame
    own, wanted = frame[inside], render[inside]
    gain = min(MOST_GAIN, float(wanted.std()) / max(float(own.std()), 1e-6))
    return np.clip(np.rint((frame - own.mean()) * gain + wanted.mean()), 0, 255).astype(np.uint8)


def _near(edges: np.ndarray) -> np.ndarray:
    return cv2.dilate(edges, np.ones((2 * TOLERANCE + 1,) * 2, np.uint8))


METRIC = EdgeF1()
