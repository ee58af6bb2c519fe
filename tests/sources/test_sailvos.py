"""The SAIL-VOS reader: the release's layout, BMP or PNG, with and without the engine's depth."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_sequences_come_by_name_and_frames_in_order(root: Path):
    first, second = sailvos.sequences(root, "train")
    assert (first.id, second.id, first.fps, first.captions) == ("ah_1_mcs_1", "ah_3b_mcs_5", 8, ())
    assert first.frames(range(3))[:, 0, 0, 1].tolist() == [0, 1, 2]
    assert second.frames([2])[0, 0, 0].tolist() == [10, 2, 0]
    assert first.visible([0, 2])[:, 0, 0].tolist() == [0, 2]
    depth = first.depth(range(2))
    assert depth.dtype == np.float32 and depth[:, 0, 0].tolist() == [1.5, 2.5]


def test_missing_depth_says_what_to_do(root: Path):
    second = sailvos.sequences(root, "train")[1]
    with pytest.raises(InputError, match=r"no depth maps .*structure\.depth"):
        second.depth([0])


def test_a_folder_that_is_not_the_dataset(root: Path):
    with pytest.raises(InputError, match=r"valid\.json does not exist.*not a SAIL-VOS folder"):
        sailvos.sequences(root, "validation")


@pytest.mark.parametrize("content", ["{", "[]", '{"videos": []}', '{"videos": [], "images": [{}]}', "3"])
def test_a_listing_of_another_kind(root: Path, content: str):
    (root / "valid.json").write_text(content)
    with pytest.raises(InputError, match="is not a SAIL-VOS listing"):
        sailvos.sequences(root, "validation")


def test_a_listed_frame_that_is_missing(root: Path):
    (root / "ah_1_mcs_1/images/000002.bmp").unlink()
    with pytest.raises(InputError, match=r"000002\.bmp is listed in train\.json but does not exist"):
        sailvos.sequences(root, "train")


def test_no_pickle_is_ever_loaded(root: Path):
    np.save(root / "ah_1_mcs_1/visible/000000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        sailvos.sequences(root, "train")[0].visible([0])
