"""The SAIL-VOS reader: the release's layout, BMP or PNG, with and without the engine's depth."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmkit import profile, sources
from rmkit.errors import InputError
from rmkit.sources import sailvos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two videos, listed out of order, the first by the name SAIL-VOS gives and with depth."""
    images = []
    for number, name in enumerate(("ah_1_mcs_1", "ah_3b_mcs_5")):
        for kind in ("images", "visible", "depth"):
            (tmp_path / name / kind).mkdir(parents=True)
        for i in reversed(range(3)):
            Image.new("RGB", (8, 4), (10 * number, i, 0)).save(tmp_path / name / f"images/{i:06d}.bmp")
            np.save(tmp_path / name / f"visible/{i:06d}.npy", np.full((4, 8), i))
            if number == 0:
                np.save(tmp_path / name / f"depth/{i:06d}.npy", np.full((4, 8), 1.5 + i, np.float16))
            images.append({"file_name": f"{name}/images/{i:06d}.bmp", "frame_id": i, "video": number})
    videos = [{"id": 0, "name": "ah_1_mcs_1"}, {"id": 1, "name": "ah_3b_mcs_5"}]
    (tmp_path / "train.json").write_text(json.dumps({"videos": videos, "images": images}))
    return tmp_path


def read(root: Path, split: str) -> list[sources.Sequence]:
    return sailvos.read(root, split, truths=root / "truth")


def test_sequences_come_by_name_and_frames_in_order(root: Path):
    first, second = read(root, "train")
    assert (first.id, second.id, first.fps, first.captions) == ("ah_1_mcs_1", "ah_3b_mcs_5", 8, ())
    assert first.frames(range(3))[:, 0, 0, 1].tolist() == [0, 1, 2]
    assert second.frames([2])[0, 0, 0].tolist() == [10, 2, 0]
    assert first.visible([0, 2])[:, 0, 0].tolist() == [0, 2]
    assert [frame[0, 0, 1] for frame in first.stream()] == [0, 1, 2] and len(first) == 3
    depth = first.depth(range(2))
    assert depth.dtype == np.float32 and depth[:, 0, 0].tolist() == [1.5, 2.5]


def test_missing_depth_says_what_to_do(root: Path):
    second = read(root, "train")[1]
    with pytest.raises(InputError, match=r"no depth maps .*structure\.depth"):
        second.depth([0])
    with pytest.raises(InputError, match=r"no depth maps .*structure\.depth"):
        second.depth_fingerprints([0])


def test_fingerprints_follow_the_content(root: Path):
    first = read(root, "train")[0]
    before = first.fingerprints(range(3)) | first.depth_fingerprints([1])
    assert list(before) == ["0", "1", "2"] and len(set(before.values())) == 3
    Image.new("RGB", (8, 4), (7, 7, 7)).save(first.images[2])
    after = first.fingerprints(range(3))
    assert after["0"] == before["0"] and after["2"] != before["2"]


def test_a_listing_is_parsed_once_and_again_when_it_changes(root: Path, monkeypatch: pytest.MonkeyPatch):
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
    assert len(read(root, "train")) == len(read(root, "train")) == 2 and len(parsed) == 1
    content = loads(parsed[0])
    content["images"] = [entry for entry in content["images"] if entry["video"] == 0]
    (root / "train.json").write_text(json.dumps(content))
    os.utime(root / "train.json", ns=(1, 1))
    assert [sequence.id for sequence in read(root, "train")] == ["ah_1_mcs_1"] and len(parsed) == 2


def test_the_profile_names_the_source_and_its_folder(root: Path):
    content = profile.load("smoke").model_dump()
    content["data"] |= {"source": "sailvos", "root": str(root)}
    made = profile.Profile.model_validate(content)
    assert [sequence.id for sequence in sources.sequences(made, "train")] == ["ah_1_mcs_1", "ah_3b_mcs_5"]
    (root / "valid.json").write_text((root / "train.json").read_text())
    sources.prepare(made)
    assert sources.describe(made) == f"{root}: 2 validation sequences"


def test_an_unknown_source_is_refused_with_the_known_ones(tmp_path: Path):
    content = profile.load("smoke").model_dump(mode="json")
    content["data"]["source"] = "kitti"
    (tmp_path / "own.yaml").write_text(json.dumps(content))
    said = r"'data\.source': there is no rmkit/sources/kitti\.py; known are carla_loc, diorama, diorama_road, sailvos\.$"
    with pytest.raises(InputError, match=said):
        profile.load(tmp_path / "own.yaml")


def test_a_folder_that_is_not_the_dataset(root: Path):
    with pytest.raises(InputError, match=r"valid\.json does not exist.*not a SAIL-VOS folder"):
        read(root, "validation")


@pytest.mark.parametrize("content", ["{", "[]", '{"videos": []}', '{"videos": [], "images": [{}]}', "3"])
def test_a_listing_of_another_kind(root: Path, content: str):
    (root / "valid.json").write_text(content)
    with pytest.raises(InputError, match="is not a SAIL-VOS listing"):
        read(root, "validation")


def test_a_listed_frame_that_is_missing(root: Path):
    (root / "ah_1_mcs_1/images/000002.bmp").unlink()
    with pytest.raises(InputError, match=r"000002\.bmp is listed in train\.json but does not exist"):
        read(root, "train")


def test_no_pickle_is_ever_loaded(root: Path):
    np.save(root / "ah_1_mcs_1/visible/000000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read(root, "train")[0].visible([0])
