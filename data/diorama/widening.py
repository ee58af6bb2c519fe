"""A wider transformer that starts out as a narrow one: VACE's stream has to hold more than the experts' does.

Reads and writes nothing. The narrow model's weights lie in the first rows and columns. Nothing writes to the new part
of the stream yet, but all that follows reads it: the wide model says what the narrow one said, but for about 1 % of
the variance, and learns to use its room from the first step.
"""

from typing import TypeVar

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

Model = TypeVar("Model", WanTransformer3DModel, WanVACETransformer3DModel)

# What writes to the stream, or to embeddings that each block reads: its new rows and columns start at zero.
WRITING = ("to_out.0.weight", "ffn.net.2.weight", "patch_embedding.weight", "linear_2.weight")
MODULATIONS = 6  # shift, scale and gate of attention, then of the feed-forward part
SCALES, GATES = (1, 4), (2, 5)


@torch.no_grad()
def widened(narrow: Model, heads: int, ffn_width: int) -> Model:
    """The same model with up to twice the heads and wider feed-forward parts; draws from torch's own generator.

    Raises ValueError for sizes that the narrow model's do not fit into.
    """
    if not narrow.config.num_attention_heads <= heads <= 2 * narrow.config.num_attention_heads:
        raise ValueError(f"{heads} heads cannot be made of {narrow.config.num_attention_heads}")
    if ffn_width < narrow.config.ffn_dim:
        raise ValueError(f"feed-forward parts of {narrow.config.ffn_dim} do not fit into {ffn_width}")
    wide = type(narrow).from_config({**narrow.config, "num_attention_heads": heads, "ffn_dim": ffn_width})
    head_width = narrow.config.attention_head_dim
    width, wide_width = narrow.config.num_attention_heads * head_width, heads * head_width
    # A layer norm over more numbers, the new ones zero, makes the old ones larger by this.
    shrink = (width / wide_width) ** 0.5
    known = dict(narrow.named_parameters())
    for name, parameter in wide.named_parameters():
        old = known[name]
        if name.endswith(".scale_shift_table"):  # of a block; the last one has two modulations
            table = _modulations(old[0], wide_width, shrink, one=1.0)  # [6, width]
            table[list(GATES), width:] = old[0, list(GATES)].abs().mean()
            parameter.copy_(table[None])
        elif "time_proj" in name:
            stacked = old.unflatten(0, (MODULATIONS, width))  # [6, width(, width)]
            grown = _modulations(stacked, wide_width, shrink)
            parameter.copy_(grown.flatten(0, 1))
        else:
            parameter.copy_(_grown(name, old, parameter.shape, shrink))
    return wide


def _modulations(old: torch.Tensor, width: int, shrink: float, one: float = 0.0) -> torch.Tensor:
    """Modulations for a wider stream, scales made smaller: [6, w, ...] -> [6, width, ...]. Scales are added to one."""
    scaled = old.clone()
    for number in SCALES:
        scaled[number] = (one + old[number]) * shrink - one
    grown = old.new_zeros(MODULATIONS, *(width for _ in old.shape[1:]))
    grown[tuple(slice(size) for size in old.shape)] = scaled
    return grown


def _grown(name: str, old: torch.Tensor, shape: torch.Size, shrink: float) -> torch.Tensor:
    """A weight, bias or norm of the wide model around the narrow one's."""
    if name.endswith("norm2.weight") or name == "proj_out.weight":
        old = old * shrink  # they read what a layer norm gives
    if old.ndim == 1 or name == "scale_shift_table":
        norm = "norm" in name and name.endswith("weight")
        grown = old.new_full(shape, float(old.mean()) if norm else 0.0)
    elif name.endswith(WRITING):
        grown = old.new_zeros(shape)
    else:
        grown = old.std() * torch.randn(shape)
        if "vace_blocks" in name and "proj_" in name:
            grown[len(old) :] = 0  # these read a stream and write to one
        elif "attn" in name:
            # New heads look where old ones do, so that the norm over all heads finds what it found.
            more, columns = len(grown) - len(old), old.shape[1]
            grown[len(old) :, :columns] = old[:more] + 0.3 * grown[len(old) :, :columns]
    grown[tuple(slice(size) for size in old.shape)] = old
    return grown
