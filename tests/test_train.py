"""Training: what it computes, what it refuses, and that a killed run ends as one never killed."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rmkit import adapter, dataset, store, train, video
from rmkit.errors import InputError


def with_train(profile, **changes):
    return profile.model_copy(update={"train": profile.train.model_copy(update=changes)})


def tensors(profile, expert="high", name=train.NAME):
    return load_file(profile.layout.adapters / name / expert / adapter.WEIGHTS)


def edit_pairs(profile, **changes):
    file = profile.layout.pairs / "pairs.json"
    entries = json.loads(file.read_text())
    entries[0].update(changes)
    store.write_json(file, entries)


def test_flow_matching():
    batch = {"render": torch.ones(2, 1, 1, 1, 1), "target": torch.full((2, 1, 1, 1, 1), 2.0), "text": 0}
    noise, sigma = torch.full((2, 1, 1, 1, 1), 4.0), torch.tensor([0.0, 0.25])
    inputs = train.prepare_inputs(batch, noise, sigma)
    assert inputs.noisy.flatten().tolist() == [2.0, 2.5]
    assert inputs.timestep.tolist() == [0.0, 250.0]
    assert torch.equal(inputs.reference, batch["render"])
    # One Euler step of the true velocity from sigma to 0 gives the target back.
    assert torch.allclose(inputs.noisy - sigma.view(-1, 1, 1, 1, 1) * inputs.velocity, batch["target"])
    assert train.loss(inputs.velocity, inputs) == 0
    assert train.loss(inputs.velocity + 3, inputs) == 9


def test_sigmas_stay_in_the_experts_range_and_follow_the_shift():
    uniform = torch.linspace(0, 1, 10_001)
    high = train.sample_sigma(uniform, 0.875, 1.0, 3.0)
    assert high.min() >= 0.875 - 1e-6 and high.max() <= 1 + 1e-6
    whole = train.sample_sigma(uniform, 0.0, 1.0, 3.0)
    assert (whole >= 0.875).float().mean() == pytest.approx(0.30, abs=0.01)  # FACTS 2
    assert torch.allclose(whole[whole >= 0.875].median(), high.median(), atol=1e-3)


def test_learning_rate_and_order_of_pairs():
    rates = [train.learning_rate(step, 100, 10, 1.0) for step in range(100)]
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001 < rates[0] < max(rates) == 1.0
    drawn = [i for step in range(6) for i in dataset.draw(4, 2, step, seed=3)]
    epochs = [drawn[i : i + 4] for i in range(0, 12, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_killed_training_ends_bit_identical(pairs_profile, monkeypatch):
    profile = with_train(pairs_profile, checkpoint_every=2, batch=2)
    experts = {"high": 5, "low": 2}
    for name, steps in experts.items():
        changed = getattr(profile.train, name).model_copy(update={"steps": steps, "learning_rate": 1e-2})
        profile = with_train(profile, **{name: changed})
    folder = train.train(profile)
    whole = {name: tensors(profile, name) for name in experts}
    assert all(weight.abs().max() > 0 for name, weight in whole["high"].items() if "lora_B" in name)

    rows = train.curve(profile)
    assert [row["expert"] for row in rows] == ["high"] * 5 + ["low"] * 2
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert all((float(row["sigma"]) >= 0.875) == (row["expert"] == "high") for row in rows)

    before = (folder / "high" / adapter.WEIGHTS).stat().st_mtime_ns
    with monkeypatch.context() as finished:
        finished.setattr(train.models, "load_wan", None)
        train.train(profile)
    assert (folder / "high" / adapter.WEIGHTS).stat().st_mtime_ns == before

    shutil.rmtree(folder)
    stock, calls = train.loss, []

    def killed(prediction, inputs):
        calls.append(1)
        if len(calls) in (2, 6):  # in step 1, before a checkpoint; begun again, in step 3
            raise KeyboardInterrupt
        return stock(prediction, inputs)

    monkeypatch.setattr(train, "loss", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train.train(profile)
    assert store.read_sidecar(folder / "high.checkpoint.safetensors")["step"] == 2
    train.train(profile)
    assert len(calls) == 2 + 4 + 3 + 2  # steps 0-1, 0-3, 2-4 of high, then low
    for name in experts:
        again = tensors(profile, name)
        assert again.keys() == whole[name].keys()
        assert all(torch.equal(again[key], whole[name][key]) for key in again)
    assert not list(folder.glob("*.checkpoint*"))


def test_adapter_has_the_facts_and_loads_by_diffusers_alone(pairs_profile):
    from diffusers import WanPipeline

    profile = with_train(pairs_profile, rank=4, alpha=2)
    folder = train.train(profile)
    facts = json.loads((folder / "low" / "adapter.json").read_text())
    assert facts["mode"] == "joint" and facts["rank"] == 4 and facts["frames"] == profile.clips.frames
    assert facts["base"] == adapter.base(profile, "transformer_2") != adapter.base(profile, "transformer")
    assert {"dataset", "commit", "height", "width"} <= facts.keys()

    pipeline = WanPipeline.from_pretrained(profile.models.wan)
    pipeline.load_lora_weights(folder / "high")
    pipeline.load_lora_weights(folder / "low", load_into_transformer_2=True)
    for expert, part in (("high", pipeline.transformer), ("low", pipeline.transformer_2)):
        saved = tensors(profile, expert)
        layers = len(pipeline.transformer.blocks)
        assert len(saved) == layers * 10 * 2  # A and B of 4 + 4 + 2 projections a block
        assert all(key.startswith("transformer.blocks.") for key in saved)
        loaded = {n: p for n, p in part.named_parameters() if ".lora_" in n}
        assert len(loaded) == len(saved)
        scaling = {m.scaling[a] for m in part.modules() if hasattr(m, "scaling") for a in m.scaling}
        assert scaling == {0.5}


def test_checkpointing_changes_nothing_and_bf16_keeps_the_adapter_in_float32(pairs_profile):
    train.train(pairs_profile, "plain")
    train.train(with_train(pairs_profile, gradient_checkpointing=True), "checkpointed")
    plain, checkpointed = tensors(pairs_profile, name="plain"), tensors(pairs_profile, name="checkpointed")
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)

    models = pairs_profile.models.model_copy(update={"dtype": "bfloat16"})
    half = pairs_profile.model_copy(update={"models": models})
    train.train(with_train(half, gradient_checkpointing=True), "half")
    saved = tensors(half, name="half")
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in saved.values())
    # Two steps in bf16 and in float32 go the same way.
    key = "transformer.blocks.1.ffn.net.2.lora_B.weight"
    assert torch.nn.functional.cosine_similarity(saved[key].flatten(), plain[key].flatten(), 0) > 0.9


def test_one_way_is_trained_and_recorded(pairs_profile):
    one_way = with_train(pairs_profile, mode="one-way")
    folder = train.train(one_way, "one-way")
    train.train(with_train(one_way, gradient_checkpointing=True), "checkpointed")
    train.train(pairs_profile, "joint")
    assert json.loads((folder / "high" / "adapter.json").read_text())["mode"] == "one-way"
    saved, checkpointed, joint = (
        tensors(one_way, name=name) for name in ("one-way", "checkpointed", "joint")
    )
    assert all(torch.equal(saved[key], checkpointed[key]) for key in saved)
    assert any(not torch.equal(saved[key], joint[key]) for key in saved)


def test_one_expert_models_train_one_adapter(pairs_profile, tmp_path):
    wan = tmp_path / "wan21"
    shutil.copytree(pairs_profile.models.wan, wan)
    shutil.rmtree(wan / "transformer_2")
    index = json.loads((wan / "model_index.json").read_text())
    index.update(transformer_2=[None, None], boundary_ratio=None)
    (wan / "model_index.json").write_text(json.dumps(index))
    models = pairs_profile.models.model_copy(update={"wan": str(wan)})
    profile = pairs_profile.model_copy(update={"models": models})
    (expert,) = adapter.experts(profile)
    assert (expert.name, expert.sigma, expert.steps) == ("single", (0.0, 1.0), 4)
    train.train(profile)
    assert len(train.curve(profile)) == 4


def test_bad_pairs_are_refused_before_a_model_is_loaded(pairs_profile, monkeypatch):
    monkeypatch.setattr(train.models, "load_wan", None)
    profile = pairs_profile
    pairs = json.loads((profile.layout.pairs / "pairs.json").read_text())
    first = pairs[0]

    edit_pairs(profile, target=first["render"])
    with pytest.raises(InputError, match="teach copying"):
        train.train(profile)
    short = profile.layout.root / "short.mp4"
    video.write(short, video.read(profile.layout.root / first["render"])[:5], 16)
    edit_pairs(profile, target="short.mp4")
    with pytest.raises(InputError, match=r"5 frames of 32x48 .* 9 of 32x48"):
        train.train(profile)
    store.write_json(profile.layout.pairs / "pairs.json", [{**pair, "kept": False} for pair in pairs])
    with pytest.raises(InputError, match="keeps no pair"):
        train.train(profile)
    shutil.rmtree(profile.layout.pairs)
    with pytest.raises(InputError, match="does not exist"):
        train.train(profile)


def test_same_pictures_in_another_file_are_a_copy_too(pairs_profile):
    first = json.loads((pairs_profile.layout.pairs / "pairs.json").read_text())[0]
    frames = video.read(pairs_profile.layout.root / first["render"])
    video.write(pairs_profile.layout.root / "copy.mp4", frames, 12)
    edit_pairs(pairs_profile, target="copy.mp4")
    with pytest.raises(InputError, match="teach copying"):
        train.train(pairs_profile)


def test_ranges_across_the_boundary_are_refused(pairs_profile):
    wide = pairs_profile.train.high.model_copy(update={"sigma": (0.5, 1.0)})
    with pytest.raises(InputError, match=r"0\.875"):
        train.train(with_train(pairs_profile, high=wide))


def test_a_loss_that_is_not_finite_stops_the_run(pairs_profile, monkeypatch):
    monkeypatch.setattr(train, "loss", lambda prediction, inputs: prediction.sum() * float("nan"))
    with pytest.raises(InputError, match="became nan at step 0"):
        train.train(pairs_profile)
    assert not (pairs_profile.layout.adapters / "realmaster" / "high").exists()
