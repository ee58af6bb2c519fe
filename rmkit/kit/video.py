"""Clips in and out, without loss, and the contact sheets people look at.

Frames are uint8 arrays [F, H, W, 3], RGB. Stored clips are libx264rgb at qp 0 in mp4: bit exact, so that
no codec moves a metric; viewing copies are made apart. Videos that the kit did not make are read as `footage` says.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rmkit.errors import InputError
from rmkit.kit import colour, footage
from rmkit.settings import Clips

T = TypeVar("T")
OUTLINE, GAP = "#999999", 4  # of a picture in a sheet, and the pixels around it
STRIP = 22  # pixels of the headings above pictures side by side


@dataclass(frozen=True)
class VideoInfo:
    """A video's frame count, size in pixels as it is shown, and frames a second."""

    frames: int
    height: int
    width: int
    fps: Fraction


def read(path: Path) -> np.ndarray:
    """All frames of a video, uint8 [F, H, W, 3]; raises InputError on a missing or broken file."""
    return np.stack(list(stream(path)))


def stream(path: Path) -> Iterator[np.ndarray]:
    """Frames of a video one by one, uint8 [H, W, 3], in constant memory; InputError as `read`."""
    promised = probe(path).frames if footage.is_own(path) else None
    count = 0
    for shown in footage.frames(path):
        count += 1
        yield shown.picture
    if promised and count < promised:
        raise InputError(
            f"{path} holds {count} of the {promised} frames it promises: it is truncated; {footage.remedy(path)}."
        )


def probe(path: Path) -> VideoInfo:
    """Size, rate and frame count of a video; the kit's own are believed, all others are decoded to their end."""
    if not footage.is_own(path):
        found = footage.scan(path)
        return VideoInfo(found.frames, found.height, found.width, found.fps)
    with footage.opened(path) as container:
        if not container.streams.video:
            raise InputError(f"{path} has no video stream; {footage.remedy(path)}.")
        own = container.streams.video[0]
        if own.codec_context is None:  # its description lay in the part that is missing
            raise InputError(f"{path} cannot be read: it is truncated; {footage.remedy(path)}.")
        return VideoInfo(own.frames, own.height, own.width, own.average_rate)


def require_size(path: Path, size: Clips, remedy: str) -> None:
    """Raise InputError, which ends with the remedy, unless a video has the length and size of the profile's clips."""
    found = probe(path)
    if (found.frames, found.height, found.width) != (size.frames, size.height, size.width):
        raise InputError(
            f"{path} has {found.frames} frames of {found.height}x{found.width} and the profile asks for {size.frames} of "
            f"{size.height}x{size.width}: {remedy}."
        )


def write(path: Path, frames: np.ndarray, fps: int | Fraction) -> None:
    """Store uint8 [F, H, W, 3] bit-exactly as libx264rgb qp 0 in mp4."""
    if frames.ndim != 4:
        raise ValueError(f"frames must be uint8 [F, H, W, 3], not {frames.dtype} {frames.shape}")
    _encode(path, frames, fps, None, {"qp": "0", "preset": "veryfast"})


def write_viewing_copy(
    path: Path, frames: Iterable[np.ndarray], fps: int | Fraction, scale: int = 1, quality: int = 12
) -> None:
    """A copy that any player and browser shows (H.264, crf `quality`), enlarged `scale` times.

    `frames` are uint8 [H, W, 3], one by one or in an array. Its colours are tagged, 4:2:0, and 4:4:4 where a side is odd.
    """
    if scale > 1:
        frames = (frame.repeat(scale, axis=0).repeat(scale, axis=1) for frame in frames)
    first, frames = started(path, frames)
    options = coding(quality, pixels(first)) | {"movflags": "+faststart"}
    _encode(path, frames, fps, colour.of_copies(len(first)), options)


def image(path: Path) -> np.ndarray:
    """One picture, uint8 [H, W, 3]; raises InputError on a missing or broken file."""
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} is not a readable picture ({error}).") from None


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture uint8 [H, W, 3] at another size; the same one where it has it."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))


def to_unit(frames: np.ndarray) -> np.ndarray:
    """uint8 0..255 to float32 -1..1, the range of the VAEs."""
    return frames.astype(np.float32) / 127.5 - 1.0


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Float 0..1, as diffusers pipelines return it, to uint8; raises InputError where a value is not finite."""
    require_finite(frames)
    return (np.clip(frames, 0.0, 1.0) * 255.0).round().astype(np.uint8)


def require_finite(values: np.ndarray) -> None:
    """Raise InputError where a model has given anything but numbers, which would be stored as black or noise."""
    if not np.isfinite(values).all():
        raise InputError(
            "the model's output is not finite: an adapter or a checkpoint is broken, or models.dtype overflows (float16 does; "
            "try bfloat16 or float32). Nothing of it was kept."
        )


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    width: int = 240,
    headings: Sequence[str] = (),
) -> Image.Image:
    """Pictures in labelled rows: each row is (label, frames uint8 [H, W, 3]), scaled to `width` pixels.

    A label may have several lines; headings: of the columns. A grey line around each picture shows where a white one ends.
    """
    label_width = 14 + max(len(line) for label, _ in rows for line in label.split("\n")) * 8
    height = max(round(frame.shape[0] * width / frame.shape[1]) for _, row in rows for frame in row)
    columns = max(len(row) for _, row in rows)
    strip = 20 if headings else 0
    size = (label_width + columns * (width + GAP), strip + len(rows) * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for j, heading in enumerate(headings):
        draw.text((label_width + j * (width + GAP), 3), heading, fill="black", font=font)
    for i, (label, row) in enumerate(rows):
        top = strip + GAP + i * (height + GAP)
        lines = label.count("\n") + 1
        draw.text((6, top + height // 2 - 8 * lines), label, fill="black", font=font)
        for j, frame in enumerate(row):
            left = label_width + j * (width + GAP)
            draw.rectangle((left - 1, top - 1, left + width, top + height), outline=OUTLINE)
            sheet.paste(_scaled(frame, width, height), (left, top))
    return sheet


def side_by_side(frames: Mapping[str, np.ndarray], width: int) -> np.ndarray:
    """Frames under their headings in a row, uint8 [H, W, 3]: each `width` pixels wide, its height even, as H.264 wants it."""
    parts = []
    for heading, frame in frames.items():
        height = 2 * round(width * frame.shape[0] / frame.shape[1] / 2)
        part = Image.new("RGB", (width, STRIP + height), "white")
        part.paste(_scaled(frame, width, height), (0, STRIP))
        ImageDraw.Draw(part).text((6, 3), heading, "black", ImageFont.load_default(14))
        parts.append(np.asarray(part))
    return np.concatenate(parts, axis=1)


def _scaled(frame: np.ndarray, width: int, height: int) -> Image.Image:
    """A picture for the eye; small ones are enlarged without smoothing: they must not look better than they are."""
    kernel = Image.NEAREST if 2 * frame.shape[1] <= width else Image.BICUBIC
    return Image.fromarray(frame).resize((width, height), kernel)


def evenly(count: int, of: int) -> list[int]:
    """Indices of `count` frames spread over `of`, both ends included."""
    return np.linspace(0, of - 1, count).round().astype(int).tolist()


def at(frames: Iterable[np.ndarray], moments: Sequence[int]) -> list[np.ndarray]:
    """The frames of a stream at `moments`, in their order."""
    wanted = {i: frame for i, frame in enumerate(frames) if i in moments}
    return [wanted[moment] for moment in moments]


def spread(items: Sequence[T], most: int) -> list[T]:
    """`most` items at most, evenly spread over all, the first and the last among them."""
    return [items[i] for i in evenly(min(most, len(items)), len(items))]


def midpoints(count: int, of: int) -> list[int]:
    """Indices of the middles of `count` equal parts of `of` frames: no end among them."""
    return [int((i + 0.5) * of / count) for i in range(count)]


def pixels(frame: np.ndarray, subsampling: str = "420") -> str:
    """The pixel format in which H.264 holds frames of this size: an odd side has no half."""
    height, width = frame.shape[:2]
    if width % 2 or (height % 2 and subsampling == "420"):
        subsampling = "444"
    return f"yuv{subsampling}p"


def coding(quality: int, pixels: str) -> dict[str, str]:
    """Options of x264 for a constant quality, by which the same frames always give the same bytes."""
    # Its macroblock tree reads memory that nobody has written.
    options = {"crf": str(quality), "mbtree": "0"}
    # It spends less on whole colours than on half of them unless told not to.
    return options | ({"x264-params": "chroma-qp-offset=-6"} if "444" in pixels else {})


def require_rgb(frame: np.ndarray) -> None:
    """Raise ValueError unless it is a picture, uint8 [H, W, 3]."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 [H, W, 3], not {frame.dtype} {frame.shape}")


def _encode(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int | Fraction,
    colours: colour.Colour | None,
    options: dict[str, str],
) -> None:
    """H.264 in mp4 at a constant rate; colours: None for RGB, which loses nothing."""
    first, frames = started(path, frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path.absolute()), "w", format="mp4") as container:
        video = container.add_stream("libx264" if colours else "libx264rgb", rate=fps, options=options)
        video.height, video.width = first.shape[:2]
        video.pix_fmt = pixels(first) if colours else "rgb24"
        video.codec_context.thread_count = 1  # the same bytes whatever the number of cores
        if colours:
            colour.tag(video, colours)
        for frame in frames:
            require_rgb(frame)
            if colours:
                picture = colour.from_rgb(frame, colours, video.pix_fmt)
            else:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())


def started(path: Path, frames: Iterable[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first frame, and all of them; ValueError where there is none."""
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"no frame to write to {path}")
    return first, chain([first], frames)
