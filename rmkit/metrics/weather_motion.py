"""Weather motion: what moves in the output where the clear output is still (ours; not in the paper).

Rain and snow fall: a grey picture alone does not. Reads both videos' distinct frames; writes nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import cv2
import numpy as np

from rmkit.metrics import Column, Metric, Subject

STILL = 4.0  # levels of 255 by which a still place may change from frame to frame
AROUND = 5  # pixels a side of what must be still around a place
FEWEST = 0.02  # share of all pixels that must be still, or there is nothing to say


class WeatherMotion(Metric):
    """Change of an output's still places beyond that of the clear output's."""

    columns = (
        Column(
            *("weather_motion", "Weather motion", "levels of 255", 0),
            digits=2,
            floor=0.02,
            beside="clear",
            distinct=True,
            options={"still": f"{STILL:g} levels in {AROUND}x{AROUND}"},
            asked=True,
            optional=True,
        ),
    )
    own_clips = False

    def measure(self, subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        clear = list(subject.frames["clear"]())[:: subject.times]
        found = weather_motion(subject.output(columns[0]), clear)
        return {} if found is None else {"weather_motion": found}


def weather_motion(frames: Iterable[np.ndarray], clear: Iterable[np.ndarray]) -> float | None:
    """Mean absolute change from frame to frame in places where `clear` is still, minus that of `clear` there.

    frames, clear: distinct frames uint8 [H, W, 3], equally many. In levels of 0..255, near 0 where nothing falls; None
    where hardly any place is still, as when the camera moves.
    """
    moved, places, total = 0.0, 0, 0
    for (frame, following), (still, still_following) in zip(pairwise(frames), pairwise(clear), strict=True):
        change, unchanged = _change(frame, following), _change(still, still_following)
        where = cv2.dilate(unchanged, np.ones((AROUND, AROUND), np.uint8)) <= STILL
        moved += float((change - unchanged)[where].sum())
        places, total = places + int(where.sum()), total + where.size
    return moved / places if places >= FEWEST * total and places else None


def _change(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Mean over the colours of the absolute difference, float32 [H, W]."""
    return cv2.absdiff(frame, following).astype(np.float32).mean(axis=2)


METRIC = WeatherMotion()
