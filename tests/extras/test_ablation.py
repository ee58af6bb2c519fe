"""The ablation lab without a browser: choices, results and where they are kept, metrics, saved profiles, sheets."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_propagation import prepared, put_anchor  # noqa: F401

from rmkit.errors import InputError
from rmkit.evaluation import sheets
from rmkit.extras.ablation import choice as choices
from rmkit.extras.ablation import pictures, results, saved, values
from rmkit.kit import store, video
from rmkit.method import anchoring, propagation, sampling
from rmkit.profile import Profile


@pytest.fixture
def run(prepared) -> tuple[Profile, sampling.Clip]:  # noqa: F811
    """The tiny profile with one clip as if it had been propagated by edges."""
    profile, clip = prepared
    darker = video.read(sampling.path(profile, clip)) // 2
    video.write(propagation.path(profile, "edges", clip), darker, profile.clips.fps)
    return profile, clip


def files(profile: Profile) -> dict[str, int]:
    root = profile.layout.root
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_the_profiles_own_clip_is_known_and_the_lab_makes_the_same(run) -> None:
    profile, clip = run
    own = choices.choose(profile, clip)
    (path,) = propagation.propagate(profile, [clip], "edges")
    assert results.find(profile, own) == results.of_run(profile, own) == path
    hidden = path.with_suffix(".away")
    path.rename(hidden)
    made = results.generate(profile, own, results.Models(profile))
    assert made.is_relative_to(choices.folder(profile))
    assert (video.read(made) == video.read(hidden.rename(path))).all()


def test_each_setting_makes_another_clip_once_and_leaves_the_run_alone(run) -> None:
    profile, clip = run
    before, loaded, said = files(profile), results.Models(profile), []
    asked = [
        {"structure": {"canny": (10, 20)}},
        {"structure": {"edges": "gradient"}},
        {"propagation": {"conditioning": 0.5}},
        {"propagation": {"shift": 9.0}},
        {"seed": 5},
        {"prompt": "a man"},
        {"anchors": (0,)},
    ]
    made = []
    for settings in asked:
        choice = choices.choose(profile, clip, **settings)
        assert results.find(profile, choice) is None
        made.append(results.generate(profile, choice, loaded, lambda *told: said.append(told)))
        assert results.find(profile, choice) == made[-1]
    assert len(set(made)) == len(made) and ("step 2 of 2", 1.0) in said
    clips = [video.read(path) for path in (*made, propagation.path(profile, "edges", clip))]
    assert len({clip.tobytes() for clip in clips}) == len(clips)
    told = len(said)
    results.generate(profile, choice, loaded, lambda *more: said.append(more))
    assert len(said) == told
    after = files(profile)
    assert before == {name: after[name] for name in before}
    assert all(name.startswith("lab/") for name in after.keys() - before.keys())


def test_a_clip_that_is_stopped_leaves_nothing(run) -> None:
    profile, clip = run
    before = files(profile)

    def stop(said: str, part: float) -> None:
        if said.startswith("step"):
            raise KeyError(said)

    with pytest.raises(KeyError, match="step 1"):
        choice = choices.choose(profile, clip, propagation={"steps": 3})
        results.generate(profile, choice, results.Models(profile), stop)
    assert files(profile) == before


def test_missing_anchors_are_grey_then_edited_into_the_lab_and_refused_ones_said(run) -> None:
    profile, clip = run
    choice = choices.choose(profile, clip, "multi_anchor", propagation={"anchor_seconds": 0.125})
    assert choice.anchors == (0, 2, 4, 6, 8)
    given = choices.condition(choice)
    assert (given.anchors[2] == sheets.EMPTY).all() and not (given.anchors[4] == sheets.EMPTY).all()
    loaded = results.Models(profile)
    try:
        results.generate(profile, choice, loaded)
    except InputError as error:  # untrained: the gate may refuse what the editor makes
        assert "take it away" in str(error)
    assert (choices.folder(profile) / "anchors" / clip.id / "000002.png").is_file()
    assert not anchoring.path(profile, clip, 2).exists()
    put_anchor(profile, clip, 4, accepted=False)
    with pytest.raises(InputError, match="anchor of frame 4 was refused"):
        results.generate(profile, choices.choose(profile, clip, anchors=(0, 4)), loaded)


def test_a_setting_that_cannot_be_is_refused_in_the_profiles_words(run) -> None:
    for settings, said in (
        ({"propagation": {"steps": 0}}, "'propagation.steps': Input should be greater than or equal to 1"),
        ({"propagation": {"conditioning": -1}}, "'propagation.conditioning'"),
        ({"propagation": {"anchor_frames": (3, 9)}}, "frames of a clip, 0 to 8, in order"),
        ({"propagation": {"anchor_frames": ()}}, "'propagation.anchor_frames'"),
        ({"structure": {"edges": "sobel"}}, "'structure.edges': Input should be 'canny' or 'gradient'"),
    ):
        with pytest.raises(InputError, match=said):
            choices.choose(*run, **settings)


def test_a_missing_depth_model_and_a_prompt_that_is_too_long_are_sentences(run) -> None:
    profile, clip = run
    with pytest.raises(InputError, match="depth_model is empty"):
        choices.condition(choices.choose(profile, clip, "depth", structure={"depth": "depth_anything"}))
    with pytest.raises(InputError, match="words would be lost"):
        results.generate(profile, choices.choose(profile, clip, prompt="red " * 999), results.Models(profile))


def test_values_are_those_of_metrics_csv_where_the_video_is_the_runs(run) -> None:
    profile, clip = run
    path = propagation.path(profile, "edges", clip)
    measured = values.beside(profile, choices.choose(profile, clip), path)
    assert list(measured) == ["Render", "Profile's own", "Result"]
    assert measured["Result"] == measured["Profile's own"] and 0 < measured["Result"]["edge_f1"] <= 1
    row = f"tiny,edges,{clip.id},edge_f1,0.125,s,,,{store.fingerprint(path)},c"
    profile.layout.metrics.write_text(
        f"profile,method,clip,metric,value,sequence,subsets,options,artefact,commit\n{row}\n"
    )
    assert values.measure(profile, clip, "any", path) == {"edge_f1": 0.125}
    table = values.table({"Result": {"edge_f1": 0.125}})
    assert table.loc["Edge F1 to render ↑", "Result"] == "0.1250" and "0.1250" in values.html(table)


def test_a_profile_of_a_choice_holds_its_changes_alone(run) -> None:
    profile, clip = run
    choice = choices.choose(
        *(profile, clip, "multi_anchor", (0, 4)),
        structure={"canny": (50, 60)},
        propagation={"conditioning": 0.5},
    )
    path, left = saved.save(profile, choice, "mini", "softer")
    assert yaml.safe_load(path.read_text()) == {
        "extends": "mini",
        "name": "softer",
        "structure": {"canny": [50, 60]},
        "propagation": {"conditioning": 0.5, "anchor_frames": [0, 4]},
    }
    assert not left and saved.save(profile, choice, "mini", "softer") == (path, [])
    _, left = saved.save(profile, choices.choose(profile, clip, prompt="a man", seed=3), "mini", "other")
    assert "caption of its own" in left[0]
    for name, wrong, said in (
        ("softer", choices.choose(profile, clip, seed=1), "holds other settings"),
        ("No!", choice, "String should match"),
        ("mini", choice, "is taken"),
        ("x", choices.choose(profile, clip), "Nothing that a profile holds was changed"),
    ):
        with pytest.raises(InputError, match=said):
            saved.save(profile, wrong, "mini", name)


def test_a_strength_of_one_keeps_the_keys_of_before_there_was_one(run) -> None:
    profile, clip = run
    assert "conditioning" not in propagation.settings_of(profile, clip, "a")
    weaker = choices.choose(profile, clip, propagation={"conditioning": 0.5}).profile
    assert propagation.settings_of(weaker, clip, "a")["conditioning"] == 0.5
    chosen = choices.choose(profile, clip, propagation={"anchor_frames": (1, 3)}).profile
    assert anchoring.indices(chosen, "multi_anchor") == [1, 3] and anchoring.indices(chosen, "edges") == [
        0,
        8,
    ]


def test_sheets_show_what_was_made_between_anchors_and_where_a_mask_ends(run, tmp_path: Path) -> None:
    profile, clip = run
    assert sheets.between(profile) == [0, 2, 6, 8]
    sheet = np.asarray(pictures.sheet(profile, choices.choose(profile, clip), 96))
    assert sheet.shape[1] > 4 * 96 and (sheet == 0x99).all(axis=-1).any()  # a grey line around white
    white = np.full((1, 4, 6, 3), 255, np.uint8)
    assert (pictures.difference(white, white) == 0).all()
    assert (pictures.difference(white - 10, white) == 40).all()
    wiped = pictures.wipe(white[0], 0 * white[0], 0.5)
    assert (wiped[:, :2] == 255).all() and (wiped[:, 3:] == 0).all()
