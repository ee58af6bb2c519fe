"""Windows of a long video: overlapping stretches as long as the model was trained on, denoised as one (ours).

Every window is encoded and decoded by itself and so begins, as in training, with a latent of one frame. That one is
the window's own; the others cover the same four frames in every window they lie in, and there what the model
predicts is averaged at each step. Memory grows with the number of windows by their latents only. Reads and writes
nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from rmkit.errors import InputError
from rmkit.incontext import in_context

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

STRIDE = 4  # frames of a latent after the first


def starts(frames: int, length: int, overlap: int) -> list[int]:
    """First frames of windows of `length` that cover `frames`; all are 4k+1, `overlap` and the result multiples of 4.

    The last window is moved back to end with the video. Raises ValueError on lengths that are not so.
    """
    if frames % STRIDE != 1 or length % STRIDE != 1 or overlap % STRIDE or not 0 < overlap < length - 1:
        raise ValueError(f"windows of {length} frames with {overlap} shared do not fit {frames} frames")
    if frames <= length:
        return [0]
    step = length - 1 - overlap
    return [*range(0, frames - length, step), frames - length]


@contextmanager
def denoised_as_one(
    transformer: "WanTransformer3DModel",
    references: "Sequence[torch.Tensor]",
    first: Sequence[int],
    overlap: int,
    mode: str,
    done: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Let a call of `transformer` with a batch of windows run them one by one, each in context, and blend them.

    `references`: latents [1, C, F, H, W] of each window, on any device; `first`: first frames (`starts`); `overlap`:
    frames that neighbours share; `done` is called after each window. Raises InputError where a cache skips blocks, as
    it would mix the windows up.
    """
    import torch

    if transformer.is_cache_enabled and len(first) > 1:
        raise InputError(
            "a cache that skips blocks mixes up the windows of a long video: call disable_cache()."
        )
    own = transformer.__dict__.get("forward")  # accelerate's offload puts one there
    forward = transformer.forward

    def windows(hidden_states: "torch.Tensor", **inputs: object) -> "tuple[torch.Tensor]":
        transformer.forward = forward
        rows = []
        try:
            for i, reference in enumerate(references):
                row = {key: x[i : i + 1] if isinstance(x, torch.Tensor) else x for key, x in inputs.items()}
                with in_context(transformer, reference.to(hidden_states.device), mode):
                    rows.append(transformer(hidden_states=hidden_states[i : i + 1], **row)[0])
                done()
        finally:
            transformer.forward = windows
        return (blended(torch.cat(rows), first, overlap),)

    transformer.forward = windows
    try:
        yield
    finally:
        if own is None:
            del transformer.forward
        else:
            transformer.forward = own


def blended(rows: "torch.Tensor", first: Sequence[int], overlap: int) -> "torch.Tensor":
    """Latents of windows [N, C, F, H, W], averaged where windows overlap, all but each window's first latent."""
    import torch

    length = rows.shape[2]
    at = [frame // STRIDE for frame in first]
    weight = torch.from_numpy(_weights(length, overlap // STRIDE)).to(rows).view(1, -1, 1, 1)
    total = rows.new_zeros(rows.shape[1], at[-1] + length, *rows.shape[3:])  # [C, F of the video, H, W]
    weights = rows.new_zeros(1, at[-1] + length, 1, 1)
    for row, start in zip(rows, at, strict=True):
        total[:, start + 1 : start + length] += (weight * row)[:, 1:]
        weights[:, start + 1 : start + length] += weight[:, 1:]
    total /= weights.clamp(min=1)
    return torch.stack(
        [
            torch.cat([row[:, :1], total[:, start + 1 : start + length]], dim=1)
            for row, start in zip(rows, at, strict=True)
        ]
    )


def joined(decoded: Iterable[np.ndarray], first: Sequence[int], overlap: int) -> Iterator[np.ndarray]:
    """Frames of a video, uint8 [H, W, 3], from its windows' uint8 [F, H, W, 3], blended where they overlap."""
    total: np.ndarray | None = None
    for number, frames in enumerate(decoded):
        length = len(frames)
        weight = _weights(length, overlap)
        if number:
            weight[0] = 0  # of one frame's latent: the window before knows more of it
        weighted = frames * weight[:, None, None, None]
        if total is None:
            total, weights = weighted, weight
        else:
            shared = len(total)
            total = np.concatenate([total + weighted[:shared], weighted[shared:]])
            weights = np.concatenate([weights + weight[:shared], weight[shared:]])
        is_last = number + 1 == len(first)
        ready = length if is_last else first[number + 1] - first[number]
        yield from np.rint(total[:ready] / weights[:ready, None, None, None]).astype(np.uint8)
        total, weights = total[ready:], weights[ready:]


def _weights(length: int, overlap: int) -> np.ndarray:
    """A window's say in each of its frames or latents, rising over the overlap and falling again: float32 [F]."""
    place = np.arange(length)
    return np.minimum(place, length - place).clip(1, overlap).astype(np.float32)
