"""Video: what is stored comes back bit for bit; a broken file is one sentence that names it."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from test_video_matrix import Case, centres, patches, seen

from rmkit.errors import InputError
from rmkit.kit import video

RANDOM = np.random.default_rng(0)


def noise(frames: int = 5, height: int = 32, width: int = 48) -> np.ndarray:
    return RANDOM.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(32, 48), (31, 47), (33, 16)])  # odd sizes too: RGB has no chroma grid
def test_stored_clips_are_bit_exact(tmp_path: Path, size: tuple[int, int]):
    frames = noise(7, *size)
    video.write(tmp_path / "a.mp4", frames, 16)
    assert np.array_equal(video.read(tmp_path / "a.mp4"), frames)
    assert video.probe(tmp_path / "a.mp4") == video.VideoInfo(7, *size, Fraction(16))


def test_stream_gives_the_frames_one_by_one(tmp_path: Path):
    frames = noise(3)
    video.write(tmp_path / "a.mp4", frames, 8)
    streamed = list(video.stream(tmp_path / "a.mp4"))
    assert len(streamed) == 3 and all(np.array_equal(a, b) for a, b in zip(streamed, frames, strict=True))


def test_the_same_frames_give_the_same_bytes(tmp_path: Path):
    frames = noise()
    for name in ("a.mp4", "b.mp4"):
        video.write(tmp_path / name, frames, 16)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_same_frames_give_the_same_viewing_copy(tmp_path: Path):
    """Whatever lay in memory before: x264's macroblock tree reads what nobody has written."""
    still = noise(1, 24, 36)[0].repeat(8, 0).repeat(8, 1)
    frames = np.stack([np.roll(still, 2 * i, (0, 1)) for i in range(33)])
    held, made = [], set()
    for _ in range(25):
        held = [*held[-11:], np.full(RANDOM.integers(1, 3_000_000), 7, np.uint8)]
        video.write_viewing_copy(tmp_path / "a.mp4", frames.copy(), 8)
        made.add((tmp_path / "a.mp4").read_bytes())
    assert len(made) == 1


def test_viewing_copy_is_enlarged(tmp_path: Path):
    video.write_viewing_copy(tmp_path / "a.mp4", noise(3), 8, scale=2)
    assert video.probe(tmp_path / "a.mp4") == video.VideoInfo(3, 64, 96, Fraction(8))


@pytest.mark.parametrize(("height", "width", "matrix"), [(64, 96, 6), (51, 75, 6), (720, 1280, 1)])
def test_colours_of_a_viewing_copy_are_those_of_the_clip(
    tmp_path: Path, height: int, width: int, matrix: int
):
    """As a player shows them that goes by the file's tags; study videos are such copies."""
    frames = patches(Case("copy", size=(height, width)))[:2]
    video.write_viewing_copy(tmp_path / "a.mp4", frames, 8)
    found = seen(tmp_path / "a.mp4")
    assert found.tags == (matrix, 1)
    for shown, frame in zip(found.pictures, frames, strict=True):
        assert np.abs(centres(shown) - centres(frame)).max() <= 2


@pytest.mark.parametrize("wrong", [noise()[0], noise().astype(np.float32), noise()[..., :2]])
def test_only_rgb_bytes_are_written(tmp_path: Path, wrong: np.ndarray):
    with pytest.raises(ValueError, match="frames must be uint8"):
        video.write(tmp_path / "a.mp4", wrong, 8)


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "a.mp4"
    if kind == "truncated":
        video.write(path, noise(20), 16)
        path.write_bytes(path.read_bytes()[:-2000])  # the index is at the end
    elif kind == "cut after its index":
        video.write_viewing_copy(path, noise(20), 16)  # the index is in front
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "text":
        path.write_text("not a video")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated", "cut after its index"])
def test_a_broken_video_is_named(tmp_path: Path, kind: str):
    path = broken(tmp_path, kind)
    with pytest.raises(InputError, match=r"a\.mp4"):
        video.read(path)
    if kind != "cut after its index":
        with pytest.raises(InputError, match=r"a\.mp4"):
            video.probe(path)


def test_a_broken_picture_is_named(tmp_path: Path):
    for name, content in (("missing.png", None), ("text.png", b"no picture"), ("empty.png", b"")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            video.image(tmp_path / name)


def test_ranges_round_trip():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    unit = video.to_unit(frames)
    assert unit.dtype == np.float32 and unit.min() == -1 and unit.max() == 1
    assert np.array_equal(video.to_uint8((unit + 1) / 2), frames)
    assert video.to_uint8(np.array([-1.0, 2.0])).tolist() == [0, 255]


def test_evenly_spread_indices():
    assert video.evenly(5, 81) == [0, 20, 40, 60, 80]
    assert video.evenly(1, 9) == [0]


def test_contact_sheet_holds_every_frame():
    sheet = video.contact_sheet([("render", noise(3)), ("truth", noise(3))], width=96)
    assert sheet.width > 3 * 96 and sheet.height > 2 * 64
