"""A meter for models on the meta device: FLOPs, and bytes at the highest moment, with nothing computed (ours).

Serves `count`. Tensors on the meta device have shapes and types only, so a model of any size runs in no time on any
machine. Two things are done as a GPU does them: attention is one fused kernel (its scores are never held), and autocast
casts what it casts there. Reads and writes nothing.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

LOWERED = ("linear", "conv2d", "conv3d")  # what autocast computes in the lower type, of what these models do


class Reading(TorchDispatchMode):
    """FLOPs of what ran inside, and bytes of all tensors at the highest moment: a model's own, and those made inside.

    FLOPs are by torch's own formulas. `FlopCounterMode` gives the same sum, and keeps what it has seen alive through the
    backward pass, so that beside it no memory can be measured.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.flops, self.peak, self._now = 0, 0, 0
        self._alive: dict[int, weakref.ref] = {}
        for own in (*model.parameters(), *model.buffers()):
            self._see(own.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=made)
        for leaf in tree_leaves(made):
            # A view, or what an operation in place returns, has the storage of what it was given.
            if isinstance(leaf, torch.Tensor) and _key(leaf) not in given:
                self._see(leaf.untyped_storage())
        self.peak = max(self.peak, self._now)
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def let_go(_: weakref.ref) -> None:
            del self._alive[key]
            self._now -= size

        self._alive[key] = weakref.ref(storage, let_go)
        self._now += size


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def reading(model: torch.nn.Module, autocast: torch.dtype | None = None) -> Iterator[Reading]:
    """Meter what runs inside, backward passes too."""
    with _as_on_a_gpu(autocast), Reading(model) as found:
        yield found


@contextmanager
def _as_on_a_gpu(autocast: torch.dtype | None) -> Iterator[None]:
    """Fused attention and autocast, which the meta device has neither of.

    Not by a mode of torch's functions: it would be off in the backward pass, in which blocks may run again.
    """
    replaced: dict[str, Callable] = {"scaled_dot_product_attention": _fused}
    if autocast:
        replaced |= {name: partial(_lowered, autocast, getattr(F, name)) for name in LOWERED}
    stock = {name: getattr(F, name) for name in replaced}
    try:
        for name, function in replaced.items():
            setattr(F, name, function)
        yield
    finally:
        for name, function in stock.items():
            setattr(F, name, function)


def _fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Attention as a flash kernel computes and counts it; a mask would not change its FLOPs."""
    if query.shape[1] != key.shape[1]:  # grouped queries
        key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for part in (key, value))
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def _lowered(dtype: torch.dtype, function: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
    def lower(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return function(*tree_map(lower, args), **tree_map(lower, kwargs))
