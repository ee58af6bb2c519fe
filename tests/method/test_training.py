"""Training: what it computes, what it refuses, and that a killed run ends as one never killed."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from rmkit.demos import training_lab
from rmkit.errors import InputError
from rmkit.evaluation import figures
from rmkit.kit import devices, store, video
from rmkit.method import dataset, lora, objective, record, training, wan
from rmkit.paths import REPOSITORY
from rmkit.pipeline import doctor
from rmkit.profile import Train


def with_train(profile, **changes):
    return profile.model_copy(update={"train": profile.train.model_copy(update=changes)})


def tensors(profile, expert="high", name=training.NAME):
    return load_file(profile.layout.adapters / name / expert / lora.WEIGHTS)


def edit_pairs(profile, **changes):
    file = profile.layout.pairs / "pairs.json"
    entries = json.loads(file.read_text())
    entries[0].update(changes)
    store.write_json(file, entries)


def test_flow_matching():
    batch = {"render": torch.ones(2, 1, 1, 1, 1), "target": torch.full((2, 1, 1, 1, 1), 2.0), "text": 0}
    noise, levels = torch.full((2, 1, 1, 1, 1), 4.0), torch.tensor([0.0, 0.25])
    inputs = objective.prepare_inputs(batch, noise, levels)
    assert inputs.noisy.flatten().tolist() == [2.0, 2.5]
    assert inputs.timestep.tolist() == [0.0, 250.0]
    assert torch.equal(inputs.reference, batch["render"])
    # One Euler step of the true velocity from sigma to 0 gives the target back.
    assert torch.allclose(inputs.noisy - levels.view(-1, 1, 1, 1, 1) * inputs.velocity, batch["target"])
    assert objective.velocity_loss(inputs.velocity, inputs).tolist() == [0, 0]
    assert objective.velocity_loss(inputs.velocity + levels.view(-1, 1, 1, 1, 1) * 12, inputs).tolist() == [
        0,
        9,
    ]


def test_sigmas_stay_in_the_experts_range_and_follow_the_shift():
    uniform = torch.linspace(0, 1, 10_001)
    high = objective.shifted(uniform, 0.875, 1.0, 3.0)
    assert high.min() >= 0.875 - 1e-6 and high.max() <= 1 + 1e-6
    whole = objective.shifted(uniform, 0.0, 1.0, 3.0)
    assert (whole >= 0.875).float().mean() == pytest.approx(0.30, abs=0.01)  # FACTS 2
    assert torch.allclose(whole[whole >= 0.875].median(), high.median(), atol=1e-3)


@pytest.mark.parametrize("sampler", objective.SAMPLERS)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.0, 0.875), (0.875, 1.0)])
def test_every_sampler_fills_its_range_in_order(tiny_profile, sampler, ends):
    settings = with_train(tiny_profile, sampler=sampler).train
    levels = objective.sample_sigma(torch.linspace(0, 1, 1001), *ends, settings)
    assert levels.dtype == torch.float32 and (levels.diff() >= 0).all()
    assert levels[0].item() == pytest.approx(ends[0], abs=1e-3)
    assert levels[-1].item() == pytest.approx(ends[1], abs=1e-3)


def test_logit_normal_is_what_it_says():
    levels = objective.logit_normal(
        torch.rand(200_000, generator=torch.Generator().manual_seed(0)), 0, 1, -0.5, 0.8
    )
    logits = levels.double().logit()
    assert logits.mean().item() == pytest.approx(-0.5, abs=0.01)
    assert logits.std().item() == pytest.approx(0.8, abs=0.01)
    # Cut to a range, the draws are those of the whole that fall in it.
    cut = objective.logit_normal(
        torch.rand(200_000, generator=torch.Generator().manual_seed(1)), 0.5, 1, -0.5, 0.8
    )
    assert cut.mean().item() == pytest.approx(levels[levels > 0.5].mean().item(), abs=3e-3)


def test_learning_rate_and_order_of_pairs():
    rates = [training.learning_rate(step, 100, 10, 1.0) for step in range(100)]
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001 < rates[0] < max(rates) == 1.0
    drawn = [i for step in range(6) for i in dataset.batch_indices(4, 2, step, seed=3)]
    epochs = [drawn[i : i + 4] for i in range(0, 12, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_killed_training_ends_bit_identical(encoded_profile, monkeypatch):
    profile = with_train(encoded_profile, checkpoint_every=2, batch=2)
    experts = {"high": 5, "low": 2}
    for name, steps in experts.items():
        changed = getattr(profile.train, name).model_copy(update={"steps": steps, "learning_rate": 1e-2})
        profile = with_train(profile, **{name: changed})
    folder = training.train(profile)
    whole = {name: tensors(profile, name) for name in experts}
    assert all(weight.abs().max() > 0 for name, weight in whole["high"].items() if "lora_B" in name)

    rows = record.read(profile, training.NAME)
    assert rows.expert.tolist() == ["high"] * 10 + ["low"] * 4 and rows.step.tolist()[:4] == [0, 0, 1, 1]
    assert np.isfinite(rows.loss).all() and set(rows.pair) == {pair.id for pair in dataset.pairs(profile)}
    assert ((rows.sigma >= 0.875) == (rows.expert == "high")).all()

    before = (folder / "high" / lora.WEIGHTS).stat().st_mtime_ns
    with monkeypatch.context() as finished:
        finished.setattr(training.models, "load_wan", None)
        training.train(profile)
    assert (folder / "high" / lora.WEIGHTS).stat().st_mtime_ns == before

    shutil.rmtree(folder)
    stock, calls = training.velocity_loss, []

    def killed(prediction, inputs):
        calls.append(1)
        if len(calls) in (2, 6):  # in step 1, before a checkpoint; begun again, in step 3
            raise KeyboardInterrupt
        return stock(prediction, inputs)

    monkeypatch.setattr(training, "velocity_loss", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training.train(profile)
    assert store.read_sidecar(folder / "high.checkpoint.safetensors")["step"] == 2
    training.train(profile)
    assert len(calls) == 2 + 4 + 3 + 2  # steps 0-1, 0-3, 2-4 of high, then low
    for name in experts:
        again = tensors(profile, name)
        assert again.keys() == whole[name].keys()
        assert all(torch.equal(again[key], whole[name][key]) for key in again)
    assert not list(folder.glob("*.checkpoint*"))


def test_killed_at_any_moment_it_ends_bit_identical(encoded_profile, monkeypatch):
    """With held-out pairs measured on the way, one training killed in each of its five steps in turn."""
    high = encoded_profile.train.high.model_copy(update={"steps": 5, "learning_rate": 1e-2})
    profile = with_train(encoded_profile, high=high, checkpoint_every=1, evaluate_every=2, held_out=1)
    training.train(profile, "whole")
    stock = torch.Tensor.backward
    for moment in range(5):
        calls = []

        def killed(*args, calls=calls, **kwargs):
            calls.append(1)
            if len(calls) == 2:  # goes one step further each time
                raise KeyboardInterrupt
            return stock(*args, **kwargs)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(torch.Tensor, "backward", killed)
            training.train(profile, "killed")
        done = store.read_sidecar(profile.layout.adapters / "killed" / "high.checkpoint.safetensors")
        assert done.get("step") == (
            moment + 1 if moment < 4 else None
        )  # the last time it was in the other expert
    training.train(profile, "killed")
    for expert in ("high", "low"):
        whole, again = (tensors(profile, expert, name) for name in ("whole", "killed"))
        assert all(torch.equal(again[key], whole[key]) for key in whole)
    ours, theirs = (record.read(profile, name, "held_out") for name in ("whole", "killed"))
    assert ours.equals(theirs) and len(ours) == 5 * (4 + 2)  # quantiles x (steps 0, 2, 4, 5 and 0, 2)


def test_stopped_after_a_step_it_goes_on_bit_identical_and_its_log_is_read(encoded_profile):
    profile = with_train(encoded_profile, held_out=1, checkpoint_every=50, evaluate_every=50)
    folder = training.train(profile, "whole")
    seen = []
    with pytest.raises(InputError, match="no log of a training yet"):
        record.so_far(profile, "stopped")
    for expert in ("high", "low"):  # two steps each
        with pytest.raises(training.Stopped, match=f"{expert} expert was stopped after step 1 of 2"):
            training.train(profile, "stopped", lambda *tables: seen.append(tables), stop=lambda: True)
        so_far = record.so_far(profile, "stopped")
        for written, shown in zip(so_far, seen[-1], strict=True):
            assert len(written[written.expert == expert]) == len(shown)
    assert so_far[0].expert.tolist() == ["high", "high", "low"]
    assert len(training_lab.so_far(profile, "stopped").axes) == 4
    stopped = training.train(profile, "stopped", stop=lambda: False)
    for expert in ("high", "low"):
        whole, again = (tensors(profile, expert, name) for name in ("whole", "stopped"))
        assert all(torch.equal(again[key], whole[key]) for key in whole)
    assert {path.name for path in stopped.iterdir()} == {path.name for path in folder.iterdir()}  # no log
    assert record.so_far(profile, "stopped")[0].equals(record.read(profile, "stopped"))
    assert asyncio.run(training_lab.train(profile, "stopped")) == stopped  # where nobody is, plainly


def test_held_out_pairs_are_measured_and_not_trained_on(encoded_profile):
    profile = with_train(encoded_profile, held_out=1, evaluate_every=1)
    seen = []
    folder = training.train(profile, watch=lambda curve, held_out: seen.append((len(curve), len(held_out))))
    first, last = (pair.id for pair in dataset.pairs(profile))
    curve, held_out = record.read(profile, training.NAME), record.read(profile, training.NAME, "held_out")
    assert set(curve.pair) == {first} and set(held_out.pair) == {last}
    high = held_out[held_out.expert == "high"]
    assert sorted(set(high.step)) == [0, 1, 2] and high["quantile"].nunique() == len(training.QUANTILES)
    assert high.groupby("quantile").sigma.nunique().eq(1).all() and high.sigma.between(0.875, 1).all()
    assert seen == [(1, 10), (2, 15)] * 2  # rows of the expert in training, after each step
    names = sorted(path.name for path in (folder / "samples").glob("*.png"))
    assert names == [f"{expert}_00000{step}.png" for expert in ("high", "low") for step in (0, 1, 2)]
    assert json.loads((folder / "high" / "adapter.json").read_text())["pairs"] == 1
    assert len(figures.training(profile).axes) == 4
    assert record.by_noise_level(curve).notna().any().all()
    with pytest.raises(InputError, match="held_out is 2 and there are only 2 pairs"):
        training.train(with_train(profile, held_out=2))


# What `accelerate launch` runs on GPUs; for two processes on a CPU it wants MPI. Accelerate shards on a GPU only, so
# for FSDP it is told that these processes are on one; all the rest is what it does there.
LAUNCHED = """
import os, sys
from pathlib import Path
import torch
from rmkit import cli, profile
from rmkit.kit import devices
from rmkit.method import checkpoint, training
profile.REPOSITORY = Path(sys.argv[1])
if os.environ.get("ACCELERATE_USE_FSDP"):
    from accelerate.state import DistributedType, PartialState
    PartialState._prepare_backend = lambda self, *_, **__: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
    torch.distributed.init_process_group("gloo")
    devices.require = lambda profile: None
stock, calls = training.velocity_loss, []
def loss(prediction, inputs):
    calls.append(1)
    if len(calls) > 3:
        torch.distributed.barrier()  # the first process has written its checkpoint
        os._exit(9)
    return stock(prediction, inputs)
training.velocity_loss = loss
whole = checkpoint.whole
def gathered(tensor):
    assert tensor.dim() == 0 or type(tensor).__name__ == os.environ["KIND"], type(tensor)
    return whole(tensor)
checkpoint.whole = gathered
sys.exit(cli.main(["train", "--profile", sys.argv[2]]))
"""


def launched_with(config):
    """What accelerate's launcher hands to its processes by environment variables."""
    words = ["--config_file", str(config), "--num_processes", "2", "-m", "rmkit", "train"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    return {key: value for key, value in prepare_multi_gpu_env(arguments).items() if key not in os.environ}


def in_two_processes(profile, folder, environment):
    """The command `train` in two real processes of one thread."""
    (folder / "run.py").write_text(LAUNCHED)
    (folder / "tiny.yaml").write_text(json.dumps(profile.model_dump(mode="json")))  # JSON is YAML
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*command, str(folder / "run.py"), str(folder), str(folder / "tiny.yaml")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("how", ["copies", "shards"])
def test_two_processes_go_on_where_one_was_killed_and_one_where_two_were(
    encoded_profile, tmp_path, monkeypatch, how
):
    """Each has the whole model (DDP) or half of it (FSDP); the batch is shared, and so are its noise and gradient."""
    experts = {name: getattr(encoded_profile.train, name) for name in ("high", "low")}
    steps = {name: expert.model_copy(update={"steps": 3}) for name, expert in experts.items()}
    profile = with_train(encoded_profile, batch=2, held_out=0, checkpoint_every=1, **steps)
    training.train(profile)
    one = {expert: tensors(profile, expert) for expert in experts}
    shutil.rmtree(profile.layout.adapters)

    stock, calls = training.velocity_loss, []

    def killed(prediction, inputs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return stock(prediction, inputs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "velocity_loss", killed)
        training.train(profile)  # the first step of the high-noise expert
    environment = {"KIND": "Tensor"}
    if how == "shards":
        environment = {"KIND": "DTensor"} | launched_with(REPOSITORY / "rmkit" / "method" / "fsdp.yaml")
    done = in_two_processes(profile, tmp_path, environment)  # its other two, one of the low-noise expert
    assert "exitcode  : 9" in done.stderr, done.stderr  # killed as LAUNCHED says, not for another reason
    folder = profile.layout.adapters / training.NAME
    assert store.read_sidecar(folder / "high")["processes"] == 2
    assert store.read_sidecar(folder / "low.checkpoint.safetensors")["step"] == 1
    training.train(profile)
    for expert, weights in one.items():
        for key, weight in tensors(profile, expert).items():
            assert torch.allclose(weight, weights[key], atol=1e-6), key
    assert len(record.read(profile, training.NAME)) == 2 * (3 + 3)


def test_a_notebook_trains_by_accelerates_launcher_or_at_once(encoded_profile, monkeypatch):
    import accelerate

    called = []
    monkeypatch.setattr(
        accelerate, "notebook_launcher", lambda *args, **options: called.append((args, options))
    )
    folder = encoded_profile.layout.adapters / training.NAME
    assert training.launch(encoded_profile, 2) == folder and not folder.exists()
    assert called == [((training.train, (encoded_profile, training.NAME)), {"num_processes": 2})]
    assert training.launch(encoded_profile, 1) == folder and (folder / "high").is_dir()


def test_weights_can_be_stored_in_8_bit_while_an_adapter_learns(encoded_profile):
    training.train(encoded_profile, "full")
    for checkpointing in (False, True):
        small = with_train(encoded_profile, base="fp8", gradient_checkpointing=checkpointing)
        training.train(small, f"fp8_{checkpointing}")
    full, plain, checkpointed = (tensors(encoded_profile, name=n) for n in ("full", "fp8_False", "fp8_True"))
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)
    key = "transformer.blocks.1.ffn.net.2.lora_B.weight"
    assert plain[key].dtype == torch.float32 and not torch.equal(plain[key], full[key])
    assert torch.nn.functional.cosine_similarity(plain[key].flatten(), full[key].flatten(), 0) > 0.9


def test_what_this_machine_cannot_do_is_said_before_a_model_is_loaded(pairs_profile, monkeypatch):
    monkeypatch.setattr(training.models, "load_wan", None)
    small = with_train(pairs_profile, optimizer="adamw8bit")
    with pytest.raises(InputError, match="needs a CUDA GPU and the package bitsandbytes"):
        training.train(small)
    for profile, ok in ((pairs_profile, True), (small, False)):
        finding = next(f for f in doctor.check(profile) if f.what == "training")
        assert finding.ok == ok and finding.needed
    with monkeypatch.context() as absent:
        absent.setattr(devices.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match="pip install tensorboard"):
            training.train(with_train(pairs_profile, tensorboard=True))
    with monkeypatch.context() as sharded:
        sharded.setenv("ACCELERATE_USE_FSDP", "true")
        with pytest.raises(InputError, match=r"\(FSDP\) on CUDA GPUs only"):
            training.train(pairs_profile)
        sharded.setattr(devices.models, "device", lambda profile: torch.device("cuda"))
        sharded.setenv("FSDP_VERSION", "1")
        with pytest.raises(
            InputError, match=r"not version 2: launch with `--config_file rmkit/method/fsdp.yaml`"
        ):
            devices.require(pairs_profile)
        sharded.setenv("FSDP_VERSION", "2")
        devices.require(pairs_profile)
        with pytest.raises(InputError, match=r"neither train\.base 'fp8' nor"):
            devices.require(with_train(pairs_profile, base="fp8"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="1 and 3 processes"):
        training.train(pairs_profile)


def test_events_for_tensorboard_are_written_on_request(encoded_profile):
    pytest.importorskip("tensorboard")
    folder = training.train(with_train(encoded_profile, tensorboard=True, held_out=1))
    found = {path.parent.name for path in (folder / "tensorboard").rglob("events.out.tfevents.*")}
    assert found == {"high", "low"}


def test_adapter_has_the_facts_and_loads_by_diffusers_alone(encoded_profile):
    from diffusers import WanPipeline

    profile = with_train(encoded_profile, rank=4, alpha=2)
    folder = training.train(profile)
    facts = json.loads((folder / "low" / "adapter.json").read_text())
    assert facts["mode"] == "joint" and facts["rank"] == 4 and facts["frames"] == profile.clips.frames
    assert (
        facts["base"] == wan.fingerprint(profile, "transformer_2") != wan.fingerprint(profile, "transformer")
    )
    assert {"dataset", "commit", "height", "width"} <= facts.keys()
    card = (folder / "README.md").read_text()
    assert f"base_model: {profile.models.wan}" in card and "Rank 4, alpha 2" in card
    assert 'load_lora_weights("low", load_into_transformer_2=True)' in card and "2 pairs" in card

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


def test_checkpointing_changes_nothing_and_bf16_keeps_the_adapter_in_float32(encoded_profile):
    training.train(encoded_profile, "plain")
    training.train(with_train(encoded_profile, gradient_checkpointing=True), "checkpointed")
    plain, checkpointed = (
        tensors(encoded_profile, name="plain"),
        tensors(encoded_profile, name="checkpointed"),
    )
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)

    models = encoded_profile.models.model_copy(update={"dtype": "bfloat16"})
    half = encoded_profile.model_copy(update={"models": models})
    dataset.encode(half)
    training.train(with_train(half, gradient_checkpointing=True), "half")
    saved = tensors(half, name="half")
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in saved.values())
    # Two steps in bf16 and in float32 go the same way.
    key = "transformer.blocks.1.ffn.net.2.lora_B.weight"
    assert torch.nn.functional.cosine_similarity(saved[key].flatten(), plain[key].flatten(), 0) > 0.9


def test_block_inputs_can_wait_in_cpu_memory_and_change_nothing(encoded_profile, monkeypatch):
    training.train(encoded_profile, "plain")
    stock, waited = torch.autograd.graph.save_on_cpu, []

    class Watched(stock):
        def __init__(self, pin_memory):
            super().__init__(pin_memory)
            pack = self.pack_hook
            self.pack_hook = lambda tensor: waited.append(tuple(tensor.shape)) or pack(tensor)

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Watched)
    training.train(with_train(encoded_profile, gradient_checkpointing=True, block_inputs="cpu"), "waiting")
    plain, waiting = tensors(encoded_profile, name="plain"), tensors(encoded_profile, name="waiting")
    assert all(torch.equal(plain[key], waiting[key]) for key in plain)
    steps, blocks, tokens = 2 + 2, 2, 3 * 2 * 3  # latents 3x4x6 in patches of 1x2x2
    width = plain["transformer.blocks.0.attn1.to_q.lora_A.weight"].shape[1]
    assert waited.count((2, tokens, width)) >= steps * blocks  # a block's input, of render and noisy target
    assert (2, tokens, 4 * width) not in waited  # nothing from inside one
    with pytest.raises(ValueError, match=r"needs train\.gradient_checkpointing"):
        Train.model_validate({**encoded_profile.train.model_dump(), "block_inputs": "cpu"})


def test_one_way_is_trained_and_recorded(encoded_profile):
    one_way = with_train(encoded_profile, mode="one-way")
    folder = training.train(one_way, "one-way")
    training.train(with_train(one_way, gradient_checkpointing=True), "checkpointed")
    training.train(encoded_profile, "joint")
    assert json.loads((folder / "high" / "adapter.json").read_text())["mode"] == "one-way"
    saved, checkpointed, joint = (
        tensors(one_way, name=name) for name in ("one-way", "checkpointed", "joint")
    )
    assert all(torch.equal(saved[key], checkpointed[key]) for key in saved)
    assert any(not torch.equal(saved[key], joint[key]) for key in saved)


def test_one_expert_models_train_one_adapter(encoded_profile, tmp_path):
    folder = tmp_path / "wan21"
    shutil.copytree(encoded_profile.models.wan, folder)
    shutil.rmtree(folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index.update(transformer_2=[None, None], boundary_ratio=None)
    (folder / "model_index.json").write_text(json.dumps(index))
    models = encoded_profile.models.model_copy(update={"wan": str(folder)})
    profile = encoded_profile.model_copy(update={"models": models})
    (expert,) = wan.experts(profile)
    assert (expert.name, expert.sigma, expert.steps) == ("single", (0.0, 1.0), 4)
    training.train(profile)
    assert len(record.read(profile, training.NAME)) == 4


def test_bad_pairs_are_refused_before_a_model_is_loaded(pairs_profile, monkeypatch):
    monkeypatch.setattr(training.models, "load_wan", None)
    profile = pairs_profile
    pairs = json.loads((profile.layout.pairs / "pairs.json").read_text())
    first = pairs[0]

    edit_pairs(profile, target=first["render"])
    with pytest.raises(InputError, match="teach copying"):
        training.train(profile)
    short = profile.layout.root / "short.mp4"
    video.write(short, video.read(profile.layout.root / first["render"])[:5], 16)
    edit_pairs(profile, target="short.mp4")
    with pytest.raises(InputError, match=r"5 frames of 32x48 .* 9 of 32x48"):
        training.train(profile)
    store.write_json(profile.layout.pairs / "pairs.json", [{**pair, "kept": False} for pair in pairs])
    with pytest.raises(InputError, match="keeps no pair"):
        training.train(profile)
    shutil.rmtree(profile.layout.pairs)
    with pytest.raises(InputError, match="does not exist"):
        training.train(profile)


def test_same_pictures_in_another_file_are_a_copy_too(pairs_profile):
    first = json.loads((pairs_profile.layout.pairs / "pairs.json").read_text())[0]
    frames = video.read(pairs_profile.layout.root / first["render"])
    video.write(pairs_profile.layout.root / "copy.mp4", frames, 12)
    edit_pairs(pairs_profile, target="copy.mp4")
    with pytest.raises(InputError, match="teach copying"):
        dataset.encode(pairs_profile)


def test_pairs_are_encoded_before_training_and_not_by_it(pairs_profile, monkeypatch):
    with pytest.raises(InputError, match=r"4 of the pairs' files are not encoded .* run `rmkit encode`"):
        training.train(pairs_profile)
    first = dataset.encode(pairs_profile)
    before = [path.stat().st_mtime_ns for path in first]
    with monkeypatch.context() as finished:
        finished.setattr(dataset.models, "load_wan", None)
        assert dataset.encode(pairs_profile) == first
    first[0].unlink()  # one is lost: one is made again
    assert dataset.encode(pairs_profile) == first
    after = [path.stat().st_mtime_ns for path in first]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False] + [True] * (
        len(first) - 1
    )


def test_pairs_can_be_trained_on_smaller_than_they_are_generated(pairs_profile):
    dataset.encode(pairs_profile)
    (whole, text), _ = dataset.encoded(pairs_profile, dataset.pairs(pairs_profile))
    assert store.read_sidecar(whole)["settings"] == {}  # so that latents of before keep their keys
    shape = load_file(whole)["render"].shape
    small = with_train(pairs_profile, height=16, width=32, frames=5, held_out=1)
    with pytest.raises(InputError, match="are not encoded as this profile asks"):
        training.train(small)
    before = text.stat().st_mtime_ns
    dataset.encode(small)
    assert text.stat().st_mtime_ns == before
    assert shape == (48, 3, 4, 6) and load_file(whole)["render"].shape == (48, 2, 2, 4)
    folder = training.train(small)
    facts = json.loads((folder / "low" / "adapter.json").read_text())
    assert (facts["frames"], facts["height"], facts["width"]) == (5, 16, 32)
    assert "trained on clips of 5 frames of 32x16" in (folder / "README.md").read_text()
    keyed = store.read_sidecar(folder / "low")["settings"]
    assert (keyed["frames"], keyed["height"], keyed["width"]) == (5, 16, 32)
    plain = training._recipe(pairs_profile, wan.experts(pairs_profile)[0], dataset.pairs(pairs_profile), [])
    assert not {"frames", "height", "width", "block_inputs"} & plain.settings.keys()


def test_pixels_are_averaged_when_pairs_are_made_smaller(pairs_profile):
    checks = (np.indices((32, 64)).sum(0) % 2 * 200).astype(np.uint8)
    frames = np.broadcast_to(checks[None, ..., None], (9, 32, 64, 3))
    made = dataset.sized(with_train(pairs_profile, height=16, width=32, frames=5), frames)
    assert made.shape == (5, 16, 32, 3) and (made == 100).all()


def test_ranges_across_the_boundary_are_refused(encoded_profile):
    wide = encoded_profile.train.high.model_copy(update={"sigma": (0.5, 1.0)})
    with pytest.raises(InputError, match=r"0\.875"):
        training.train(with_train(encoded_profile, high=wide))


def test_a_loss_that_is_not_finite_stops_the_run(encoded_profile, monkeypatch):
    nan = torch.tensor([float("nan")])
    monkeypatch.setattr(training, "velocity_loss", lambda prediction, inputs: prediction.sum() * nan)
    with pytest.raises(InputError, match="became nan at step 0"):
        training.train(encoded_profile)
    assert not (encoded_profile.layout.adapters / "realmaster" / "high").exists()
