"""Clips in and out, without loss, and the contact sheets people look at.

Frames are uint8 arrays [F, H, W, 3], RGB. Stored clips are libx264rgb at qp 0 in mp4: bit exact, so that
no codec moves a metric; viewing copies are made apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rmkit.errors import InputError

MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # codecs that mp4 holds


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself: frame count, size in pixels, frames a second, the sound's codec if any."""

    frames: int
    height: int
    width: int
    fps: Fraction
    sound: str | None = None


def read(path: Path) -> np.ndarray:
    """All frames of a video, uint8 [F, H, W, 3]; raises InputError on a missing or broken file."""
    return np.stack(list(stream(path)))


def stream(path: Path) -> Iterator[np.ndarray]:
    """Frames of a video one by one, uint8 [H, W, 3], in constant memory."""
    count = 0
    try:
        with av.open(_existing(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream.")
            promised = container.streams.video[0].frames  # 0 when the format does not say
            for frame in container.decode(video=0):
                count += 1
                yield frame.to_ndarray(format="rgb24")
    except av.FFmpegError as error:
        raise InputError(
            f"{path} cannot be decoded after frame {count} ({error.strerror}): "
            "it is truncated or not a video; delete it and make it again."
        ) from None
    if not count:
        raise InputError(f"{path} holds no frame; delete it and make it again.")
    # A file cut short after its index decodes without complaint.
    if count < promised:
        raise InputError(
            f"{path} holds {count} of the {promised} frames it promises: it is truncated; "
            "delete it and make it again."
        )


def probe(path: Path) -> VideoInfo:
    """Size, rate and frame count of a video without decoding it."""
    try:
        with av.open(_existing(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream.")
            video = container.streams.video[0]
            frames = video.frames or sum(1 for _ in container.decode(video=0))
            heard = container.streams.audio
            sound = heard[0].codec_context.name if heard else None
            return VideoInfo(frames, video.height, video.width, video.average_rate, sound)
    except av.FFmpegError as error:
        raise InputError(
            f"{path} cannot be opened ({error.strerror}): it is truncated or not a video."
        ) from None


def write(path: Path, frames: np.ndarray, fps: int | Fraction) -> None:
    """Store uint8 [F, H, W, 3] bit-exactly as libx264rgb qp 0 in mp4."""
    if frames.ndim != 4:
        raise ValueError(f"frames must be uint8 [F, H, W, 3], not {frames.dtype} {frames.shape}")
    _encode(path, frames, fps, "libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast"})


def write_viewing_copy(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int | Fraction,
    scale: int = 1,
    quality: int = 16,
    sound: Path | None = None,
) -> None:
    """A copy that any player and browser shows (H.264, crf `quality`), enlarged `scale` times.

    `frames` are uint8 [H, W, 3], one by one or in an array; `sound` is a video whose sound is copied. Colours are
    4:2:0, and 4:4:4 where a side is odd.
    """
    if scale > 1:
        frames = (frame.repeat(scale, axis=0).repeat(scale, axis=1) for frame in frames)
    options = {"crf": str(quality), "movflags": "+faststart"}
    _encode(path, frames, fps, "libx264", "yuv420p", options, sound)


def image(path: Path) -> np.ndarray:
    """One picture, uint8 [H, W, 3]; raises InputError on a missing or broken file."""
    try:
        return np.asarray(Image.open(_existing(path)).convert("RGB"))
    except OSError as error:
        raise InputError(f"{path} is not a readable picture ({error}).") from None


def to_unit(frames: np.ndarray) -> np.ndarray:
    """uint8 0..255 to float32 -1..1, the range of the VAEs."""
    return frames.astype(np.float32) / 127.5 - 1.0


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Float 0..1, as diffusers pipelines return it, to uint8."""
    return (np.clip(frames, 0.0, 1.0) * 255.0).round().astype(np.uint8)


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], width: int = 240, gap: int = 4
) -> Image.Image:
    """Pictures in labelled rows: each row is (label, frames uint8 [H, W, 3]), scaled to `width` pixels.

    A label may have several lines.
    """
    label_width = 14 + max(len(line) for label, _ in rows for line in label.split("\n")) * 8
    height = max(round(frame.shape[0] * width / frame.shape[1]) for _, row in rows for frame in row)
    columns = max(len(row) for _, row in rows)
    size = (label_width + columns * (width + gap), len(rows) * (height + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for i, (label, row) in enumerate(rows):
        top = gap + i * (height + gap)
        lines = label.count("\n") + 1
        draw.text((6, top + height // 2 - 8 * lines), label, fill="black", font=font)
        for j, frame in enumerate(row):
            # Small clips are enlarged without smoothing: a sheet must not look better than the clip.
            method = Image.NEAREST if frame.shape[1] * 2 <= width else Image.BICUBIC
            picture = Image.fromarray(frame).resize((width, height), method)
            sheet.paste(picture, (label_width + j * (width + gap), top))
    return sheet


def evenly(count: int, of: int) -> list[int]:
    """Indices of `count` frames spread over `of`, both ends included."""
    return np.linspace(0, of - 1, count).round().astype(int).tolist()


def midpoints(count: int, of: int) -> list[int]:
    """Indices of the middles of `count` equal parts of `of` frames: no end among them."""
    return [int((i + 0.5) * of / count) for i in range(count)]


def _encode(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int | Fraction,
    codec: str,
    pixels: str,
    options: dict,
    sound: Path | None = None,
) -> None:
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"no frame to write to {path}")
    if pixels == "yuv420p" and any(side % 2 for side in first.shape[:2]):
        pixels = "yuv444p"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        container = files.enter_context(av.open(str(path), "w", format="mp4"))
        video = container.add_stream(codec, rate=fps, options=options)
        video.height, video.width = first.shape[:2]
        video.pix_fmt = pixels
        video.codec_context.thread_count = 1  # the same bytes whatever the number of cores
        if sound:
            source = files.enter_context(av.open(_existing(sound)))
            copy = container.add_stream_from_template(source.streams.audio[0])
        for frame in chain([first], frames):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
                raise ValueError(f"frames must be uint8 [H, W, 3], not {frame.dtype} {frame.shape}")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if sound:
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = copy
                    container.mux(packet)


def _existing(path: Path) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist.")
    return str(path)
