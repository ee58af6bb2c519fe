"""Windows: they cover a video, one is the model itself, several agree where they overlap, seams are blended."""

import numpy as np
import pytest
import small_wan
import torch
from diffusers import FirstBlockCacheConfig

from rmkit import windows
from rmkit.errors import InputError
from rmkit.incontext import in_context


@pytest.mark.parametrize(
    ("frames", "first"),
    [(9, [0]), (17, [0]), (21, [0, 4]), (29, [0, 12]), (41, [0, 12, 24]), (45, [0, 12, 24, 28])],
)
def test_windows_cover_the_video_and_end_with_it(frames, first):
    assert windows.starts(frames, 17, 4) == first


@pytest.mark.parametrize(
    ("frames", "length", "overlap"), [(16, 17, 4), (41, 16, 4), (41, 17, 16), (41, 17, 6)]
)
def test_lengths_that_do_not_fit_are_refused(frames, length, overlap):
    with pytest.raises(ValueError, match="do not fit"):
        windows.starts(frames, length, overlap)


def test_one_window_is_the_model_in_context():
    model, inputs = small_wan.expert(0), small_wan.inputs(1)
    with torch.no_grad():
        with in_context(model, small_wan.reference(1)):
            expected = model(**inputs).sample
        with windows.denoised_as_one(model, [small_wan.reference(1)], [0], 4, "joint"):
            found = model(**inputs, return_dict=False)[0]
    assert torch.equal(found, expected)


def test_each_window_sees_its_own_reference_and_neighbours_agree():
    model, calls = small_wan.expert(0), []
    references = list(small_wan.reference(2).split(1))
    inputs = small_wan.inputs(2)
    with torch.no_grad():
        alone = []
        for i in range(2):
            with in_context(model, references[i]):
                alone.append(model(**{key: value[i : i + 1] for key, value in inputs.items()}).sample)
        # Three latents, the second window begins with the first's second: they share one that is no window's first.
        with windows.denoised_as_one(model, references, [0, 4], 4, "joint", lambda: calls.append(1)):
            found = model(**inputs, return_dict=False)[0]
    assert len(calls) == 2 and found.shape == inputs["hidden_states"].shape
    assert torch.equal(found[0, :, 2], found[1, :, 1])
    assert torch.allclose(found[0, :, 2], (alone[0][0, :, 2] + alone[1][0, :, 1]) / 2, atol=1e-6)
    for row, latent in ((0, 0), (0, 1), (1, 0), (1, 2)):
        assert torch.equal(found[row, :, latent], alone[row][0, :, latent])


def test_the_model_is_as_it_was_after_an_error_too():
    model = small_wan.expert(0)
    before = model.forward
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        windows.denoised_as_one(model, [small_wan.reference(1)], [0], 4, "joint"),
    ):
        raise RuntimeError("in the middle")
    assert model.forward == before and "forward" not in vars(model)
    # An error inside of a window's pass leaves nothing behind either.
    with (
        pytest.raises(ValueError, match="do not match"),
        windows.denoised_as_one(model, [small_wan.reference(1)[..., :4]], [0], 4, "joint"),
    ):
        model(**small_wan.inputs(1))
    assert model.forward == before and "forward" not in vars(model)


def test_a_cache_that_skips_blocks_is_refused_for_several_windows():
    model = small_wan.expert(0)
    model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with (
        pytest.raises(InputError, match="disable_cache"),
        windows.denoised_as_one(model, list(small_wan.reference(2).split(1)), [0, 4], 4, "joint"),
    ):
        pass


@pytest.mark.parametrize("frames", [17, 29, 41, 45])
def test_joined_windows_of_one_video_are_that_video(frames):
    video = np.random.default_rng(0).integers(0, 256, (frames, 2, 3, 3), np.uint8)
    first = windows.starts(frames, 17, 4)
    found = np.stack(list(windows.joined((video[at : at + 17] for at in first), first, 4)))
    assert np.array_equal(found, video)


def test_joined_windows_fade_into_one_another():
    first = windows.starts(29, 17, 4)
    stretches = [np.full((17, 1, 1, 3), value, np.uint8) for value in (100, 200)]
    found = np.stack(list(windows.joined(stretches, first, 4)))[:, 0, 0, 0].astype(int)
    assert found[:13].tolist() == [100] * 13 and found[17:].tolist() == [200] * 12
    assert (np.diff(found) >= 0).all() and np.diff(found).max() < 40
