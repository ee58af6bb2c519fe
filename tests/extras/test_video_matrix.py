"""Videos of every make, through `enhance IN OUT` with the model replaced by identity: what comes out is what went in.

Frames, times, size, orientation, shape of pixels, colours and sound are read here with PyAV and numpy alone. The files are
made here, of ten frames each: eight flat patches, of which one tells the number of the frame.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rmkit.extras import own_video
from rmkit.kit import encode, models, video
from rmkit.method import enhance

FRAMES, HEIGHT, WIDTH = 10, 64, 96
COLOURS = (
    (200, 40, 50),
    (40, 170, 60),
    (50, 60, 190),
    (240, 240, 240),
    (16, 16, 16),
    (190, 150, 60),
    (90, 90, 90),
)
WEIGHTS = {
    1: (0.2126, 0.0722),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    9: (0.2627, 0.0593),
}  # red and blue in luma


@dataclass(frozen=True)
class Case:
    """A file: how it is written, and by which colours its samples are made, whether it says so or not."""

    name: str
    codec: str = "libx264"
    pixels: str = "yuv420p"
    rate: Fraction = Fraction(25)
    at: tuple[int, ...] | None = None  # times of the frames in `base`
    base: Fraction | None = None
    turn: int = 0
    mirrored: bool = False
    aspect: Fraction = Fraction(1)
    matrix: int = 6
    full: bool = False
    tagged: bool = True
    size: tuple[int, int] = (HEIGHT, WIDTH)
    sound: tuple[str, ...] = ()
    muxed: tuple[tuple[str, str], ...] = ()
    hidden: int = 0  # frames before the beginning that its edit list hides
    ending: str = ".mp4"

    @property
    def file(self) -> str:
        return f"{self.name}.{self.ending.lstrip('.')}"


def rates(*all_of: Fraction | int) -> list[Case]:
    return [Case(f"rate {float(rate):.3f}", rate=Fraction(rate)) for rate in all_of]


UNEVEN = (0, 40, 60, 140, 150, 190, 300, 310, 400, 500)
FRAGMENTS = (("movflags", "frag_keyframe+empty_moov+default_base_moof"),)
CASES = [
    *rates(Fraction(24000, 1001), 24, Fraction(30000, 1001), 30, 60, 120, Fraction(15, 2)),
    Case("mp4 hevc", "libx265"),
    Case("mp4 mpeg4", "mpeg4"),
    Case("mp4 av1", "libsvtav1"),
    Case("mp4 vp9", "libvpx-vp9"),
    Case("mov h264", ending=".mov"),
    Case("mov prores", "prores_ks", "yuv422p10le", ending=".mov"),
    Case("mov mjpeg", "mjpeg", "yuvj420p", full=True, ending=".mov"),
    Case("mov png", "png", "rgb24", ending=".mov"),
    Case("mkv h264", ending=".mkv"),
    Case("mkv hevc ten bits", "libx265", "yuv420p10le", ending=".mkv"),
    Case("mkv ffv1", "ffv1", "yuv444p", ending=".mkv"),
    Case("mkv rgb", "libx264rgb", "rgb24", ending=".mkv"),
    Case("mkv mpeg2", "mpeg2video", ending=".mkv"),
    Case("mkv vp9 23.976", "libvpx-vp9", rate=Fraction(24000, 1001), ending=".mkv"),
    Case("webm vp9", "libvpx-vp9", ending=".webm"),
    Case("webm vp8 full", "libvpx", full=False, ending=".webm"),
    Case("avi mpeg4", "mpeg4", ending=".avi"),
    Case("avi mjpeg", "mjpeg", "yuvj422p", full=True, ending=".avi"),
    Case("m4v", ending=".m4v"),
    Case("capitals", ending=".MP4"),
    Case("mp4 uneven", at=UNEVEN, base=Fraction(1, 1000)),
    Case("mkv uneven", at=UNEVEN, base=Fraction(1, 1000), ending=".mkv"),
    Case("mp4 a gap", at=(0, 1, 2, 3, 30, 31, 32, 33, 34, 60), base=Fraction(1, 25)),
    Case("avi a gap", "mpeg4", at=(0, 1, 2, 3, 8, 9, 10, 11, 12, 13), base=Fraction(1, 25), ending=".avi"),
    Case("mp4 later than the sound", at=tuple(range(13, 23)), base=Fraction(1, 25), sound=("aac",)),
    Case("mkv later than the sound", at=tuple(range(13, 23)), base=Fraction(1, 25), sound=("aac",), ending=".mkv"),
    *[Case(f"turned {turn}", turn=turn) for turn in (90, 180, 270)],
    Case("turned and mirrored", turn=90, mirrored=True),
    Case("mov turned", turn=90, ending=".mov"),
    Case("turned of wide pixels", turn=90, aspect=Fraction(4, 3)),
    Case("turned square", turn=270, aspect=Fraction(16, 11), size=(64, 64)),
    Case("wide pixels", aspect=Fraction(16, 11)),
    Case("mkv tall pixels", aspect=Fraction(8, 9), ending=".mkv"),
    *[
        Case(f"{'709' if matrix == 1 else '601'} {'full' if full else 'limited'} {pixels[3:6]}", pixels=pixels,
             matrix=matrix, full=full)
        for matrix in (1, 6)
        for full in (False, True)
        for pixels in ("yuv420p", "yuv444p")
    ],
    Case("2020", matrix=9),
    Case("untagged", tagged=False),
    Case("untagged hd", tagged=False, matrix=1, size=(720, 1280)),
    Case("odd sides", pixels="yuv444p", size=(51, 75)),
    Case("fragments", muxed=FRAGMENTS),
    Case("fragments with sound", muxed=FRAGMENTS, sound=("aac",)),
    Case("hidden lead-in", hidden=4),
    Case("hidden lead-in and sound", hidden=4, sound=("aac",)),
    Case("two sounds", sound=("aac", "libmp3lame")),
    Case("mkv opus", sound=("libopus",), ending=".mkv"),
    Case("webm opus", "libvpx-vp9", sound=("libopus",), ending=".webm"),
    Case("mov ac3", sound=("ac3",), ending=".mov"),
]  # fmt: skip


def patches(case: Case) -> np.ndarray:
    """What is stored, uint8 [F, H, W, 3]: the last patch grows brighter with the frame's number."""
    height, width = case.size
    made = np.zeros((FRAMES + case.hidden, height, width, 3), np.uint8)
    for number, frame in enumerate(made):
        shade = (20 + 20 * (number - case.hidden),) * 3 if number >= case.hidden else (255, 0, 255)
        for place, colour in enumerate((*COLOURS, shade)):
            row, column = divmod(place, 4)
            frame[
                row * height // 2 : (row + 1) * height // 2, column * width // 4 : (column + 1) * width // 4
            ] = colour
    return made


def ycc(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """uint8 [H, W, 3] to planes of 4:4:4, uint8 [3, H, W], by the definition."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)])
    planes = [luma * 255, *(chroma * 255 + 128)] if full else [16 + 219 * luma, *(128 + 224 * chroma)]
    return np.stack(planes).round().clip(0, 255).astype(np.uint8)


def rgb(planes: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """The inverse."""
    red, blue = WEIGHTS[matrix]
    y, u, v = planes.astype(float)
    y, u, v = (
        (y / 255, (u - 128) / 255, (v - 128) / 255)
        if full
        else ((y - 16) / 219, (u - 128) / 224, (v - 128) / 224)
    )
    r, b = y + (2 - 2 * red) * v, y + (2 - 2 * blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return (np.stack([r, g, b], -1) * 255).round().clip(0, 255).astype(np.uint8)


def write(case: Case, path: Path) -> None:
    base = case.base or 1 / case.rate
    with av.open(str(path), "w", options=dict(case.muxed)) as container:
        quality = (
            {"crf": "4"} if "x26" in case.codec else {"q:v": "2", "b": "20M", "crf": "8", "log_level": "-1"}
        )
        if case.muxed:
            quality["g"] = "4"
        if case.codec == "libsvtav1":
            quality = {"crf": "5", "svtav1-params": "color-range=0"}
        if case.codec == "libx265":
            quality["x265-params"] = "log-level=none"
        stream = container.add_stream(case.codec, rate=case.rate, options=quality)
        stream.height, stream.width = case.size
        stream.pix_fmt = case.pixels
        if case.codec != "mpeg4":
            stream.codec_context.time_base = stream.time_base = base
        stream.codec_context.sample_aspect_ratio = case.aspect
        is_rgb = "rgb" in case.pixels
        if case.tagged and not is_rgb:
            stream.colorspace, stream.color_range = case.matrix, 2 if case.full else 1
        elif case.full:
            stream.color_range = 2
        if case.turn or case.mirrored:
            stream.set_display_rotation(case.turn, hflip=case.mirrored)
        tones = [container.add_stream(codec, rate=48_000) for codec in case.sound]
        for number, picture in enumerate(patches(case)):
            if is_rgb:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            else:
                planes = ycc(picture, case.matrix, case.full)
                frame = av.VideoFrame.from_ndarray(planes, format="yuv444p", channel_last=False)
                frame.colorspace, frame.color_range = (
                    (case.matrix if case.tagged else 2),
                    2 if case.full else 1,
                )
                frame = frame.reformat(
                    format=case.pixels, src_color_range=frame.color_range, dst_color_range=frame.color_range
                )
            frame.pts, frame.time_base = (case.at[number] if case.at else number - case.hidden), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for pitch, tone in enumerate(tones, start=1):
            wave = (0.4 * np.sin(np.arange(48_000) * 0.02 * pitch)).astype(np.float32)[None]
            sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            sound.sample_rate = 48_000
            for part in av.AudioResampler(
                tone.codec_context.format, "mono", 48_000, tone.codec_context.frame_size
            ).resample(sound):
                container.mux(tone.encode(part))
            container.mux(tone.encode())


@dataclass(frozen=True)
class Seen:
    """What a player shows: pictures, times in seconds, the shape of a pixel, tags, and the packets of each sound."""

    pictures: list[np.ndarray]
    times: list[Fraction]
    aspect: Fraction
    tags: tuple[int, int]
    sounds: list[list[tuple[Fraction, bytes]]]


def seen(
    path: Path, matrix: int | None = None, full: bool | None = None, turn: int = 0, mirrored: bool = False
) -> Seen:
    """A file decoded and turned; matrix, full: by which its samples are made (its own tags)."""
    pictures, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            tags, at = (frame.colorspace, frame.color_range), frame.pts * frame.time_base
            if frame.format.is_rgb:
                picture = frame.to_ndarray(format="rgb24")
            else:
                own = matrix or frame.colorspace, (frame.color_range == 2) if full is None else full
                picture = rgb(whole(frame), *own)
            pictures.append(np.rot90(picture, turn // 90)[:, :: -1 if mirrored else 1])
            times.append(at)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        sounds = [packets(path, number) for number in range(len(container.streams.audio))]
    return Seen(pictures, times, aspect, tags, sounds)


def whole(frame: av.VideoFrame) -> np.ndarray:
    """The planes of a frame, each colour shown in all of its pixels, float [3, H, W] of 0 to 255."""
    planes, deep = [], frame.format.components[0].bits > 8
    for plane in frame.planes:
        lines = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(
            -1, plane.line_size // (1 + deep)
        )
        lines = lines[: plane.height, : plane.width] / (4 if deep else 1)
        planes.append(lines.repeat(frame.height // plane.height, 0).repeat(frame.width // plane.width, 1))
    return np.stack(planes)


def packets(path: Path, number: int) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[number]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size and p.pts >= 0]


def centres(picture: np.ndarray) -> np.ndarray:
    """The middles of the patches, [patches, 3]; turned pictures have them in another order."""
    height, width = picture.shape[:2]
    rows, columns = (2, 4) if width >= height else (4, 2)
    return np.array(
        [
            picture[(2 * i + 1) * height // (2 * rows), (2 * j + 1) * width // (2 * columns)]
            for i in range(rows)
            for j in range(columns)
        ]
    ).astype(int)


def psnr(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> float:
    error = np.mean([np.square(x.astype(float) - y).mean() for x, y in zip(a, b, strict=True)])
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.fixture
def identity(tiny_profile, monkeypatch):
    """The profile, with a model that gives back what it sees."""
    for module, name, given in (
        (models, "check", None),
        (models, "fingerprint", "none"),
        (enhance, "check_adapter", {}),
        (enhance, "check_prompts", None),
        (enhance, "load", None),
        (enhance, "negative", None),
        (encode, "text", None),
        (own_video, "_tell", None),
    ):
        monkeypatch.setattr(module, name, lambda *_, given=given: given)
    monkeypatch.setattr(own_video, "enhanced", lambda profile, pipeline, job, *_: video.stream(job.source))
    return tiny_profile


def test_the_matrix_is_large():
    assert len(CASES) >= 40 and len({case.file for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_identity(case: Case, identity, tmp_path: Path, capsys):
    source, target = tmp_path / case.file, tmp_path / "out" / "made.mp4"
    write(case, source)
    own_video.enhance_video(identity, source, target)
    given, made = seen(source, case.matrix, case.full, case.turn, case.mirrored), seen(target)
    assert len(given.pictures) == len(made.pictures) == FRAMES
    assert made.times == given.times
    if case.at:
        assert [float(t - made.times[0]) for t in made.times] == pytest.approx(
            [(at - case.at[0]) * float(case.base) for at in case.at], abs=1e-3
        )
    assert [p.shape for p in made.pictures] == [p.shape for p in given.pictures]
    assert made.aspect == (1 / given.aspect if case.turn in (90, 270) else given.aspect)
    assert case.aspect == given.aspect
    for a, b in zip(given.pictures, made.pictures, strict=True):
        assert np.abs(centres(a) - centres(b)).max() <= 2
    assert psnr(given.pictures, made.pictures) >= 40
    shades = [frame[-HEIGHT // 4, -WIDTH // 8].mean() for frame in made.pictures]
    if not case.turn:
        assert shades == pytest.approx([20 + 20 * number for number in range(FRAMES)], abs=4)
        told = np.array(COLOURS)
        assert np.abs(centres(made.pictures[0])[:7] - told).max() <= 5  # the file's own loss is in it
    if "rgb" not in case.pixels:
        assert made.tags == (given.tags[0] if given.tags[0] != 2 else case.matrix, 2 if case.full else 1)
    assert [[data for _, data in sound] for sound in made.sounds] == [
        [data for _, data in s] for s in given.sounds
    ]
    for a, b in zip(given.sounds, made.sounds, strict=True):
        assert [float(t) for t, _ in b] == pytest.approx([float(t) for t, _ in a], abs=1e-3)
    preview = seen(target.with_name("made.preview.mp4"))
    assert preview.times == given.times
    half = made.pictures[0].shape[1]
    for a, b in zip(given.pictures, preview.pictures, strict=True):
        assert np.abs(centres(a) - centres(b[:, :half])).max() <= 2
        assert np.abs(centres(a) - centres(b[:, half:])).max() <= 2
