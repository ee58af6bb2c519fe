"""SSIM to the truth, by scikit-image (Wang et al. 2004; ours, the paper has no truth).

Takes frames one by one, so that the length of a clip costs no memory. Writes nothing.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from rmkit.metrics import Column, Metric, Subject

# Pixels a side of scikit-image's Gaussian window: three and a half standard deviations to each side.
WINDOW = 11
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


class Ssim(Metric):
    """Structural similarity of a clip."""

    columns = (
        Column(
            *("ssim_truth", "SSIM to truth", "", 1),
            digits=3,
            floor=1e-4,
            against="truth",
            options={"window": "gauss"},
            shown="always",
        ),
    )

    def measure(self, subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
        return {"ssim_truth": ssim(subject.frames["output"](), subject.frames["truth"]())}


def ssim(frames: Iterable[np.ndarray], truth: Iterable[np.ndarray]) -> float:
    """Structural similarity of one clip, mean over frames and colour channels, at most 1.

    frames, truth: uint8 [H, W, 3] RGB, equally many of equal size. Gaussian window of 1.5 pixels and population variances.
    """
    from skimage.metrics import structural_similarity

    scores: list[float] = []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for pair in zip(frames, truth, strict=True):
        if min(pair[0].shape[:2]) < WINDOW:
            raise ValueError(f"SSIM needs frames of {WINDOW} pixels or more a side")
        # A clip raised from 8 to 16 fps shows frames twice: the same pair has the same score.
        repeated = before is not None and all(np.array_equal(a, b) for a, b in zip(before, pair, strict=True))
        if not repeated:
            score = structural_similarity(*pair, data_range=255, channel_axis=-1, **GAUSSIAN)
        scores.append(float(score))
        before = pair
    return float(np.mean(scores))


METRIC = Ssim()
