"""Frame concatenation: the literal form of in-context conditioning (paper, 3.3), which rmkit.method.incontext equals.

One sequence [reference; noisy] on the frame axis, a timestep a token, rotary positions repeated. It holds a
modulation tensor [B, 2L, 6, D] in float32 in every block; tests and `make bench` compare with it.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel


def concatenated(
    model: "WanTransformer3DModel",
    shown: torch.Tensor,
    hidden_states: torch.Tensor,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
) -> torch.Tensor:
    """Prediction [B, C, F, H, W] for the noisy latents beside `shown`, by the model's own blocks and weights."""
    frames, height, width = hidden_states.shape[2:]
    rotary = [torch.cat([part, part], dim=1) for part in model.rope(hidden_states)]
    both = torch.cat([shown, hidden_states], dim=2)  # [B, C, 2F, H, W]
    tokens = model.patch_embedding(both).flatten(2).transpose(1, 2)  # [B, 2L, D]
    length = tokens.shape[1] // 2
    times = torch.stack([torch.zeros_like(timestep), timestep], dim=1).repeat_interleave(length, 1)
    temb, modulation, text, _ = model.condition_embedder(
        times.flatten(), encoder_hidden_states, None, timestep_seq_len=2 * length
    )
    modulation = modulation.unflatten(2, (6, -1))  # [B, 2L, 6, D]
    for block in model.blocks:
        tokens = block(tokens, text, modulation, rotary)
    shift, scale = (model.scale_shift_table[None] + temb[:, :, None]).chunk(2, dim=2)
    tokens = model.norm_out(tokens.float()) * (1 + scale[:, :, 0]) + shift[:, :, 0]
    patches = model.proj_out(tokens[:, length:].type_as(hidden_states))  # [B, L, 2 * 2 * C]
    grid = patches.unflatten(1, (frames, height // 2, width // 2)).unflatten(-1, (1, 2, 2, -1))
    grid = grid.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return grid.flatten(6, 7).flatten(4, 5).flatten(2, 3)
