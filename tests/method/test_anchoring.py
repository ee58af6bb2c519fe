"""Anchors: the gate measures and undoes known drifts, refuses large ones, and the stage resumes."""

import cv2
import numpy as np
import pytest

from rmkit.errors import InputError
from rmkit.kit import models, store, video
from rmkit.method import anchoring


@pytest.fixture
def render() -> np.ndarray:
    """A flat-shaded scene of blocks and discs, uint8 [96, 144, 3]."""
    random = np.random.default_rng(3)
    picture = np.full((96, 144, 3), 120, np.uint8)
    for _ in range(14):
        x, y = int(random.integers(0, 130)), int(random.integers(0, 85))
        w, h = (int(v) for v in random.integers(10, 40, 2))
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        cv2.circle(picture, (y, x % 96), w // 3, colour[::-1], -1)
    return picture


def look_of_a_camera(picture: np.ndarray) -> np.ndarray:
    """Another look on the same geometry: other contrast and tint, soft, with grain."""
    grain = np.random.default_rng(5).normal(0, 4, picture.shape)
    toned = 255 * (picture / 255) ** 1.6 * (0.8, 0.9, 1.0) + 20
    return np.clip(cv2.GaussianBlur(toned, (0, 0), 0.7) + grain, 0, 255).astype(np.uint8)


def moved(picture: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    return cv2.warpAffine(
        picture, np.array(matrix, np.float32), picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.0, -1.0), (-1.5, 2.5), (6.0, 3.0)])
def test_shift_is_measured_through_a_change_of_look(render, shift):
    edited = moved(look_of_a_camera(render), [[1, 0, shift[0]], [0, 1, shift[1]]])
    drift = anchoring.measure(render, edited)
    assert drift.measured
    assert drift.pixels == pytest.approx(np.hypot(*shift), abs=0.35)


def test_zoom_which_has_no_shift_is_measured(render):
    zoom = 1.04  # what a forced output size does to Qwen-Image-Edit (FACTS 3)
    centre = [[zoom, 0, -0.02 * 144], [0, zoom, -0.02 * 96]]
    drift = anchoring.measure(render, moved(look_of_a_camera(render), centre))
    assert drift.pixels == pytest.approx(0.02 * np.hypot(96, 144), abs=0.5)


def test_small_drift_is_undone_and_large_one_refused(render):
    look = look_of_a_camera(render)
    small = moved(look, [[1, 0, 2.0], [0, 1, -1.0]])
    picture, facts = anchoring.align(render, small, limit=3.5)
    assert facts["accepted"] and facts["drift_pixels"] > 1.8 and facts["residual_pixels"] < 0.5
    inner = (slice(6, -6), slice(6, -6))
    error = [np.abs(one[inner].astype(int) - look[inner]).mean() for one in (small, picture)]
    assert error[1] < 0.6 * error[0]

    large = moved(look, [[1, 0, 8.0], [0, 1, 0.0]])
    picture, facts = anchoring.align(render, large, limit=3.5)
    assert not facts["accepted"] and np.array_equal(picture, large)


def test_aligned_edit_is_returned_untouched(render):
    look = look_of_a_camera(render)
    picture, facts = anchoring.align(render, look, limit=3.5)
    assert np.array_equal(picture, look) and facts["accepted"] and facts["drift_pixels"] < 0.5


@pytest.mark.parametrize("kind", ["flat", "noise"])
def test_pictures_without_common_edges_are_not_measured(render, kind):
    noise = np.random.default_rng(1).integers(0, 255, render.shape).astype(np.uint8)
    edited = noise if kind == "noise" else np.full_like(render, 90)
    picture, facts = anchoring.align(render, edited, limit=3.5)
    assert not facts["measured"] and facts["residual_pixels"] is None
    assert facts["accepted"] and np.array_equal(picture, edited)


def test_indices_take_the_ends_and_half_seconds(tiny_profile):
    assert anchoring.indices(tiny_profile, "edges") == anchoring.indices(tiny_profile, "depth") == [0, 8]
    assert anchoring.indices(tiny_profile, "multi_anchor") == [0, 4, 8]
    paper = tiny_profile.model_copy(
        update={
            "clips": tiny_profile.clips.model_copy(update={"frames": 81}),
            "propagation": tiny_profile.propagation.model_copy(update={"anchor_seconds": 0.5}),
        }
    )
    assert anchoring.indices(paper, "multi_anchor") == list(range(0, 81, 8))


def test_stage_writes_each_anchor_once_and_shares_the_ends(tiny_profile, tiny_clips, monkeypatch):
    clip = tiny_clips[0]
    paths = anchoring.edit(tiny_profile, [clip], frames="ends")
    assert [p.name for p in paths] == ["000000.png", "000008.png"]
    assert video.image(paths[0]).shape == (32, 48, 3)
    facts = store.read_sidecar(paths[0])
    assert {"residual_pixels", "attempts", "accepted", "drift_pixels"} <= set(facts)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in paths}

    edits = []
    original = anchoring.edit_frame
    monkeypatch.setattr(anchoring, "edit_frame", lambda *a: edits.append(1) or original(*a))
    every = anchoring.edit(tiny_profile, [clip], frames="every")
    assert [p.name for p in every] == ["000000.png", "000004.png", "000008.png"]
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in paths} == before
    assert len(edits) == store.read_sidecar(every[1])["attempts"]

    # The same again, after the loss of one, is the same picture, whichever others are made.
    paths[1].unlink()
    anchoring.edit(tiny_profile, [clip], frames="ends")
    assert paths[1].read_bytes() == before[paths[1]][0]


def test_half_precision_with_guidance_runs_the_same_path(tiny_profile, tiny_clips):
    half = tiny_profile.model_copy(
        update={
            "models": tiny_profile.models.model_copy(update={"dtype": "bfloat16"}),
            "anchors": tiny_profile.anchors.model_copy(update={"true_cfg_scale": 4.0}),
        }
    )
    picture = video.image(anchoring.edit(half, tiny_clips[:1])[0])
    assert picture.shape == (32, 48, 3) and picture.std() > 0


def test_stage_with_everything_done_loads_no_model(tiny_profile, tiny_clips, monkeypatch):
    anchoring.edit(tiny_profile, tiny_clips[:1])
    monkeypatch.setattr(models, "load_editor", lambda _: pytest.fail("loaded"))
    anchoring.edit(tiny_profile, tiny_clips[:1])


def test_drifting_edits_are_tried_again_then_refused(tiny_profile, tiny_clips, monkeypatch, capsys):
    seeds = []

    def drifting(profile, pipeline, render, seed):
        seeds.append(seed)
        return np.roll(render, 6 + 2 * len(seeds), axis=1)

    monkeypatch.setattr(anchoring, "edit_frame", drifting)
    monkeypatch.setattr(models, "load_editor", lambda _: None)
    drifts = iter(range(20, 0, -1))
    real = anchoring.measure
    monkeypatch.setattr(
        anchoring,
        "measure",
        lambda a, b: anchoring.Drift(np.eye(2, 3, dtype=np.float32), float(next(drifts)), 0.9, True),
    )
    clip = tiny_clips[0]
    first = anchoring.edit(tiny_profile, [clip])[0]
    facts = store.read_sidecar(first)
    assert not facts["accepted"] and facts["attempts"] == 2 and facts["drift_pixels"] == 19
    assert facts["attempted_drifts"] == [20, 19] and len(set(seeds)) == len(seeds) == 4
    assert anchoring.refused(tiny_profile, clip, [0, 8]) == [0, 8]
    assert f"{clip.id}: refused at frames 0, 8" in capsys.readouterr().out
    assert real is not anchoring.measure


def test_the_profiles_prompt_and_guidance_reach_the_editor(tiny_profile):
    calls = []

    class Editor:
        """Records how it is called; answers with a picture of another size."""

        def __call__(self, **arguments):
            from PIL import Image

            calls.append(arguments)
            return type("Output", (), {"images": [Image.new("RGB", (96, 64))]})

    Editor.__module__ = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit"
    render = np.zeros((32, 48, 3), np.uint8)
    assert anchoring.edit_frame(tiny_profile, Editor(), render, seed=1).shape == render.shape
    guided = tiny_profile.model_copy(
        update={"anchors": tiny_profile.anchors.model_copy(update={"true_cfg_scale": 4.0})}
    )
    anchoring.edit_frame(guided, Editor(), render, seed=1)
    assert calls[0]["prompt"] == "make it look photorealistic"
    assert "negative_prompt" not in calls[0] and calls[1]["negative_prompt"] == " "
    assert not {"height", "width"} & set(calls[0])


def test_bad_inputs_are_refused_before_the_model_loads(tiny_profile, tiny_clips, monkeypatch):
    from rmkit.method import sampling

    monkeypatch.setattr(models, "load_editor", lambda _: pytest.fail("loaded"))
    clip = tiny_clips[0]
    with pytest.raises(InputError, match="02_anchoring"):
        anchoring.load(tiny_profile, clip, [0])
    frames = video.read(sampling.path(tiny_profile, clip))
    video.write(sampling.path(tiny_profile, clip), frames[:5], 16)
    with pytest.raises(InputError, match="has 5 frames"):
        anchoring.edit(tiny_profile, [clip])
    video.write(sampling.path(tiny_profile, clip), frames, 8)
    with pytest.raises(InputError, match="at 8 a second"):
        anchoring.edit(tiny_profile, [clip])
    sampling.path(tiny_profile, clip).unlink()
    with pytest.raises(InputError, match="does not exist"):
        anchoring.edit(tiny_profile, [clip])
