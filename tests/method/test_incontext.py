"""The attention fold against frame concatenation, on the model's own blocks and weights."""

import pytest
import torch
from concatenation import concatenated
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from small_wan import adapted, expert, inputs, reference

from rmkit.evaluation import figures
from rmkit.method import incontext
from rmkit.method.incontext import in_context


@pytest.mark.parametrize("seed", [0, 1], ids=["high", "low"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_joint_equals_frame_concatenation(seed, batch):
    model = adapted(seed)
    with torch.no_grad():
        slow = concatenated(model, reference(batch), **inputs(batch))
        with in_context(model, reference(batch)):
            fold = model(**inputs(batch)).sample
        plain = model(**inputs(batch)).sample
    assert (fold - slow).abs().max() < 1e-5
    assert (fold - plain).abs().max() > 1e-2  # the reference is not ignored


class Masked(WanAttnProcessor):
    """The stock processor with a dense mask: reference tokens do not see the noisy ones."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        length = hidden_states.shape[1] // 2
        mask = torch.ones(2 * length, 2 * length, dtype=torch.bool)
        mask[:length, length:] = False
        return super().__call__(attn, hidden_states, encoder_hidden_states, mask, rotary_emb)


def masked(model: WanTransformer3DModel, *args, **call) -> torch.Tensor:
    stock = dict(model.attn_processors)
    model.set_attn_processor({name: Masked() if "attn1" in name else p for name, p in stock.items()})
    sample = concatenated(model, *args, **call)
    model.set_attn_processor(stock)
    return sample


@pytest.mark.parametrize("seed", [0, 1], ids=["high", "low"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_one_way_equals_frame_concatenation_under_a_mask(seed, batch):
    model = adapted(seed)
    with torch.no_grad():
        slow = masked(model, reference(batch), **inputs(batch))
        with in_context(model, reference(batch), mode="one-way"):
            fold = model(**inputs(batch)).sample
        with in_context(model, reference(batch)):
            joint = model(**inputs(batch)).sample
    assert (fold - slow).abs().max() < 1e-5
    assert (fold - joint).abs().max() > 1e-3


@pytest.mark.parametrize(("mode", "slow"), [("joint", concatenated), ("one-way", masked)])
def test_bfloat16_is_no_further_from_float32_than_frame_concatenation(mode, slow):
    model, call, shown = adapted(), inputs(3), reference(3)
    with torch.no_grad():
        exact = slow(model, shown, **call)
        model.to(torch.bfloat16)
        call = {n: value if n == "timestep" else value.bfloat16() for n, value in call.items()}
        rounded = slow(model, shown.bfloat16(), **call)
        with in_context(model, shown, mode=mode):
            fold = model(**call).sample
    assert fold.dtype == torch.bfloat16
    spread = (rounded.float() - exact).square().mean().sqrt()
    assert (fold.float() - exact).square().mean().sqrt() < 1.25 * spread


@pytest.mark.parametrize("mode", incontext.MODES)
def test_rows_of_a_batch_do_not_mix(mode):
    model, pair = expert(0), reference(2)
    with torch.no_grad(), in_context(model, pair, mode=mode) as shown:
        both = model(**inputs(2)).sample
        shown.latents = pair[1:]
        alone = model(**{name: value[1:] for name, value in inputs(2).items()}).sample
    assert (both[1:] - alone).abs().max() < 1e-5


def test_one_reference_serves_all_rows_and_scalar_timesteps():
    model, one = expert(0), reference(1)
    call = {**inputs(2), "timestep": torch.tensor(500)}
    with torch.no_grad():
        with in_context(model, one):
            sample = model(**call).sample
        with in_context(model, one.expand(2, -1, -1, -1, -1)):
            row = model(*{**call, "timestep": torch.tensor([500, 500])}.values(), return_dict=False)[0]
    assert torch.equal(sample, row)


def test_target_alone_is_the_base_model(monkeypatch):
    """Zero adapters and each row attending to itself: the hooks add nothing."""
    monkeypatch.setitem(incontext.PROCESSORS, "target_only", lambda stock: stock)
    model = adapted(gaussian=False)
    with torch.no_grad():
        base = expert(0)(**inputs()).sample
        with in_context(model, reference(), mode="target_only"):
            alone = model(**inputs()).sample
    assert (alone - base).abs().max() < 1e-6


def test_restored_after_an_error():
    model = expert(0)
    before = model(**inputs()).sample
    processors = dict(model.attn_processors)
    with pytest.raises(RuntimeError, match="boom"), in_context(model, reference()):
        model(**inputs())
        raise RuntimeError("boom")
    assert dict(model.attn_processors) == processors
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert torch.equal(model(**inputs()).sample, before)


def test_wrong_use_is_refused():
    model = expert(0)
    with pytest.raises(ValueError, match="unknown"), in_context(model, mode="both"):
        pass
    with in_context(model) as shown:
        with pytest.raises(ValueError, match="no reference"):
            model(**inputs())
        shown.latents = reference()[:, :, :2]
        with pytest.raises(ValueError, match="do not match"):
            model(**inputs())
        with pytest.raises(ValueError, match="already"), in_context(model):
            pass


def test_the_figure_shows_who_attends_to_whom():
    model = expert(0)
    layer, rotary = model.blocks[0].attn1, model.rope(reference(1))
    rows = torch.randn(2, 18, 24, generator=torch.Generator().manual_seed(1))  # [reference; noisy]
    for ax, mode in zip(figures.attention().axes, incontext.MODES, strict=True):
        processor = incontext.PROCESSORS[mode](layer.processor)
        with torch.no_grad():
            before = processor(layer, rows, rotary_emb=rotary)
            reads = torch.zeros(2, 2, dtype=torch.bool)  # [queries, keys]
            for keys in (0, 1):
                changed = rows.clone()
                changed[keys, 0] += 1  # one token, of which all others are told by attention alone
                after = processor(layer, changed, rotary_emb=rotary)
                reads[:, keys] = (after - before)[:, 1:].abs().amax(dim=(1, 2)) > 1e-4
        assert ax.get_title() == mode
        drawn = [text.get_text() != "not attended" for text in ax.texts]
        assert drawn == reads.flatten().tolist()
