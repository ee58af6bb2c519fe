"""Windows of a long video: overlapping stretches of the length that the model was trained on (ours).

Each window is encoded and decoded by itself, so its first latent covers one frame, as in training. Every other latent
covers four frames, the same four in both of two windows that overlap. There the prediction of the later window is
blended with that of the earlier window in the same pass of the model. Windows are made one after another, so memory
does not grow with the video's length. Reads and writes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

STRIDE = 4  # frames of a latent after the first
LATE = 4  # power of the fade between windows: 1 is linear; chosen by the flicker at the joins on the diorama


def starts(frames: int, length: int, overlap: int) -> list[int]:
    """First frames of the windows of `length` frames that cover a video of `frames`; multiples of 4.

    Both lengths must be 4k+1, and `overlap` a multiple of 4 below length - 1; raises ValueError otherwise. The last
    window is moved back to end with the video.
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
    """Inside, blend each prediction of the transformers with that of the window before in the same pass.

    before: predictions [B, C, F, H, W] of the window before, one a pass, from this window's first latent on; empty for
    the first window. after: the frame of this window at which the next one begins, None for the last. Yields the list
    to give the next window as `before`: one prediction is added to it a pass, in CPU memory. done: called after each
    pass. Enter it inside `in_context`, which removes the reference from a prediction first.
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
    """Join windows, uint8 [F, H, W, 3] each, into the frames of a video, uint8 [H, W, 3].

    Two windows are faded over the last `overlap` frames that they share. The later one takes over late: its first
    frames are its worst, since it has seen none before them.
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
