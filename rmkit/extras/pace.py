"""How long enhancing a video will take on this machine: timed on pieces of a window's length (ours).

Pieces grow until one takes long enough to tell; attention grows with the square of a frame's pixels, all else with the
pixels. Reads and writes nothing.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmkit.kit import encode, models
from rmkit.method import enhance
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline

ENOUGH = 1.0  # seconds that the last piece takes


@dataclass(frozen=True)
class Pace:
    """Seconds of a window whose frames have so many pixels: a step is linear * n + square * n², the VAE is codec * n."""

    linear: float
    square: float
    codec: float

    def seconds(self, height: int, width: int, windows: int, steps: int) -> float:
        """Of a video in so many windows, by so many steps each."""
        n = height * width
        return windows * (steps * (self.linear * n + self.square * n * n) + self.codec * n)


def measure(
    profile: Profile,
    pipeline: "WanPipeline",
    text: "torch.Tensor",
    negative: "torch.Tensor | None",
    frames: int,
    height: int,
    width: int,
) -> Pace:
    """Time pieces of windows of `frames`, up to these sides; text and negative [1, T, D], as in enhancing."""
    one = profile.model_copy(update={"enhance": profile.enhance.model_copy(update={"steps": 1})})
    cell = models.cell(pipeline)
    sides = [min(2 * cell, height), min(2 * cell, width)]
    _timed(one, pipeline, text, negative, frames, *sides)  # what only the first call pays for
    found = []
    while True:
        found.append((sides[0] * sides[1], *_timed(one, pipeline, text, negative, frames, *sides)))
        if sum(found[-1][1:]) > ENOUGH or (sides[0] >= height and sides[1] >= width):
            break
        shorter = 0 if sides[1] >= width or (sides[0] < height and sides[0] <= sides[1]) else 1
        sides[shorter] = min(2 * sides[shorter], (height, width)[shorter])
    (n, step, codec), (before, earlier, _) = found[-1], found[max(0, len(found) - 3)]
    square = (step / n - earlier / before) / (n - before) if n > before else 0.0
    square = min(max(square, 0.0), step / n / n)
    return Pace(step / n - square * n, square, codec / n)


def _timed(
    profile: Profile,
    pipeline: "WanPipeline",
    text: "torch.Tensor",
    negative: "torch.Tensor | None",
    frames: int,
    height: int,
    width: int,
) -> tuple[float, float]:
    """Seconds of one step, and of the VAE there and back."""
    cell = models.cell(pipeline)
    shape = (frames, height + -height % cell, width + -width % cell, 3)  # as `own_video` pads it
    piece = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    begun = time.perf_counter()
    with enhance.seeing(profile, pipeline, piece) as reference:
        reference.sum().item()  # a GPU has finished when its result is here
        encoded = time.perf_counter()
        options = {"generator": models.generator(0), "output_type": "latent"}
        latents = enhance.sample(profile, pipeline, piece.shape[:3], text, negative, **options)
        latents.sum().item()
        stepped = time.perf_counter()
    encode.frames(pipeline, latents)
    return stepped - encoded, encoded - begun + time.perf_counter() - stepped
