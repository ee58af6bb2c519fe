"""The training objective: flow matching with the clean render beside the noisy target (paper, 3.3; samplers are ours).

Pure functions: what the transformer is called with, what it should answer, and at which noise levels. Each sampler is the
inverse of a distribution's cumulative function cut to an expert's range, so that a uniform number gives a sample, and a
fixed number the noise level at that quantile. Reads and writes nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmkit.profile import Train

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Inputs:
    """One call of the transformer and what it should answer; all [B, C, F, H, W] but timestep and text."""

    reference: "torch.Tensor"  # clean render
    noisy: "torch.Tensor"
    timestep: "torch.Tensor"  # [B], 0 to 1000
    text: "torch.Tensor"  # [B, T, D]
    velocity: "torch.Tensor"


def prepare_inputs(batch: dict[str, "torch.Tensor"], noise: "torch.Tensor", sigma: "torch.Tensor") -> Inputs:
    """Flow matching: noisy = (1 - sigma) target + sigma noise, to be answered with noise - target.

    batch: `render`, `target` [B, C, F, H, W] normalised latents, `text` [B, T, D]; sigma [B] in 0..1.
    """
    target = batch["target"]
    level = sigma.view(-1, 1, 1, 1, 1)
    return Inputs(
        reference=batch["render"],
        noisy=(1 - level) * target + level * noise,
        timestep=sigma * 1000,
        text=batch["text"],
        velocity=noise - target,
    )


def velocity_loss(prediction: "torch.Tensor", inputs: Inputs) -> "torch.Tensor":
    """Mean squared error of the velocity in float32, unweighted, a pair: [B, C, F, H, W] -> [B]."""
    return (prediction.float() - inputs.velocity.float()).square().mean(dim=(1, 2, 3, 4))


def uniform(u: "torch.Tensor", low: float, high: float) -> "torch.Tensor":
    """Every level of the range alike: u [B] in 0..1 -> sigma [B] in low..high."""
    return low + (high - low) * u


def shifted(u: "torch.Tensor", low: float, high: float, shift: float) -> "torch.Tensor":
    """The flow shift s v / (1 + (s - 1) v) of uniform v, where the result is in range: u [B] -> sigma [B]."""
    first, last = (sigma / (shift - (shift - 1) * sigma) for sigma in (low, high))
    v = first + (last - first) * u
    return shift * v / (1 + (shift - 1) * v)


def logit_normal(
    u: "torch.Tensor", low: float, high: float, mean: float = 0.0, std: float = 1.0
) -> "torch.Tensor":
    """Levels whose logit is normal (Stable Diffusion 3, 3.1), cut to the range: u [B] -> sigma [B]."""
    import torch

    ends = torch.tensor([low, high], dtype=torch.float64).logit()  # of 0 and 1 infinite, which is right
    first, last = torch.special.ndtr((ends - mean) / std)
    logit = mean + std * torch.special.ndtri(first + (last - first) * u.double())
    return torch.sigmoid(logit).clamp(low, high).to(u.dtype)


SAMPLERS = ("uniform", "shifted", "logit-normal")


def sample_sigma(u: "torch.Tensor", low: float, high: float, settings: Train) -> "torch.Tensor":
    """The profile's sampler in a range of noise levels: u [B] in 0..1 -> sigma [B] in low..high."""
    if settings.sampler == "uniform":
        return uniform(u, low, high)
    if settings.sampler == "shifted":
        return shifted(u, low, high, settings.shift)
    return logit_normal(u, low, high, settings.logit_mean, settings.logit_std)
