"""Keys and values of a reference, cached from step to step: where they are placed and what they take (ours).

A device's own memory, CPU memory, or either in 8 bit. At 800x1200x81 one text's take 60 GiB in bfloat16 with Wan2.2
T2V-A14B. Reads and writes nothing.
"""

import math
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rmkit.errors import InputError

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

Cache = Literal["auto", "device", "cpu", "8-bit"]
# Room for a pass itself, in vectors of the model's width a token: 13 in bf16, where norms are in float32; the rest
# is for adapters and for what the allocator cannot use.
WORKING_WIDTHS = 24


@dataclass(frozen=True)
class Placement:
    """Where one text's keys and values are cached, and how many bytes they take there."""

    device: "torch.device"
    size: int
    in_8_bit: bool = False

    def __str__(self) -> str:
        rounded = ", rounded to 8 bit" * self.in_8_bit
        return f"{self.size / 2**30:.2f} GiB a text on {self.device}{rounded}"


def placement(
    transformer: "WanTransformer3DModel", noisy: "torch.Tensor", cache: Cache = "auto"
) -> Placement:
    """Where to cache a text's keys and values, for noisy latents [B, C, F, H, W].

    "device": with the latents; "cpu": in CPU memory; "8-bit": with the latents, in about a quarter (float32) or half
    (bfloat16) of the room, rounded; "auto": the first of these that leaves a pass its room, then 8-bit in CPU memory.
    Raises InputError when none does.
    """
    import torch

    cpu, here = torch.device("cpu"), noisy.device
    whole, small = (cache_bytes(transformer, noisy, in_8_bit) for in_8_bit in (False, True))
    placements = [Placement(device, whole) for device in (here, cpu)]
    placements += [Placement(device, small, in_8_bit=True) for device in (here, cpu)]
    if cache != "auto":
        return placements[("device", "cpu", "8-bit").index(cache)]
    working = WORKING_WIDTHS * _widths(transformer, noisy)
    if hasattr(transformer, "_hf_hook"):  # model offload: the weights come to the device in the next pass
        working += sum(p.nbytes for p in transformer.parameters() if p.device != here)
    room = {device: _free(device) - (working if device == here else 0) for device in (cpu, here)}
    for candidate in placements:
        if candidate.size <= room[candidate.device]:
            return candidate
    found = " and ".join(f"{max(0, free) / 2**30:.1f} GiB on {device}" for device, free in room.items())
    raise InputError(
        f"the reference's keys and values take {whole / 2**30:.1f} GiB a text, in 8 bit {small / 2**30:.1f}, and there "
        f"are only {found} beside a pass: use mode 'one-way', which keeps none."
    )


def cache_bytes(transformer: "WanTransformer3DModel", noisy: "torch.Tensor", in_8_bit: bool = False) -> int:
    """Bytes of one text's cached keys and values, for noisy latents [B, C, F, H, W]."""
    size = 2 * len(transformer.blocks) * _widths(transformer, noisy)
    if not in_8_bit:
        return size
    numbers = size // noisy.element_size()
    return numbers + 4 * numbers // transformer.config.attention_head_dim


@dataclass(frozen=True)
class CachedStates:
    """Keys or values [B, L, heads, D/heads] as cached: as they are, or int8 with a step for each token and head."""

    values: "torch.Tensor"
    step: "torch.Tensor | None"  # float32 [B, L, heads, 1]

    @classmethod
    def of(cls, states: "torch.Tensor", placement: Placement) -> "CachedStates":
        """Cache states at their placement."""
        import torch

        if not placement.in_8_bit:
            return cls(_put(states, placement.device), None)
        most = states.float().abs().amax(-1, keepdim=True)
        step = most.clamp(min=torch.finfo(torch.float32).tiny) / 127
        rounded = (states / step).round().to(torch.int8)
        return cls(_put(rounded, placement.device), _put(step, placement.device))

    def like(self, other: "torch.Tensor") -> "torch.Tensor":
        """The states again, on the device and in the type of another tensor."""
        # Copies from pinned memory need not be waited for: the stream keeps their order.
        values = self.values.to(other.device, non_blocking=True)
        if self.step is None:
            return values
        return (values * self.step.to(other.device, non_blocking=True)).to(other.dtype)


@dataclass(frozen=True)
class Cached:
    """Keys and values of a reference under one text, with all that they were computed from."""

    transformer: "WanTransformer3DModel"
    inputs: dict[str, Any]
    layers: list[tuple[CachedStates, CachedStates]]  # key and value of each layer

    @classmethod
    def of(cls, transformer: "WanTransformer3DModel", inputs: dict[str, Any], layers: list) -> "Cached":
        """With copies of the inputs, because a buffer may be filled anew."""
        import torch

        copies = {n: i.clone() if isinstance(i, torch.Tensor) else copy(i) for n, i in inputs.items()}
        return cls(transformer, copies, layers)

    def is_of(self, transformer: "WanTransformer3DModel", inputs: dict[str, Any]) -> bool:
        """Whether they were computed by this model from equal inputs."""
        return (
            transformer is self.transformer
            and inputs.keys() == self.inputs.keys()
            and all(_is_same(self.inputs[name], inputs[name]) for name in inputs)
        )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two arguments of a call are equal, tensors by content."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)
    return type(one) is type(other) and one == other


def _put(states: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """States on `device`; those of a GPU go to pinned CPU memory, from which they come back fast."""
    import torch

    if states.device == device:
        return states.contiguous()  # a view of fused projections would keep the query too
    pinned = torch.empty(states.shape, dtype=states.dtype, pin_memory=states.is_cuda)
    return pinned.copy_(states)


def _free(device: "torch.device") -> int:
    """Bytes that can still be had on a device, the allocator's own reserve included."""
    import psutil
    import torch

    if device.type != "cuda":
        return psutil.virtual_memory().available
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def _widths(transformer: Any, noisy: "torch.Tensor") -> int:
    """Bytes of one vector of the model's width for every token of noisy latents [B, C, F, H, W]."""
    config, (rows, _, *grid) = transformer.config, noisy.shape
    tokens = rows * math.prod(size // patch for size, patch in zip(grid, config.patch_size, strict=True))
    return tokens * config.num_attention_heads * config.attention_head_dim * noisy.element_size()
