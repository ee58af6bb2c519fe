"""The weather demonstration on the tiny profile: prompts, clips, overlay, truth and what is measured."""

import json

import numpy as np
import pytest

from rmkit import profile
from rmkit.demos import carla, regions, weather, weather_results
from rmkit.evaluation import metrics_csv
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.metrics import edge_f1
from rmkit.profile import WEATHERS


@pytest.fixture
def made(tiny_profile: profile.Profile, tiny_clips: list, monkeypatch: pytest.MonkeyPatch) -> profile.Profile:
    """The tiny profile with what the enhancing would have written: the render, darker in every weather but clear."""

    def darker(settings, clips, prompt, into, **_):
        for clip in clips:
            frames = video.read(sampling.path(settings, clip))
            video.write(
                settings.layout.enhanced / into / f"{clip.id}.mp4",
                frames // (1 if into == "clear" else 2),
                16,
            )
        return []  # nothing is left to make

    monkeypatch.setattr(weather.enhance, "items", darker)
    monkeypatch.setattr(weather.enhance, "make", lambda *_: [])
    return tiny_profile


def test_the_weather_stands_first_and_the_caption_is_kept(tiny_profile: profile.Profile) -> None:
    clip = sampling.Clip("a_0", "validation", "a", (0,), " a woman walks ")
    said = {name: weather.prompt(tiny_profile, name, clip) for name in WEATHERS}
    assert said == {
        "clear": "a woman walks",
        "rain": "in the rain, a woman walks",
        "snow": "in the snow, a woman walks",
        "fog": "in fog, a woman walks",
        "dusk": "at dusk, a woman walks",
    }
    bare = sampling.Clip("a_0", "validation", "a", (0,), "")
    assert weather.prompt(tiny_profile, "fog", bare) == f"in fog, {tiny_profile.train.prompt}"


def test_the_words_are_those_the_diorama_is_captioned_with() -> None:
    import world

    assert profile.Weather().prompts == {"clear": ""} | world.WEATHER_WORDS
    assert WEATHERS == world.WEATHERS


def test_prompts_of_other_weathers_are_refused(tiny_profile: profile.Profile) -> None:
    content = tiny_profile.model_dump()
    content["weather"]["prompts"] = {"hail": "in hail, "}
    with pytest.raises(ValueError, match="must name clear, rain, snow, fog, dusk"):
        profile.Profile.model_validate(content)


def test_settings_of_its_own_leave_the_run_alone(tiny_profile: profile.Profile) -> None:
    group = tiny_profile.weather.model_copy(update={"steps": 4, "guidance_high": 5.0, "dose": (1.0,)})
    settings = tiny_profile.model_copy(update={"weather": group})
    own = weather.of(settings)
    assert (own.enhance.steps, own.enhance.guidance_high, own.enhance.guidance_low) == (4, 5.0, 1.0)
    assert (
        own.layout.root == settings.layout.root / "weather"
        and own.layout.adapters == settings.layout.adapters
    )
    assert weather.dose(settings, "fog", 1.0) == "fog_guidance_1"
    equal = settings.model_copy(update={"weather": group.model_copy(update={"guidance_low": 5.0})})
    assert weather.dose(equal, "fog", 5.0) == "fog"


def test_one_shot_a_sequence_with_its_regions(made: profile.Profile) -> None:
    clips = weather.prepare(made)
    demo = weather.of(made)
    assert [clip.sequence for clip in clips] == sorted({clip.sequence for clip in clips})
    assert sampling.load(demo) == clips and all(weather.PLACE in clip.subsets for clip in clips)
    sampling.check(demo, clips)
    found = list(regions.stream(regions.path(demo, clips[0])))
    assert len(found) == demo.clips.frames and set(np.unique(found)) == {0, edge_f1.THING}  # no engine.json
    nowhere = made.model_copy(update={"weather": made.weather.model_copy(update={"outdoor": "street"})})
    assert weather.prepare(nowhere) == []


def test_classes_become_regions_where_the_engine_tells_them(made: profile.Profile) -> None:
    (source, clip), *_ = weather.choose(made)
    folder = sampling.sequence_of(source, clip).folder
    (folder / "engine.json").write_text(json.dumps({"objects": {"1": {"class": "person", "name": "a"}}}))
    weather.prepare(made)
    found = list(regions.stream(regions.path(weather.of(made), clip)))
    assert set(np.unique(found)) == {edge_f1.PERSON, edge_f1.SKY}


def test_drives_of_the_other_engine_join_where_the_profile_has_some(
    made: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = weather.prepare(made)
    drive = sampling.load(made, "train")[0]  # any clip stands for one
    monkeypatch.setattr(carla, "why_not", lambda settings: None)
    monkeypatch.setattr(carla, "prepare", lambda settings: settings)
    monkeypatch.setattr(sampling, "sample", lambda settings: [drive])
    both = weather.prepare(made)
    assert [clip.id for clip in both] == [*(clip.id for clip in alone), drive.id]
    assert both[-1].subsets[-1] == "carla"


def test_clips_of_another_size_are_enhanced_at_theirs(made: profile.Profile, monkeypatch) -> None:
    """CARLA-LOC's pictures are 720 pixels high, the paper's clips 800."""
    clips, sizes = weather.prepare(made), []
    path = sampling.path(weather.of(made), clips[-1])
    video.write(path, video.read(path)[:, :16], made.clips.fps)

    def sized(settings: profile.Profile, clips: list, prompt, into: str) -> list:
        sampling.check(settings, clips)
        sizes.append((settings.clips.height, len(clips)))
        for clip in clips:
            frames = video.read(sampling.path(settings, clip))
            video.write(settings.layout.enhanced / into / f"{clip.id}.mp4", frames, 16)
        return []  # nothing is left to make

    monkeypatch.setattr(weather.enhance, "items", sized)
    weather.make(made, clips)
    assert sizes == [(made.clips.height, len(clips) - 1), (16, 1)] * len(WEATHERS)


def test_measured_without_a_classifier_says_so_and_the_rest_is_there(made: profile.Profile) -> None:
    settings = made.model_copy(
        update={"weather": made.weather.model_copy(update={"dose": (3.0,), "dose_weathers": ("fog",)})}
    )
    clips = weather.prepare(settings)
    weather.make(settings, clips)
    weather.make_doses(settings, clips)
    frame = metrics_csv.read(weather.measure(settings, clips, clips))
    assert {"render", *WEATHERS, "overlay_rain", "fog_guidance_3"} <= set(frame.method)
    assert not frame.metric.str.startswith("weather_share").any()
    assert set(frame[frame.method == "clear"].metric) == {
        *("objects_f1", "temporal_flickering", "temporal_flickering_distinct")
    }
    assert frame[(frame.method == "clear") & (frame.metric == "objects_f1")].value.eq(1).all()
    table, _, aims = weather_results.build(settings)
    text = " ".join(table.notes)
    assert "Weather share: not run: metrics.weather of this profile names no model." in text
    assert "Truth in other weather: n/a" in text
    assert {row[-1] for row in aims.cells} == {"n/a"}
    assert weather_results.dose_response(settings) is not None
    picture = weather_results.sheet(settings, clips, ["render", *WEATHERS, "truth_fog"], "five")
    assert (
        picture.width > 7 * weather_results.WIDTH
        and (weather.of(settings).layout.root / "sheets/five.jpg").is_file()
    )


def test_without_an_outdoor_clip_all_ends_well(made: profile.Profile) -> None:
    settings = made.model_copy(
        update={"weather": made.weather.model_copy(update={"outdoor": "street", "dose": (3.0,)})}
    )
    clips = weather.prepare(settings)
    weather.make(settings, clips)
    weather.measure(settings, clips, clips)
    tables = weather_results.build(settings)
    assert {row[1] for row in tables[0].cells} == {"0"}
    assert weather_results.dose_response(settings) is None


def test_truth_in_other_weather_is_cut_as_its_clip(made: profile.Profile, tmp_path) -> None:
    clips = weather.prepare(made)
    clip, other = clips[0], clips[1]
    truth = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    video.write(tmp_path / "bundle" / "weather" / f"{clip.sequence}_rain.mp4", truth, 8)
    data = made.data.model_copy(update={"bundle": str(tmp_path / "bundle")})
    settings = made.model_copy(update={"data": data})
    weather.make(settings, clips)
    demo = weather.of(settings)
    found = video.read(weather.path(demo, "truth_rain", clip))
    assert np.array_equal(found, sampling.repeat(truth[list(clip.source_frames)], 2, 9))
    assert not weather.path(demo, "truth_rain", other).is_file()


def test_the_menu_shows_what_is_stored_and_makes_the_rest_once(
    made: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = weather.prepare(made)
    weather.make(made, clips)
    loads = []
    monkeypatch.setattr(weather.enhance, "load", lambda *_: loads.append(1) or "pipeline")
    monkeypatch.setattr(weather.encode, "text", lambda pipeline, prompt: prompt)
    monkeypatch.setattr(weather.enhance, "negative", lambda *_: None)
    asked = []
    monkeypatch.setattr(
        weather.enhance, "run", lambda s, p, render, text, n, seed: asked.append((text, seed)) or render // 3
    )
    show, own = weather.enhancer(made), weather.of(made).enhance.guidance_high
    assert np.array_equal(
        show(clips[0], "fog", own), video.read(weather.path(weather.of(made), "fog", clips[0]))
    )
    assert not loads
    for _ in range(2):
        show(clips[0], "rain", 7.0), show(clips[0], "fog", 7.0)
    assert len(loads) == 1 and len(asked) == 2 and asked[0][1] == asked[1][1]
    assert asked[0][0].startswith("in the rain, ")
