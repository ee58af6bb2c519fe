"""VAE ceiling: the truth through the video VAE and back, the best any output of this model can be (ours).

Not a method: it reads the truth, as metrics do. Reads models.wan's VAE and results/<profile>/truth; writes
enhanced/vae_ceiling/<clip>.mp4 for clips that have a truth.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmkit.baselines import truth
from rmkit.kit import models, store, video, weights
from rmkit.kit.progress import track
from rmkit.method.sampling import Clip
from rmkit.paths import resolve
from rmkit.profile import Profile

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

NAME = "vae_ceiling"
VERSION = 1


def round_trip(profile: Profile, clips_: Sequence[Clip]) -> Path:
    """Encode and decode the truth of every clip that has one; returns the folder of results."""
    folder = profile.layout.enhanced / NAME
    having = [clip for clip in clips_ if truth.exists(profile, clip)]
    if not having:
        return folder
    models.check(profile, "wan")
    model = models.fingerprint(profile, "wan")
    vae = None
    for clip in track(having, "vae ceiling"):
        target = folder / f"{clip.id}.mp4"
        recipe = store.Recipe(
            stage=NAME,
            version=VERSION,
            settings={**profile.clips.model_dump(), "source_frames": clip.source_frames},
            inputs={"truth": store.fingerprint(truth.path(profile, clip))},
            model=model,
        )
        if store.is_done(target, recipe):
            continue
        vae = vae or _load(profile)
        with store.writing(target, recipe, model_name=profile.models.wan) as temporary:
            frames = reconstruct(vae, np.stack(list(truth.stream(profile, clip))))
            video.write(temporary, frames, profile.clips.fps)
    return folder


def reconstruct(vae: "AutoencoderKLWan", frames: np.ndarray) -> np.ndarray:
    """Frames after encoding (the distribution's mode) and decoding: uint8 [F, H, W, 3] to the same."""
    import torch

    x = torch.from_numpy(video.to_unit(frames)).permute(3, 0, 1, 2)[None]  # [1, 3, F, H, W]
    with torch.no_grad():
        latents = vae.encode(x.to(vae.device, vae.dtype)).latent_dist.mode()
        decoded = vae.decode(latents).sample[0]  # [3, F, H, W], -1..1
    return video.to_uint8(decoded.permute(1, 2, 3, 0).float().cpu().numpy() / 2 + 0.5)


def _load(profile: Profile) -> "AutoencoderKLWan":
    """The VAE alone: its transformers would be tens of gigabytes at the paper's size."""
    import torch
    from diffusers import AutoencoderKLWan

    name = profile.models.wan
    source = name if weights.is_hub_name(name) else resolve(name)
    vae = AutoencoderKLWan.from_pretrained(source, subfolder="vae", torch_dtype=torch.float32)
    vae.eval().to(models.device(profile))
    models.speed_up_convolutions(vae)
    return vae
