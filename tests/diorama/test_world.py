"""Plans of the miniature world: the ones there are stay as they are, each scene is seen in five weathers, captions fit."""

import hashlib
import json
from dataclasses import asdict

import architectures
import pytest
import world
from transformers import AutoTokenizer

from rmkit.kit import prompts
from rmkit.paths import REPOSITORY
from rmkit.sources import diorama

BUNDLE, WAN = REPOSITORY / "data/diorama/clips", REPOSITORY / "data/diorama/checkpoints/wan"
WEATHERED = [word for word in world.WEATHER_WORDS.values() if word]
# Of the plans of the commit before sequences in five weathers, without their captions.
RENDERED = {
    ("pretrain", range(0, 1600, 7)): "bd42119d62ebc69e",
    ("train", range(40)): "63818e78b06cea18",
    ("validation", range(32)): "ff4fe6442c3ec76b",
    ("road", range(24)): "4fa97a25be18caa6",
}


def without_captions(plan: world.Plan) -> dict:
    content = asdict(plan)
    return content | {"shots": [shot | {"caption": ""} for shot in content["shots"]]}


@pytest.mark.parametrize(("of", "wanted"), RENDERED.items(), ids=lambda of: of[0])
def test_no_scene_there_is_is_drawn_anew(of: tuple[str, range], wanted: str) -> None:
    split, numbers = of
    plans = [without_captions(world.plan_sequence(split, number)) for number in numbers]
    assert hashlib.sha256(json.dumps(plans).encode()).hexdigest()[:16] == wanted


@pytest.mark.parametrize("first", range(world.WEATHERS_FROM, world.WEATHERS_FROM + 200, 35))
def test_five_plans_of_a_scene_differ_in_the_weather_and_its_word_alone(first: int) -> None:
    plans = [asdict(world.plan_sequence("pretrain", first + n)) for n in range(5)]
    assert [plan["weather"] for plan in plans] == list(world.WEATHERS)
    clear = [shot["caption"] for shot in plans[0]["shots"]]
    for plan in plans:
        words = world.WEATHER_WORDS[plan.pop("weather")]
        assert [shot.pop("caption") for shot in plan["shots"]] == [words + caption for caption in clear]
        plan.pop("sequence")
        assert plan == plans[0]


def test_seeds_of_scenes_in_five_weathers_are_no_other_sequences() -> None:
    def seeds(split: str, numbers: range) -> set[int]:
        return {world.plan_sequence(split, number).seed for number in numbers}

    new = seeds("pretrain", range(world.WEATHERS_FROM, world.WEATHERS_FROM + 500))
    assert len(new) == 100  # scenes
    older = seeds("pretrain", range(world.WEATHERS_FROM))
    assert new.isdisjoint(
        older.union(*(seeds(split, range(200)) for split in ("train", "validation", "road")))
    )
    outdoors = {world.plan_sequence("pretrain", world.WEATHERS_FROM + n).world for n in range(0, 500, 5)}
    assert outdoors == {"street", "road"}


def test_captions_fit_with_weather_and_shot_size_in_them() -> None:
    tokenizer = AutoTokenizer.from_pretrained(WAN, subfolder="tokenizer")
    assert tokenizer.model_max_length == architectures.TEXT_TOKENS
    shipped = [
        shot["caption"]
        for split in (*diorama.SPLITS, "road")
        for folder in diorama.sequence_folders(BUNDLE, split)
        for shot in diorama.read_meta(folder)["shots"]
    ]
    assert len(shipped) > 60
    for caption in shipped:
        for words in ("", *WEATHERED):
            prompts.require(tokenizer, "x", words + caption)
    samples = {"pretrain": [*range(0, 1600, 20), 860, *range(2000, 2500, 13)], "train": range(0, 100, 3)}
    samples |= {"validation": range(40), "road": range(20)}
    for split, numbers in samples.items():
        for number in numbers:
            for shot in world.plan_sequence(split, number).shots:
                prompts.require(tokenizer, "x", shot.caption)
                assert shot.caption.endswith(shot.shot_size)


def test_clear_captions_are_those_of_the_shipped_clips() -> None:
    for split in (*diorama.SPLITS, "road"):
        for folder in diorama.sequence_folders(BUNDLE, split):
            number = int(folder.name[-5:])
            told = [shot["caption"] for shot in diorama.read_meta(folder)["shots"]]
            planned = [shot.caption for shot in world.plan_sequence(split, number).shots]
            assert told == planned[: 1 if split == "road" else 2]
