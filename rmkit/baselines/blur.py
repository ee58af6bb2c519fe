"""Blur: the render out of focus, to show what smoothness metrics reward (ours; not in the paper).

Reads validation clips; gives their blurred frames.
"""

import cv2
import numpy as np

from rmkit.baselines import Edit, Made
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

SIGMA = 1 / 64  # of the frame's height


class Blur(Made):
    """The render, blurred."""

    name, label, colour, marker = "blur", "Blur", "#8C6D31", "h"
    fixed = True

    def depends_on(self, profile: Profile) -> dict[str, float]:
        return {"sigma": SIGMA}

    def ready(self, profile: Profile) -> Edit:
        def edit(clip: Clip, seed: int) -> np.ndarray:
            return np.stack([soften(frame) for frame in video.stream(sampling.path(profile, clip))])

        return edit


def soften(frame: np.ndarray) -> np.ndarray:
    """Gaussian blur by a share of the height: uint8 [H, W, 3] to the same."""
    return cv2.GaussianBlur(frame, (0, 0), SIGMA * len(frame))


METHODS = (Blur(),)
