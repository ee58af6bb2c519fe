"""CARLA-LOC: the release's layout read at its own rate, a sentence for each defect, and the diorama's road in its place."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rmkit import profile, sources
from rmkit.baselines import truth
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.paths import REPOSITORY

HEIGHT, WIDTH = 48, 64


def picture(index: int, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """A textured wall that moves by a pixel a frame, its first pixel the frame's number."""
    wall = np.random.default_rng(seed).integers(40, 200, (size[0] // 4, 40, 3)).astype(np.uint8)
    frame = np.kron(wall, np.ones((4, 4, 1), np.uint8))[:, index : index + size[1]].copy()
    frame[:8, :8] = index
    return frame


def write_drive(root: Path, drive: str, frames: int, first: int = 1, seed: int = 0) -> Path:
    """`drive` is Town/Weather/kind; names are not padded, so their order by text is another one."""
    folder = root / drive / "stereo_l"
    folder.mkdir(parents=True)
    for i in range(frames):
        Image.fromarray(picture(i, seed)).save(folder / f"{first + i}_left.png")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two towns of the real layout, one with both kinds, and the pickle that is never opened."""
    root = tmp_path / "CARLA-LOC"
    for number, drive in enumerate(("Town01/ClearNoon/dynamic", "Town01/ClearNoon/static")):
        write_drive(root, drive, 24, seed=number)
    write_drive(root, "Town10HD/ClearNoon/static", 24, first=95, seed=2)
    write_drive(root, "Town10HD/RainyNight/static", 24, seed=2)
    (root / "Town01" / "ClearNoon" / "dynamic" / "stereo_r").mkdir()
    for town in ("Town01", "Town10HD"):
        (root / town / "common_data.pkl").write_bytes(b"cos\nabort\n(tR.")  # ends whoever loads it
    (root / "Town01" / "ClearNoon" / "dynamic" / "stereo_l" / "._1_left.png").write_bytes(b"a Mac's")
    return root


@pytest.fixture
def settings(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> profile.Profile:
    """Smoke on that folder: 9 frames at 16 a second."""
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    return with_data(root)


def with_data(
    root: Path, validation_clips: int = 3, clips: dict | None = None, **data: object
) -> profile.Profile:
    content = profile.load("smoke").model_dump()
    content["data"] = {"source": "carla_loc", "root": str(root), "train_clips": 0}
    content["data"] |= {"validation_clips": validation_clips, **data}
    content["clips"] |= {"height": 32, "width": 48} | (clips or {})
    return profile.Profile.model_validate(content)


def test_drives_come_by_name_and_pictures_by_number(settings: profile.Profile, root: Path) -> None:
    sources.prepare(settings)
    drives = sources.sequences(settings, "validation")
    names = ["Town01_ClearNoon_dynamic", "Town01_ClearNoon_static", "Town10HD_ClearNoon_static"]
    assert [drive.id for drive in drives] == names
    last = drives[-1]
    assert (last.town, last.kind, last.fps, last.truth, len(last)) == ("Town10HD", "static", 20, None, 24)
    for drive in drives:  # 95, 96, ..., 100: by text 100 comes first
        assert drive.frames(range(24))[:, 0, 0, 0].tolist() == list(range(24))
    assert sources.sequences(settings, "train") == []
    assert sources.describe(settings) == f"{root}: drives in ClearNoon: 3, with 72 frames at 20 a second"
    shutil.rmtree(root / "Town01")
    (rain,) = sources.sequences(with_data(root, weather="RainyNight"), "validation")
    assert rain.id == "Town10HD_RainyNight_static"


@pytest.mark.parametrize(
    ("fps", "count", "data", "shown"),
    [
        (16, 9, {}, [0, 1, 2, 3, 5, 6, 7, 8, 10]),  # 20 into 16: of five frames one is left out
        (16, 9, {"fps": 8}, [0, 0, 1, 1, 2, 2, 3, 3, 4]),  # as the diorama: each twice
        (20, 9, {}, list(range(9))),
        (10, 9, {}, list(range(0, 18, 2))),
        (8, 9, {}, [0, 2, 5, 7, 10, 12, 15, 17, 20]),
    ],
)
def test_the_rate_is_brought_to_the_profiles_without_stretching_time(
    root: Path, settings: profile.Profile, fps: int, count: int, data: dict, shown: list[int]
) -> None:
    made = with_data(root, clips={"fps": fps, "frames": count}, **data)
    for clip in sampling.sample(made):
        frames = video.read(sampling.path(made, clip))
        # The crop of 48x64 to 32x48 leaves out the number: the wall says which frame it is.
        wanted = sampling.sequence_of(made, clip).frames([clip.source_frames[0] + k for k in shown])
        assert np.array_equal(frames, sampling.crop_to(wanted, 32, 48))
        source = data.get("fps", 20)
        assert all(0 <= k / fps - i / source < 1 / source for k, i in enumerate(shown))
        assert clip.source_frames == tuple(dict.fromkeys(clip.source_frames[0] + k for k in shown))
        assert sampling.repeats(clip, count) == max(1, fps // source)


def test_a_truth_is_cut_as_the_clip_was(root: Path, settings: profile.Profile) -> None:
    """Where frames are left out as well; clips of a drive do not overlap."""
    made = with_data(root, 6)
    for drive in sources.sequences(made, "validation"):
        video.write(made.layout.truth / f"{drive.id}.mp4", 255 - drive.frames(range(len(drive))), drive.fps)
    clips = sampling.sample(made)
    assert [clip.source_frames[0] for clip in clips] == [0, 11] * 3
    for clip in clips:
        inverted = 255 - video.read(sampling.path(made, clip))
        assert np.array_equal(np.stack(list(truth.stream(made, clip))), inverted)


def test_a_slower_rate_that_does_not_divide_is_refused(root: Path, settings: profile.Profile) -> None:
    with pytest.raises(InputError, match=r"clips\.fps is 24 and the source has 20"):
        sampling.sample(with_data(root, clips={"fps": 24}))


def rewrite(name: str) -> Callable[[Path], None]:
    """A picture of the first drive under another name."""
    return lambda camera: (camera / "24_left.png").rename(camera / name)


def cut_in_half(camera: Path) -> None:
    file = camera / "7_left.png"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DEFECTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no root": (lambda camera: shutil.rmtree(camera.parents[3]), r"CARLA-LOC does not exist: data/README"),
    "no town": (
        lambda camera: [shutil.rmtree(town) for town in camera.parents[3].iterdir()],
        r"CARLA-LOC has no folder Town01, Town02 and so on",
    ),
    "an empty town": (
        lambda camera: shutil.rmtree(camera.parents[2]) or camera.parents[2].mkdir(),
        r"Town01 has no ClearNoon/dynamic and no ClearNoon/static \(its drives: none\)",
    ),
    "no such weather": (
        lambda camera: shutil.rmtree(camera.parents[3] / "Town10HD/ClearNoon"),
        r"Town10HD has no ClearNoon/dynamic .*its drives: RainyNight/static\).*data\.weather",
    ),
    "an empty drive": (
        lambda camera: [file.unlink() for file in camera.iterdir()],
        r"Town01/ClearNoon/dynamic/stereo_l holds no picture .*: the drive is empty",
    ),
    "no left camera": (shutil.rmtree, r"Town01/ClearNoon/dynamic/stereo_l does not exist: the left camera"),
    "a gap": (
        lambda camera: (camera / "13_left.png").unlink(),
        r"dynamic/stereo_l has a gap: 14_left\.png follows 12_left\.png",
    ),
    "a number twice": (
        rewrite("0023_left.png"),
        r"has a gap: (0023|23)_left\.png follows (0023|23)_left\.png",
    ),
    "mixed sizes": (
        lambda camera: Image.fromarray(picture(8, size=(HEIGHT, 32))).save(camera / "9_left.png"),
        r"9_left\.png has 32x48 pixels and 1_left\.png has 64x48",
    ),
    "no number": (rewrite("last.png"), r"last\.png has no number in its name"),
    "half a file": (cut_in_half, r"7_left\.png is not a readable picture"),
    "an empty file": (
        lambda camera: (camera / "7_left.png").write_bytes(b""),
        r"7_left\.png is not a readable picture",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_a_sentence_before_any_clip(root: Path, settings: profile.Profile, name: str) -> None:
    spoil, said = DEFECTS[name]
    spoil(root / "Town01" / "ClearNoon" / "dynamic" / "stereo_l")
    with pytest.raises(InputError, match=said) as refused:
        sampling.sample(settings)
    assert len(str(refused.value).splitlines()) == 1
    assert not list(settings.layout.clips.glob("*.mp4"))


def test_the_digest_follows_names_and_captions(root: Path, settings: profile.Profile) -> None:
    drive, seen = root / "Town01" / "ClearNoon" / "dynamic", [sources.digest(settings.data)]
    (drive / "stereo_l" / "13_left.png").unlink()
    seen.append(sources.digest(settings.data))
    (drive / "captions.json").write_text("[]")
    assert len({*seen, sources.digest(settings.data)}) == 3
    nowhere = settings.data.model_copy(update={"root": str(root / "nowhere")})
    assert sources.digest(nowhere) not in seen  # and no error: 07_carla says what is missing


@pytest.mark.parametrize("kept", range(8, 1000, 90))
def test_a_picture_cut_anywhere_is_a_sentence(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "1.png"
    Image.fromarray(picture(1)).save(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match="is not a readable picture"):
        video.image(file)


def test_from_the_command_line_it_is_exit_code_2(
    root: Path, settings: profile.Profile, tmp_path: Path
) -> None:
    DEFECTS["a gap"][0](root / "Town01" / "ClearNoon" / "dynamic" / "stereo_l")
    file, name = tmp_path / "own.yaml", f"pytest-{os.getpid()}"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json") | {"name": name}))
    command = [sys.executable, "-m", "rmkit", "data", "--profile", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and not (REPOSITORY / "results" / name).exists()
    assert done.stderr.startswith("rmkit: ") and "has a gap: 14_left.png follows 12_left.png" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_dioramas_road_is_unpacked_into_this_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    run = profile.load("mini")
    made = run.demo("carla", data=run.carla.model_dump())
    with pytest.raises(InputError, match="does not exist"):
        sources.sequences(made, "validation")
    sources.prepare(made)
    drives = sources.sequences(made, "validation")
    scenes = sorted((REPOSITORY / "data/diorama/clips/road").glob("*/render.mp4"))
    assert len(drives) == len(scenes) == 8 and sources.sequences(made, "train") == []
    root = made.layout.data / "carla_loc"
    assert (root / "Town01/ClearNoon/dynamic/stereo_l/000016.png").is_file()
    assert len({drive.town for drive in drives}) == len(
        scenes
    )  # a town is a scene, which the statistics count
    for scene, drive in zip(scenes, drives, strict=True):
        assert (
            drive.kind == "dynamic" and drive.captions[0]["first_frame"] == 0 and drive.captions[0]["caption"]
        )
        assert np.array_equal(drive.frames(range(len(drive))), video.read(scene))
        assert np.array_equal(video.read(drive.truth), video.read(scene.with_name("truth.mp4")))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    sources.prepare(made)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    # Each shot is one clip: no cut is found where there is none.
    assert len(sampling.sample(made)) == len(drives)
