"""In-context LoRA of an expert: put on, saved with the facts that loading checks, and loaded again (paper, 3.3).

Reads and writes `adapters/<name>/<expert>/pytorch_lora_weights.safetensors`, diffusers' own LoRA format, with our facts
in the file's header and, for people, in `adapter.json` beside it and in the model card `adapters/<name>/README.md`.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.errors import InputError
from rmkit.kit import accelerators, models, revision, store
from rmkit.method import wan
from rmkit.method.wan import Expert
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline, WanTransformer3DModel

WEIGHTS = "pytorch_lora_weights.safetensors"
HEADER = "rmkit"  # key of our facts among the header's
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]  # ours
PREFIX = "transformer."  # of every tensor's name, whichever expert it is for

CARD = """---
base_model: {base_name}
library_name: diffusers
tags: [lora, video-to-video, realmaster]
---

# {name}: an in-context LoRA that makes renders realistic

Trained with the RealMaster reproducibility kit (profile `{profile}`, commit {commit}) on {pairs} pairs of a render and
its generated version, after *RealMaster* (3.3, B.2): the render goes in as clean tokens at t = 0 and at the positions of
the noisy ones (attention: {mode}). Without that context the adapter does nothing useful.

| expert | part | sigma | steps | learning rate | base |
|---|---|---|---|---|---|
{table}

Rank {rank}, alpha {alpha}; trained on clips of {frames} frames of {width}x{height} at {fps} fps ({seconds:.1f} s). Prompt of clips
without a caption: "{prompt}". Hash of the pairs: {dataset}.

## Use

`rmkit enhance IN OUT --profile {profile} --adapter FOLDER`, or in diffusers with the kit's context manager:

```python
{loads}with in_context(pipeline.transformer, reference_latents, "{mode}"): ...  # each expert
```

Learning curves: `<expert>/curve.csv` and `held_out.csv`; predictions on held-out pairs while it learned: `samples/`.
The licence is that of the base model. Limits: it has seen the pairs' kind of scenes only, and what the pairs got wrong.
"""


def add(profile: Profile, transformer: "WanTransformer3DModel", seed: int) -> "dict[str, torch.Tensor]":
    """Put a fresh LoRA on the frozen transformer; returns its parameters, in float32, by name."""
    import torch
    from peft import LoraConfig

    transformer.requires_grad_(False)
    settings = profile.train
    if settings.base == "fp8":  # before the adapter is there, which must keep its own type
        transformer.enable_layerwise_casting(torch.float8_e4m3fn, compute_dtype=models.dtype(profile))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=TARGETS)
        )
    if settings.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    parameters = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return parameters


def facts(profile: Profile, expert: Expert, recipe: store.Recipe, pairs: int) -> dict[str, Any]:
    """What loading checks and what a reader of the file wants to know."""
    dataset = hashlib.sha256(json.dumps(recipe.inputs, sort_keys=True).encode()).hexdigest()
    return {
        **profile.train.model_dump(include={"mode", "rank", "alpha", "prompt"}),
        **profile.training_size.model_dump(include={"frames", "height", "width", "fps"}),
        "expert": expert.name,
        "sigma": list(expert.sigma),
        "steps": expert.steps,
        "learning_rate": expert.learning_rate,
        "base": wan.fingerprint(profile, expert.part),
        "base_name": profile.models.wan,
        "profile": profile.name,
        "pairs": pairs,
        "dataset": dataset[:32],
        "commit": revision.commit(),
    }


def save(
    folder: Path,
    transformer: "WanTransformer3DModel",
    parameters: "dict[str, torch.Tensor]",
    facts: dict[str, Any],
) -> None:
    """Write the adapter of `transformer` into `folder`, with `facts` in the header and in adapter.json.

    parameters: by their names there, whole: the transformer may hold a part of each only (FSDP).
    """
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = next(iter(transformer.peft_config.values())).to_dict()
    config = {PREFIX + key: value for key, value in config.items()}
    header = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(config, default=sorted, sort_keys=True),
        HEADER: json.dumps(facts, sort_keys=True),
    }
    tensors = get_peft_model_state_dict(transformer, parameters)
    tensors = {PREFIX + name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata=header)
    store.write_json(folder / "adapter.json", facts)


def write_card(profile: Profile, folder: Path) -> None:
    """Write the model card of the adapters in `folder`: what they are, of what, how to load them, how they were trained."""
    rows, loads, facts = [], "", {}
    for expert in wan.experts(profile):
        facts = store.read_json(folder / expert.name / "adapter.json")
        low, high = facts["sigma"]
        rows.append(
            f"| {expert.name} | `{expert.part}` | {low:g} to {high:g} | {facts['steps']} | {facts['learning_rate']:g} "
            f"| `{facts['base'][-50:]}` |"
        )
        second = ", load_into_transformer_2=True" * expert.is_second
        loads += f'pipeline.load_lora_weights("{expert.name}"{second})\n'
    facts |= {"base_name": profile.models.wan, "seconds": facts["frames"] / facts["fps"]}
    card = CARD.format(**facts, name=folder.name, table="\n".join(rows), loads=loads)
    store.write_text(folder / "README.md", card)


def check(profile: Profile, folder: Path, expert: Expert, mode: str) -> dict[str, Any]:
    """Facts of the adapter in `folder`; reads the header only.

    Raises InputError when the file is missing, broken, not ours, for another base, expert or mode.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS
    if not file.is_file():
        raise InputError(f"{file} does not exist: train the adapter first (04_iclora_training).")
    try:
        with safe_open(file, "pt") as content:
            header = content.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{file} is not a safetensors file or is truncated ({error}).") from None
    if HEADER not in header:
        raise InputError(
            f"{file} is a foreign LoRA: its header does not say in which mode and on which base it was "
            "trained; use an adapter of this kit."
        )
    try:
        facts = json.loads(header[HEADER])
    except ValueError as error:
        raise InputError(f"{file} has a damaged header ({error}): train the adapter again.") from None
    expected = {"mode": mode, "expert": expert.name, "base": wan.fingerprint(profile, expert.part)}
    for key, value in expected.items():
        if facts.get(key) != value:
            raise InputError(
                f"{file} was trained for {key} '{facts.get(key)}' and this run needs '{value}': "
                "train the adapter again, or use the profile it was trained with."
            )
    return facts


def load(pipeline: "WanPipeline", folder: Path, expert: Expert, name: str) -> int:
    """Load an adapter into its expert by `load_lora_weights`; returns the number of adapted modules.

    diffusers only warns when names do not match, so the modules are counted: raises InputError when the
    file and the model do not agree on every one.
    """
    return accelerators.put_lora_on(pipeline, expert.part, folder / WEIGHTS, name)
