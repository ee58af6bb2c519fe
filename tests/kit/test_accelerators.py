"""Accelerators: a few-step LoRA beside our adapter, at its own noise levels, and only one that fits."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_enhance import save_adapters, validation

from rmkit.errors import InputError
from rmkit.kit import accelerators, models, store
from rmkit.method import anchoring, enhance, propagation, training
from rmkit.profile import Profile

LEVELS = (1.0, 0.75, 0.5, 0.25)
SHIFTED = {shift: [shift * s / (1 + (shift - 1) * s) for s in LEVELS] + [0.0] for shift in (3.0, 5.0)}
# How LightX2V names the modules of a block.
FOREIGN = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


def write_lora(file, model, names, renamed=None):
    """A random LoRA of rank 2 on a model's layers of these names."""
    generator, tensors = torch.Generator().manual_seed(3), {}
    for name, layer in model.named_modules():
        ending = next((n for n in names if name.endswith(n)), None)
        if not name.startswith(("blocks.", "transformer_blocks.")) or ending is None:
            continue
        key = f"transformer.{name}"
        if renamed:
            key = f"diffusion_model.{name.removesuffix(ending)}{renamed[ending]}"
        a, b = ("lora_down", "lora_up") if renamed else ("lora_A", "lora_B")
        tensors[f"{key}.{a}.weight"] = torch.randn(2, layer.in_features, generator=generator) * 0.2
        tensors[f"{key}.{b}.weight"] = torch.randn(layer.out_features, 2, generator=generator) * 0.2
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return len(tensors) // 2


@pytest.fixture
def accelerated(tiny_profile, tiny_clips, tmp_path):
    """The tiny profile with one for each role; our adapter is there too."""
    save_adapters(tiny_profile)
    wan = models.load_wan(tiny_profile)
    for part in ("transformer", "transformer_2"):
        write_lora(tmp_path / "loras" / f"{part}.safetensors", getattr(wan, part), FOREIGN, FOREIGN)
    write_lora(tmp_path / "loras" / "vace.safetensors", models.load_vace(tiny_profile).transformer, FOREIGN)
    editor = models.load_editor(tiny_profile).transformer
    write_lora(tmp_path / "loras" / "editor.safetensors", editor, ("attn.to_q", "attn.to_k", "attn.to_v"))
    return with_accelerators(
        tiny_profile,
        wan={"file": "transformer.safetensors", "file_2": "transformer_2.safetensors", "shift": 5.0},
        vace={"file": "vace.safetensors", "shift": 5.0},
        editor={"file": "editor.safetensors", "shift": 3.0},
        folder=tmp_path / "loras",
    )


def with_accelerators(profile, folder, **roles):
    content = profile.model_dump()
    content["models"]["accelerators"] |= {
        role: {"model": str(folder), **asked} for role, asked in roles.items()
    }
    content["anchors"] |= {"steps": 4}
    content["propagation"] |= {"steps": 4, "shift": 5.0}
    content["enhance"] |= {"steps": 4, "shift": 5.0}
    return Profile.model_validate(content)


def test_it_stands_beside_our_adapter_in_every_expert(accelerated, monkeypatch):
    folder = accelerated.layout.adapters / training.NAME
    pipeline = enhance.load(accelerated, folder)
    for part in (pipeline.transformer, pipeline.transformer_2):
        assert part.active_adapters() == [accelerators.NAME, enhance.ADAPTER]
        layer = part.blocks[0].attn1.to_q
        assert set(layer.lora_A) == {accelerators.NAME, enhance.ADAPTER}
        x = torch.randn(1, 3, layer.base_layer.in_features)
        sides = {n: layer.lora_B[n](layer.lora_A[n](x)) * layer.scaling[n] for n in layer.lora_A}
        assert all(side.abs().max() > 0 for side in sides.values())
        assert torch.allclose(layer(x), layer.base_layer(x) + sum(sides.values()), atol=1e-5)
    taken = []
    with monkeypatch.context() as watching:
        stock = pipeline.scheduler.step
        watching.setattr(
            pipeline.scheduler, "step", lambda *a, **k: taken.append(float(a[1]) / 1000) or stock(*a, **k)
        )
        monkeypatch.setattr(enhance, "load", lambda profile, folder: pipeline)
        (path,) = enhance.enhance(accelerated, validation(accelerated)[:1])
    assert taken == pytest.approx(SHIFTED[5.0][:-1]) and pipeline.scheduler.sigmas.tolist() == pytest.approx(
        SHIFTED[5.0]
    )
    keyed = store.read_sidecar(path)["settings"]["accelerator"]
    assert len(keyed["files"]) == 2 and keyed["sigmas"] == list(LEVELS)
    assert accelerators.settings(accelerated, "wan") != {}


def test_the_others_have_theirs_too(accelerated, monkeypatch):
    vace = propagation.load(accelerated)
    assert vace.transformer.active_adapters() == [accelerators.NAME]
    vace.scheduler.set_timesteps(4, device="cpu")
    assert vace.scheduler.sigmas.tolist() == pytest.approx(SHIFTED[5.0])
    editor = models.load_editor(accelerated)
    frame = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    made = anchoring.edit_frame(accelerated, editor, frame, 0)
    assert editor.scheduler.sigmas.tolist() == pytest.approx(SHIFTED[3.0])
    assert not np.array_equal(made, anchoring.edit_frame(accelerated, _plain(editor), frame, 0))


def test_it_keeps_its_own_type_on_an_editor_in_8_bit(accelerated):
    content = accelerated.model_dump()
    content["models"]["editor_weights"] = "fp8"
    pipeline = models.load_editor(Profile.model_validate(content))
    layer = pipeline.transformer.transformer_blocks[0].attn.to_q
    assert layer.base_layer.weight.dtype == torch.float8_e4m3fn
    assert layer.lora_A[accelerators.NAME].weight.dtype == torch.float32
    frame = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    assert anchoring.edit_frame(accelerated, pipeline, frame, 0).shape == frame.shape


def _plain(editor):
    editor.transformer.disable_adapters()
    return editor


def test_without_one_recipes_and_models_are_as_before(tiny_profile):
    assert all(accelerators.settings(tiny_profile, role) == {} for role in models.ROLES)
    pipeline = models.load_editor(tiny_profile)
    scheduler = pipeline.scheduler
    accelerators.put_on(tiny_profile, pipeline, "editor")
    assert pipeline.scheduler is scheduler and not getattr(pipeline.transformer, "peft_config", None)


def test_one_that_does_not_fit_is_refused(accelerated, tmp_path):
    missing = with_accelerators(accelerated, tmp_path, vace={"file": "none.safetensors", "shift": 5.0})
    with pytest.raises(InputError, match=r"models\.accelerators\.vace is .*none\.safetensors does not exist"):
        models.check(missing, "vace")
    one = {"file": "transformer.safetensors", "shift": 5.0}
    half = with_accelerators(accelerated, tmp_path / "loras", wan=one)
    with pytest.raises(InputError, match="has two experts"):
        enhance.load(half, accelerated.layout.adapters / training.NAME)
    file = tmp_path / "loras" / "vace.safetensors"
    tensors = load_file(file)
    for spoil, said in (
        ({"transformer.blocks.9.attn1.to_q.lora_A.weight": torch.zeros(2, 3)}, "does not fit transformer"),
        ({next(iter(tensors)): torch.zeros(2, 3)}, "does not fit transformer"),
    ):
        save_file(tensors | spoil, file)
        with pytest.raises(InputError, match=said):
            propagation.load(accelerated)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InputError, match="is no LoRA that diffusers reads"):
        propagation.load(accelerated)
