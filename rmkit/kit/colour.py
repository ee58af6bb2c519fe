"""Colour of videos: from what a file says of its colours to RGB of 8 bits, and back without a shift (ours).

Matrix, range, primaries and transfer are numbers of ITU-T H.273. Primaries and transfer are handed on as they are, for
the method looks at pictures as a screen is sent them. Reads and writes nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from rmkit.errors import InputError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream

RGB, BT709, UNSAID, BT601 = 0, 1, 2, 6  # matrices
LIMITED, FULL = int(ColorRange.MPEG), int(ColorRange.JPEG)
HD = 720  # lines from which on a file that does not say so is taken for BT.709; below, for BT.601 (ours)
MATRICES = {  # by H.273's numbers: swscale's, and the weights of red and blue in luma
    BT709: (Colorspace.ITU709, 0.2126, 0.0722),
    4: (Colorspace.FCC, 0.30, 0.11),
    5: (Colorspace.ITU601, 0.299, 0.114),
    BT601: (Colorspace.ITU601, 0.299, 0.114),
    7: (Colorspace.SMPTE240M, 0.212, 0.087),
    9: (Colorspace.BT2020, 0.2627, 0.0593),
}
HDR = {16: "PQ (HDR10, Dolby Vision)", 18: "HLG"}  # by transfer
# Colours of 2x2 pixels are shown in all four and averaged again when written: there and back, nothing is lost.
EXACT = Interpolation.POINT | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class Colour:
    """What decides the colours of a video's samples, as numbers of ITU-T H.273; range: 1 limited, 2 full."""

    matrix: int
    range: int = LIMITED
    primaries: int = UNSAID
    transfer: int = UNSAID


def assumed(height: int) -> int:
    """The matrix of a file that names none, by its lines as stored."""
    return BT709 if height >= HD else BT601


def of_copies(height: int) -> Colour:
    """What the kit's own viewing copies are written in: the colours of a screen, limited range."""
    return Colour(assumed(height), LIMITED, BT709, BT709)


def of(frame: "VideoFrame", name: object) -> Colour:
    """What a decoded frame says of its colours, with the rule for what it leaves open.

    Raises InputError, with the file's `name`, for high dynamic range and for matrices that cannot be undone.
    """
    if frame.color_trc in HDR:
        raise InputError(
            f"{name} is high dynamic range, {HDR[frame.color_trc]}, and the models know standard range only: tone-map it "
            "first, for instance with `ffmpeg -i IN -vf zscale=t=linear,tonemap=hable,zscale=t=bt709:m=bt709:p=bt709,"
            "format=yuv420p OUT`."
        )
    matrix, full = frame.colorspace, frame.color_range == FULL or frame.format.name.startswith("yuvj")
    if _is_rgb(frame):
        matrix = RGB
    elif matrix == UNSAID or matrix == RGB:
        matrix = assumed(frame.height)
    elif matrix not in MATRICES:
        raise InputError(
            f"{name} stores its colours by matrix {matrix} of ITU-T H.273, which is not read here: convert it to BT.709."
        )
    return Colour(matrix, FULL if full else LIMITED, frame.color_primaries, frame.color_trc)


def to_rgb(frame: "VideoFrame", colour: Colour) -> np.ndarray:
    """A decoded frame as uint8 [H, W, 3]."""
    if _is_rgb(frame):
        return frame.to_ndarray(format="rgb24")
    frame = _bare(frame)
    return frame.to_ndarray(
        format="rgb24",
        src_colorspace=MATRICES[colour.matrix][0],
        src_color_range=colour.range,
        dst_color_range=FULL,
        interpolation=EXACT,
    )


def from_rgb(frame: np.ndarray, colour: Colour, pixels: str) -> "VideoFrame":
    """uint8 [H, W, 3] as a frame to encode, of 8 bits: yuv420p, yuv422p or yuv444p; swscale's own way is a level off."""
    height, width = frame.shape[:2]
    down, right = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}[pixels]
    luma, *chroma = _ycc(frame, colour)
    chroma = [c.reshape(height // down, down, width // right, right).mean((1, 3)) for c in chroma]
    made = av.VideoFrame(width, height, pixels)
    for plane, values in zip(made.planes, (luma, *chroma), strict=True):
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        lines[:, : plane.width] = np.rint(values).clip(0, 255)
        plane.update(lines)
    made.colorspace, made.color_range = colour.matrix, colour.range
    made.color_primaries, made.color_trc = colour.primaries, colour.transfer
    return made


def tag(stream: "VideoStream", colour: Colour) -> None:
    """Write into a stream to be encoded what its colours are."""
    stream.colorspace, stream.color_range = colour.matrix, colour.range
    stream.color_primaries, stream.color_trc = colour.primaries, colour.transfer


def _bare(frame: "VideoFrame") -> "VideoFrame":
    """The samples without the place of the colours among them, which would move these by half a pixel and not back."""
    bare = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for plane, copy in zip(frame.planes, bare.planes, strict=True):
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: copy.height, : copy.line_size]
        copy.update(np.pad(lines, ((0, 0), (0, copy.line_size - lines.shape[1]))))
    return bare


def _is_rgb(frame: "VideoFrame") -> bool:
    return frame.format.is_rgb or frame.format.name.startswith(("gray", "pal8"))


def _ycc(frame: np.ndarray, colour: Colour) -> np.ndarray:
    """Luma and both chromas of a picture, float32 [3, H, W], not yet rounded."""
    _, red, blue = MATRICES[colour.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    weights = np.stack(
        [luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)]
    )
    offset, scale = [0, 128, 128], [1.0, 1.0, 1.0]
    if colour.range == LIMITED:
        offset, scale = [16, 128, 128], [219 / 255, 224 / 255, 224 / 255]
    weights = (weights * np.array(scale)[:, None]).astype(np.float32)
    made = weights @ frame.reshape(-1, 3).T.astype(np.float32) + np.array(offset, np.float32)[:, None]
    return made.reshape(3, *frame.shape[:2])
