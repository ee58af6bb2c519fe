"""Anchors: which frames they are, seeds tried until the gate accepts one, and the stage resumes."""

import numpy as np
import pytest

from rmkit.errors import InputError
from rmkit.kit import alignment, models, store, video
from rmkit.method import anchoring


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


def test_each_clip_is_decoded_once(tiny_profile, tiny_clips, monkeypatch):
    read, decoded = video.read, []
    monkeypatch.setattr(video, "read", lambda path: decoded.append(path.stem) or read(path))
    monkeypatch.setattr(models, "load_editor", lambda _: None)
    monkeypatch.setattr(anchoring, "edit_frame", lambda profile, pipeline, render, seed: render)
    made = anchoring.edit(tiny_profile, tiny_clips[:2], frames="every")
    assert decoded == [clip.id for clip in tiny_clips[:2]] and len(made) == 6


def test_drifting_edits_are_tried_again_then_refused(tiny_profile, tiny_clips, monkeypatch, capsys):
    seeds = []

    def drifting(profile, pipeline, render, seed):
        seeds.append(seed)
        return np.roll(render, 6 + 2 * len(seeds), axis=1)

    monkeypatch.setattr(anchoring, "edit_frame", drifting)
    monkeypatch.setattr(models, "load_editor", lambda _: None)
    drifts = iter(range(20, 0, -1))
    monkeypatch.setattr(
        alignment,
        "measure",
        lambda a, b: alignment.Drift(np.eye(2, 3, dtype=np.float32), float(next(drifts)), 0.9, True),
    )
    clip = tiny_clips[0]
    first = anchoring.edit(tiny_profile, [clip])[0]
    facts = store.read_sidecar(first)
    assert not facts["accepted"] and facts["attempts"] == 2 and facts["drift_pixels"] == 19
    assert facts["attempted_drifts"] == [20, 19] and len(set(seeds)) == len(seeds) == 4
    assert anchoring.refused(tiny_profile, clip, [0, 8]) == [0, 8]
    assert f"{clip.id}: refused at frames 0, 8" in capsys.readouterr().out


def test_the_profiles_prompt_and_guidance_reach_the_editor(tiny_profile):
    from transformers import AutoTokenizer

    calls = []

    class Editor:
        """Records how it is called; answers with a picture of another size."""

        tokenizer = AutoTokenizer.from_pretrained(tiny_profile.models.editor, subfolder="tokenizer")
        tokenizer_max_length, prompt_template_encode, prompt_template_encode_start_idx = 1024, "{}", 0

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
