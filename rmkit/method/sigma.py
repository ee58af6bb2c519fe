"""Noise levels that training draws: samplers as functions of a uniform number (paper, 3.3; choices are ours).

Each is the inverse of a distribution's cumulative function cut to an expert's range, so that a uniform draw gives a
draw, and a fixed number the level at that quantile. Reads and writes nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rmkit.profile import Train

if TYPE_CHECKING:
    import torch


def uniform(u: "torch.Tensor", low: float, high: float) -> "torch.Tensor":
    """Every level of the range alike: u [B] in 0..1 -> sigma [B] in low..high."""
    return low + (high - low) * u


def shifted(u: "torch.Tensor", low: float, high: float, shift: float) -> "torch.Tensor":
    """The flow shift s v / (1 + (s - 1) v) of uniform v, where the result is in range: u [B] -> sigma [B]."""
    first, last = (sigma / (shift - (shift - 1) * sigma) for sigma in (low, high))
    v = first + (last - first) * u
    return shift * v / (1 + (shift - 1) * v)


def logit_normal(
    u: "torch.Tensor", low: float, high: float, mean: float = 0.0, spread: float = 1.0
) -> "torch.Tensor":
    """Levels whose logit is normal (Stable Diffusion 3, 3.1), cut to the range: u [B] -> sigma [B]."""
    import torch

    ends = torch.tensor([low, high], dtype=torch.float64).logit()  # of 0 and 1 infinite, which is right
    first, last = torch.special.ndtr((ends - mean) / spread)
    logit = mean + spread * torch.special.ndtri(first + (last - first) * u.double())
    return torch.sigmoid(logit).clamp(low, high).to(u.dtype)


SAMPLERS: dict[str, Callable[["torch.Tensor", float, float, Train], "torch.Tensor"]] = {
    "uniform": lambda u, low, high, settings: uniform(u, low, high),
    "shifted": lambda u, low, high, settings: shifted(u, low, high, settings.shift),
    "logit-normal": lambda u, low, high, settings: logit_normal(
        u, low, high, settings.logit_mean, settings.logit_spread
    ),
}


def draw(u: "torch.Tensor", low: float, high: float, settings: Train) -> "torch.Tensor":
    """The profile's sampler in a range of noise levels: u [B] in 0..1 -> sigma [B] in low..high."""
    return SAMPLERS[settings.sampler](u, low, high, settings)
