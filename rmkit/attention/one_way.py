"""One-way in-context attention (ours): the reference attends to itself alone, the noisy tokens attend to both.

Two attention calls and no mask, so that every kernel will do: a mask of (2L)^2 would be 25 GB at the paper's size, and
flash kernels take none. What is computed of the reference depends on neither the noise nor the timestep, so its keys and
values can be computed once a text and cached for all steps. Reads and writes nothing.
"""

from typing import TYPE_CHECKING, Any

from rmkit.attention.key_value_cache import Cache, Cached, CachedStates, Placement, placement

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

CACHED = "one-way cached"
TEXTS = 2  # whose keys and values are cached: under guidance, the prompt and the negative prompt


class OneWayAttention:
    """Processor of self-attention over rows [reference; noisy]: projects and rotates as WanAttnProcessor does.

    It cannot call the stock processor, which rotates queries and keys by one set of positions: here the noisy rows' L
    queries meet 2L keys.
    """

    def __init__(self, stock: Any):
        from diffusers.models.attention_dispatch import dispatch_attention_fn
        from diffusers.models.transformers.transformer_wan import _get_qkv_projections

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
            states.unflatten(2, (attn.heads, -1))  # [2B, L, D] -> [2B, L, heads, D/heads]
            for states in (attn.norm_q(query), attn.norm_k(key), value)
        )
        query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)  # the unrotated ones are let go
        out = self.attend(query, key, value)
        out = out.flatten(2, 3).type_as(query)  # [2B, L, heads, D/heads] -> [2B, L, D]
        return attn.to_out[1](attn.to_out[0](out))

    def attend(self, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
        """Attention of rows [reference; noisy], each [2B, L, heads, D/heads], in two calls."""
        import torch

        (own_query, query), (own_key, _), (own_value, _) = query.chunk(2), key.chunk(2), value.chunk(2)
        both_keys, both_values = (
            states.unflatten(0, (2, -1)).transpose(0, 1).flatten(1, 2)  # [2B, L, ...] -> [B, 2L, ...]
            for states in (key, value)
        )
        own = self._attention(own_query, own_key, own_value)
        return torch.cat([own, self._attention(query, both_keys, both_values)])

    def _attention(self, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
        return self._dispatch(
            query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
        )


class CachedOneWayAttention(OneWayAttention):
    """One-way attention in two passes: a pass of the reference fills the cache, passes of noisy rows read it.

    `cached`: key and value of the reference; None before its pass, which puts them at `placement`.
    """

    cached: tuple[CachedStates, CachedStates] | None = None
    placement: Placement | None = None

    def attend(self, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
        """Attention of one pass's rows, each [B, L, heads, D/heads]."""
        import torch

        if self.cached is None:
            self.cached = (CachedStates.of(key, self.placement), CachedStates.of(value, self.placement))
            return self._attention(query, key, value)
        own_key, own_value = (states.like(key) for states in self.cached)
        # [B, L, ...] twice -> [B, 2L, ...]
        return self._attention(query, torch.cat([own_key, key], dim=1), torch.cat([own_value, value], dim=1))


def look_up(
    cached: list[Cached], cache: Cache, transformer: "WanTransformer3DModel", inputs: dict[str, Any]
) -> None:
    """Give each layer the reference's keys and values under these inputs, computed now if they are not cached.

    cached: of the last TEXTS texts, changed in place; inputs: arguments of the reference's own pass, by name. Raises
    ValueError where gradients are asked for or blocks may be skipped, and InputError where there is no room.
    """
    import torch

    if torch.is_grad_enabled():
        raise ValueError(
            f"mode '{CACHED}' has no gradients: call it under torch.no_grad(), train in 'one-way'."
        )
    if transformer.is_cache_enabled:
        raise ValueError(
            f"mode '{CACHED}' does not go with a cache that skips blocks: call disable_cache(), or use 'one-way'."
        )
    processors = [block.attn1.processor for block in transformer.blocks]
    found = next((entry for entry in cached if entry.is_of(transformer, inputs)), None)
    if found is None:
        del cached[: len(cached) + 1 - TEXTS]  # first, because the new one may need their memory
        chosen = placement(transformer, inputs["hidden_states"], cache)
        for processor in processors:
            processor.cached, processor.placement = None, chosen
        # Once a text, so not worth a graph of its own; and what is cached must not lie in a graph's memory.
        with torch.compiler.set_stance("force_eager"):
            transformer.forward(**inputs)
        found = Cached.of(transformer, inputs, [processor.cached for processor in processors])
        cached.append(found)
    for processor, layer in zip(processors, found.layers, strict=True):
        processor.cached = layer


def release(transformer: "WanTransformer3DModel", *_: Any) -> None:
    """Let the layers go of keys and values after a call, or an error in it, so that dropping a text frees its memory."""
    for block in transformer.blocks:
        block.attn1.processor.cached = None


def rotate(states: "torch.Tensor", cosine: "torch.Tensor", sine: "torch.Tensor") -> "torch.Tensor":
    """Rotary position embedding on interleaved pairs, with the arithmetic of WanAttnProcessor."""
    import torch

    even, odd = states.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosine[..., 0::2], sine[..., 1::2]
    pairs = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return pairs.flatten(-2).type_as(states)
