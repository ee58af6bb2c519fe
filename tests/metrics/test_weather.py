"""The weather metric: a share between rulers, motion, outlines inside regions; foreign models are refused."""

import json
from pathlib import Path

import architectures
import numpy as np
import pytest
import torch
from conftest import set_model
from test_metrics import noise, subject
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from rmkit import metrics, profile
from rmkit.baselines.weather_overlay import LOOKS, overlay
from rmkit.errors import InputError
from rmkit.metrics import edge_f1, weather
from rmkit.metrics.weather import METRIC
from rmkit.metrics.weather_motion import weather_motion
from rmkit.profile import WEATHERS

RULERS = {w: {"weather": 0.9, "clear": 0.0, "weather_vae": 0.8, "clear_vae": 0.1} for w in WEATHERS[1:]}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained weather classifier in the format of the shipped one."""
    folder = tmp_path_factory.mktemp("weather")
    torch.manual_seed(0)
    small = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "frame_size": [32, 48]}
    architectures.save_single(folder, architectures.weather(**small, rulers=RULERS))
    return folder


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with random weights, which spells words."""
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1}
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def test_a_share_lies_between_the_rulers_of_the_asked_weather() -> None:
    found = {"clear": 0.2, "rain": 0.8, "snow": 0.1, "fog": 0.45, "dusk": 0.0}
    assert weather.share(found, RULERS, "rain") == pytest.approx(1)
    assert weather.share(found, RULERS, "snow") == pytest.approx(0)
    assert weather.share(found, RULERS, "fog") == pytest.approx(0.5)
    assert weather.share(found, RULERS, "clear") == pytest.approx(1)  # the highest of any
    assert weather.share(found, RULERS, "dusk") < 0
    asked = [
        weather.asked_of(method) for method in ("rain", "overlay_snow", "fog_guidance_2", "clear", "render")
    ]
    assert asked == ["rain", "snow", "fog", "clear", "clear"]


def test_probabilities_are_plain_transformers_mean_over_distinct_frames(
    tiny_profile: profile.Profile, checkpoint: Path
) -> None:
    settings = set_model(tiny_profile, "weather", checkpoint)
    METRIC.check(settings, 32, 48)
    frames = noise(5, 32, 48)
    shown = frames.repeat(2, axis=0)
    shown[1::2] = 0  # a repetition that is none would be seen
    of_clip = subject(output=lambda: iter(shown))
    values = METRIC.ready(settings, ())(of_clip, METRIC.columns)
    looks = weather.Classifier(str(checkpoint), None)
    expected = (
        looks.model(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1)
        .logits.softmax(1)
        .mean(0)
    )
    found = [values[f"weather_{name}"] for name in WEATHERS]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert values["weather_share"] == pytest.approx(
        max((p - 0.1) / 0.7 for p in found[1:]), abs=1e-6
    )  # its name asks for nothing
    assert METRIC.options(settings)["by"] == "own classifier"


def test_clip_is_asked_without_training_and_named_so(tiny_profile: profile.Profile, clip_model: Path) -> None:
    settings = set_model(tiny_profile, "weather", clip_model)
    METRIC.check(settings, 800, 1200)
    values = METRIC.ready(settings, ())(subject(output=lambda: iter(noise(4, 32, 48))), METRIC.columns)
    assert sum(values.values()) == pytest.approx(1) and set(values) == {
        f"weather_{name}" for name in WEATHERS
    }
    assert METRIC.options(settings)["by"] == "zero-shot CLIP"
    assert METRIC.rulers(settings) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id2label": {"0": "render", "1": "truth"}}, "neither CLIP nor a weather classifier"),
        ({"rulers": None}, "has no rulers"),
        ({"rulers": RULERS | {"fog": {"weather_vae": 0.1, "clear_vae": 0.1}}}, "has no rulers"),
        (
            {"frame_size": [96, 144]},
            r"knows frames of \[96, 144\] pixels and the profile's clips have \[32, 48\]",
        ),
    ],
)
def test_a_foreign_model_is_refused(
    tiny_profile: profile.Profile, checkpoint: Path, tmp_path: Path, change: dict, said: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said):
        METRIC.check(set_model(tiny_profile, "weather", folder), 32, 48)


def test_the_shipped_classifier_serves_mini() -> None:
    mini = profile.load("mini")
    METRIC.check(mini, mini.clips.height, mini.clips.width)
    assert set(METRIC.rulers(mini)) == set(WEATHERS[1:])


def test_nothing_is_measured_unless_asked_for() -> None:
    names = {f"weather_{name}" for name in WEATHERS} | {"weather_share", "weather_motion", *edge_f1.REGIONS}
    assert all(metrics.columns()[name].asked for name in names)


def test_what_falls_before_a_still_scene_moves_and_a_moving_camera_says_nothing() -> None:
    scene = np.full((6, 64, 96, 3), 90, np.uint8)
    rain = overlay(scene, LOOKS["rain"], 0)
    assert weather_motion(rain, scene) > 1 > abs(weather_motion(overlay(scene, LOOKS["fog"], 0), scene))
    assert weather_motion(rain, noise(6, 64, 96)) is None
    # What moves in the clear output, too, is no weather.
    half = scene.copy()
    half[:, :, 48:] = noise(6, 64, 48)
    assert weather_motion(half, half) == 0


def test_an_overlay_is_the_same_twice_and_changes_pixels() -> None:
    frames = noise(3, 64, 96)
    drawn = {name: overlay(frames, look, 1) for name, look in LOOKS.items()}
    for name, look in LOOKS.items():
        assert drawn[name].shape == frames.shape and drawn[name].dtype == np.uint8
        assert np.array_equal(drawn[name], overlay(frames, look, 1)) and (drawn[name] != frames).mean() > 0.5
        other = overlay(frames, look, 2)
        assert np.array_equal(drawn[name], other) == (not look.drops)
    still = np.full((3, 64, 96, 3), 90, np.uint8)
    assert not np.array_equal(*overlay(still, LOOKS["snow"], 0)[:2])  # flakes fall
    assert np.array_equal(*overlay(still, LOOKS["dusk"], 0)[:2])


def test_outlines_are_counted_inside_their_regions_alone() -> None:
    render = np.full((2, 64, 96, 3), 40, np.uint8)
    render[:, 10:30, 10:30] = 220  # a person
    render[:, 40:60, 50:90] = 220  # on the ground
    output = render.copy()
    output[:, 40:60, 50:90] = 40  # which snow has covered
    regions = np.zeros((2, 64, 96), np.uint8)
    regions[:, 10:30, 10:30], regions[:, 36:] = edge_f1.PERSON, edge_f1.GROUND
    of_clip = subject(
        **{s: lambda x=x: iter(x) for s, x in (("output", output), ("render", render), ("regions", regions))}
    )
    columns = [metrics.columns()[name] for name in edge_f1.REGIONS]
    values = metrics.metric_of("objects_f1").measure(of_clip, columns)
    assert values == {"persons_f1": 1.0, "objects_f1": 1.0, "ground_f1": 0.0}  # there is no sky
    assert 0 < edge_f1.edge_f1(iter(output), iter(render)) < 1
    # Fog takes contrast and moves no outline.
    pale = (110 + 0.1 * render).astype(np.uint8)
    of_pale = subject(
        **{s: lambda x=x: iter(x) for s, x in (("output", pale), ("render", render), ("regions", regions))}
    )
    assert metrics.metric_of("objects_f1").measure(of_pale, columns)["persons_f1"] == 1.0
    assert edge_f1.edge_f1(iter(pale), iter(render)) == 0
