"""Anybody's video, read as a player shows it: frames counted by decoding, upright, with their times and colours (ours).

What a file says of its length is not believed: fragments carry no counts, edit lists hide packets, writers drop frames.
Reads video files; writes nothing.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np
from av.format import Flags as ContainerFlags
from av.stream import Disposition

from rmkit.errors import InputError
from rmkit.kit import colour, store

if TYPE_CHECKING:
    from av.container import InputContainer

# By which a video of a folder is known.
ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp")
ENDINGS += (".wmv", ".flv", ".ogv", ".mxf")
# What holds its pictures itself: lists of files, such as ffconcat or HLS, would have others opened, whatever they are called.
CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,ogg,flv,asf,mxf,h264,hevc,obu,ivf,mpegvideo,m4v,yuv4mpegpipe,gif,apng"
)
RATE = Fraction(25)  # of a single frame that says nothing of its time
ALIKE = 0.005  # share by which the rates of two files may differ: 24 and 24000/1001 are one


class Shown(NamedTuple):
    """A frame as it is shown: uint8 [H, W, 3], upright, and when, in units of the file's time base."""

    picture: np.ndarray
    at: int
    lasts: int
    colour: colour.Colour
    sideways: bool  # it is stored lying: its sides are exchanged
    interlaced: bool
    damaged: bool  # the decoder has made up a part of it


@dataclass(frozen=True)
class Footage:
    """What a video turned out to be when it was decoded to its end; height and width are those of the upright picture."""

    path: Path
    height: int
    width: int
    times: tuple[int, ...]  # of the frames, in units of `base`
    lasts: int  # the last frame, in the same units
    base: Fraction  # seconds
    fps: Fraction  # on average
    aspect: Fraction  # of a pixel, width to height
    colour: colour.Colour
    subsampling: str  # "420", "422" or "444": how its colours are stored
    stream: int  # the number of its picture among its streams
    begins: Fraction  # seconds: what a clock that starts anywhere, as a broadcast's, showed at the beginning
    lost: tuple[str, ...]  # what of its pictures is not seen or goes

    @property
    def frames(self) -> int:
        return len(self.times)

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.width}x{self.height} at {float(self.fps):.4g} fps"


def are_alike(a: Fraction, b: Fraction) -> bool:
    """Whether two rates are one but for rounding: 24000/1001 and 2997/125."""
    return abs(a - b) <= ALIKE * max(a, b)


def scan(path: Path) -> Footage:
    """Decode a video to its end and say what it is; InputError as `frames`."""
    times: list[int] = []
    last: Shown | None = None
    interlaced, damaged = False, []
    for last in frames(path):
        if last.damaged:
            damaged.append(len(times))
        times.append(last.at)
        interlaced |= last.interlaced
    with opened(path) as container:
        video = _video(container, path)
        base, aspect = _base(video), video.sample_aspect_ratio or Fraction(1)
        return Footage(
            path=Path(path),
            height=last.picture.shape[0],
            width=last.picture.shape[1],
            times=tuple(times),
            lasts=last.lasts,
            base=base,
            fps=_rate(times, last.lasts, base, video.average_rate),
            aspect=1 / aspect if last.sideways else aspect,
            colour=last.colour,
            subsampling=_subsampling(video.codec_context.format),
            stream=video.index,
            begins=_begins(container, times[0] * base),
            lost=_lost(video, interlaced, damaged),
        )


def frames(path: Path) -> Iterator[Shown]:
    """Frames as they are shown, one by one, in constant memory; times rise strictly.

    Raises InputError for what is no video, ends within a frame, changes its size, is high dynamic range, or is turned by
    anything but a right angle.
    """
    count, size, before = 0, None, None
    try:
        with opened(path) as container:
            video = _video(container, path)
            video.thread_type = "AUTO"
            base = _base(video)
            step = max(1, round(1 / (base * (video.average_rate or RATE))))
            for frame in container.decode(video):
                if size and size != (frame.width, frame.height):
                    raise InputError(
                        f"{path} changes its size at frame {count}, from {size[0]}x{size[1]} to {frame.width}x{frame.height}: "
                        "cut it there and give the parts one by one."
                    )
                size, count = (frame.width, frame.height), count + 1
                at = frame.pts if frame.pts is not None else frame.dts
                if before is not None and (at is None or at <= before):
                    at = before + (step if at is None else 1)
                before = at = at or 0
                colours = colour.of(frame, path)
                matrix = _matrix(frame)
                picture = _upright(colour.to_rgb(frame, colours), matrix, path)
                sideways = bool(matrix and not matrix[0])
                yield Shown(
                    picture,
                    at,
                    frame.duration or step,
                    colours,
                    sideways,
                    frame.interlaced_frame,
                    frame.is_corrupt,
                )
            _require_end(video, path)
    except av.FFmpegError as error:
        raise InputError(
            f"{path} cannot be decoded after frame {count} ({error.strerror}): it is truncated or not a video; {remedy(path)}."
        ) from None
    if not count:
        raise InputError(f"{path} holds no frame; {remedy(path)}.")


@contextmanager
def opened(path: Path) -> "Iterator[InputContainer]":
    """A video file for reading; nothing but the file itself is opened, whatever it refers to."""
    require_name(path)
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist.")
    try:
        # Absolute: `take:1.mp4` would name a protocol.
        alone = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        container = av.open(str(Path(path).absolute()), options=alone)
    except av.FFmpegError as error:
        raise InputError(
            f"{path} cannot be opened ({error.strerror}): it is truncated or not a video; {remedy(path)}."
        ) from None
    with container:
        yield container


def require_name(path: Path) -> None:
    """Raise InputError for a name that is no text, which neither FFmpeg takes nor a sidecar holds."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        said = os.fsencode(path).decode(errors="replace")
        raise InputError(f"{said} has a name that is not UTF-8: rename it first.") from None


def remedy(path: Path) -> str:
    """What to do about a broken file: only what the kit has made is there to be deleted."""
    return "delete it and make it again" if is_own(path) else "get a whole copy of it"


def is_own(path: Path) -> bool:
    """Whether the kit has made a file, which then has a sidecar."""
    return "key" in store.read_sidecar(Path(path))


def _video(container: "InputContainer", path: Path) -> "av.VideoStream":
    """The first video that is no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise InputError(f"{path} has no video stream that can be decoded.")


def _base(video: "av.VideoStream") -> Fraction:
    return video.time_base or 1 / (video.average_rate or RATE)


def _begins(container: "InputContainer", first: Fraction) -> Fraction:
    """What the clock of a broadcast shows at the beginning; others begin at 0, whatever comes first then, but never before it."""
    if container.format.flags & ContainerFlags.ts_discont.value and container.start_time is not None:
        return Fraction(container.start_time, av.time_base)
    return min(first, Fraction(0))


def _lost(video: "av.VideoStream", interlaced: bool, damaged: Sequence[int]) -> tuple[str, ...]:
    pixels = video.codec_context.format
    transparent = any(component.is_alpha for component in pixels.components) if pixels else False
    transparent |= video.metadata.get("alpha_mode") == "1"  # WebM's, which is stored beside the picture
    shown = ", ".join(map(str, damaged[:5])) + (f" and {len(damaged) - 5} more" if len(damaged) > 5 else "")
    said = {
        f"damaged frames, counted from 0: {shown}": bool(damaged),
        "its transparency is not kept": transparent,
        "it is interlaced, and its frames show two moments at once: deinterlace it first": interlaced,
    }
    return tuple(sentence for sentence, holds in said.items() if holds)


def _rate(times: list[int], lasts: int, base: Fraction, said: Fraction | None) -> Fraction:
    """Frames a second: as the file says, whose times may be rounded, where they agree with that."""
    if len(times) == 1:
        return said or (1 / (lasts * base) if lasts else RATE)
    found = (len(times) - 1) / ((times[-1] - times[0]) * base)
    return said if said and are_alike(said, found) else found


def _require_end(video: "av.VideoStream", path: Path) -> None:
    """Raise InputError where a file's index names data beyond its end: it decodes without complaint as far as it goes."""
    end = max((entry.pos + entry.size for entry in video.index_entries), default=0)
    if end > (size := Path(path).stat().st_size):
        raise InputError(
            f"{path} is truncated: its index names data up to byte {end} and it has {size}; {remedy(path)}."
        )


def _subsampling(pixels: "av.VideoFormat | None") -> str:
    """How much of the colours a file holds: RGB holds all of them."""
    name = pixels.name if pixels else ""
    if "420" in name or "411" in name or "410" in name or name.startswith(("nv12", "nv21", "p010", "gray")):
        return "420"
    return "422" if "422" in name else "444"


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """What a frame's display matrix does to its axes: a, b, c, d of (x, y) -> (ax + cy, bx + dy); None: nothing."""
    if not (found := frame.side_data.get("DISPLAYMATRIX")):
        return None
    values = np.frombuffer(bytes(found)[:36], np.int32)
    found = tuple(int(values[i]) for i in (0, 1, 3, 4))
    largest = max(map(abs, found))
    # Angles are stored as sines and cosines, which are nearly 0 or 1.
    return tuple(0 if abs(value) < largest / 100 else value for value in found)


def _upright(picture: np.ndarray, matrix: tuple[int, int, int, int] | None, path: Path) -> np.ndarray:
    """The picture turned and mirrored as its display matrix says."""
    if not matrix:
        return picture
    a, b, c, d = matrix
    if not ((a and d and not b and not c) or (b and c and not a and not d)):
        raise InputError(
            f"{path} is shown turned by no right angle (display matrix {matrix}): turn it upright first."
        )
    if b:
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
