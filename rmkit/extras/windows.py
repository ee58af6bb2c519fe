"""Windows of a long video: overlapping stretches as long as the model was trained on, one after another (ours).

Every window is encoded and decoded by itself and so begins, as in training, with a latent of one frame. That one is the
window's own; the others cover the same four frames in both windows they lie in, and there each prediction of the later
one is blended with what the earlier one predicted in the same pass. So memory is a window's, whatever the video's length.
Reads and writes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

STRIDE = 4  # frames of a latent after the first
LATE = 4  # power of a fade in pixels: 1 is linear; chosen by the flicker at the joins on the diorama


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
def blended(
    transformers: "Sequence[WanTransformer3DModel]",
    before: "Sequence[torch.Tensor]",
    after: int | None,
    done: Callable[[], object] = lambda: None,
) -> "Iterator[list[torch.Tensor]]":
    """Blend what a window predicts with what the window before it predicted, in every call of a transformer inside.

    `before`: predictions [B, C, F, H, W] of the window before, one a pass, from this window's first latent on; empty for
    the first window. `after`: frame of this window at which the next one begins, None for the last. Yields the list that
    is the next window's `before`, filled pass by pass and kept in CPU memory; `done` is called after each pass. Belongs
    inside of `in_context`, whose reference is dropped from a prediction first.
    """
    import torch

    passes: list[torch.Tensor] = []

    def blend(model: Any, args: tuple, output: Any) -> Any:
        own = output[0] if isinstance(output, tuple) else output.sample
        if before:
            earlier = before[len(passes)].to(own)
            shared = torch.arange(1, earlier.shape[2], device=own.device)
            share = (shared / (len(shared) + 1)).to(own).view(-1, 1, 1)  # of this window, rising
            own = own.clone()
            own[:, :, shared] = torch.lerp(earlier[:, :, 1:], own[:, :, shared], share)
        passes.append(own[:, :, len(own[0, 0]) if after is None else after // STRIDE :].cpu())
        done()
        if isinstance(output, tuple):
            return (own, *output[1:])
        output.sample = own
        return output

    hooks = [transformer.register_forward_hook(blend) for transformer in transformers]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def joined(decoded: Iterable[np.ndarray], first: Sequence[int], overlap: int) -> Iterator[np.ndarray]:
    """Frames of a video, uint8 [H, W, 3], from its windows' uint8 [F, H, W, 3], faded over the frames they share.

    A window takes over late: its own first frames are its worst, as it has seen none before them.
    """
    share = (np.arange(1, overlap + 1, dtype=np.float32) / (overlap + 1)) ** LATE
    tail: np.ndarray | None = None  # of the window before, from this one's first frame on
    for number, frames in enumerate(decoded):
        if tail is not None:
            fading = slice(len(tail) - overlap, len(tail))
            mixed = tail[fading] + share[:, None, None, None] * (
                frames[fading].astype(np.float32) - tail[fading]
            )
            frames = np.concatenate([tail[:-overlap], np.rint(mixed).astype(np.uint8), frames[len(tail) :]])
        ready = len(frames) if number + 1 == len(first) else first[number + 1] - first[number]
        yield from frames[:ready]
        tail = frames[ready:]
