"""Sampling: 4k+1 frames at 16 fps by repetition, never across a cut, cropped and never stretched."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmkit import profile, sources
from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.method import sampling, shots
from rmkit.paths import REPOSITORY
from rmkit.sources import sailvos

HEIGHT, WIDTH = 32, 48


def scene(seed: int, frames: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A wall of coarse squares with a bright bar that moves: [F, H, W, 3]."""
    random = np.random.default_rng(seed)
    wall = np.kron(random.integers(0, 200, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    out = wall[None].repeat(frames, axis=0)
    for i in range(frames):
        out[i, 4:12, i % (width - 8) : i % (width - 8) + 6] = 255
    return out


def dataset(root: Path, sequences: dict[str, dict[str, np.ndarray]]) -> None:
    """A SAIL-VOS folder from {split: {name: frames}}."""
    for split, videos in sequences.items():
        images = []
        for number, (name, frames) in enumerate(videos.items()):
            folder = root / name / "images"
            folder.mkdir(parents=True)
            for i, frame in enumerate(frames):
                Image.fromarray(frame).save(folder / f"{i:06d}.bmp")
                images.append({"video": number, "frame_id": i, "file_name": f"{name}/images/{i:06d}.bmp"})
        entries = [{"id": i, "name": name} for i, name in enumerate(videos)]
        store.write_json(root / sailvos.SPLIT_FILES[split], {"videos": entries, "images": images})


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """make(sequences, **changes) gives a profile whose dataset holds the sequences."""
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)

    def of(sequences: dict, train: int = 0, validation: int = 1, **size) -> profile.Profile:
        dataset(tmp_path / "source", sequences)
        content = profile.load("smoke").model_dump()
        content["data"] |= {
            "source": "sailvos",
            "root": str(tmp_path / "source"),
            "train_clips": train,
            "validation_clips": validation,
        }
        content["clips"] = {"fps": 16, "frames": 9, "height": HEIGHT, "width": WIDTH} | size
        return profile.Profile.model_validate(content)

    return of


def test_frames_are_repeated_to_16_fps_and_stored_bit_exactly(make):
    frames = scene(0, 5)
    made = make({"validation": {"v": frames}})
    (clip,) = sampling.sample(made)
    assert clip.source_frames == (0, 1, 2, 3, 4) and clip.id == "v_000000" and clip.split == "validation"
    stored = video.read(sampling.path(made, clip))
    assert np.array_equal(stored, frames.repeat(2, axis=0)[:9])
    assert video.probe(sampling.path(made, clip)).fps == 16
    assert sampling.load(made) == [clip] and sampling.load(made, "train") == []
    sampling.check(made, [clip])


def test_no_clip_crosses_a_cut(make):
    frames = np.concatenate([scene(1, 7), scene(2, 12)])
    assert shots.find_cuts(frames, 2.0, 8) == [7]
    made = make({"validation": {"v": frames}}, validation=3)
    starts = [clip.source_frames[0] for clip in sampling.sample(made)]
    assert starts == [0, 7, 12]


def set_data(made: profile.Profile, **changes: object) -> profile.Profile:
    content = made.model_dump()
    content["data"] |= changes
    return profile.Profile.model_validate(content)


@pytest.mark.parametrize(
    ("stride", "clips"), [(41, 1106), (20, 1658), (10, 2835), (8, 3420), (5, 5210), (4, 6397)]
)
def test_windows_in_sail_vos(stride: int, clips: int):
    """How many clips its shots hold, and that the stride found for as many is no smaller."""
    found = json.loads((REPOSITORY / "data" / "paper" / "sailvos_shots.json").read_text())["shots"]
    spare = [frames - 41 for video in found for frames in video]
    assert shots.windows(spare, stride) == clips
    largest = shots.largest_stride(spare, 41, clips)
    assert largest >= stride and shots.windows(spare, largest) >= clips
    assert largest == 41 or shots.windows(spare, largest + 1) < clips
    assert shots.largest_stride(spare, 41, 10**6) == 1


def test_training_clips_overlap_as_far_as_they_must_and_benchmark_clips_never(make):
    made = make({"train": {"v": scene(0, 14)}, "validation": {"w": scene(1, 14)}}, train=4, validation=2)
    starts = {split: [] for split in ("train", "validation")}
    for clip in sampling.sample(made):
        starts[clip.split].append(clip.source_frames[0])
    assert starts == {"train": [0, 3, 6, 9], "validation": [0, 5]}
    asked = set_data(made, train_clips=3, stride={"train": 2, "validation": 9})
    assert [clip.id for clip in sampling.sample(asked)] == [
        "v_000000",
        "v_000004",
        "v_000008",
        "w_000000",
        "w_000009",
    ]
    with pytest.raises(InputError, match=r"data\.stride\.validation is 4 and a clip spans 5 frames"):
        sampling.sample(set_data(made, stride={"validation": 4}))
    with pytest.raises(InputError, match=r"gives 10 train clips of 9 frames and the profile asks for 11"):
        sampling.sample(set_data(made, train_clips=11))


def test_no_clip_crosses_a_gap_in_the_numbering(make, tmp_path: Path):
    made = make({"validation": {"v": scene(0, 14)}}, validation=2)
    listing = json.loads((tmp_path / "source" / "valid.json").read_text())
    listing["images"] = [entry for entry in listing["images"] if entry["frame_id"] != 4]
    store.write_json(tmp_path / "source" / "valid.json", listing)
    chosen = sampling.sample(set_data(made, validation_clips=1))
    shown = sampling.sequence_of(made, chosen[0]).frames(chosen[0].source_frames)
    assert np.array_equal(shown, scene(0, 14)[5:10])
    with pytest.raises(InputError, match="gives 1 validation clips"):
        sampling.sample(made)


def test_found_cuts_are_kept_and_given_ones_decode_nothing(make, tmp_path: Path, monkeypatch):
    made = make({"validation": {"v": np.concatenate([scene(1, 7), scene(2, 12)])}}, validation=3)
    chosen = sampling.choose(made)
    monkeypatch.setattr(sources.Pictures, "frames", None)  # nothing is decoded from here on
    assert sampling.choose(made) == chosen
    given = set_data(made, cuts=str(tmp_path / "cuts.json"), validation_clips=2)
    store.write_json(tmp_path / "cuts.json", {"v": [9]})
    assert [each.clip.id for each in sampling.choose(given)] == ["v_000000", "v_000014"]
    for wrong, said in (
        ("[]", "is not a list of cuts such as"),
        ("{", "is not a list of cuts such as"),
        ('{"w": []}', r"does not name v: give it \[\]"),
        ('{"v": [0]}', "whole numbers from 1 to 18"),
        ('{"v": [19]}', "whole numbers from 1 to 18"),
        ('{"v": ["3"]}', "whole numbers from 1 to 18"),
        ('{"v": 3}', "whole numbers from 1 to 18"),
    ):
        (tmp_path / "cuts.json").write_text(wrong)
        with pytest.raises(InputError, match=said):
            sampling.choose(given)
    monkeypatch.undo()


def test_a_video_of_both_splits_is_left_out_of_training(make, tmp_path: Path, capsys):
    made = make({"train": {"v": scene(0, 5), "w": scene(1, 5)}, "validation": {"x": scene(2, 5)}}, train=1)
    train = (tmp_path / "source" / "train.json").read_text()
    (tmp_path / "source" / "valid.json").write_text(train.replace("w/images", "x/images"))  # v stands in both
    chosen = sampling.sample(set_data(made, validation_clips=2))
    assert [(clip.split, clip.sequence) for clip in chosen] == [
        ("train", "w"),
        ("validation", "v"),
        ("validation", "x"),
    ]
    assert "left out of training, as the validation split has them too: v\n" in capsys.readouterr().out


def test_pictures_that_cannot_be_used_are_known_before_any_is_decoded(make, tmp_path: Path, monkeypatch):
    made = make({"validation": {"v": scene(0, 5), "w": scene(1, 5)}}, validation=2)
    monkeypatch.setattr(sources.Pictures, "frames", None)
    picture = tmp_path / "source/w/images/000003.bmp"
    Image.fromarray(scene(0, 1, 40, 40)[0]).save(picture)
    with pytest.raises(
        InputError, match=r"000003\.bmp has 40x40 pixels .* pictures of w must be of one size"
    ):
        sampling.sample(made)
    store.write_json(tmp_path / "cuts.json", {"v": [], "w": []})
    picture.write_bytes(picture.read_bytes()[:99])
    with pytest.raises(InputError, match=r"000003\.bmp is not a readable picture \(it is cut short"):
        sampling.sample(set_data(made, cuts=str(tmp_path / "cuts.json")))


def test_a_second_run_reads_no_picture_and_the_listings_once(make, tmp_path: Path, monkeypatch):
    made = make({"train": {"v": scene(0, 9)}, "validation": {"w": scene(1, 5)}}, train=3)
    chosen = sampling.sample(made)
    for picture in (tmp_path / "source").glob("*/images/*.bmp"):
        os.utime(picture, ns=(1, 1))  # as a copy's
    times = [sampling.path(made, clip).stat().st_mtime_ns for clip in chosen]
    sampling.sample(made)
    assert [sampling.path(made, clip).stat().st_mtime_ns for clip in chosen] == times
    read = []
    monkeypatch.setattr(
        sailvos, "read", lambda *given, real=sailvos.read: read.append(given[1]) or real(*given)
    )
    for name in ("frames", "fingerprints", "check"):
        monkeypatch.setattr(sources.Pictures, name, None)
    assert sampling.sample(made) == chosen
    assert {sampling.sequence_of(made, clip).id for clip in chosen} == {"v", "w"}
    assert sorted(read) == ["train", "validation"]


def test_movement_is_no_cut():
    assert shots.find_cuts(scene(3, 20), 2.0, 8) == []


def test_captions_are_those_of_the_shot(make, tmp_path: Path):
    made = make({"validation": {"v": np.concatenate([scene(1, 5), scene(2, 5)])}}, validation=2)
    entries = [
        {"first_frame": 0, "caption": "one", "subsets": []},
        {"first_frame": 5, "caption": "two", "subsets": ["fast"]},
    ]
    store.write_json(tmp_path / "source" / "v" / "captions.json", entries)
    first, second = sampling.sample(made)
    assert (first.caption, second.caption, second.subsets) == ("one", "two", ("fast",))
    assert sampling.load(made) == [first, second]


def test_clips_are_spread_over_the_split(make):
    made = make({"validation": {f"v{i}": scene(i, 10) for i in range(4)}}, validation=3)
    chosen = sampling.sample(made)
    assert [clip.id for clip in chosen] == ["v0_000000", "v2_000000", "v3_000005"]


def test_the_centre_is_cropped(make):
    frames = scene(0, 5, 48, 80)
    made = make({"validation": {"v": frames}})
    (clip,) = sampling.sample(made)
    assert np.array_equal(video.read(sampling.path(made, clip))[0], frames[0, 8:40, 16:64])


def test_a_source_smaller_than_the_clip_is_refused(make):
    made = make({"validation": {"v": scene(0, 5)}}, height=64)
    with pytest.raises(InputError, match="source frames are 32x48 and the profile asks for 64x48"):
        sampling.sample(made)


def test_a_rate_that_is_no_multiple_of_the_source_is_refused(make):
    made = make({"validation": {"v": scene(0, 5)}}, fps=20)
    with pytest.raises(InputError, match=r"clips\.fps is 20 and the source has 8"):
        sampling.sample(made)


def test_too_few_clips_are_refused(make):
    made = make({"validation": {"v": scene(0, 9)}}, validation=2)
    with pytest.raises(InputError, match=r"gives 1 validation clips of 9 frames and the profile asks for 2"):
        sampling.sample(made)


def test_a_clip_of_another_profile_is_refused(make):
    made = make({"validation": {"v": scene(0, 5)}})
    (clip,) = sampling.sample(made)
    video.write(sampling.path(made, clip), scene(0, 9), 8)
    with pytest.raises(InputError, match="has 9 frames of 32x48 at 8 a second"):
        sampling.check(made, [clip])


def test_a_second_run_writes_nothing_and_a_changed_frame_its_clip_only(make, tmp_path: Path):
    made = make({"validation": {"v": scene(0, 5), "w": scene(1, 5)}}, validation=2)
    chosen = sampling.sample(made)
    times = [sampling.path(made, clip).stat().st_mtime_ns for clip in chosen]
    assert sampling.sample(made) == chosen
    assert [sampling.path(made, clip).stat().st_mtime_ns for clip in chosen] == times
    Image.fromarray(scene(1, 5)[3]).save(tmp_path / "source/w/images/000002.bmp")
    sampling.sample(made)
    assert sampling.path(made, chosen[0]).stat().st_mtime_ns == times[0]
    assert sampling.path(made, chosen[1]).stat().st_mtime_ns != times[1]


def test_loading_before_sampling_is_a_sentence(make):
    with pytest.raises(InputError, match="run 01_data_prep"):
        sampling.load(make({"validation": {"v": scene(0, 5)}}))


@pytest.mark.parametrize(("count", "times", "needed"), [(33, 2, 17), (81, 2, 41), (9, 1, 9)])
def test_distinct_frames(count: int, times: int, needed: int):
    assert sampling.distinct(count, times) == needed
    assert len(sampling.repeat(np.arange(needed), times, count)) == count
