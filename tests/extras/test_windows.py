"""Windows: they cover a video, one is the model itself, several agree where they overlap, seams are blended."""

import numpy as np
import pytest
import small_wan
import torch

from rmkit.extras import windows
from rmkit.method.incontext import in_context


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


def predict(model, references, before_=(), after=None, **options):
    """Prediction of one window of small_wan's, in context, and what it leaves to the next."""
    with (
        torch.no_grad(),
        in_context(model, references),
        windows.blended([model], before_, after, **options) as passes,
    ):
        return model(**small_wan.inputs(1), return_dict=False)[0], passes


def test_one_window_is_the_model_in_context():
    model = small_wan.expert(0)
    with torch.no_grad(), in_context(model, small_wan.reference(1)):
        expected = model(**small_wan.inputs(1)).sample
    assert torch.equal(predict(model, small_wan.reference(1))[0], expected)


def test_each_window_sees_its_own_reference_and_agrees_with_the_one_before():
    model, calls = small_wan.expert(0), []
    references = list(small_wan.reference(2).split(1))
    first, passes = predict(model, references[0], after=4, done=lambda: calls.append(1))
    # Three latents, the second window begins with the first's second: they share one that is no window's first.
    assert [tuple(p.shape) for p in passes] == [(1, 4, 2, 4, 6)] and torch.equal(passes[0], first[:, :, 1:])
    alone, _ = predict(model, references[1])
    second, left = predict(model, references[1], passes, done=lambda: calls.append(1))
    assert len(calls) == 2 and left[0].shape[2] == 0  # nothing follows
    assert torch.allclose(second[:, :, 1], (first[:, :, 2] + alone[:, :, 1]) / 2, atol=1e-6)
    assert torch.equal(second[:, :, 0], alone[:, :, 0]) and torch.equal(second[:, :, 2], alone[:, :, 2])


def test_passes_of_both_experts_are_counted_as_one_row():
    """As the pipeline calls them: the high-noise expert first, each with its own part of the window before."""
    experts = [small_wan.expert(0), small_wan.expert(1)]
    calls = small_wan.inputs(1)
    with torch.no_grad(), windows.blended(experts, [], 4) as passes:
        for model in experts:
            model(**calls)
    with torch.no_grad(), windows.blended(experts, passes, None):
        again = [model(**calls).sample for model in experts]
    for model, sample, before in zip(experts, again, passes, strict=True):
        with torch.no_grad():
            alone = model(**calls).sample
        assert torch.allclose(sample[:, :, 1], (before[:, :, 1] + alone[:, :, 1]) / 2, atol=1e-6)


def test_the_model_is_as_it_was_after_an_error_too():
    model = small_wan.expert(0)
    with pytest.raises(ValueError, match="do not match"):
        predict(model, small_wan.reference(1)[..., :4])
    assert not model._forward_hooks and not model._forward_pre_hooks


@pytest.mark.parametrize("frames", [17, 29, 41, 45])
def test_joined_windows_of_one_video_are_that_video(frames):
    video = np.random.default_rng(0).integers(0, 256, (frames, 2, 3, 3), np.uint8)
    first = windows.starts(frames, 17, 4)
    found = np.stack(list(windows.joined((video[at : at + 17] for at in first), first, 4)))
    assert np.array_equal(found, video)


def test_joined_windows_fade_into_one_another_late():
    first = windows.starts(29, 17, 4)
    stretches = [np.full((17, 1, 1, 3), value, np.uint8) for value in (100, 200)]
    found = np.stack(list(windows.joined(stretches, first, 4)))[:, 0, 0, 0].astype(int)
    assert found[:13].tolist() == [100] * 13 and found[17:].tolist() == [200] * 12
    assert found[13:17].tolist() == [100 + round(100 * (j / 5) ** windows.LATE) for j in (1, 2, 3, 4)]


def test_a_last_window_that_shares_more_fades_at_the_end_of_it():
    stretches = [np.full((17, 1, 1, 3), value, np.uint8) for value in (100, 200)]
    found = np.stack(list(windows.joined(stretches, [0, 4], 4)))[:, 0, 0, 0].astype(int)
    assert len(found) == 21 and found[:13].tolist() == [100] * 13 and found[17:].tolist() == [200] * 4
