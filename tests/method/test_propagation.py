"""Propagation: what VACE is given (anchors kept, structure generated), and the stage around it."""

import numpy as np
import pytest
import torch

from rmkit.errors import InputError
from rmkit.kit import models, store, video
from rmkit.method import anchoring, propagation, sampling, structure


@pytest.fixture
def prepared(tiny_profile, tiny_clips):
    """(profile, one clip) with structure and all anchors made; the anchors are plain grey pictures."""
    clip = tiny_clips[0]
    structure.extract(tiny_profile, [clip])
    for index in anchoring.indices(tiny_profile, "multi_anchor"):
        put_anchor(tiny_profile, clip, index)
    return tiny_profile, clip


def put_anchor(profile, clip, index, accepted=True, grey=90):
    from PIL import Image

    recipe = store.Recipe("anchors", 0, {}, {})
    with store.writing(anchoring.path(profile, clip, index), recipe, accepted=accepted) as temporary:
        Image.fromarray(np.full((32, 48, 3), grey + index, np.uint8)).save(temporary)


def lines(count: int) -> np.ndarray:
    return np.full((count, 4, 6, 3), 255, np.uint8)


def test_an_anchor_stands_at_one_of_its_frames_and_structure_at_the_other():
    pictures = {0: np.full((4, 6, 3), 10, np.uint8), 8: np.full((4, 6, 3), 20, np.uint8)}
    original = lines(9)
    frames, mask = propagation.control(original, pictures, [0, 8])
    assert mask.shape == (9, 4, 6) and mask.dtype == np.uint8
    assert [int(one.max()) for one in mask] == [0, 255, 255, 255, 255, 255, 255, 255, 0]
    assert [int(one[0, 0, 0]) for one in frames] == [10, 255, 255, 255, 255, 255, 255, 255, 20]
    assert (original == 255).all()


@pytest.mark.parametrize("count", [5, 9, 33, 81])
def test_frames_that_the_mask_is_sampled_at_are_the_pipelines(count):
    moments = torch.arange(count, dtype=torch.float32)[None, None]
    expected = torch.nn.functional.interpolate(moments, size=(count - 1) // 4 + 1, mode="nearest-exact")
    assert propagation.sampled(count) == expected[0, 0].int().tolist()


@pytest.mark.parametrize("count", [33, 81])
@pytest.mark.parametrize("every", [None, 8], ids=["ends", "half seconds"])
def test_no_anchor_reaches_the_masks_channels_and_each_is_in_the_video_once(tiny_profile, count, every):
    indices = [*range(0, count, every or count - 1)]
    assert indices[-1] == count - 1
    pictures = {i: np.full((16, 16, 3), 100 + i, np.uint8) for i in indices}
    frames, mask = propagation.control(np.full((count, 16, 16, 3), 255, np.uint8), pictures, indices)
    kept = np.flatnonzero(mask.max((1, 2)) == 0).tolist()
    assert [int(frames[i].max()) for i in kept] == [100 + i for i in indices]
    assert (np.delete(frames, kept, axis=0) == 255).all()
    # Each within its source frame's two showings, at its own index unless that is sampled.
    assert [i // 2 * 2 for i in kept] == indices
    assert [i for i in kept if i % 2] == [i + 1 for i in indices if i in propagation.sampled(count)]
    masks = torch.from_numpy(mask / 255.0)[None, None].float()
    channels = propagation.load(tiny_profile).prepare_masks(masks, [[]])
    assert channels.shape[:3] == (1, 64, (count - 1) // 4 + 1) and (channels == 1).all()


def test_an_odd_index_may_stand_before_itself_and_a_frame_shown_once_has_no_choice():
    assert propagation.sampled(9) == [1, 4, 7]
    pictures = {i: np.zeros((4, 6, 3), np.uint8) for i in (3, 4, 7)}
    for index, repeat, kept in ((3, 2, 3), (4, 2, 5), (7, 2, 6), (7, 1, 7)):
        _, mask = propagation.control(lines(9), pictures, [index], repeat)
        assert np.flatnonzero(mask[:, 0, 0] == 0).tolist() == [kept]


def test_control_refuses_anchors_that_do_not_fit():
    with pytest.raises(ValueError, match="outside"):
        propagation.control(lines(5), {5: np.zeros((4, 6, 3), np.uint8)}, [5])
    with pytest.raises(ValueError, match="anchor 0"):
        propagation.control(lines(5), {0: np.zeros((8, 6, 3), np.uint8)}, [0])


def test_the_mask_reaches_the_pipelines_latents_with_the_right_sign(prepared):
    profile, _clip = prepared
    pipeline = propagation.load(profile)
    seen = {}

    def spy(video_, mask, *rest):
        seen["video"], seen["mask"] = video_, mask
        return original(video_, mask, *rest)

    original, pipeline.prepare_video_latents = pipeline.prepare_video_latents, spy
    masks = pipeline.prepare_masks

    def spy_masks(*arguments):
        seen["channels"] = masks(*arguments)
        return seen["channels"]

    pipeline.prepare_masks = spy_masks
    pictures = {i: np.full((32, 48, 3), 64, np.uint8) for i in (0, 8)}
    frames, mask = propagation.control(np.full((9, 32, 48, 3), 255, np.uint8), pictures, [0, 8])
    embeds = propagation.encoder(profile, pipeline)("a street")
    out = propagation.run(profile, pipeline, frames, mask, embeds, seed=1)
    assert out.shape == (9, 32, 48, 3) and out.dtype == np.uint8
    # Not resized, anchors kept (0) at 64/255, structure (white) to be generated (1).
    assert seen["video"].shape == (1, 3, 9, 32, 48) and seen["mask"].shape == (1, 3, 9, 32, 48)
    assert seen["mask"][0, 0, :, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert seen["video"][0, 0, 0].numpy() == pytest.approx(64 / 127.5 - 1, abs=1e-6)
    assert (seen["video"][0, :, 4] == 1).all()
    # Sampled in time at frames 1, 4 and 7, where there is no anchor.
    assert seen["channels"].shape == (1, 64, 3, 4, 6)
    assert (seen["channels"] == 1).all()


def test_stage_makes_each_variant_from_its_own_structure(prepared):
    profile, clip = prepared
    made = {
        variant: propagation.propagate(profile, [clip], variant)[0]
        for variant in ("edges", "depth", "multi_anchor")
    }
    inputs = {variant: store.read_sidecar(path)["inputs"] for variant, path in made.items()}
    assert inputs["edges"]["structure"] != inputs["depth"]["structure"]
    assert inputs["edges"]["structure"] == inputs["multi_anchor"]["structure"]
    assert sorted(inputs["multi_anchor"]) == ["anchor/0", "anchor/4", "anchor/8", "structure"]
    frames = [video.read(path) for path in made.values()]
    assert all(one.shape == (9, 32, 48, 3) for one in frames)
    assert not np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])
    assert len({store.read_sidecar(path)["seed"] for path in made.values()}) == 1


def test_stage_resumes_and_follows_its_anchors(prepared, monkeypatch):
    profile, clip = prepared
    path = propagation.propagate(profile, [clip], "edges")[0]
    before, key = path.read_bytes(), store.read_sidecar(path)["key"]
    with monkeypatch.context() as patch:
        patch.setattr(models, "load_vace", lambda _: pytest.fail("loaded"))
        propagation.propagate(profile, [clip], "edges")
    path.unlink()
    propagation.propagate(profile, [clip], "edges")
    assert path.read_bytes() == before
    put_anchor(profile, clip, 0, grey=200)
    propagation.propagate(profile, [clip], "edges")
    assert store.read_sidecar(path)["key"] != key and path.read_bytes() != before


def test_half_precision_with_guidance_runs_the_same_path(prepared):
    profile, clip = prepared
    half = profile.model_copy(
        update={
            "models": profile.models.model_copy(update={"dtype": "bfloat16"}),
            "propagation": profile.propagation.model_copy(update={"guidance": 3.0}),
        }
    )
    full = video.read(propagation.propagate(profile, [clip], "edges")[0])
    guided = video.read(propagation.propagate(half, [clip], "edges")[0])
    assert guided.shape == full.shape and not np.array_equal(guided, full)
    assert models.load_vace(half).vae.dtype.itemsize == 4


def test_each_prompt_is_encoded_once(prepared):
    profile, _ = prepared
    pipeline = propagation.load(profile)
    calls = []
    original = pipeline.encode_prompt
    pipeline.encode_prompt = lambda prompt, **rest: calls.append(prompt) or original(prompt, **rest)
    encode = propagation.encoder(profile, pipeline)
    for prompt in ("a", "b", "a"):
        embeds = encode(prompt)
    assert calls == ["a", "b"]
    assert embeds["prompt_embeds"].shape[1] == models.text_length(pipeline.tokenizer)
    assert embeds["negative_prompt_embeds"] is None


def test_clip_with_a_refused_anchor_is_left_out_and_its_old_version_goes(prepared, capsys):
    profile, clip = prepared
    path = propagation.propagate(profile, [clip], "edges")[0]
    put_anchor(profile, clip, 8, accepted=False)
    assert propagation.propagate(profile, [clip], "edges") == []
    assert not path.exists() and not store.sidecar_of(path).exists()
    assert f"{clip.id} is left out" in capsys.readouterr().out


def test_a_clip_without_a_caption_gets_the_profiles_prompt(tiny_profile, tiny_clips):
    from dataclasses import replace

    assert propagation.prompt_of(tiny_profile, tiny_clips[0]) == tiny_clips[0].caption
    bare = replace(tiny_clips[0], caption=" ")
    assert propagation.prompt_of(tiny_profile, bare) == tiny_profile.propagation.prompt


def test_what_is_missing_is_named_before_the_model_loads(prepared, tiny_clips, monkeypatch, tmp_path):
    profile, clip = prepared
    monkeypatch.setattr(models, "load_vace", lambda _: pytest.fail("loaded"))
    with pytest.raises(InputError, match=r"000000\.png does not exist: run 02_anchoring"):
        propagation.propagate(profile, [clip, tiny_clips[1]], "edges")
    structure.path(profile, "depth", clip).unlink()
    with pytest.raises(InputError, match=r"depth/.* does not exist"):
        propagation.propagate(profile, [clip], "depth")
    away = profile.models.model_copy(update={"vace": str(tmp_path / "away")})
    with pytest.raises(InputError, match=r"models\.vace"):
        propagation.propagate(profile.model_copy(update={"models": away}), [clip], "edges")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(InputError, match="MB free"):
        propagation.propagate(profile, [clip], "edges")
    assert sampling.path(profile, clip).is_file()
