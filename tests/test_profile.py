"""Profiles: all that ship are valid, a mistake is one sentence that names file, key and what was expected."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from rmkit import baselines, profile
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


def extending(folder: Path, name: str = "own", extends: str = "mini", **changes: object) -> Path:
    """A profile of the user's that extends another."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"extends": extends, "name": name, **changes}))
    return path


def test_a_profile_that_extends_another_holds_its_changes_only(tmp_path: Path):
    mini, made = profile.load("mini"), profile.load(extending(tmp_path, enhance={"steps": 3}, carla=None))
    assert (made.name, made.extends, made.extended, made.enhance.steps, made.carla) == (
        *("own", "mini", ("mini",), 3),
        None,
    )
    assert made.enhance.model_copy(update={"steps": 2}) == mini.enhance
    different = {"name", "extends", "enhance", "carla"}
    assert made.model_dump(exclude=different) == mini.model_dump(exclude=different)


def test_profiles_extend_one_another_by_name_and_by_path(tmp_path: Path):
    extending(tmp_path, "first", train={"low": {"steps": 7}}, metrics={"dino": None})
    (tmp_path / "deeper").mkdir()
    last = extending(tmp_path / "deeper", "last", "../first.yaml", train={"low": {"learning_rate": 0.5}})
    made = profile.load(last)
    assert (made.train.low.steps, made.train.low.learning_rate) == (7, 0.5)
    assert made.extended == ("first", "mini") and "dino" not in made.metrics and "weather" in made.metrics
    # What notebooks are told says all settings, and extends the same.
    for path in (last, tmp_path / "first.yaml"):
        made = profile.load(path)
        path.write_text(profile.text(made))
        assert profile.load(path) == made


@pytest.mark.parametrize(
    ("name", "extends", "said"),
    [
        ("own", "own.yaml", "'extends' goes in a circle: own.yaml -> own.yaml"),
        ("own", "other.yaml", "'extends' goes in a circle: own.yaml -> other.yaml -> own.yaml"),
        ("own", "maxi", "own.yaml: 'extends': unknown profile 'maxi': there is no file"),
        ("own", "gone.yaml", "gone.yaml; known are"),
        ("own", ["mini"], "'extends' must be the name of a profile"),
        (None, "mini", "own.yaml: 'name': a profile that extends another has a name of its own"),
        ("mini", "mini", "own.yaml: 'name': a profile that extends another has a name of its own"),
        ("Own", "mini", "own.yaml: 'name'"),
    ],
)
def test_a_profile_that_cannot_extend(tmp_path: Path, name: str | None, extends: str, said: str):
    extending(tmp_path, "other", "own.yaml")
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"extends": extends, "name": name}))
    with pytest.raises(InputError, match=re.escape(said)):
        profile.load(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": True}, "'seed': yes, no, on, off, true and false are no numbers"),
        ({"train": {"rank": True}}, "'train.rank': yes, no, on, off, true and false are no numbers"),
        ({"data": {"stride": {"train": False}}}, "'data.stride.train': yes, no, on, off"),
        ({"name": "x" * 101}, "'name': String should have at most 100 characters"),
    ],
)
def test_what_yaml_takes_for_something_else_is_refused(tmp_path: Path, changes: dict, said: str):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"extends": "mini", "name": "own"} | changes))
    with pytest.raises(InputError, match=re.escape(f"own.yaml: {said}")):
        profile.load(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_profile_as_any_editor_saves_it(tmp_path: Path, encoding: str):
    path = tmp_path / "own.yaml"
    path.write_bytes("extends: mini\r\nname: own\r\ntrain: {prompt: café}\r\n".encode(encoding))
    assert profile.load(path).train.prompt == "café"


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("seed: 1\nname: own\nextends: mini\nseed: 2\n", "seed", "1 and 4"),
        ("extends: mini\nname: own\nenhance:\n  steps: 1\n  shift: 2\n  steps: 3\n", "steps", "4 and 6"),
        ("extends: mini\nname: own\nenhance: {steps: 1, steps: 3}\n", "steps", "3 and 3"),
        ("extends: mini\nname: own\nmetrics: {dino: a, 'dino': b}\n", "dino", "3 and 3"),
    ],
)
def test_a_key_twice_is_refused_with_both_lines(tmp_path: Path, text: str, key: str, lines: str):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"own.yaml: '{key}' stands twice, in lines {lines}: keep one."):
        profile.load(path)


def test_an_anchor_of_yaml_may_be_merged_under_a_key_of_its_own(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "extends: mini\nname: own\ntrain: {low: &low {steps: 5, learning_rate: 1.0e-4}, high: {<<: *low, steps: 6}}\n"
    )
    assert profile.load(path).train.high.steps == 6


def test_an_unknown_profile_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        profile.load("own")
    assert f"there is no file {profile.PROFILES / 'own.yaml'}" in str(error.value)
    with pytest.raises(InputError, match=re.escape(f"there is no file {tmp_path / 'own.yaml'}")):
        profile.load("own.yaml")
    extending(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"given by its path, {tmp_path / 'own.yaml'}")):
        profile.load("own")


def test_a_copy_under_another_name_is_a_run_of_its_own(tmp_path: Path):
    """Of what is timed or rehearsed nothing may be taken from elsewhere."""
    own = profile.load(extending(tmp_path))
    assert own.demo("carla").extended == own.extended == ("mini",) and own.file == tmp_path / "own.yaml"
    copied = own.model_copy(update={"name": "own-calibration"})
    assert copied.extended == () and copied.file is None


def test_the_name_of_a_shipped_profile_is_its_own(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text((profile.PROFILES / "mini.yaml").read_text())
    with pytest.raises(
        InputError, match=r"mine\.yaml: the name 'mini' is a shipped profile's.*extends: mini"
    ):
        profile.load(path)


def test_a_run_folder_is_one_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    path = extending(tmp_path, seed=1)
    layout = profile.load(path).layout
    layout.run.mkdir(parents=True)
    layout.record.write_text(f'{{"profile": "{path}"}}')
    assert profile.load(extending(tmp_path, seed=2)).seed == 2
    (tmp_path / "another").mkdir()
    other = extending(tmp_path / "another", seed=2)
    with pytest.raises(
        InputError, match=re.escape(f"another profile of that name, {path}: give yours another")
    ):
        profile.load(other)
    path.unlink()  # it was moved
    assert profile.load(other).seed == 2


def numbers(schema: dict, group: dict, key: str = "") -> Iterator[tuple[str, list[dict]]]:
    """Every numeric setting by dotted key: what its schema says of the number, or of each of several."""
    for name, field in group.get("properties", {}).items():
        for kind in field.get("anyOf", [field]):
            kind = schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind
            items = kind.get("prefixItems") or [kind.get("items") or kind]
            if "properties" in kind:
                yield from numbers(schema, kind, f"{key}{name}.")
            elif all(item.get("type") in ("integer", "number") for item in items):
                yield f"{key}{name}", items


def every_number() -> dict[str, list[dict]]:
    schema = profile.Profile.model_json_schema()
    found = dict(numbers(schema, schema))
    for name, method in baselines.every(profile.load("mini")).items():
        if getattr(method, "group", None):
            own = method.group.model_json_schema()
            found |= dict(numbers(own, own, f"baselines.{name}."))
    return found


NUMBERS = every_number()
MINI = profile.load("mini").model_dump(mode="json")
# What a group needs beside the number that is tried.
BESIDE = {
    "models": {"accelerators": profile.load("paper-fast").models.accelerators.model_dump(mode="json")},
    "carla": {"source": "carla_loc", "train_clips": 0, "validation_clips": 1},
    "baselines": {
        "lucy_edit": {"model": "a/b"},
        "editto": {"model": "a/b"},
        "runway_aleph": {"usd_per_second": 0.1},
    },
}


def test_numbers_are_found_in_all_groups():
    keys = {
        "seed",
        "clips.width",
        "train.low.sigma",
        "models.accelerators.vace.sigmas",
        "data.stride.train",
        "carla.fps",
    }
    assert keys | {"weather.dose", "baselines.lucy_edit.height", "judge.budget_usd"} <= set(NUMBERS)
    assert len(NUMBERS) > 80


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_bounds(key: str):
    for item in NUMBERS[key]:
        assert {"minimum", "exclusiveMinimum"} & set(item) and {"maximum", "exclusiveMaximum"} & set(item)
    item, *others = NUMBERS[key]
    low, high = (
        item.get(f"{side}imum", item.get(f"exclusive{side.capitalize()}imum")) for side in ("min", "max")
    )
    *groups, last = key.split(".")
    several = len(NUMBERS[key]) > 1 or last in ("anchor_frames", "dose", "sigmas")
    for wrong in (low - 16, high + 16, -(10**12), 10**12, math.nan, math.inf):
        change: dict = {last: [wrong, *(0.5 for _ in others)] if several else wrong}
        for group in reversed(groups):
            change = {group: change}
        beside = {group: BESIDE[group] for group in groups[:1] if group in BESIDE}
        content = profile._merged(profile._merged(MINI, beside), change)
        with pytest.raises((ValidationError, InputError)) as error:
            baselines.validate(profile.Profile.model_validate(content))
        said = error.value if isinstance(error.value, InputError) else profile.first_mistake(error.value)
        assert re.search(
            rf"'{re.escape(key)}(\.0)?': .*(greater|less|finite|valid integer|multiple)", str(said)
        )


@pytest.mark.parametrize(
    ("group", "values"),
    [("clips", {"fps": 0}), ("train", {"rank": 0}), ("clips", {"width": -144}), ("clips", {"frames": -3})],
)
def test_what_ended_in_a_traceback_is_one_sentence(tmp_path: Path, group: str, values: dict):
    with pytest.raises(InputError, match=rf"own\.yaml: '{group}.{next(iter(values))}': .* greater than"):
        profile.load(extending(tmp_path, **{group: values}))


def test_a_range_of_noise_levels_rises(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"'train\.low': sigma is a range from low to high, not \[0\.9, 0\.1\]"
    ):
        profile.load(extending(tmp_path, train={"low": {"sigma": [0.9, 0.1]}}))
