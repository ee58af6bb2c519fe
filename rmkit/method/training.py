"""Training of the in-context LoRA on pairs of render and propagated clip (paper, 3.2, 3.3, B.2); `objective` says on what.

Reads `pairs/`, encoded before (see `dataset`); writes `adapters/<name>/`: for each expert a folder with its adapter and
learning curves, `samples/` and a model card, and `<expert>.log/` while it is in training. A killed run goes on from its
checkpoint and ends bit-identical: a step's random numbers depend on its number alone. On several GPUs: `accelerate launch
-m rmkit train` (one step is the same step there), with `--config_file rmkit/method/fsdp.yaml` to share the model out.
"""

import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rmkit.errors import InputError
from rmkit.kit import devices, encode, models, progress, reuse, store, video
from rmkit.method import checkpoint, dataset, lora, wan
from rmkit.method.dataset import Encoded, Pair
from rmkit.method.incontext import Reference, in_context
from rmkit.method.objective import Inputs, prepare_inputs, sample_sigma, velocity_loss
from rmkit.method.record import Record, log_of
from rmkit.method.record import write as write_tables
from rmkit.method.wan import Expert
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from accelerate import Accelerator
    from diffusers import WanPipeline, WanTransformer3DModel

Watch = Callable[["pd.DataFrame", "pd.DataFrame"], None]  # of curve and held_out (see `record`)
LOG_SECONDS = 5.0  # between two entries of the log of a training that goes on (ours)
VERSION = 2
NAME = "realmaster"
ENCODERS = ("vae", "text_encoder", "tokenizer")  # what the cached inputs depend on
UNUSED = ("text_encoder", "tokenizer")  # in training; the VAE decodes samples
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of an expert's noise levels, at which held-out pairs are measured
# Settings that change the cost and not the result, or that enter the key by another way.
NOT_KEYED = {
    *("checkpoint_every", "evaluate_every", "gradient_checkpointing", "block_inputs", "tensorboard"),
    *("low", "high", "prompt", "height", "width", "frames"),
}


class Stopped(InputError):
    """A training that somebody stopped: its checkpoint is saved, and it goes on when it is called again."""


def train(
    profile: Profile, name: str = NAME, watch: Watch | None = None, stop: Callable[[], bool] | None = None
) -> Path:
    """Train one adapter an expert and return their folder; what is finished is not trained again.

    `watch` is given the curves of the expert in training every few seconds, as the log has them (`record.so_far`). `stop`,
    of one process alone, is asked after every step; where it says so, Stopped is raised once the checkpoint is saved. Raises
    InputError on missing models, no pairs, a pair of unequal clips or one that teaches copying, pairs that are not encoded
    yet, settings that this machine cannot follow, and when the loss stops being finite.
    """
    models.check(profile, "wan")
    devices.require(profile)
    pairs, held_out = dataset.split(profile, dataset.pairs(profile))
    folder = profile.layout.adapters / name
    recipes = {expert: _recipe(profile, expert, pairs, held_out) for expert in wan.experts(profile)}
    todo = [e for e in recipes if not store.is_done(folder / e.name, recipes[e])]
    if not todo:
        for name in ("samples", "README.md"):  # which have no recipe, and were not taken with the adapters
            reuse.beside(folder / name)
        return folder
    encoded = dataset.encoded(profile, pairs + held_out)
    accelerator = devices.accelerator(profile, folder)
    for expert in todo:
        run = _Run(profile, expert, recipes[expert], folder, pairs, held_out, encoded, accelerator)
        _fit(run, watch, stop)
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
            **dataset.own_size(profile),
            "expert": asdict(expert),
            **models.settings(profile, "wan"),
        },
        inputs=inputs,
        seed=store.seed_for(profile.seed, "train", expert.name),
        model="+".join(wan.fingerprint(profile, part) for part in (expert.part, *ENCODERS)),
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

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.expert.name}.checkpoint.safetensors"

    @property
    def log(self) -> Path:
        return log_of(self.folder, self.expert.name)

    def tables(self, record: Record) -> "list[pd.DataFrame]":
        ids = ([pair.id for pair in pairs] for pairs in (self.pairs, self.held_out))
        return record.tables(self.expert.name, *ids)


@models.given_back()
def _fit(run: _Run, watch: Watch | None, stop: Callable[[], bool] | None) -> None:
    """Train one expert from scratch or from its checkpoint, and write its adapter; no other model is loaded meanwhile."""
    expert, accelerator, settings = run.expert, run.accelerator, run.profile.train
    pipeline = models.load_wan(run.profile, without=(*UNUSED, expert.other_part), on_cpu=True)
    transformer = getattr(pipeline, expert.part)
    parameters = lora.add(run.profile, transformer, run.recipe.seed)
    optimizer = _optimizer(run, parameters)
    model, optimizer = accelerator.prepare(transformer.train(), optimizer)
    bare = accelerator.unwrap_model(model)
    parameters = {name: bare.get_parameter(name) for name in parameters}  # sharded ones are new
    record = checkpoint.resume(run.checkpoint, run.recipe, parameters, optimizer)
    started, logged = time.monotonic() - record.seconds, -math.inf
    steps = range(record.steps, expert.steps)
    if accelerator.is_main_process:
        steps = progress.track(steps, f"train {expert.name}")
    accelerator.init_trackers(expert.name)
    with in_context(bare, mode=settings.mode) as shown:
        if not record.held_out:
            _measure(run, pipeline, bare, shown, 0, record)
        for step in steps:
            pairs, inputs = _inputs(run, step)
            rate = learning_rate(step, expert.steps, settings.warmup, expert.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with _block_inputs(run):
                predicted = _predicted(run, model, shown, inputs)
            errors = velocity_loss(predicted, inputs)  # [B / processes]
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
            elapsed = time.monotonic() - started
            rows = zip(pairs, levels, every, strict=True)
            record.curve += [(step, pair, level, error, rate, elapsed) for pair, level, error in rows]
            done = step + 1
            accelerator.log({"loss": sum(every) / len(every), "lr": rate}, step=done)
            if measured := done % settings.evaluate_every == 0 or done == expert.steps:
                _measure(run, pipeline, bare, shown, done, record)
            stopping = stop is not None and done < expert.steps and stop()
            if accelerator.is_main_process and (
                measured or stopping or time.monotonic() - logged > LOG_SECONDS
            ):
                logged, so_far = time.monotonic(), run.tables(record)
                run.log.mkdir(parents=True, exist_ok=True)
                write_tables(run.log, so_far)
                if watch:
                    watch(*so_far)
            if stopping or (done % settings.checkpoint_every == 0 and done < expert.steps):
                tensors = checkpoint.tensors(parameters, optimizer, record)  # gathered where they are sharded
                if accelerator.is_main_process:
                    checkpoint.save(run.checkpoint, run.recipe, tensors, record.steps)
            if stopping:
                raise Stopped(
                    f"the training of the {expert.name} expert was stopped after step {done} of {expert.steps}; its "
                    "checkpoint is saved, and started again it goes on from there."
                )
    trained = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    weights = {name: checkpoint.whole(parameter.detach()) for name, parameter in parameters.items()}
    if accelerator.is_main_process:
        facts = {"device": str(accelerator.device), "processes": accelerator.num_processes}
        with store.writing(run.folder / expert.name, run.recipe, **facts) as temporary:
            lora.save(
                temporary, trained, weights, lora.facts(run.profile, expert, run.recipe, len(run.pairs))
            )
            write_tables(temporary, run.tables(record))
        store.discard(run.checkpoint)
        shutil.rmtree(run.log, ignore_errors=True)
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def _optimizer(run: _Run, parameters: dict[str, "torch.Tensor"]) -> "torch.optim.Optimizer":
    import torch

    options = {"lr": run.expert.learning_rate, "weight_decay": run.profile.train.weight_decay}
    if run.profile.train.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(parameters.values(), **options)
    return torch.optim.AdamW(parameters.values(), fused=True, **options)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to the peak, then a cosine to zero (ours)."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _inputs(run: _Run, step: int) -> tuple[list[int], Inputs]:
    """A step's pairs over all processes, and this process's share of them with noise and noise levels.

    Functions of seed and step, so that a resumed run sees the same, and so do several processes together.
    """
    import torch

    settings, seed, accelerator = run.profile.train, run.recipe.seed, run.accelerator
    chosen = dataset.batch_indices(len(run.pairs), settings.batch, step, seed)
    batch = dataset.batch([run.encoded[i] for i in chosen])
    generator = models.generator(store.seed_for(seed, "step", str(step)))
    sigma = sample_sigma(torch.rand(len(chosen), generator=generator), *run.expert.sigma, settings)
    noise = torch.randn(batch["target"].shape, generator=generator)
    size = len(chosen) // accelerator.num_processes
    own = slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)
    device = accelerator.device
    on_device = {name: tensor[own].to(device) for name, tensor in batch.items()}
    return chosen, prepare_inputs(on_device, noise[own].to(device), sigma[own].to(device))


def _predicted(run: _Run, model: "torch.nn.Module", shown: Reference, inputs: Inputs) -> "torch.Tensor":
    shown.latents = inputs.reference
    with run.accelerator.autocast():  # accelerate puts it into the model itself, but not when it shards it
        return model(inputs.noisy, inputs.timestep, inputs.text, return_dict=False)[0]


def _block_inputs(run: _Run) -> AbstractContextManager:
    """Where a step keeps what the backward pass needs: with checkpointing little but the inputs of the blocks."""
    import torch

    if run.profile.train.block_inputs == "device":
        return nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=run.accelerator.device.type == "cuda")


def _measure(
    run: _Run,
    pipeline: "WanPipeline",
    model: "WanTransformer3DModel",
    shown: Reference,
    step: int,
    record: Record,
) -> None:
    """Loss of the held-out pairs at fixed noise and noise levels, and a sheet of what is predicted there.

    Every process does it, so that none waits for another longer than a collective may; the first one writes.
    """
    import torch

    device, sheet, losses = run.accelerator.device, [], []
    for i, (pair, encoded) in enumerate(zip(run.held_out, run.encoded[len(run.pairs) :], strict=True)):
        batch = {name: tensor.to(device) for name, tensor in dataset.batch([encoded]).items()}
        generator = models.generator(store.seed_for(run.recipe.seed, "held-out", str(i)))
        noise = torch.randn(batch["target"].shape, generator=generator).to(device)
        pictures = [batch["render"], batch["target"]]
        for quantile in QUANTILES:
            sigma = sample_sigma(torch.tensor([quantile]), *run.expert.sigma, run.profile.train).to(device)
            inputs = prepare_inputs(batch, noise, sigma)
            with torch.no_grad():
                velocity = _predicted(run, model, shown, inputs)
            losses.append(velocity_loss(velocity, inputs).item())
            record.held_out.append((step, i, quantile, sigma.item(), losses[-1]))
            pictures.append(inputs.noisy - sigma * velocity.float())
        if run.accelerator.is_main_process:
            pipeline.vae.to(device)
            # The first latent is one frame's, so it is decoded for the price of a picture.
            sheet.append((pair.id, [encode.frames(pipeline, latents[:, :, :1])[0] for latents in pictures]))
    if sheet:
        run.accelerator.log({"held-out loss": sum(losses) / len(losses)}, step=step)
        path = run.folder / "samples" / f"{run.expert.name}_{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        video.contact_sheet(sheet, min(288, run.profile.clips.width)).save(path)
