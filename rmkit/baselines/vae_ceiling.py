"""VAE ceiling: the truth through the video VAE and back, the best any output of this model can be (ours).

Not a method: it reads the truth, as metrics do. Reads models.wan's VAE and results/<profile>/truth; gives the frames of
clips that have a truth.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rmkit.baselines import Edit, Made, truth
from rmkit.kit import models, store, video, weights
from rmkit.method.sampling import Clip
from rmkit.paths import resolve
from rmkit.profile import Profile

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan


class VaeCeiling(Made):
    """The truth, encoded and decoded."""

    name, label, colour, marker = "vae_ceiling", "VAE ceiling", "#009E73", "*"
    competes, fixed, ablation, on_device = False, True, True, True
    no_row = truth.Truth.no_row

    def wanted(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        return [clip for clip in clips if truth.exists(profile, clip)]

    def check(self, profile: Profile, count: int) -> None:
        models.check(profile, "wan")

    def recipes(self, profile: Profile, clips: Sequence[Clip]) -> list[store.Recipe]:
        settings, model = profile.clips.model_dump(), models.fingerprint(profile, "wan")
        return [
            store.Recipe(
                stage=self.name,
                version=self.version,
                settings={**settings, "source_frames": clip.source_frames},
                inputs={"truth": store.fingerprint(truth.path(profile, clip))},
                model=model,
            )
            for clip in clips
        ]

    def ready(self, profile: Profile) -> Edit:
        import torch
        from diffusers import AutoencoderKLWan

        # The VAE alone: its transformers would be tens of gigabytes at the paper's size.
        name = profile.models.wan
        source = name if weights.is_hub_name(name) else resolve(name)
        vae = AutoencoderKLWan.from_pretrained(source, subfolder="vae", torch_dtype=torch.float32)
        vae.eval().to(models.device(profile))
        models.speed_up_convolutions(vae)
        return lambda clip, _: reconstruct(vae, np.stack(list(truth.stream(profile, clip))))


def reconstruct(vae: "AutoencoderKLWan", frames: np.ndarray) -> np.ndarray:
    """Frames after encoding (the distribution's mode) and decoding: uint8 [F, H, W, 3] to the same."""
    import torch

    x = torch.from_numpy(video.to_unit(frames)).permute(3, 0, 1, 2)[None]  # [1, 3, F, H, W]
    with torch.no_grad():
        latents = vae.encode(x.to(vae.device, vae.dtype)).latent_dist.mode()
        decoded = vae.decode(latents).sample[0]  # [3, F, H, W], -1..1
    return video.to_uint8(decoded.permute(1, 2, 3, 0).float().cpu().numpy() / 2 + 0.5)


METHODS = (VaeCeiling(),)
