"""Counts: by the real classes on the meta device, continued over depth; and what is known of the paper's scale."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rmkit import profile
from rmkit.method.incontext import in_context
from rmkit.pipeline import configs, count, meter, passes

WAN, VACE = "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Wan-AI/Wan2.1-VACE-14B-diffusers"
SMALL, EDITOR = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Qwen/Qwen-Image-Edit"
PAPER = (21, 100, 150)  # latents of 81 frames of 800x1200
GIB = 2**30


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(count, "CACHE", tmp_path / "absent" / "counts.json")


def settings(**train: Any) -> profile.Profile:
    paper = profile.load("paper")
    return paper.model_copy(update={"train": paper.train.model_copy(update=train)})


def step(name: str, latents: tuple[int, int, int], **train: Any) -> count.Cost:
    asked = settings(**{"gradient_checkpointing": True, **train})
    return count.train_step(configs.part(name, "transformer"), latents, 512, "bfloat16", 1, train=asked)


def gib(cost: count.Cost) -> float:
    return (cost.weights + cost.working) / GIB


@pytest.mark.parametrize(("layers", "latents"), [(2, (3, 8, 12)), (5, (3, 8, 12)), (5, (5, 16, 8))])
@pytest.mark.parametrize("mode", [None, "joint", "one-way"])
def test_a_pass_is_what_torch_counts_of_the_whole_model(layers, latents, mode) -> None:
    config = {**configs.part(SMALL, "transformer"), "num_layers": layers}
    model = passes.build(config, "bfloat16")
    inputs = passes.inputs_of(model, latents, 512, torch.bfloat16, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # attention by its own formula, unfused
        if mode:
            with in_context(model, torch.empty_like(inputs["hidden_states"]), mode=mode):
                model(**inputs)
        else:
            model(**inputs)
    found = count.denoise(config, latents, 512, "bfloat16", mode)
    assert found.flops == pytest.approx(counter.get_total_flops(), rel=1e-9)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weights == sum(p.nbytes for p in model.parameters())


def test_depth_and_hints_are_continued_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = {**configs.part("Wan-AI/Wan2.1-VACE-1.3B-diffusers", "transformer"), "num_layers": 7}
    deep["vace_layers"] = [0, 2, 4, 5, 6]
    continued = count.denoise(deep, (3, 8, 12), 512, "bfloat16")
    trained = step_of_depth(6)
    monkeypatch.setattr(count, "BLOCKS", 99)  # built whole
    whole = count.denoise(deep, (3, 8, 12), 512, "bfloat16")
    assert continued.flops == pytest.approx(whole.flops, rel=1e-9)
    assert continued.parameters == pytest.approx(whole.parameters, rel=1e-9)
    assert continued.working == pytest.approx(whole.working, rel=0.02)
    again = step_of_depth(6)
    assert trained.flops == pytest.approx(again.flops, rel=1e-9)
    assert trained.working == pytest.approx(again.working, rel=0.02)


def step_of_depth(layers: int) -> count.Cost:
    config = {**configs.part(SMALL, "transformer"), "num_layers": layers}
    asked = settings(gradient_checkpointing=True)
    return count.train_step(config, (3, 8, 12), 512, "bfloat16", 1, train=asked)


def test_a_long_clip_is_continued_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configs.part(WAN, "vae")
    for verb in (count.encode, count.decode):
        continued = verb(config, 25, 64, 96, "float32")
        with monkeypatch.context() as patch:
            patch.setattr(count, "LONGER", 99)
            whole = verb(config, 25, 64, 96, "float32")
        assert continued.flops == pytest.approx(whole.flops, rel=1e-9)
        assert continued.working == pytest.approx(whole.working, rel=0.02)


def test_the_meter_sees_what_is_alive() -> None:
    model = torch.nn.Linear(256, 256, bias=False, device="meta")
    with meter.reading(model) as found:
        model(torch.empty(4, 256, device="meta"))
        model(torch.empty(8, 256, device="meta"))
    assert found.flops == 2 * (4 + 8) * 256 * 256
    assert found.peak == 4 * (256 * 256 + (8 + 8) * 256)


def test_a_count_is_kept_and_a_changed_config_is_counted_anew(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(count, "CACHE", tmp_path / "counts.json")
    config = {**configs.part(SMALL, "transformer"), "num_layers": 1}
    first = count.denoise(config, (1, 4, 4), 8, "bfloat16")
    monkeypatch.setattr(passes, "denoise", None)
    assert count.denoise(config, (1, 4, 4), 8, "bfloat16") == first
    with pytest.raises(TypeError):
        count.denoise(config, (1, 4, 6), 8, "bfloat16")
    assert len(json.loads((tmp_path / "counts.json").read_text())) == 1


# The paper's scale as it was counted once with the whole models (10 %: other releases of torch count no otherwise).
def test_the_passes_of_the_papers_models() -> None:
    vace = count.denoise(configs.part(VACE, "transformer"), PAPER, 512, "bfloat16")
    assert vace.parameters == pytest.approx(17.34e9, rel=0.001)
    assert vace.flops * 305_000 == pytest.approx(2_566_000e15, rel=0.1)
    assert gib(vace) == pytest.approx(51, rel=0.1)
    shown = count.denoise(configs.part(WAN, "transformer"), PAPER, 512, "bfloat16", "joint", 32)
    assert shown.flops * 8_000 == pytest.approx(193_000e15, rel=0.1) and gib(shown) == pytest.approx(
        45, rel=0.1
    )
    edit = count.edit(configs.part(EDITOR, "transformer"), (52, 78), 1, 1400, "bfloat16")
    assert edit.parameters == pytest.approx(20.43e9, rel=0.001)
    assert edit.flops * 602_240 == pytest.approx(118_000e15, rel=0.1) and gib(edit) == pytest.approx(
        39, rel=0.1
    )


@pytest.mark.parametrize(
    ("name", "latents", "train", "expected"),
    [
        (WAN, PAPER, {"gradient_checkpointing": False}, 1882),
        (WAN, PAPER, {}, 159),
        (WAN, PAPER, {"base": "fp8"}, 145),
        (WAN, (21, 60, 104), {}, 83),
        (WAN, (21, 60, 90), {}, 75),
        (WAN, (21, 60, 90), {"base": "fp8"}, 62),
        (WAN, (21, 40, 60), {}, 49),
        (SMALL, (21, 60, 90), {"gradient_checkpointing": False}, 187),
        (SMALL, (21, 60, 90), {}, 18),
    ],
)
def test_the_memory_of_a_training_step(name, latents, train, expected) -> None:
    assert gib(step(name, latents, **train)) == pytest.approx(expected, rel=0.1)


def test_a_training_step_of_the_paper() -> None:
    found = step(WAN, PAPER)
    assert found.trained == 153_354_240
    assert found.flops * 2_000 == pytest.approx(206_000e15, rel=0.1)
    assert found.flops / (0.45 * 989e12) == pytest.approx(232, rel=0.1)  # seconds on an H100


def test_encoding_the_papers_pairs() -> None:
    vae = count.encode(configs.part(WAN, "vae"), 81, 800, 1200, "float32")
    text = count.read(configs.part(WAN, "text_encoder"), 512, "bfloat16")
    assert vae.flops * 2_432 == pytest.approx(950e15, rel=0.1)
    assert gib(vae) + text.weights / GIB == pytest.approx(24, rel=0.1)  # both are held
