"""Alignment of an edited picture with its original, from their edges: measures a drift and undoes it (ours).

An image editor may shift, zoom or squeeze what it is given. Works on single pictures; reads and writes nothing.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SHARPEST = 0.5  # pixels; a smaller drift is left alone, as warping would cost more sharpness than it mends
AGREEMENT = 0.3  # edge correlation below which two pictures are not comparable, so nothing is measured
GAIN = 0.02  # edge correlation that a drift must add before it is believed
STRETCH = 0.1  # largest part of a believable drift that is not a shift; an editor does not squeeze more
REACH = 0.15  # of the diagonal: a larger displacement is a chance match, not a drift
BLUR = 5  # pixels of Gaussian support over the edges while aligning
FINEST = 48  # pixels of the shorter side at the coarsest level of the search


@dataclass(frozen=True)
class Drift:
    """How an edit lies against its render.

    matrix: float32 [2, 3], maps render pixels to edit pixels. pixels: root mean square displacement of the corners.
    agreement: correlation of the edges, -1 to 1. measured: False where the pictures have too few edges in common, and
    the drift then counts as none.
    """

    matrix: np.ndarray
    pixels: float
    agreement: float
    measured: bool


def align(render: np.ndarray, edited: np.ndarray, limit: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Undo a drift of up to `limit` pixels and refuse a larger one; both pictures are uint8 [H, W, 3].

    Returns the picture and what was found: drift, residual (pixels), agreement, measured, accepted.
    """
    before = after = measure(render, edited)
    accepted = before.pixels <= limit
    if accepted and before.pixels >= SHARPEST:
        # Warped back onto its render; the uncovered border repeats its neighbours.
        straightened = cv2.warpAffine(
            edited,
            before.matrix,
            edited.shape[1::-1],
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        again = measure(render, straightened)
        if again.measured and again.pixels < before.pixels:
            edited, after = straightened, again
    facts = {
        "drift_pixels": round(before.pixels, 3),
        "residual_pixels": round(after.pixels, 3) if after.measured else None,
        "agreement": round(after.agreement, 3),
        "measured": before.measured,
        "accepted": accepted,
    }
    return edited, facts


def measure(render: np.ndarray, edited: np.ndarray) -> Drift:
    """Affine drift of `edited` against `render`, both uint8 [H, W, 3], from their edges.

    Phase correlation proposes a shift, ECC refines it and the identity to affine maps from coarse to fine,
    and the map under which the edges agree best is believed if it beats the identity.
    """
    a, b = _edges(render), _edges(edited)
    identity = np.eye(2, 3, dtype=np.float32)
    still = _agreement(a, b, identity)
    window = cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    # Copies: this version of OpenCV multiplies the window into what it is given.
    (dx, dy), _ = cv2.phaseCorrelate(a.copy(), b.copy(), window)
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    candidates = [identity, *(_refine(a, b, start) for start in (identity, shift))]
    best = max(
        (matrix for matrix in candidates if _believable(matrix, a.shape)),
        key=lambda matrix: _agreement(a, b, matrix),
    )
    agreement = _agreement(a, b, best)
    if agreement < AGREEMENT:
        return Drift(identity, 0.0, agreement, measured=False)
    if agreement < still + GAIN:
        return Drift(identity, 0.0, still, measured=True)
    return Drift(best, _displacement(best, a.shape), agreement, measured=True)


def _edges(picture: np.ndarray) -> np.ndarray:
    """Gradient magnitude on a scale that light and colour change little: float32 [H, W]."""
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (3, 3), 0).astype(np.float32)
    magnitude = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.sqrt(magnitude)


def _refine(a: np.ndarray, b: np.ndarray, start: np.ndarray) -> np.ndarray:
    """ECC from coarse to fine; `start` where it does not converge."""
    matrix = start.copy()
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    for scale in (4, 2, 1):
        if min(a.shape) < FINEST * scale and scale > 1:
            continue
        size = (a.shape[1] // scale, a.shape[0] // scale)
        small = [cv2.resize(e, size, interpolation=cv2.INTER_AREA) for e in (a, b)]
        matrix[:, 2] /= scale
        try:
            _, matrix = cv2.findTransformECC(*small, matrix, cv2.MOTION_AFFINE, criteria, None, BLUR)
        except cv2.error:
            return start
        matrix[:, 2] *= scale
    return matrix


def _agreement(a: np.ndarray, b: np.ndarray, matrix: np.ndarray) -> float:
    """Correlation of the edges, -1 to 1, over the pixels that both pictures cover under `matrix`."""
    size = a.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(b, matrix, size, flags=flags)
    covered = cv2.warpAffine(np.ones_like(b), matrix, size, flags=flags) > 0.999
    if covered.mean() < 0.5:
        return 0.0
    x, y = cv2.GaussianBlur(a, (BLUR, BLUR), 0)[covered], cv2.GaussianBlur(moved, (BLUR, BLUR), 0)[covered]
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else 0.0


def _believable(matrix: np.ndarray, shape: tuple[int, ...]) -> bool:
    stretch = np.abs(matrix[:, :2] - np.eye(2)).max()
    return bool(stretch <= STRETCH and _displacement(matrix, shape) <= REACH * np.hypot(*shape))


def _displacement(matrix: np.ndarray, shape: tuple[int, ...]) -> float:
    height, width = shape
    corners = np.array([(x, y, 1) for x in (0, width - 1) for y in (0, height - 1)], np.float64)
    moved = corners @ matrix.astype(np.float64).T
    return float(np.sqrt(((moved - corners[:, :2]) ** 2).sum(axis=1).mean()))
