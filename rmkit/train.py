"""Training of the in-context LoRA on pairs of render and propagated clip (paper, 3.3 and B.2).

Reads `pairs/` (see `dataset`); writes `adapters/<name>/<expert>/` (adapter and learning curve). A killed
run goes on from its checkpoint and ends bit-identical: a step's random numbers depend on its number alone.
"""

import csv
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit import adapter, dataset, models, progress, store
from rmkit.adapter import Expert
from rmkit.dataset import Encoded, Pair
from rmkit.errors import InputError
from rmkit.incontext import in_context
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

VERSION = 1
NAME = "realmaster"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]  # ours
ENCODERS = ("vae", "text_encoder", "tokenizer")  # what the cached inputs depend on
COLUMNS = ("step", "expert", "loss", "sigma", "lr", "seconds")
# Settings that change the cost and not the result, or that enter the key by another way.
NOT_KEYED = {"checkpoint_every", "gradient_checkpointing", "low", "high", "prompt"}


@dataclass(frozen=True)
class Inputs:
    """One call of the transformer and what it should answer; all [B, C, F, H, W] but timestep and text."""

    reference: "torch.Tensor"  # clean render
    noisy: "torch.Tensor"
    timestep: "torch.Tensor"  # [B], 0 to 1000
    text: "torch.Tensor"  # [B, T, D]
    velocity: "torch.Tensor"


def train(profile: Profile, name: str = NAME) -> Path:
    """Train one adapter an expert and return their folder; what is finished is not trained again.

    Raises InputError on missing models, no pairs, a pair of unequal clips or one that teaches copying,
    and when the loss stops being finite.
    """
    models.check(profile, "wan")
    experts = adapter.experts(profile)
    pairs = dataset.pairs(profile)
    folder = profile.layout.adapters / name
    recipes = {expert: _recipe(profile, expert, pairs) for expert in experts}
    todo = [e for e in experts if not store.is_done(folder / e.name, recipes[e])]
    if not todo:
        return folder
    pipeline = models.load_wan(profile)
    encoded = dataset.cache(profile, pipeline, pairs)
    pipeline.remove_all_hooks()
    transformers = {expert: getattr(pipeline, expert.part) for expert in todo}
    del pipeline  # the VAE and the text encoder are needed no more
    for transformer in transformers.values():
        transformer.to("cpu")
    for expert in todo:
        _fit(profile, expert, transformers.pop(expert), encoded, recipes[expert], folder)
    return folder


def curve(profile: Profile, name: str = NAME) -> list[dict[str, str]]:
    """Rows of the learning curves of all experts, with the keys of COLUMNS."""
    rows = []
    for expert in adapter.experts(profile):
        path = profile.layout.adapters / name / expert.name / "curve.csv"
        if not path.is_file():
            raise InputError(f"{path} does not exist: train the adapter first (04_iclora_training).")
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    return rows


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
    """Mean squared error of the velocity in float32, unweighted; a scalar."""
    return (prediction.float() - inputs.velocity.float()).square().mean()


def sample_sigma(uniform: "torch.Tensor", low: float, high: float, shift: float) -> "torch.Tensor":
    """Shifted noise levels of one expert's range (ours): uniform [B] in 0..1 -> sigma in low..high.

    The flow shift s u / (1 + (s - 1) u) of a uniform u, drawn only where the result is in range.
    """
    first, last = (sigma / (shift - (shift - 1) * sigma) for sigma in (low, high))
    u = first + (last - first) * uniform
    return shift * u / (1 + (shift - 1) * u)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to the peak, then a cosine to zero (ours)."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _recipe(profile: Profile, expert: Expert, pairs: list[Pair]) -> store.Recipe:
    inputs = {}
    for pair in pairs:
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
        model="+".join(adapter.base(profile, p) for p in (expert.part, *ENCODERS)),
    )


def _fit(
    profile: Profile,
    expert: Expert,
    transformer: "WanTransformer3DModel",
    encoded: list[Encoded],
    recipe: store.Recipe,
    folder: Path,
) -> None:
    """Train one expert from scratch or from its checkpoint, and write its adapter."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    settings = profile.train
    place = models.device(profile)
    mixed = "bf16" if models.dtype(profile) == torch.bfloat16 else "no"
    # Accelerate keeps the first call's precision for the process; a notebook may go through two profiles.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=mixed, cpu=place.type == "cpu")
    if accelerator.num_processes > 1:
        raise InputError("training runs in one process: start it without `accelerate launch`.")
    parameters = _add_adapter(profile, transformer, recipe.seed)
    optimizer = torch.optim.AdamW(
        parameters.values(), expert.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    checkpoint = folder / f"{expert.name}.checkpoint.safetensors"
    done = _resume(checkpoint, recipe, parameters, optimizer)
    model, optimizer = accelerator.prepare(transformer.train(), optimizer)
    started = time.time() - (done[-1][-1] if done else 0.0)
    with in_context(accelerator.unwrap_model(model), mode=settings.mode) as shown:
        for step in progress.track(range(len(done), expert.steps), f"train {expert.name}"):
            inputs = _inputs(profile, expert, encoded, step, recipe.seed, accelerator.device)
            rate = learning_rate(step, expert.steps, settings.warmup, expert.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            shown.latents = inputs.reference
            prediction = model(inputs.noisy, inputs.timestep, inputs.text, return_dict=False)[0]
            error = loss(prediction, inputs)
            value = error.item()
            if not math.isfinite(value):
                raise InputError(
                    f"the loss of the {expert.name} expert became {value} at step {step}: lower its "
                    "learning_rate under `train`, and look at the pairs of that step."
                )
            optimizer.zero_grad()
            accelerator.backward(error)
            accelerator.clip_grad_norm_(parameters.values(), settings.gradient_clip)
            optimizer.step()
            sigma = inputs.timestep.mean().item() / 1000
            done.append((step, value, sigma, rate, time.time() - started))
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < expert.steps:
                _checkpoint(checkpoint, recipe, parameters, optimizer, done)
    trained = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    with store.writing(folder / expert.name, recipe, device=str(place)) as temporary:
        adapter.save(temporary, trained, _facts(profile, expert, recipe))
        _write_curve(temporary / "curve.csv", expert, done)
    checkpoint.unlink(missing_ok=True)
    store.sidecar_of(checkpoint).unlink(missing_ok=True)


def _add_adapter(
    profile: Profile, transformer: "WanTransformer3DModel", seed: int
) -> dict[str, "torch.Tensor"]:
    """Put a fresh LoRA on the frozen transformer; returns its parameters, in float32, by name."""
    import torch
    from peft import LoraConfig

    transformer.requires_grad_(False)
    settings = profile.train
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


def _inputs(
    profile: Profile,
    expert: Expert,
    encoded: list[Encoded],
    step: int,
    seed: int,
    device: "torch.device",
) -> Inputs:
    """A step's pairs, noise and sigma: functions of seed and step, so that a resumed run sees the same."""
    import torch

    chosen = dataset.draw(len(encoded), profile.train.batch, step, seed)
    batch = dataset.batch([encoded[i] for i in chosen])
    generator = models.generator(store.seed_for(seed, "step", str(step)))
    uniform = torch.rand(len(chosen), generator=generator)
    sigma = sample_sigma(uniform, *expert.sigma, profile.train.shift)
    noise = torch.randn(batch["target"].shape, generator=generator)
    on_device = {name: tensor.to(device) for name, tensor in batch.items()}
    return prepare_inputs(on_device, noise.to(device), sigma.to(device))


def _checkpoint(
    path: Path,
    recipe: store.Recipe,
    parameters: dict[str, "torch.Tensor"],
    optimizer: Any,
    curve: list[tuple],
) -> None:
    """Adapter, optimiser state and curve (so the step) in one file; random numbers need no state."""
    import torch
    from safetensors.torch import save_file

    tensors = {"curve": torch.tensor(curve, dtype=torch.float64)}  # [steps, columns but the expert]
    for name, parameter in parameters.items():
        tensors[f"adapter.{name}"] = parameter.detach()
        for moment, value in optimizer.state[parameter].items():
            tensors[f"{moment}.{name}"] = value
    with store.writing(path, recipe, step=len(curve)) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def _resume(
    path: Path,
    recipe: store.Recipe,
    parameters: dict[str, "torch.Tensor"],
    optimizer: "torch.optim.AdamW",
) -> list[tuple]:
    """Put the checkpoint of the same recipe back and return the curve so far; [] when there is none."""
    from safetensors.torch import load_file

    if not store.is_done(path, recipe):
        return []
    tensors, state = load_file(path), {}
    for i, (name, parameter) in enumerate(parameters.items()):
        parameter.data.copy_(tensors[f"adapter.{name}"])
        moments = ("step", "exp_avg", "exp_avg_sq")
        state[i] = {moment: tensors[f"{moment}.{name}"] for moment in moments}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return [(int(step), *values) for step, *values in tensors["curve"].tolist()]


def _facts(profile: Profile, expert: Expert, recipe: store.Recipe) -> dict[str, Any]:
    """What loading checks and what a reader of the file wants to know; goes into its header."""
    dataset_hash = hashlib.sha256(json.dumps(recipe.inputs, sort_keys=True).encode()).hexdigest()
    clips = profile.clips
    return {
        "mode": profile.train.mode,
        "expert": expert.name,
        "base": adapter.base(profile, expert.part),
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
        "profile": profile.name,
        "dataset": dataset_hash[:32],
        "commit": store.commit(),
    }


def _write_curve(path: Path, expert: Expert, curve: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for step, value, sigma, rate, seconds in curve:
            row = (step, expert.name, f"{value:.6f}", f"{sigma:.4f}", f"{rate:.4e}", f"{seconds:.2f}")
            writer.writerow(row)
