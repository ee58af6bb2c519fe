"""In-context conditioning of a Wan transformer: clean reference tokens beside the noisy ones (paper, 3.3).

The reference travels as extra rows of the batch, at t = 0 and at the same positions; only self-attention
sees both. Processors and hooks on the model, nothing patched in diffusers. Reads and writes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

FORWARD_ARGUMENTS = (
    "hidden_states",
    "timestep",
    "encoder_hidden_states",
    "encoder_hidden_states_image",
)


class Reference:
    """What the model is shown: `latents` [B or 1, C, F, H, W], normalised; may be changed between calls."""

    def __init__(self, latents: "torch.Tensor | None" = None):
        self.latents = latents


@contextmanager
def in_context(
    transformer: "WanTransformer3DModel",
    reference: "torch.Tensor | None" = None,
    mode: str = "joint",
) -> Iterator[Reference]:
    """Let `transformer` see a clean reference while it predicts the noisy latents, in every call inside.

    Inside the context the model is called as ever, by hand or by the stock `WanPipeline`: noisy latents
    [B, C, F, H, W], timestep [B] or a scalar, text [B, T, D]; the result has B rows. `reference` are
    latents of the same shape (one row serves any B); a training loop sets `.latents` of what is yielded
    before each call. The backward pass belongs inside too, because gradient checkpointing runs the
    blocks again. `mode` names who attends to whom (`ATTENTION`). On exit, after an error too, the
    model is as it was. Raises ValueError on a model in context already and on shapes that do not match.
    """
    if mode not in ATTENTION:
        raise ValueError(f"mode '{mode}' is unknown; known are {', '.join(ATTENTION)}.")
    layers = [block.attn1 for block in transformer.blocks]
    stock = [layer.processor for layer in layers]
    if any(isinstance(processor, InContextAttention) for processor in stock):
        raise ValueError("this transformer is in context already; leave that context first.")
    shown = Reference(reference)
    hooks = []
    try:
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(InContextAttention(ATTENTION[mode], processor))
        hooks.append(transformer.register_forward_pre_hook(partial(_stack, shown), with_kwargs=True))
        hooks.append(transformer.register_forward_hook(_drop_reference))
        yield shown
    finally:
        for hook in hooks:
            hook.remove()
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(processor)


class InContextAttention:
    """Self-attention of rows [reference; noisy]: projects as Wan does, attends as `attend` says."""

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


# Who attends to whom: (attention, query, key, value of rows [reference; noisy]) -> output of the same rows.
ATTENTION: dict[str, Callable] = {"joint": joint}


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
    timestep = timestep.expand(noisy.shape[0])
    kwargs["hidden_states"] = torch.cat([reference.expand_as(noisy), noisy])
    kwargs["timestep"] = torch.cat([torch.zeros_like(timestep), timestep])
    for name in ("encoder_hidden_states", "encoder_hidden_states_image"):
        if kwargs.get(name) is not None:
            kwargs[name] = torch.cat([kwargs[name], kwargs[name]])
    return (), kwargs


def _drop_reference(model: Any, args: tuple, output: Any) -> Any:
    """After the forward: only the noisy rows go back, in the form the caller asked for."""
    if isinstance(output, tuple):
        return (output[0].chunk(2)[1], *output[1:])
    output.sample = output.sample.chunk(2)[1]
    return output
