"""Filter: the render through a soft and a sharpening filter, to show what a judge of realism rewards (ours; not in the paper).

Steps at edges become ramps, which is how a camera differs from a plain rasteriser, and nothing else changes: no light, no
material. Before it was in the offline judge's training, that judge rated it 6 of 10. Reads validation clips; gives their
filtered frames.
"""

import cv2
import numpy as np

from rmkit.baselines import Edit, Made
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

SIGMA = 0.8  # pixels, as the steps at edges are one pixel wide whatever the size
RADIUS, AMOUNT = 1.5, 1.0  # of the unsharp mask: pixels, and the share of the difference that is added


class Prefilter(Made):
    """The render, filtered; no model."""

    name, label, colour, marker = "prefilter", "Filter (no model)", "#7570B3", "d"
    fixed = True

    def depends_on(self, profile: Profile) -> dict[str, float]:
        return {"sigma": SIGMA, "radius": RADIUS, "amount": AMOUNT}

    def ready(self, profile: Profile) -> Edit:
        def edit(clip: Clip, seed: int) -> np.ndarray:
            return np.stack([filtered(frame) for frame in video.stream(sampling.path(profile, clip))])

        return edit


def filtered(
    frame: np.ndarray, sigma: float = SIGMA, radius: float = RADIUS, amount: float = AMOUNT
) -> np.ndarray:
    """A Gaussian, then an unsharp mask: uint8 [H, W, 3] to the same; sigma and radius in pixels."""
    soft = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), sigma)
    sharp = soft + amount * (soft - cv2.GaussianBlur(soft, (0, 0), radius))
    return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)


METHODS = (Prefilter(),)
