"""What a Wan transformer is fed: normalised latents of clips and embeddings of prompts (paper, 3.3).

The same for training and enhancing, and the inverse of what `WanPipeline` does when it decodes. Reads and
writes nothing.
"""

from typing import TYPE_CHECKING

import numpy as np

from rmkit.kit import models, prompts, video

if TYPE_CHECKING:
    import torch
    from diffusers import ModelMixin, WanPipeline


def latents(pipeline: "WanPipeline", frames: np.ndarray) -> "torch.Tensor":
    """Clip uint8 [F, H, W, 3] to float32 latents [1, C, (F-1)/4+1, H/8, W/8] of mean 0 and standard deviation 1.

    The mode of the encoder's distribution: a reference is clean, so no noise is added to it.
    """
    import torch

    vae = pipeline.vae
    pixels = torch.from_numpy(video.to_unit(frames)).permute(3, 0, 1, 2)[None]  # [1, 3, F, H, W]
    with torch.no_grad():
        mode = vae.encode(pixels.to(pipeline._execution_device, vae.dtype)).latent_dist.mode()
    return normalised(vae, mode)


def frames(pipeline: "WanPipeline", latents: "torch.Tensor") -> np.ndarray:
    """Latents [1, C, F, H, W] of mean 0 and standard deviation 1 to a clip, uint8 [F, H, W, 3], as `WanPipeline` decodes them."""
    import torch

    vae = pipeline.vae
    with torch.no_grad():
        decoded = vae.decode(denormalised(vae, latents).to(vae.dtype)).sample
    return video.to_uint8(pipeline.video_processor.postprocess_video(decoded, output_type="np")[0])


def normalised(vae: "ModelMixin", latents: "torch.Tensor") -> "torch.Tensor":
    """Latents [B, C, F, H, W] of a video or image VAE to float32 of mean 0 and standard deviation 1."""
    mean, std = _moments(vae, latents.device)
    return (latents.float() - mean) / std


def denormalised(vae: "ModelMixin", latents: "torch.Tensor") -> "torch.Tensor":
    """What `normalised` was given, float32 [B, C, F, H, W], from what it returned."""
    mean, std = _moments(vae, latents.device)
    return latents.float() * std + mean


def text(pipeline: "WanPipeline", prompt: str) -> "torch.Tensor":
    """Prompt to the embeddings [1, T, D] that `WanPipeline` would compute itself; InputError where it would cut it."""
    import torch

    prompts.require(pipeline.tokenizer, f"the prompt '{prompt}'", prompt)
    with torch.no_grad():
        embeddings, _ = pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=models.text_length(pipeline.tokenizer),
        )
    return embeddings


def _moments(vae: "ModelMixin", device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor]":
    """Mean and standard deviation of a VAE's latents by channel: float32 [1, C, 1, 1, 1] each."""
    import torch

    mean, std = (
        torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std
