"""Keys and values of the reference cached over the steps: the same result, computed once a text."""

import gc
import weakref

import pytest
import torch
from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from small_wan import adapted, expert, inputs, reference

from rmkit.attention import key_value_cache
from rmkit.attention.key_value_cache import cache_bytes, placement
from rmkit.attention.one_way import CACHED
from rmkit.errors import InputError
from rmkit.method.incontext import Reference, in_context

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def passes(monkeypatch):
    """Timesteps of every pass through a transformer, the reference's own included."""
    seen, forward = [], WanTransformer3DModel.forward

    def counted(self, *args, **kwargs):
        seen.append(kwargs["timestep"].tolist())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(WanTransformer3DModel, "forward", counted)
    return seen


def denoise(model, shown, mode, batch=2, **options):
    """Three steps under guidance, each with the text and the negative text; the predictions of all."""
    call = {name: value.to(model.device) for name, value in inputs(batch).items()}
    negative, samples = call["encoder_hidden_states"].flip(1), []
    with in_context(model, shown, mode=mode, **options):
        for timestep in (900.0, 500.0, 20.0):
            for text in (call["encoder_hidden_states"], negative):
                changed = {"timestep": torch.tensor(timestep), "encoder_hidden_states": text.clone()}
                samples.append(model(**{**call, **changed}).sample)
                call["hidden_states"] = call["hidden_states"] - 0.1 * samples[-1]
    return torch.stack(samples)


@pytest.mark.parametrize("seed", [0, 1], ids=["high", "low"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_cached_equals_one_way(passes, seed, batch):
    model = adapted(seed)
    uncached = denoise(model, reference(batch), "one-way", batch)
    del passes[:]
    cached = denoise(model, reference(batch), CACHED, batch)
    assert (cached - uncached).abs().max() < 1e-5
    assert len(passes) == 6 + 2 and passes.count([0.0] * batch) == 2  # the reference passes once a text


def test_cached_equals_one_way_in_bfloat16():
    model, call = adapted(), {n: v.bfloat16() for n, v in inputs().items()}
    samples = {}
    for mode in ("one-way", CACHED):
        with in_context(model.to(torch.bfloat16), reference(), mode=mode):
            model(**call)
            samples[mode] = model(**call).sample
    assert samples[CACHED].dtype == torch.bfloat16
    assert torch.allclose(samples[CACHED], samples["one-way"], rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("changed", ["text", "reference", "scale"])
def test_what_is_cached_is_of_the_same_inputs(passes, changed):
    """Also when a buffer is filled anew, so that it is the same object with another content."""
    model, call, shown = adapted(), {**inputs(), "attention_kwargs": {"scale": 1.0}}, reference()
    with in_context(model, shown, mode=CACHED):
        model(**call)
        if changed == "text":
            call["encoder_hidden_states"].mul_(-1)
        elif changed == "reference":
            shown.mul_(-1)
        else:
            call["attention_kwargs"]["scale"] = 0.5
        again = model(**call).sample
        assert torch.equal(model(**call).sample, again)
    assert len(passes) == 3 + 2
    with in_context(model, shown, mode="one-way"):
        assert (model(**call).sample - again).abs().max() < 1e-5


def test_experts_that_share_a_reference_share_its_memory():
    high, low, shown = expert(0), expert(1), Reference(reference())
    with in_context(high, shown, CACHED), in_context(low, shown, CACHED):
        texts = [{**inputs(), "encoder_hidden_states": torch.randn(2, 5, 8)} for _ in range(2)]
        for call in texts:
            high(**call)
        first = weakref.ref(shown.cached[0].layers[0][0].values)
        for call in texts:
            low(**call)
            gc.collect()
            assert first() is None
        assert [entry.transformer for entry in shown.cached] == [low, low]
        states = [states.values for layer in shown.cached[0].layers for states in layer]
        assert sum(part.nbytes for part in states) == cache_bytes(low, inputs()["hidden_states"])
    assert not shown.cached


def test_placement_is_chosen_by_free_memory(monkeypatch):
    """On a device that is not here, so the placement alone."""
    model, noisy = expert(0), torch.empty(2, 4, 3, 4, 6, device="meta")
    size, small, room = cache_bytes(model, noisy), cache_bytes(model, noisy, in_8_bit=True), {}
    monkeypatch.setattr(key_value_cache, "_free", lambda device: room[device.type])
    working = key_value_cache.WORKING_WIDTHS * key_value_cache._widths(model, noisy)

    def chosen(on_device, on_cpu, cache="auto"):
        room.update(meta=on_device, cpu=on_cpu)
        found = placement(model, noisy, cache)
        assert found.size == (small if found.in_8_bit else size)
        return found.device.type, found.in_8_bit

    assert chosen(working + size, 0) == ("meta", False)
    assert chosen(size, size) == ("cpu", False)  # a pass itself needs room too
    assert chosen(working + small, size - 1) == ("meta", True)  # exact in CPU memory goes before rounded
    assert chosen(working, small) == ("cpu", True)
    assert chosen(0, 0, "device") == ("meta", False) and chosen(0, 0, "8-bit") == ("meta", True)
    assert chosen(working + size, 0, "cpu") == ("cpu", False)
    with pytest.raises(InputError, match=r"0\.0 GiB on cpu and 0\.0 GiB on meta beside a pass: use mode"):
        chosen(working + small - 1, small - 1)
    assert "GiB a text on meta, rounded to 8 bit" in str(placement(model, noisy, "8-bit"))
    room["cpu"] = 0
    with in_context(model, reference(), CACHED), pytest.raises(InputError, match="a text"):
        model(**inputs())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_8_bit_it_is_nearly_the_same_in_less_room(dtype):
    model, shown = adapted().to(dtype), Reference(reference())
    call = {name: value.to(dtype) for name, value in inputs().items()}
    with in_context(model, reference(), "one-way"):
        want = model(**call).sample.float()
    with in_context(model, shown, CACHED, cache="8-bit"):
        first, again = model(**call).sample, model(**call).sample
        parts = [
            part
            for layer in shown.cached[0].layers
            for states in layer
            for part in (states.values, states.step)
        ]
    assert torch.equal(first, again) and first.dtype == dtype
    error = (first.float() - want).square().mean().sqrt() / want.std()
    assert 0 < error < (0.01 if dtype == torch.float32 else 0.02)
    assert {part.dtype for part in parts} == {torch.int8, torch.float32}
    size = sum(part.nbytes for part in parts)
    assert size == cache_bytes(model, call["hidden_states"], in_8_bit=True)
    assert size < cache_bytes(model, call["hidden_states"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CPU memory is another place there")
def test_cached_in_either_place_it_is_the_same():
    model = adapted()
    uncached = denoise(model, reference(), "one-way")
    cached = [denoise(model.cuda(), reference(), CACHED, cache=where) for where in ("device", "cpu")]
    assert torch.equal(*cached)
    assert (cached[0].cpu() - uncached).abs().max() < 1e-4


def test_restored_after_an_error(monkeypatch):
    model, shown = expert(0), Reference(reference())
    before, processors = model(**inputs()).sample, dict(model.attn_processors)
    with pytest.raises(RuntimeError), in_context(model, shown, CACHED):
        model(**inputs())
        layers = [block.attn1.processor for block in model.blocks]
        with monkeypatch.context() as broken, pytest.raises(TypeError):
            broken.setattr(model.blocks[1], "forward", None)
            model(**inputs())
        assert [layer.cached for layer in layers] == [None, None]
        raise RuntimeError
    assert not shown.cached and dict(model.attn_processors) == processors
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert torch.equal(model(**inputs()).sample, before)


def test_wrong_use_is_refused():
    model = expert(0)
    with in_context(model, reference(), mode=CACHED):
        with torch.enable_grad(), pytest.raises(ValueError, match="train in 'one-way'"):
            model(**inputs())
        model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        with pytest.raises(ValueError, match="disable_cache"), model.cache_context("cond"):
            model(**inputs())
