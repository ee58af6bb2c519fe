"""Training of the in-context LoRA on pairs of render and propagated clip (paper, 3.3 and B.2).

Reads `pairs/` (see `dataset`); writes `adapters/<name>/`: for each expert a folder with its adapter and learning curves,
`samples/` and a model card. A killed run goes on from its checkpoint and ends bit-identical: a step's random numbers
depend on its number alone. On several GPUs: `accelerate launch -m rmkit train` (one step is the same step there),
with `--config_file rmkit/method/fsdp.yaml` to share the model out among them.
"""

import hashlib
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.errors import InputError
from rmkit.kit import models, progress, store, video
from rmkit.method import checkpoint, dataset, encode, lora, sigma
from rmkit.method.dataset import Encoded, Pair
from rmkit.method.incontext import Reference, in_context
from rmkit.method.lora import Expert
from rmkit.method.record import Record
from rmkit.method.record import write as write_tables
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from accelerate import Accelerator
    from diffusers import WanPipeline, WanTransformer3DModel

Watch = Callable[["pd.DataFrame", "pd.DataFrame"], None]  # of curve and held_out (see `record`)
VERSION = 2
NAME = "realmaster"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]  # ours
ENCODERS = ("vae", "text_encoder", "tokenizer")  # what the cached inputs depend on
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of an expert's noise levels, at which held-out pairs are measured
# Settings that change the cost and not the result, or that enter the key by another way.
NOT_KEYED = {
    *("checkpoint_every", "evaluate_every", "gradient_checkpointing", "tensorboard"),
    *("low", "high", "prompt"),
}


@dataclass(frozen=True)
class Inputs:
    """One call of the transformer and what it should answer; all [B, C, F, H, W] but timestep and text."""

    reference: "torch.Tensor"  # clean render
    noisy: "torch.Tensor"
    timestep: "torch.Tensor"  # [B], 0 to 1000
    text: "torch.Tensor"  # [B, T, D]
    velocity: "torch.Tensor"


def train(profile: Profile, name: str = NAME, watch: Watch | None = None) -> Path:
    """Train one adapter an expert and return their folder; what is finished is not trained again.

    `watch` is given the curves of the expert in training at every measurement. Raises InputError on missing models, no
    pairs, a pair of unequal clips or one that teaches copying, settings that this machine cannot follow, and when the
    loss stops being finite.
    """
    models.check(profile, "wan")
    require(profile)
    experts = lora.experts(profile)
    pairs, held_out = dataset.split(profile, dataset.pairs(profile))
    folder = profile.layout.adapters / name
    recipes = {expert: _recipe(profile, expert, pairs, held_out) for expert in experts}
    todo = [e for e in experts if not store.is_done(folder / e.name, recipes[e])]
    if not todo:
        return folder
    accelerator = _accelerator(profile, folder)
    with accelerator.main_process_first():  # the others find everything encoded
        pipeline = models.load_wan(profile)
        encoded = dataset.cache(profile, pipeline, pairs + held_out)
    pipeline.remove_all_hooks()
    transformers = {expert: getattr(pipeline, expert.part) for expert in todo}
    pipeline.text_encoder = pipeline.transformer = pipeline.transformer_2 = None  # the VAE stays, for samples
    for transformer in transformers.values():
        transformer.to("cpu")
    for expert in todo:
        run = _Run(profile, expert, recipes[expert], folder, pairs, held_out, encoded, accelerator, pipeline)
        _fit(run, transformers.pop(expert), watch)
    if accelerator.is_main_process:
        lora.write_card(profile, folder)
    accelerator.wait_for_everyone()
    return folder


def launch(profile: Profile, processes: int, name: str = NAME) -> Path:
    """Train from a notebook on several GPUs, by accelerate's launcher; the kernel must not have used CUDA yet."""
    from accelerate import notebook_launcher

    if processes == 1:
        return train(profile, name)
    notebook_launcher(train, (profile, name), num_processes=processes)
    return profile.layout.adapters / name


def require(profile: Profile) -> None:
    """Raise InputError where the settings under `train` ask for what is not here: before a model is loaded."""
    settings, on_cpu = profile.train, models.device(profile).type == "cpu"
    if settings.optimizer == "adamw8bit" and (on_cpu or not importlib.util.find_spec("bitsandbytes")):
        raise InputError(
            "train.optimizer is 'adamw8bit', which needs a CUDA GPU and the package bitsandbytes "
            "(pip install bitsandbytes): install it, or set it to 'adamw'."
        )
    if settings.tensorboard and not importlib.util.find_spec("tensorboard"):
        raise InputError("train.tensorboard needs the package tensorboard: pip install tensorboard.")
    if _is_sharded():
        if on_cpu:
            # Accelerate would train copies there, without a word.
            raise InputError("a model is sharded (FSDP) on CUDA GPUs only: launch the training without it.")
        if os.environ.get("FSDP_VERSION") != "2":
            raise InputError(
                "this FSDP is not version 2: launch with `--config_file rmkit/method/fsdp.yaml`."
            )
        if settings.base == "fp8" or settings.optimizer == "adamw8bit":
            raise InputError(
                "a sharded model (FSDP) takes neither train.base 'fp8' nor train.optimizer 'adamw8bit': set them "
                "to 'full' and 'adamw', or launch with `--multi_gpu`."
            )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch % processes:
        raise InputError(
            f"train.batch is {settings.batch} and {processes} processes share it: make it a multiple of them."
        )


def _is_sharded() -> bool:
    """Whether the launcher asked for FSDP: each GPU holds a part of the frozen weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def prepare_inputs(batch: dict[str, "torch.Tensor"], noise: "torch.Tensor", sigma: "torch.Tensor") -> Inputs:
    """Flow matching: noisy = (1 - sigma) target + sigma noise, to be answered with noise - target.

    batch: `render`, `target` [B, C, F, H, W] normalised latents, `text` [B, T, D]; sigma [B] in 0..1.
    """
    target = batch["target"]
    level = sigma.view(-1, 1, 1, 1, 1)
    return Inputs(
        reference=batch["render"],
        noisy=(1 - level) * target + level * noise,
        timestep=sigma * 1000,
        text=batch["text"],
        velocity=noise - target,
    )


def loss(prediction: "torch.Tensor", inputs: Inputs) -> "torch.Tensor":
    """Mean squared error of the velocity in float32, unweighted, a pair: [B, C, F, H, W] -> [B]."""
    return (prediction.float() - inputs.velocity.float()).square().mean(dim=(1, 2, 3, 4))


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to the peak, then a cosine to zero (ours)."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _recipe(profile: Profile, expert: Expert, pairs: list[Pair], held_out: list[Pair]) -> store.Recipe:
    inputs = {}
    for pair in pairs + held_out:
        inputs[f"{pair.id}/render"] = store.fingerprint(pair.render)
        inputs[f"{pair.id}/target"] = store.fingerprint(pair.target)
        inputs[f"{pair.id}/prompt"] = pair.prompt
    return store.Recipe(
        stage="train",
        version=VERSION,
        settings={
            **profile.train.model_dump(exclude=NOT_KEYED),
            "expert": expert.name,
            "steps": expert.steps,
            "learning_rate": expert.learning_rate,
            "sigma": expert.sigma,
            "dtype": profile.models.dtype,
        },
        inputs=inputs,
        seed=store.seed_for(profile.seed, "train", expert.name),
        model="+".join(lora.base(profile, p) for p in (expert.part, *ENCODERS)),
    )


@dataclass(frozen=True)
class _Run:
    """One expert's training: what it is made of and where it goes."""

    profile: Profile
    expert: Expert
    recipe: store.Recipe
    folder: Path
    pairs: list[Pair]
    held_out: list[Pair]
    encoded: list[Encoded]  # of the pairs, then of the held-out ones
    accelerator: "Accelerator"
    pipeline: "WanPipeline"  # for its VAE

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.expert.name}.checkpoint.safetensors"

    def tables(self, record: Record) -> "list[pd.DataFrame]":
        ids = ([pair.id for pair in pairs] for pairs in (self.pairs, self.held_out))
        return record.tables(self.expert.name, *ids)


def _accelerator(profile: Profile, folder: Path) -> "Accelerator":
    import torch
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState
    from torch.distributed.fsdp import MixedPrecisionPolicy

    mixed = "bf16" if models.dtype(profile) == torch.bfloat16 else "no"
    # Accelerate keeps the first call's precision for the process; a notebook may go through two profiles.
    AcceleratorState._reset_state(reset_partial_state=True)
    sharding = None
    if _is_sharded():
        # Weights travel in their own types and autocast does the rest, as without FSDP; accelerate's own policy
        # would round the timestep to bfloat16 on the way in.
        sharding = FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())
    return Accelerator(
        mixed_precision=mixed,
        fsdp_plugin=sharding,
        cpu=models.device(profile).type == "cpu",
        log_with="tensorboard" if profile.train.tensorboard else None,
        project_dir=folder / "tensorboard",
    )


def _fit(run: _Run, transformer: "WanTransformer3DModel", watch: Watch | None) -> None:
    """Train one expert from scratch or from its checkpoint, and write its adapter."""
    profile, expert, accelerator, settings = run.profile, run.expert, run.accelerator, run.profile.train
    parameters = _add_adapter(profile, transformer, run.recipe.seed)
    optimizer = _optimizer(profile, expert, parameters)
    model, optimizer = accelerator.prepare(transformer.train(), optimizer)
    bare = accelerator.unwrap_model(model)
    parameters = {name: bare.get_parameter(name) for name in parameters}  # sharded ones are new
    record = checkpoint.resume(run.checkpoint, run.recipe, parameters, optimizer)
    started = time.time() - record.seconds
    steps = range(record.steps, expert.steps)
    if accelerator.is_main_process:
        steps = progress.track(steps, f"train {expert.name}")
    if settings.tensorboard:
        accelerator.init_trackers(expert.name)
    with in_context(bare, mode=settings.mode) as shown:
        if not record.held_out:
            _measure(run, bare, shown, 0, record)
        for step in steps:
            pairs, inputs = _inputs(run, step)
            rate = learning_rate(step, expert.steps, settings.warmup, expert.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            errors = loss(_predicted(run, model, shown, inputs), inputs)  # [B / processes]
            every = accelerator.gather(errors.detach()).tolist()
            if not all(math.isfinite(error) for error in every):
                raise InputError(
                    f"the loss of the {expert.name} expert became {sum(every)} at step {step}: lower its "
                    "learning_rate under `train`, and look at the pairs of that step."
                )
            optimizer.zero_grad()
            accelerator.backward(errors.mean())
            accelerator.clip_grad_norm_(parameters.values(), settings.gradient_clip)
            optimizer.step()
            levels = accelerator.gather(inputs.timestep / 1000).tolist()
            elapsed = time.time() - started
            record.curve += [
                (step, pair, level, error, rate, elapsed)
                for pair, level, error in zip(pairs, levels, every, strict=True)
            ]
            done = step + 1
            if settings.tensorboard:
                accelerator.log({"loss": sum(every) / len(every), "lr": rate}, step=done)
            if done % settings.evaluate_every == 0 or done == expert.steps:
                _measure(run, bare, shown, done, record)
                if watch and accelerator.is_main_process:
                    watch(*run.tables(record))
            if done % settings.checkpoint_every == 0 and done < expert.steps:
                tensors = checkpoint.tensors(parameters, optimizer, record)  # gathered where they are sharded
                if accelerator.is_main_process:
                    checkpoint.save(run.checkpoint, run.recipe, tensors, record.steps)
    trained = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    weights = {name: checkpoint.whole(parameter.detach()) for name, parameter in parameters.items()}
    if accelerator.is_main_process:
        facts = {"device": str(accelerator.device), "processes": accelerator.num_processes}
        with store.writing(run.folder / expert.name, run.recipe, **facts) as temporary:
            lora.save(temporary, trained, weights, _facts(run))
            write_tables(temporary, run.tables(record))
        run.checkpoint.unlink(missing_ok=True)
        store.sidecar_of(run.checkpoint).unlink(missing_ok=True)
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def _predicted(run: _Run, model: "torch.nn.Module", shown: Reference, inputs: Inputs) -> "torch.Tensor":
    shown.latents = inputs.reference
    with run.accelerator.autocast():  # accelerate puts it into the model itself, but not when it shards it
        return model(inputs.noisy, inputs.timestep, inputs.text, return_dict=False)[0]


def _measure(run: _Run, model: "WanTransformer3DModel", shown: Reference, step: int, record: Record) -> None:
    """Loss of the held-out pairs at fixed noise and noise levels, and a sheet of what is predicted there.

    Every process does it, so that none waits for another longer than a collective may; the first one writes.
    """
    import torch

    device, rows = run.accelerator.device, []
    for i, (pair, encoded) in enumerate(zip(run.held_out, run.encoded[len(run.pairs) :], strict=True)):
        batch = {name: tensor.to(device) for name, tensor in dataset.batch([encoded]).items()}
        generator = models.generator(store.seed_for(run.recipe.seed, "held-out", str(i)))
        noise = torch.randn(batch["target"].shape, generator=generator).to(device)
        pictures = [batch["render"], batch["target"]]
        for quantile in QUANTILES:
            level = sigma.draw(torch.tensor([quantile]), *run.expert.sigma, run.profile.train).to(device)
            inputs = prepare_inputs(batch, noise, level)
            with torch.no_grad():
                velocity = _predicted(run, model, shown, inputs)
            record.held_out.append((step, i, quantile, level.item(), loss(velocity, inputs).item()))
            pictures.append(inputs.noisy - level * velocity.float())
        if run.accelerator.is_main_process:
            run.pipeline.vae.to(device)
            # The first latent is one frame's, so it is decoded for the price of a picture.
            frames = [encode.frames(run.pipeline, latents[:, :, :1])[0] for latents in pictures]
            rows.append((pair.id, frames))
    if not run.held_out or not run.accelerator.is_main_process:
        return
    if run.profile.train.tensorboard:
        last = [row[-1] for row in record.held_out if row[0] == step]
        run.accelerator.log({"held-out loss": sum(last) / len(last)}, step=step)
    path = run.folder / "samples" / f"{run.expert.name}_{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    video.contact_sheet(rows, min(288, run.profile.clips.width)).save(path)


def _optimizer(
    profile: Profile, expert: Expert, parameters: dict[str, "torch.Tensor"]
) -> "torch.optim.Optimizer":
    import torch

    options = {"lr": expert.learning_rate, "weight_decay": profile.train.weight_decay}
    if profile.train.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(parameters.values(), **options)
    return torch.optim.AdamW(parameters.values(), fused=True, **options)


def _add_adapter(
    profile: Profile, transformer: "WanTransformer3DModel", seed: int
) -> dict[str, "torch.Tensor"]:
    """Put a fresh LoRA on the frozen transformer; returns its parameters, in float32, by name."""
    import torch
    from peft import LoraConfig

    transformer.requires_grad_(False)
    settings = profile.train
    if settings.base == "fp8":  # before the adapter is there, which must keep its own type
        transformer.enable_layerwise_casting(torch.float8_e4m3fn, compute_dtype=models.dtype(profile))
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=TARGETS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer.add_adapter(config)
    if settings.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    parameters = {n: p for n, p in transformer.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return parameters


def _inputs(run: _Run, step: int) -> tuple[list[int], Inputs]:
    """A step's pairs over all processes, and this process's share of them with noise and noise levels.

    Functions of seed and step, so that a resumed run sees the same, and so do several processes together.
    """
    import torch

    settings, seed, accelerator = run.profile.train, run.recipe.seed, run.accelerator
    chosen = dataset.draw(len(run.pairs), settings.batch, step, seed)
    batch = dataset.batch([run.encoded[i] for i in chosen])
    generator = models.generator(store.seed_for(seed, "step", str(step)))
    level = sigma.draw(torch.rand(len(chosen), generator=generator), *run.expert.sigma, settings)
    noise = torch.randn(batch["target"].shape, generator=generator)
    size = len(chosen) // accelerator.num_processes
    own = slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)
    place = accelerator.device
    on_device = {name: tensor[own].to(place) for name, tensor in batch.items()}
    return chosen, prepare_inputs(on_device, noise[own].to(place), level[own].to(place))


def _facts(run: _Run) -> dict[str, Any]:
    """What loading checks and what a reader of the file wants to know; goes into its header."""
    profile, expert = run.profile, run.expert
    dataset_hash = hashlib.sha256(json.dumps(run.recipe.inputs, sort_keys=True).encode()).hexdigest()
    clips = profile.clips
    return {
        "mode": profile.train.mode,
        "expert": expert.name,
        "base": lora.base(profile, expert.part),
        "base_name": profile.models.wan,
        "rank": profile.train.rank,
        "alpha": profile.train.alpha,
        "frames": clips.frames,
        "height": clips.height,
        "width": clips.width,
        "fps": clips.fps,
        "prompt": profile.train.prompt,
        "sigma": list(expert.sigma),
        "steps": expert.steps,
        "learning_rate": expert.learning_rate,
        "profile": profile.name,
        "pairs": len(run.pairs),
        "dataset": dataset_hash[:32],
        "commit": store.commit(),
    }
