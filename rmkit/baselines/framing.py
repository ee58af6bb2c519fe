"""Framing: a clip into the size, length and rate that an external method works at, and back (ours).

Nothing is stretched: black bars fill what the clip does not, and are cut off again. Reads clips; writes nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial

import cv2
import numpy as np
from pydantic import Field, field_validator

from rmkit.baselines import PROMPT, Edit
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Settings
from rmkit.settings import Guidance, Side, Steps

Box = tuple[slice, slice]  # where in a larger picture the clip lies: rows and columns


class PassSettings(Settings):
    """Of a model that edits so many frames of one size a pass; the defaults are the authors' of LucyEdit and Editto."""

    prompt: str = Field(PROMPT, description="paper, B.3")
    height: Side = Field(480, description="pixels it works at (authors': 480)")
    width: Side = Field(832, description="pixels it works at (authors': 832)")
    frames: int = Field(81, ge=1, le=10_001, description="most frames a pass (authors': 81)")
    steps: Steps = Field(50, description="denoising steps (authors': 50)")
    guidance: Guidance = Field(5.0, description="1 switches guidance off (authors': 5)")

    @field_validator("frames")
    @classmethod
    def _whole_latents(cls, frames: int) -> int:
        if frames % 4 != 1:
            raise ValueError(f"frames must be 4k+1 for the Wan VAE, not {frames}")
        return frames


def by_passes(
    profile: Profile, settings: PassSettings, one_pass: Callable[[np.ndarray, int], np.ndarray]
) -> Edit:
    """The edit of a clip by passes of a model: one_pass(frames, seed), uint8 [F, height, width, 3] to the same."""
    size = (settings.height, settings.width)

    def edit(clip: Clip, seed: int) -> np.ndarray:
        frames = video.read(sampling.path(profile, clip))
        return edited(partial(one_pass, seed=seed), frames, size, settings.frames)

    return edit


def letterbox(frames: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Box]:
    """Frames [F, H, W, 3] as large as fits, centred on black [F, height, width, 3], and where they lie."""
    scale = min(height / frames.shape[1], width / frames.shape[2])
    h, w = (max(1, round(side * scale)) for side in frames.shape[1:3])
    box = _centred((h, w), height, width)
    canvas = np.zeros((len(frames), height, width, 3), np.uint8)
    for target, frame in zip(canvas, frames, strict=True):
        target[box] = resized(frame, h, w)
    return canvas, box


def unboxed(frames: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """The clip cut out of letterboxed frames, at its own size: uint8 [F, height, width, 3]."""
    return np.stack([resized(frame[box], height, width) for frame in frames])


def filling(frame: np.ndarray, height: int, width: int, most: float = 0.05) -> np.ndarray:
    """A frame scaled until it covers height x width, centred, what hangs over cut off: uint8 [H, W, 3].

    Raises InputError when more than `most` of a side would go: the method has returned another picture.
    """
    scale = max(height / frame.shape[0], width / frame.shape[1])
    h, w = (max(side, round(of * scale)) for side, of in zip((height, width), frame.shape, strict=False))
    if max(h / height, w / width) > 1 + most:
        raise InputError(
            f"frames of {frame.shape[0]}x{frame.shape[1]} do not show a clip of {height}x{width}"
        )
    return resized(frame, h, w)[_centred((height, width), h, w)]


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame at another size, uint8 [H, W, 3]: averaged when it shrinks, bicubic when it grows."""
    if frame.shape[:2] == (height, width):
        return frame
    method = cv2.INTER_AREA if height < frame.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=method)


def edited(
    edit: Callable[[np.ndarray], np.ndarray], frames: np.ndarray, size: tuple[int, int], most: int
) -> np.ndarray:
    """A clip [F, H, W, 3] edited at `size` (height, width), at most `most` frames a pass, and back at its own size."""
    shown, box = letterbox(frames, *size)
    return unboxed(in_windows(edit, shown, most), box, *frames.shape[1:3])


def windows(count: int, most: int) -> list[range]:
    """Frames of each pass over a clip of `count` frames, at most `most` each; the last one ends with the clip.

    All passes of a long clip have the full length, so the last two overlap.
    """
    if count <= most:
        return [range(count)]
    starts = [*range(0, count - most, most), count - most]
    return [range(start, start + most) for start in starts]


def in_windows(edit: Callable[[np.ndarray], np.ndarray], frames: np.ndarray, most: int) -> np.ndarray:
    """A clip [F, H, W, 3] edited window by window; where two overlap, the earlier one's frames stay."""
    done: list[np.ndarray] = []
    for window in windows(len(frames), most):
        done += list(edit(frames[window.start : window.stop])[len(done) - window.start :])
    return np.stack(done)


def at_rate(frames: Iterable[np.ndarray], rate: Fraction, count: int, fps: int) -> Iterator[np.ndarray]:
    """`count` frames at `fps` a second out of a video of another rate: the one shown at each frame's middle.

    A video that ends early holds its last frame; raises InputError when more than a tenth would be held.
    """
    source = iter(frames)
    shown, number = next(source), 0
    for i in range(count):
        wanted = int((i + Fraction(1, 2)) * rate / fps)
        while number < wanted:
            following = next(source, None)
            if following is None:
                break
            shown, number = following, number + 1
        if number < wanted and i < count * 9 // 10:
            raise InputError(f"the video ends after {number + 1} frames at {float(rate):g} a second")
        yield shown


def _centred(size: tuple[int, int], height: int, width: int) -> Box:
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return slice(top, top + size[0]), slice(left, left + size[1])
