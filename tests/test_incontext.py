"""The attention fold against frame concatenation, on the model's own blocks and weights."""

import pytest
import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig

from rmkit import incontext
from rmkit.incontext import in_context

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]


def expert(seed: int) -> WanTransformer3DModel:
    """A random transformer whose gates and modulation are all at work."""
    torch.manual_seed(seed)
    model = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
    ).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def adapted(seed: int = 0, gaussian: bool = True) -> WanTransformer3DModel:
    model = expert(seed).requires_grad_(False)
    model.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS))
    if gaussian:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    return model


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        "hidden_states": torch.randn(batch, 4, 3, 4, 6, generator=generator),
        "timestep": torch.tensor([900.0, 300.0, 20.0])[:batch],
        "encoder_hidden_states": torch.randn(batch, 5, 8, generator=generator),
    }


def reference(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 3, 4, 6, generator=torch.Generator().manual_seed(8))


def concatenated(
    model: WanTransformer3DModel,
    shown: torch.Tensor,
    hidden_states: torch.Tensor,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
) -> torch.Tensor:
    """The slow form: one sequence [reference; noisy], 2-D timesteps, RoPE repeated. Only for tests."""
    frames, height, width = hidden_states.shape[2:]
    rotary = [torch.cat([part, part], dim=1) for part in model.rope(hidden_states)]
    both = torch.cat([shown, hidden_states], dim=2)  # [B, C, 2F, H, W]
    tokens = model.patch_embedding(both).flatten(2).transpose(1, 2)  # [B, 2L, D]
    length = tokens.shape[1] // 2
    times = torch.stack([torch.zeros_like(timestep), timestep], dim=1).repeat_interleave(length, 1)
    temb, modulation, text, _ = model.condition_embedder(
        times.flatten(), encoder_hidden_states, None, timestep_seq_len=2 * length
    )
    modulation = modulation.unflatten(2, (6, -1))  # [B, 2L, 6, D]
    for block in model.blocks:
        tokens = block(tokens, text, modulation, rotary)
    shift, scale = (model.scale_shift_table[None] + temb[:, :, None]).chunk(2, dim=2)
    tokens = model.norm_out(tokens) * (1 + scale[:, :, 0]) + shift[:, :, 0]
    patches = model.proj_out(tokens[:, length:])  # [B, L, 2 * 2 * C]
    grid = patches.unflatten(1, (frames, height // 2, width // 2)).unflatten(-1, (1, 2, 2, -1))
    grid = grid.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return grid.flatten(6, 7).flatten(4, 5).flatten(2, 3)


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


def test_rows_of_a_batch_do_not_mix():
    model, pair = expert(0), reference(2)
    with torch.no_grad(), in_context(model, pair) as shown:
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
    """Zero adapters and each row attending to itself: the processor and the hooks add nothing."""
    monkeypatch.setitem(
        incontext.ATTENTION, "target_only", lambda attention, *projected: attention(*projected)
    )
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


def gradients(model: WanTransformer3DModel) -> dict[str, torch.Tensor]:
    with in_context(model, reference()):
        model(**inputs()).sample.square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_every_adapter_learns_with_and_without_checkpointing():
    plain = gradients(adapted())
    model = adapted()
    model.enable_gradient_checkpointing()
    checkpointed = gradients(model)
    # 2 blocks, 4 + 4 + 2 projections each
    assert sum("lora_B" in name for name in plain) == 2 * 10
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, checkpointed[name]), name


def test_attention_backend_can_be_chosen():
    model = expert(0)
    with torch.no_grad(), in_context(model, reference()):
        native = model(**inputs()).sample
        model.set_attention_backend("_native_math")
        chosen = {layer.attn1.processor._attention_backend for layer in model.blocks}
        other = model(**inputs()).sample
    assert {str(backend.value) for backend in chosen} == {"_native_math"}
    assert (native - other).abs().max() < 1e-5
