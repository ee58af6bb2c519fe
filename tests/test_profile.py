"""Profiles: all that ship are valid, a mistake is one sentence that names file, key and what was expected."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from rmkit import profile
from rmkit.errors import InputError

SHIPPED = sorted(path.stem for path in profile.PROFILES.glob("*.yaml"))


def test_these_profiles_ship():
    assert SHIPPED == ["consumer", "mini", "paper", "paper-480", "paper-fast", "smoke"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_is_valid_and_named_as_its_file(name: str):
    assert profile.load(name).name == name


def test_paper_profile_says_what_the_paper_says():
    paper = profile.load("paper")
    assert (paper.clips.frames, paper.clips.height, paper.clips.width, paper.clips.fps) == (81, 800, 1200, 16)
    assert (paper.data.train_clips, paper.data.validation_clips, paper.train.rank) == (3050, 100, 32)
    assert paper.anchors.prompt == "make it look photorealistic"
    assert (paper.identity.threshold, paper.identity.over) == (0.4, "mean")


def test_real_profiles_follow_the_authors_of_the_models():
    for name in ("paper", "paper-480", "consumer"):
        made = profile.load(name)
        assert made.propagation.shift == 16 and made.structure.thickness
        assert made.propagation.negative_prompt == made.enhance.negative_prompt == profile.WAN_NEGATIVE_PROMPT
        assert made.metrics["dino"] == "facebook/dino-vitb16@refs/pr/7"  # main has no safetensors
    assert profile.load("paper").propagation.steps == 50


def test_accelerators_are_in_paper_fast_alone():
    for name in SHIPPED:
        roles = profile.load(name).models.accelerators.model_dump(exclude_none=True)
        assert set(roles) == ({"editor", "vace", "wan"} if name == "paper-fast" else set())
    fast = profile.load("paper-fast")
    assert fast.clips == profile.load("paper").clips and fast.training_size.height == 480
    assert {fast.anchors.steps, fast.propagation.steps, fast.enhance.steps} == {4}


def test_accelerators_are_listed_as_ours():
    rows = {key: value for key, value, _ in profile.ours(profile.load("paper-fast"))}
    assert rows["models.accelerators.vace.shift"] == 5 and "models.accelerators.editor.file" in rows


def test_a_demonstration_may_have_clips_of_another_shape_than_was_trained_on():
    demo = profile.load("paper-fast").demo("carla", clips={"height": 720, "frames": 33})
    assert (demo.clips.height, demo.train.height) == (720, None)


def test_real_profiles_train_with_checkpoints():
    for name in ("paper", "paper-480", "paper-fast", "consumer"):
        assert profile.load(name).train.gradient_checkpointing
    assert profile.load("paper").training_size == profile.load("paper").clips


def test_comments_hold_no_hours_and_no_gibibytes():
    for name in SHIPPED:
        text = (profile.PROFILES / f"{name}.yaml").read_text()
        if name in ("mini", "smoke"):
            continue
        assert f"make plan PROFILE={name}" in text
        assert not re.search(r"\d\s*(h|hours|days|GiB)\b", text)


def test_profiles_of_before_groups_say_true_or_false():
    models = profile.load("mini").models.model_dump()
    for given, meant in ((True, "model"), (False, "none"), ("group", "group")):
        assert profile.Models.model_validate({**models, "offload": given}).offload == meant


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
        ({"train": {"height": 50}}, "'train.height'"),
        ({"train": {"frames": 37}}, "train.frames is 37 and a clip has only 33"),
        ({"train": {"frames": 8}}, "train.frames must be 4k+1"),
        ({"train": {"height": 48, "width": 48}}, "48x48, must have the shape of the clips, 96x144"),
        ({"train": {"block_inputs": "cpu"}}, "needs train.gradient_checkpointing"),
        ({"models": {"offload": "some"}}, "'models.offload'"),
        (
            {"models": {"accelerators": {"vace": {"model": "a/b", "file": "c", "shift": 5.0}}}},
            "models.accelerators.vace was distilled to 4 steps at shift 5: set propagation.steps and propagation.shift",
        ),
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
