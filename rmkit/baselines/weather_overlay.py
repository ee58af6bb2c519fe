"""Weather as a flat overlay: a veil, a tint, drawn streaks or flakes, and no knowledge of the scene (ours; not in the paper).

What a change of prompt must beat (paper, 5): it falls before near and far alike, wets no ground and lights no sky. Reads and
writes nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np

FINER = 3  # times the picture's size at which streaks are drawn, so that they can be thinner than a pixel
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Look:
    """An overlay: shares are 0 to 1, lengths are shares of the picture's height, times are frames of the source."""

    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # what colours are multiplied by
    colour: float = 1.0  # of the saturation, how much stays
    veil: float = 0.0  # of the picture, how much is grey
    top: float = 0.0  # more of it at the upper edge than at the lower
    grey: float = 150.0  # of the veil, 0 to 255
    drops: int = 0  # streaks or flakes
    length: float = 0.0  # of a streak; 0: flakes
    width: float = 0.01  # of a streak or a flake
    slant: float = 0.1  # sideways for each length down
    opacity: float = 0.6
    speed: float = 0.3  # downwards in a frame


LOOKS = {
    "rain": Look((0.82, 0.84, 0.88), 0.7, 0.12, 0.1, 110.0, 60, 0.16, 0.009, 0.1, 0.45, 0.33),
    "snow": Look((1.0, 1.0, 1.02), 0.75, 0.22, 0.1, 170.0, 70, 0.0, 0.02, 0.0, 0.85, 0.09),
    "fog": Look((0.95, 0.96, 0.97), 0.8, 0.5, 0.2, 155.0),
    "dusk": Look((0.95, 0.66, 0.58), 1.05),
}


def overlay(frames: np.ndarray, look: Look, seed: int) -> np.ndarray:
    """Frames under an overlay: distinct ones, uint8 [F, H, W, 3], to the same; the same seed draws the same drops."""
    height, width = frames.shape[1:3]
    x = frames.astype(np.float32)
    grey = (x @ LUMA)[..., None]
    x = (grey + (x - grey) * look.colour) * np.array(look.tint, np.float32)
    share = look.veil + look.top * np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    x = x * (1 - share) + share * look.grey
    if look.drops:
        covered = np.stack([_drops(i, height, width, look, seed) for i in range(len(x))])
        x = x * (1 - covered) + covered * min(255.0, 1.4 * look.grey)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _drops(frame: int, height: int, width: int, look: Look, seed: int) -> np.ndarray:
    """How much of each pixel the drops cover in a frame, float32 [H, W, 1]."""
    rng = np.random.default_rng(seed)
    places = rng.random((look.drops, 2)) * (1.3, 1.2)
    sizes = rng.uniform(0.6, 1.4, look.drops)
    places[:, 0] = (places[:, 0] + frame * look.speed * sizes) % 1.3 - 0.15
    places[:, 1] = (places[:, 1] + frame * look.slant * look.speed * sizes) % 1.2 - 0.1
    drawn = np.zeros((FINER * height, FINER * width), np.uint8)
    unit = FINER * height
    for (down, across), size in zip(places, sizes, strict=True):
        at = (round(across * FINER * width), round(down * unit))
        if look.length:
            long = look.length * size * unit
            end = (round(at[0] - look.slant * long), round(at[1] - long))
            cv2.line(drawn, at, end, 255, max(1, round(look.width * unit)), cv2.LINE_AA)
        else:
            cv2.circle(drawn, at, max(1, round(look.width / 2 * size * unit)), 255, -1, cv2.LINE_AA)
    small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    return (small.astype(np.float32) / 255 * look.opacity)[..., None]
