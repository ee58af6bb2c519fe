"""Profiles: all that ship are valid, a mistake is one sentence that names file, key and what was expected."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from rmkit import profile
from rmkit.errors import InputError

SHIPPED = sorted(path.stem for path in profile.PROFILES.glob("*.yaml"))


def test_four_profiles_ship():
    assert SHIPPED == ["consumer", "mini", "paper", "smoke"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_is_valid_and_named_as_its_file(name: str):
    assert profile.load(name).name == name


def test_paper_profile_says_what_the_paper_says():
    paper = profile.load("paper")
    assert (paper.clips.frames, paper.clips.height, paper.clips.width, paper.clips.fps) == (81, 800, 1200, 16)
    assert (paper.data.train_clips, paper.data.validation_clips, paper.train.rank) == (3050, 100, 32)
    assert paper.anchors.prompt == "make it look photorealistic"
    assert (paper.identity.threshold, paper.identity.over) == (0.4, "mean")


def test_smoke_uses_the_models_of_mini_and_a_folder_of_its_own():
    mini, smoke = profile.load("mini"), profile.load("smoke")
    assert smoke.models == mini.models
    assert smoke.layout.root != mini.layout.root


def test_experts_meet_at_the_boundary():
    for name in SHIPPED:
        train = profile.load(name).train
        assert train.low.sigma == (0.0, 0.875) and train.high.sigma == (0.875, 1.0)


def test_profile_is_frozen():
    with pytest.raises(ValidationError):
        profile.load("mini").seed = 1


def test_ours_lists_what_the_paper_leaves_open():
    rows = {key: value for key, value, _ in profile.ours(profile.load("paper"))}
    assert rows["train.low.learning_rate"] == 1e-4
    assert "train.rank" not in rows and "clips.frames" not in rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clips": {"frames": 32}}, "clips.frames must be 4k+1 for the Wan VAE, not 32"),
        ({"clips": {"height": 100}}, "must be multiples of 16, not 100x144"),
        ({"train": {"learning_rat": 1}}, "'train.learning_rat': there is no such setting"),
        ({"train": {"gradient_clip": "low"}}, "'train.gradient_clip'"),
        ({"train": {"low": None}}, "'train.low'"),
        ({"propagation": {"variants": ["edge"]}}, "'propagation.variants.0'"),
        ({"name": "My Run"}, "'name'"),
    ],
)
def test_a_wrong_value_is_one_sentence(tmp_path: Path, change: dict, said: str):
    content = yaml.safe_load((profile.PROFILES / "mini.yaml").read_text())
    for group, value in change.items():
        content[group] = {**content[group], **value} if isinstance(value, dict) else value
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as error:
        profile.load(path)
    assert said in str(error.value) and "own.yaml" in str(error.value)


@pytest.mark.parametrize("content", [b"a: [", b"", b"- 1", b"\xff\xfe\x00", b"name: x\n"])
def test_a_file_that_is_no_profile(tmp_path: Path, content: bytes):
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"own\.yaml"):
        profile.load(path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown profile 'maxi'.*mini"):
        profile.load("maxi")
