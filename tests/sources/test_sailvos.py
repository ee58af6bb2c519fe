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
    (tmp_path / "train.json").write_text(
        json.dumps({"info": {"depth": sailvos.METRES}, "videos": videos, "images": images})
    )
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
    monkeypatch.setattr(json, "loads", lambda text, **how: parsed.append(text) or loads(text, **how))
    assert len(read(root, "train")) == len(read(root, "train")) == 2 and len(parsed) == 1
    content = loads(parsed[0])
    content["images"] = [entry for entry in content["images"] if entry["video"] == 0]
    (root / "train.json").write_text(json.dumps(content))
    os.utime(root / "train.json", ns=(1, 1))
    assert [sequence.id for sequence in read(root, "train")] == ["ah_1_mcs_1"] and len(parsed) == 2


def of_profile(root: Path) -> profile.Profile:
    content = profile.load("smoke").model_dump()
    content["data"] |= {"source": "sailvos", "root": str(root)}
    return profile.Profile.model_validate(content)


def test_the_profile_names_the_source_and_its_folder(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profile, "REPOSITORY", root)
    made = of_profile(root)
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


def listed(root: Path, images: list[dict], **more: object) -> list[sources.Sequence]:
    """Sequences of a listing; its pictures are made where they are not there."""
    for entry in images:
        file = root / entry["file_name"].replace("\\", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (root / "valid.json").write_text(json.dumps({"images": images, **more}))
    return read(root, "validation")


@pytest.mark.parametrize("key", ["video", "video_id", "vid_name", None])
@pytest.mark.parametrize("number", [int, str, "{:06d}".format, None])
def test_ids_and_numbers_of_every_kind_are_read_alike(tmp_path: Path, key: str | None, number):
    images = []
    for name in ("ah_2", "ah_10"):
        for i in reversed(range(12)):
            entry = {
                "id": 7,
                "file_name": f"{name}/images/{i}.bmp",
            }  # ids that repeat, names that sort as text do not
            entry |= {key: 1} if key else {}
            entry |= {"frame_id": number(i)} if number else {}
            images.append(entry)
    found = listed(tmp_path, images, videos=[{"id": 1, "name": "both"}])
    assert [each.id for each in found] == ["ah_10", "ah_2"]
    for each in found:
        assert [path.stem for path in each.images] == [str(i) for i in range(12)] and each.breaks == ()
        assert {path.parent for path in each.images} == {tmp_path / each.id / "images"}


@pytest.mark.parametrize("gap_in", ["both", "frame_id", "file_name"])
@pytest.mark.parametrize("step", [1, 2])
def test_a_gap_in_the_numbering_is_known(tmp_path: Path, gap_in: str, step: int):
    images = []
    for i in range(12):
        jumped = step * (i if i < 7 else i + 1)
        numbers = [jumped if gap_in in ("both", key) else step * i for key in ("frame_id", "file_name")]
        images.append({"frame_id": numbers[0], "file_name": f"v\\images\\{numbers[1]:06d}.bmp"})
    assert listed(tmp_path, images)[0].breaks == (7,)


def test_frame_ids_that_repeat_give_way_to_the_names(tmp_path: Path):
    images = [{"frame_id": i % 3, "file_name": f"v/images/{i}.bmp"} for i in range(11)]
    assert [path.stem for path in listed(tmp_path, images)[0].images] == [str(i) for i in range(11)]
    images = [{"frame_id": 1, "file_name": f"v/images/{name}.bmp"} for name in "ab"]
    with pytest.raises(InputError, match=r"valid\.json: v has pictures whose order is not known"):
        listed(tmp_path, images)


@pytest.mark.parametrize("name", ["0.bmp", "/v/images/0.bmp", "../v/0.bmp", "v/../../0.bmp"])
def test_a_picture_outside_a_video_is_refused(tmp_path: Path, name: str):
    (tmp_path / "valid.json").write_text(json.dumps({"images": [{"file_name": name, "frame_id": 0}]}))
    with pytest.raises(InputError, match=r"file_name must be <video>/images/"):
        read(tmp_path, "validation")


def test_masks_are_dropped_and_the_rest_is_kept_for_the_next_process(root: Path, monkeypatch):
    content = json.loads((root / "train.json").read_text())
    content["annotations"] = [{"id": i, "segmentation": [[1.5] * 8], "bbox": [0, 0, 4, 4]} for i in range(9)]
    (root / "train.json").write_text(json.dumps(content))
    kept, parsed = root / "kept" / "train.json", []
    monkeypatch.setattr(
        sailvos, "_parse", lambda path, parse=sailvos._parse: parsed.append(path) or parse(path)
    )
    first = sailvos.read(root, "train", root / "truth", kept)
    assert [each.id for each in first] == [
        "ah_1_mcs_1",
        "ah_3b_mcs_5",
    ] and "segmentation" not in kept.read_text()
    sailvos._content.cache_clear()  # as in another process
    assert sailvos.read(root, "train", root / "truth", kept) == first and len(parsed) == 1
    os.utime(root / "train.json", ns=(1, 1))
    sailvos.read(root, "train", root / "truth", kept)
    assert len(parsed) == 2


def test_the_digest_follows_listings_and_captions_and_reads_no_picture(root: Path, monkeypatch):
    data = of_profile(root).data
    before = sources.digest(data)
    monkeypatch.setattr(sources.Pictures, "fingerprints", None)
    (root / "ah_1_mcs_1" / "images" / "000001.bmp").write_bytes(b"")
    assert sources.digest(data) == before
    (root / "ah_1_mcs_1" / "captions.json").write_text("[]")
    captioned = sources.digest(data)
    os.utime(root / "train.json", ns=(1, 1))
    assert len({before, captioned, sources.digest(data)}) == 3
    assert sources.digest(data.model_copy(update={"root": str(root / "nowhere")})) == ""


def test_depth_of_sail_vos_3d_becomes_metres_by_its_projection(root: Path):
    near, focal = 0.15, (1.2, 1.9)  # of an infinite, reversed projection, points as rows
    projection = np.array([[focal[0], 0, 0, 0], [0, focal[1], 0, 0], [0, 0, 0, -1], [0, 0, near, 0]])
    distance = np.array([[1.0, 2.5, 40.0, 900.0], [3.0, 7.0, 1e4, np.inf]])
    points = np.array([[0.3, -0.2, -z, 1] for z in distance.flat[:-1]]) @ projection
    device = np.append(points[:, 2] / points[:, 3], 0).reshape(2, 4)
    coded = (6 * (device + 4e-5)).astype(np.float32)
    assert np.isclose(coded[1, 3], sailvos.SKY)
    content = json.loads((root / "train.json").read_text())
    del content["info"]  # as SAIL-VOS 3D has it
    (root / "train.json").write_text(json.dumps(content))
    video = root / "ah_1_mcs_1"
    np.save(video / "depth" / "000001.npy", coded)
    first = read(root, "train")[0]
    for asked in (first.depth, first.depth_fingerprints):
        with pytest.raises(
            InputError, match=r"rage_matrices/000001\.npz does not exist: .*device coordinates"
        ):
            asked([1])
    (video / "rage_matrices").mkdir()
    np.savez(video / "rage_matrices" / "000001.npz", P_inv=np.linalg.inv(projection), V=np.eye(4))
    assert np.allclose(first.depth([1])[0], distance, rtol=2e-2) and first.depth([1]).dtype == np.float32
    assert np.allclose(first.depth([1])[0].flat[:3], distance.flat[:3], rtol=1e-4)
    before = first.depth_fingerprints([1])
    np.savez(video / "rage_matrices" / "000001.npz", V=np.eye(4))
    assert first.depth_fingerprints([1]) != before
    with pytest.raises(InputError, match=r"000001\.npz cannot be read .*P_inv"):
        first.depth([1])


@pytest.mark.parametrize("suffix", ["bmp", "png", "jpg"])
def test_half_a_picture_and_mixed_sizes_are_known_from_headers(root: Path, suffix: str):
    images = [{"file_name": f"v/images/{i:06d}.{suffix}", "frame_id": i} for i in range(4)]
    (video,) = listed(root, images)
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    for path in video.images:
        Image.fromarray(noise).save(path)
    video.check(range(4))
    whole = video.images[2].read_bytes()
    for kept in (0, 20, len(whole) // 2, len(whole) - 40):
        video.images[2].write_bytes(whole[:kept])
        with pytest.raises(InputError, match=rf"000002\.{suffix} is not a readable picture"):
            video.check(range(4))
    Image.fromarray(noise[:16]).save(video.images[2])
    with pytest.raises(
        InputError, match=r"has 40x16 pixels and 000000\.\w+ has 40x24 .*pictures of v must be of one"
    ):
        video.check(range(4))
    video.images[2].unlink()
    with pytest.raises(InputError, match=rf"000002\.{suffix} does not exist"):
        video.check(range(4))


def test_no_pickle_is_ever_loaded(root: Path):
    np.save(root / "ah_1_mcs_1/visible/000000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"000000\.npy cannot be read .*allow_pickle"):
        read(root, "train")[0].visible([0])


def test_a_listing_without_images_is_a_sentence(root: Path):
    (root / "train.json").write_text(json.dumps({"videos": []}))
    with pytest.raises(InputError, match=r"it has no `images`, a list with a file_name for each"):
        read(root, "train")


@pytest.mark.parametrize("content", ["[", "{}", '[{"first_frame": 0}]', '["a street"]'])
def test_captions_that_are_none_are_a_sentence(root: Path, content: str):
    (root / "ah_1_mcs_1" / "captions.json").write_text(content)
    with pytest.raises(InputError, match=r"captions\.json .*: correct it, or move it away"):
        read(root, "train")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_captions_as_any_editor_saves_them(root: Path, encoding: str):
    shot = {"first_frame": 0, "caption": "a café", "subsets": []}
    content = json.dumps([shot], ensure_ascii=False).encode(encoding)
    (root / "ah_1_mcs_1" / "captions.json").write_bytes(content)
    assert read(root, "train")[0].captions == (shot,)
