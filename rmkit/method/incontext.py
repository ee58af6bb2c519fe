"""In-context conditioning of a Wan transformer: clean reference tokens beside the noisy ones (paper, 3.2, 3.3).

The reference goes in as further rows of the batch, at t = 0 and at the noisy rows' positions. Everywhere in the model they
are rows like others; in self-attention alone a reference and its noisy clip are one sequence, which the model's own
processor attends to (`JointAttention`). No weight changes shape, nothing in diffusers is patched. Reads and writes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from rmkit.attention.key_value_cache import Cache, Cached
from rmkit.attention.one_way import CACHED, CachedOneWayAttention, OneWayAttention, look_up, release

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel


def fold(rows: "torch.Tensor") -> "torch.Tensor":
    """[2B, L, ...] -> [B, 2L, ...]: the tokens of reference i and of noisy clip i become one sequence."""
    return rows.unflatten(0, (2, -1)).transpose(0, 1).flatten(1, 2)


def unfold(pairs: "torch.Tensor") -> "torch.Tensor":
    """[B, 2L, ...] -> [2B, L, ...]: the inverse of `fold`."""
    return pairs.unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 1)


def _of_stock(name: str) -> property:
    """An attribute that a processor hands on to the stock one inside it."""
    return property(
        lambda self: getattr(self.stock, name), lambda self, value: setattr(self.stock, name, value)
    )


class JointAttention:
    """Self-attention in which reference and noisy tokens all attend to one another (the paper's).

    Equal to concatenation on the frame axis, without its (B, 2L, 6, D) modulation tensor.
    """

    # diffusers sets these by set_attention_backend() and enable_parallelism()
    _attention_backend = _of_stock("_attention_backend")
    _parallel_config = _of_stock("_parallel_config")

    def __init__(self, stock: Any):
        self.stock = stock

    def __call__(
        self,
        attn: Any,
        hidden_states: "torch.Tensor",
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: "tuple[torch.Tensor, torch.Tensor]" = (),
    ) -> "torch.Tensor":
        pairs = fold(hidden_states)  # [2B, L, D] -> [B, 2L, D]
        # The same positions for both: cos and sin, [1, L, 1, D/heads] -> [1, 2L, 1, D/heads]
        rotary = tuple(part.repeat(1, 2, 1, 1) for part in rotary_emb)
        return unfold(self.stock(attn, pairs, None, None, rotary))  # [B, 2L, D] -> [2B, L, D]


MODES = ("joint", "one-way")  # who attends to whom: what an adapter is trained in
PROCESSORS = {"joint": JointAttention, "one-way": OneWayAttention, CACHED: CachedOneWayAttention}
# Arguments of a call that have a row a clip.
ROWS = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_image")


class Reference:
    """What the model is shown: `latents` [B or 1, C, F, H, W], normalised; may be changed between calls.

    In mode "one-way cached" it also holds the keys and values computed from them.
    """

    def __init__(self, latents: "torch.Tensor | None" = None):
        self.latents = latents
        self.cached: list[Cached] = []


@contextmanager
def in_context(
    transformer: "WanTransformer3DModel",
    reference: "torch.Tensor | Reference | None" = None,
    mode: str = "joint",
    cache: Cache = "auto",
) -> Iterator[Reference]:
    """Let `transformer` see a clean reference while it predicts the noisy latents, in every call inside.

    Inside the context the model is called as ever, by hand or by the stock `WanPipeline`: noisy latents
    [B, C, F, H, W], timestep [B] or a scalar, text [B, T, D]; the result has B rows. `reference` are latents of the same
    shape (one row serves any B); a training loop sets `.latents` of what is yielded before each call. The backward pass
    belongs inside too, because gradient checkpointing runs the blocks again. On exit, after an error too, the model is as
    it was. Raises ValueError on a model in context already and on shapes that do not match.

    mode: "joint", "one-way", or "one-way cached", which gives what "one-way" gives and runs the reference once a text
    instead of in every call: without gradients, and the weights must stay as they are. `cache` says where its keys and
    values are placed (`key_value_cache.placement`). Two experts given one `Reference` share the room: the first one's are
    dropped when the second takes over.
    """
    from torch.compiler import disable

    if mode not in PROCESSORS:
        raise ValueError(f"mode '{mode}' is unknown; known are {', '.join(PROCESSORS)}.")
    layers = [block.attn1 for block in transformer.blocks]
    stock = [layer.processor for layer in layers]
    if any(isinstance(processor, JointAttention | OneWayAttention) for processor in stock):
        raise ValueError("this transformer is in context already; leave that context first.")
    shown = reference if isinstance(reference, Reference) else Reference(reference)
    if mode == CACHED:
        # It looks into its tensors, so it is left out of the graph of a compiled model.
        before, after = disable(partial(_look_up, shown, cache)), release
    else:
        before, after = partial(_stack, shown), _drop_reference
    hooks = []
    try:
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(PROCESSORS[mode](copy(processor)))
        hooks.append(transformer.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(transformer.register_forward_hook(after, always_call=mode == CACHED))
        yield shown
    finally:
        for hook in hooks:
            hook.remove()
        for layer, processor in zip(layers, stock, strict=True):
            layer.set_processor(processor)
        shown.cached[:] = [entry for entry in shown.cached if entry.transformer is not transformer]


def training_mode(mode: str) -> str:
    """The training mode that this inference mode is equivalent to: an adapter trained in it serves."""
    return "one-way" if mode == CACHED else mode


def _stack(shown: Reference, model: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Before the forward: B rows become 2B, the reference's first, at timestep 0 and with the same text."""
    import torch

    noisy, own = _inputs(shown, args, kwargs)
    for name in ROWS:
        if noisy.get(name) is not None:
            noisy[name] = torch.cat([own[name], noisy[name]])  # [B, ...] twice -> [2B, ...]
    return (), noisy


def _drop_reference(model: Any, args: tuple, output: Any) -> Any:
    """After the forward: only the noisy rows go back, [2B, ...] -> [B, ...], in the form the caller asked for."""
    if isinstance(output, tuple):
        return (output[0].chunk(2)[1], *output[1:])
    output.sample = output.sample.chunk(2)[1]
    return output


def _look_up(shown: Reference, cache: Cache, model: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Before the forward in mode "one-way cached": the rows stay B, the layers are given the reference's keys and values."""
    noisy, own = _inputs(shown, args, kwargs)
    look_up(shown.cached, cache, model, own)
    return (), noisy


def _inputs(shown: Reference, args: tuple, kwargs: dict) -> tuple[dict, dict]:
    """Arguments of a call by name, for the noisy rows and for the reference: B rows each, timestep [B]."""
    import torch

    kwargs = {**dict(zip(ROWS, args, strict=False)), **kwargs}
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
