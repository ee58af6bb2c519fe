"""In-context conditioning of a Wan transformer: clean reference tokens beside the noisy ones (paper, 3.3).

The reference travels as extra rows of the batch, at t = 0 and at the same positions; only self-attention
sees both. Processors and hooks on the model, nothing patched in diffusers. Reads and writes nothing.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from rmkit.errors import InputError

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

FORWARD_ARGUMENTS = (
    "hidden_states",
    "timestep",
    "encoder_hidden_states",
    "encoder_hidden_states_image",
)
CACHED = "one-way cached"
Cache = Literal["auto", "device", "cpu", "8-bit"]
TEXTS = 2  # whose keys and values are kept: under guidance, the prompt and the negative prompt
# Room for a pass itself, in vectors of the model's width a token: 13 in bf16, where norms are in float32; the rest
# is for adapters and for what the allocator cannot use.
WORKING_WIDTHS = 24


class Reference:
    """What the model is shown: `latents` [B or 1, C, F, H, W], normalised; may be changed between calls.

    In mode "one-way cached" it also holds the keys and values made of them, of the last TEXTS texts.
    """

    def __init__(self, latents: "torch.Tensor | None" = None):
        self.latents = latents
        self.kept: list[Kept] = []


@dataclass(frozen=True)
class Kept:
    """Keys and values of a reference under one text, and everything they were made of."""

    transformer: "WanTransformer3DModel"
    inputs: dict[str, Any]
    layers: "list[tuple[States, States]]"  # key and value of each layer

    def is_of(self, transformer: "WanTransformer3DModel", inputs: dict[str, Any]) -> bool:
        return (
            transformer is self.transformer
            and inputs.keys() == self.inputs.keys()
            and all(_is_same(self.inputs[name], inputs[name]) for name in inputs)
        )


@dataclass(frozen=True)
class Place:
    """Where one text's keys and values are kept, and how many bytes they take there."""

    device: "torch.device"
    size: int
    in_8_bit: bool = False

    def __str__(self) -> str:
        rounded = ", rounded to 8 bit" * self.in_8_bit
        return f"{self.size / 2**30:.2f} GiB a text on {self.device}{rounded}"


@dataclass(frozen=True)
class States:
    """Keys or values [B, L, heads, D/heads] as they are kept: whole, or 8-bit with the step of each token and head."""

    values: "torch.Tensor"
    step: "torch.Tensor | None"  # float32 [B, L, heads, 1]

    @classmethod
    def of(cls, states: "torch.Tensor", place: Place) -> "States":
        import torch

        if not place.in_8_bit:
            return cls(_put(states, place.device), None)
        most = states.float().abs().amax(-1, keepdim=True)
        step = most.clamp(min=torch.finfo(torch.float32).tiny) / 127
        return cls(_put((states / step).round().to(torch.int8), place.device), _put(step, place.device))

    def like(self, other: "torch.Tensor") -> "torch.Tensor":
        """The states again, on the device and in the type of another tensor."""
        # Copies from pinned memory need not be waited for: the stream keeps their order.
        values = self.values.to(other.device, non_blocking=True)
        if self.step is None:
            return values
        return (values * self.step.to(other.device, non_blocking=True)).to(other.dtype)


@contextmanager
def in_context(
    transformer: "WanTransformer3DModel",
    reference: "torch.Tensor | Reference | None" = None,
    mode: str = "joint",
    cache: Cache = "auto",
) -> Iterator[Reference]:
    """Let `transformer` see a clean reference while it predicts the noisy latents, in every call inside.

    Inside the context the model is called as ever, by hand or by the stock `WanPipeline`: noisy latents
    [B, C, F, H, W], timestep [B] or a scalar, text [B, T, D]; the result has B rows. `reference` are
    latents of the same shape (one row serves any B); a training loop sets `.latents` of what is yielded
    before each call. The backward pass belongs inside too, because gradient checkpointing runs the
    blocks again. `mode` names who attends to whom (`ATTENTION`). On exit, after an error too, the
    model is as it was. Raises ValueError on a model in context already and on shapes that do not match.

    Mode "one-way cached" gives what "one-way" gives, and runs the reference once a text instead of in
    every call, because it does not depend on the noisy rows. Where its keys and values go is `place` by
    `cache`. Two experts given one `Reference` share the room: the first one's are dropped when the second
    takes over. Without gradients only, and the weights must stay as they are.
    """
    from torch.compiler import disable

    if mode not in (*ATTENTION, CACHED):
        raise ValueError(f"mode '{mode}' is unknown; known are {', '.join((*ATTENTION, CACHED))}.")
    layers = [block.attn1 for block in transformer.blocks]
    stock = [layer.processor for layer in layers]
    if any(isinstance(processor, InContextAttention) for processor in stock):
        raise ValueError("this transformer is in context already; leave that context first.")
    shown = reference if isinstance(reference, Reference) else Reference(reference)
    if mode == CACHED:
        attends: list[Any] = [OneWayCached() for _ in layers]
        # It looks into its tensors, so it is left out of the graph of a compiled model.
        before, after = disable(partial(_recall, shown, attends, cache)), partial(_forget, attends)
    else:
        attends = [ATTENTION[mode]] * len(layers)
        before, after = partial(_stack, shown), _drop_reference
    hooks = []
    try:
        for layer, attend, processor in zip(layers, attends, stock, strict=True):
            layer.set_processor(InContextAttention(attend, processor))
        hooks.append(transformer.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(transformer.register_forward_hook(after, always_call=mode == CACHED))
        yield shown
    finally:
        for hook in hooks:
            hook.remove()
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(processor)
        shown.kept = [kept for kept in shown.kept if kept.transformer is not transformer]


def uncached(mode: str) -> str:
    """The mode that gives the same without a cache: one adapter serves both, as what is cached is exact."""
    return "one-way" if mode == CACHED else mode


def place(transformer: "WanTransformer3DModel", noisy: "torch.Tensor", cache: Cache = "auto") -> Place:
    """Where mode "one-way cached" keeps a text's keys and values, for noisy latents [B, C, F, H, W].

    "device": with the latents; "cpu": in CPU memory; "8-bit": with the latents, in about a quarter (float32) or half
    (bfloat16) of the room, rounded; "auto": the first of these that leaves a pass its room, then 8-bit in CPU memory.
    Raises InputError when none does.
    """
    import torch

    cpu, here = torch.device("cpu"), noisy.device
    whole, small = (cache_bytes(transformer, noisy, in_8_bit) for in_8_bit in (False, True))
    places = [Place(here, whole), Place(cpu, whole), Place(here, small, True), Place(cpu, small, True)]
    if cache != "auto":
        return places[("device", "cpu", "8-bit").index(cache)]
    working = WORKING_WIDTHS * _widths(transformer, noisy)
    if hasattr(transformer, "_hf_hook"):  # model offload: the weights come to the device in the next pass
        working += sum(p.nbytes for p in transformer.parameters() if p.device != here)
    room = {device: _free(device) - (working if device == here else 0) for device in (cpu, here)}
    for candidate in places:
        if candidate.size <= room[candidate.device]:
            return candidate
    found = " and ".join(f"{max(0, free) / 2**30:.1f} GiB on {device}" for device, free in room.items())
    raise InputError(
        f"the reference's keys and values take {whole / 2**30:.1f} GiB a text, in 8 bit {small / 2**30:.1f}, and there "
        f"are only {found} beside a pass: use mode 'one-way', which keeps none."
    )


def cache_bytes(transformer: "WanTransformer3DModel", noisy: "torch.Tensor", in_8_bit: bool = False) -> int:
    """What one text's keys and values take in mode "one-way cached", for noisy latents [B, C, F, H, W]."""
    size = 2 * len(transformer.blocks) * _widths(transformer, noisy)
    if not in_8_bit:
        return size
    numbers = size // noisy.element_size()
    return numbers + 4 * numbers // transformer.config.attention_head_dim


class InContextAttention:
    """Self-attention of all rows of a call: projects as Wan does, attends as `attend` says."""

    def __init__(self, attend: Callable, stock: Any):
        from diffusers.models.attention_dispatch import dispatch_attention_fn
        from diffusers.models.transformers.transformer_wan import _get_qkv_projections

        self.attend = attend
        self._dispatch = dispatch_attention_fn
        self._project = _get_qkv_projections  # knows fused projections too
        self._attention_backend = stock._attention_backend  # set_attention_backend() may change it
        self._parallel_config = stock._parallel_config

    def __call__(
        self,
        attn: Any,
        hidden_states: "torch.Tensor",
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: "tuple[torch.Tensor, torch.Tensor]" = (),
    ) -> "torch.Tensor":
        # hidden_states [2B, L, D]; rotary_emb (cos, sin), each [1, L, 1, D/heads], is the same for all rows
        query, key, value = self._project(attn, hidden_states, None)
        query, key, value = (
            states.unflatten(2, (attn.heads, -1))  # [2B, L, heads, D/heads]
            for states in (attn.norm_q(query), attn.norm_k(key), value)
        )
        query, key = _rotate(query, *rotary_emb), _rotate(key, *rotary_emb)
        out = self.attend(self._attention, query, key, value)
        out = out.flatten(2, 3).type_as(query)  # [2B, L, D]
        return attn.to_out[1](attn.to_out[0](out))

    def _attention(self, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
        return self._dispatch(
            query,
            key,
            value,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )


def joint(
    attention: Callable, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor"
) -> "torch.Tensor":
    """Reference and noisy tokens of a pair all attend to one another (the paper's).

    Equal to concatenation on the frame axis, without its (B, 2L, 6, D) modulation tensor.
    """
    return _unfold(attention(_fold(query), _fold(key), _fold(value)))


def one_way(
    attention: Callable, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor"
) -> "torch.Tensor":
    """Reference tokens attend to their own alone, noisy tokens to both (ours).

    Two calls and no mask, so that every attention kernel will do.
    """
    import torch

    (own_query, query), (own_key, _), (own_value, _) = query.chunk(2), key.chunk(2), value.chunk(2)
    return torch.cat([attention(own_query, own_key, own_value), attention(query, _fold(key), _fold(value))])


# Who attends to whom: (attention, query, key, value of rows [reference; noisy]) -> output of the same rows.
ATTENTION: dict[str, Callable] = {"joint": joint, "one-way": one_way}


class OneWayCached:
    """`one_way` in two passes through a layer: the reference's own leaves what the noisy rows' attends to.

    `kept`: the reference's key and value, at `place`; None until it has passed.
    """

    def __init__(self):
        self.kept: tuple[States, States] | None = None
        self.place: Place | None = None

    def __call__(
        self, attention: Callable, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor"
    ) -> "torch.Tensor":
        import torch

        if self.kept is None:
            self.kept = (States.of(key, self.place), States.of(value, self.place))
            return attention(query, key, value)
        own_key, own_value = (states.like(key) for states in self.kept)
        return attention(query, torch.cat([own_key, key], dim=1), torch.cat([own_value, value], dim=1))


def _fold(rows: "torch.Tensor") -> "torch.Tensor":
    """Row i of the reference and row i of the noisy half into one: [2B, L, ...] -> [B, 2L, ...]."""
    return rows.unflatten(0, (2, -1)).transpose(0, 1).flatten(1, 2)


def _unfold(pairs: "torch.Tensor") -> "torch.Tensor":
    """The inverse of `_fold`: [B, 2L, ...] -> [2B, L, ...]."""
    return pairs.unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 1)


def _rotate(states: "torch.Tensor", cosine: "torch.Tensor", sine: "torch.Tensor") -> "torch.Tensor":
    """Rotary position embedding on interleaved pairs, with the arithmetic of WanAttnProcessor."""
    import torch

    even, odd = states.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosine[..., 0::2], sine[..., 1::2]
    pairs = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return pairs.flatten(-2).type_as(states)


def _stack(shown: Reference, model: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Before the forward: B rows become 2B, the reference's first, at timestep 0 and with the same text."""
    import torch

    kwargs, own = _inputs(shown, args, kwargs)
    for name in FORWARD_ARGUMENTS:
        if kwargs.get(name) is not None:
            kwargs[name] = torch.cat([own[name], kwargs[name]])
    return (), kwargs


def _drop_reference(model: Any, args: tuple, output: Any) -> Any:
    """After the forward: only the noisy rows go back, in the form the caller asked for."""
    if isinstance(output, tuple):
        return (output[0].chunk(2)[1], *output[1:])
    output.sample = output.sample.chunk(2)[1]
    return output


def _recall(
    shown: Reference, attends: list[OneWayCached], cache: str, model: Any, args: tuple, kwargs: dict
) -> tuple[tuple, dict]:
    """Before the forward: hand every layer the reference's keys and values, computed now if not kept."""
    import torch

    if torch.is_grad_enabled():
        raise ValueError(
            f"mode '{CACHED}' has no gradients: call it under torch.no_grad(), train in 'one-way'."
        )
    if model.is_cache_enabled:
        raise ValueError(
            f"mode '{CACHED}' does not go with a cache that skips blocks: call disable_cache(), or use 'one-way'."
        )
    kwargs, own = _inputs(shown, args, kwargs)
    kept = next((kept for kept in shown.kept if kept.is_of(model, own)), None)
    if kept is None:
        del shown.kept[: len(shown.kept) + 1 - TEXTS]  # first, because the new one may need their memory
        chosen = place(model, own["hidden_states"], cache)
        for attend in attends:
            attend.kept, attend.place = None, chosen
        # Once a text, so not worth a graph of its own; and what is kept must not lie in a graph's memory.
        with torch.compiler.set_stance("force_eager"):
            model.forward(**own)
        kept = Kept(model, _copy(own), [attend.kept for attend in attends])
        shown.kept.append(kept)
    for attend, states in zip(attends, kept.layers, strict=True):
        attend.kept = states
    return (), kwargs


def _forget(attends: list[OneWayCached], model: Any, args: tuple, output: Any) -> None:
    """After the forward, or an error in it: layers let go, so that dropping a text frees its memory."""
    for attend in attends:
        attend.kept = None


def _inputs(shown: Reference, args: tuple, kwargs: dict) -> tuple[dict, dict]:
    """Arguments of a call by name, for the noisy rows and for the reference: B rows each, timestep [B]."""
    import torch

    kwargs = {**dict(zip(FORWARD_ARGUMENTS, args, strict=False)), **kwargs}
    noisy, timestep = kwargs["hidden_states"], kwargs["timestep"]
    if shown.latents is None:
        raise ValueError("no reference: give in_context() latents, or set .latents of what it yields.")
    reference = shown.latents.to(noisy)
    if reference.shape[1:] != noisy.shape[1:] or reference.shape[0] not in (1, noisy.shape[0]):
        raise ValueError(
            f"reference latents {tuple(reference.shape)} do not match noisy latents "
            f"{tuple(noisy.shape)}; encode the reference at the size and length of the output."
        )
    if timestep.ndim > 1:
        raise ValueError("one timestep a row is expected, not one a token (expand_timesteps).")
    kwargs["timestep"] = timestep.expand(noisy.shape[0])
    own = {"hidden_states": reference.expand_as(noisy), "timestep": torch.zeros_like(kwargs["timestep"])}
    return kwargs, {**kwargs, **own}


def _is_same(one: Any, other: Any) -> bool:
    """Whether two arguments of a call are equal, tensors by content: a buffer may be filled anew."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)
    return type(one) is type(other) and one == other


def _copy(inputs: dict) -> dict:
    import torch

    return {name: i.clone() if isinstance(i, torch.Tensor) else copy(i) for name, i in inputs.items()}


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


def _put(states: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """States on `device`; those of a GPU go to pinned CPU memory, from which they come back fast."""
    import torch

    if states.device == device:
        return states.contiguous()  # a view of fused projections would keep the query too
    kept = torch.empty(states.shape, dtype=states.dtype, pin_memory=states.is_cuda)
    return kept.copy_(states)
