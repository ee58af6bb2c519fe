"""What training is fed: kept pairs as latents and text embeddings, encoded once (paper, 3.3).

Reads `pairs/pairs.json` and the clips it names; writes `pairs/latents/<clip>.safetensors` (render and target)
and `pairs/text/<hash>.safetensors` (one a distinct prompt).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import encode, models, stage, store, video
from rmkit.method import identity, wan
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline

VERSION = 1
T = TypeVar("T")
Encoded = tuple[Path, Path]  # files of a pair as the transformer takes it: latents, text


@dataclass(frozen=True)
class Pair:
    """One training example: the render, what it should become, and the prompt."""

    id: str
    render: Path
    target: Path
    prompt: str


def pairs(profile: Profile) -> list[Pair]:
    """Kept pairs of pairs.json, checked without decoding a frame.

    Raises InputError when there are none, or one is missing, of another size or length, or a copy.
    """
    entries = [entry for entry in identity.load(profile) if entry["kept"]]
    if not entries:
        raise InputError(
            f"{profile.layout.pairs / 'pairs.json'} keeps no pair: lower identity.threshold or sample more "
            "training clips."
        )
    found = []
    for entry in entries:
        # Paths in the listing start at the run's folder; absolute ones stay as they are.
        render, target = (profile.layout.run / entry[side] for side in ("render", "target"))
        pair = Pair(entry["clip"], render, target, entry["caption"].strip() or profile.train.prompt)
        _check(profile, pair)
        found.append(pair)
    return found


def split(profile: Profile, pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and the held-out ones: the last of the listing, as neighbours in it may be of one sequence.

    Raises InputError when none is left to train on.
    """
    count = len(pairs) - profile.train.held_out
    if count < 1:
        raise InputError(
            f"train.held_out is {profile.train.held_out} and there are only {len(pairs)} pairs: lower it, or "
            "sample more training clips."
        )
    return pairs[:count], pairs[count:]


def encode_pairs(profile: Profile, pipeline: "WanPipeline", pairs: list[Pair]) -> list[Encoded]:
    """Encode what is not encoded yet, and return the files in the order of the pairs."""
    prompts = {pair.prompt: _text_item(profile, pipeline, pair.prompt) for pair in pairs}
    latents = [_latents_item(profile, pair) for pair in pairs]
    device = str(pipeline._execution_device)
    text_ready = partial(_ready, partial(_text, pipeline))
    stage.run("encode prompts", list(prompts.values()), text_ready, device=device)
    stage.run("encode pairs", latents, partial(_ready, partial(_latents, pipeline)), device=device)
    return [(item.path, prompts[item.subject.prompt].path) for item in latents]


def batch(encoded: list[Encoded]) -> dict[str, "torch.Tensor"]:
    """Stack pairs into a batch: `render`, `target` float32 [B, C, F, H, W] and `text` [B, T, D]."""
    import torch
    from safetensors.torch import load_file

    rows = [{**load_file(latents), **load_file(text)} for latents, text in encoded]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def batch_indices(count: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of the pairs of a step: every pair comes once an epoch, in an order of that epoch's own."""
    chosen = []
    for position in range(step * size, (step + 1) * size):
        epoch, number = divmod(position, count)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        chosen.append(int(order[number]))
    return chosen


def _check(profile: Profile, pair: Pair) -> None:
    wanted = (profile.clips.frames, profile.clips.height, profile.clips.width)
    for path in (pair.render, pair.target):
        info = video.probe(path)
        found = (info.frames, info.height, info.width)
        if found != wanted:
            raise InputError(
                f"pair {pair.id}: {path} has {found[0]} frames of {found[1]}x{found[2]} and the profile asks "
                f"for {wanted[0]} of {wanted[1]}x{wanted[2]}; delete it and make it again."
            )
    if store.fingerprint(pair.render) == store.fingerprint(pair.target):
        raise _copy(pair)


def _copy(pair: Pair) -> InputError:
    return InputError(
        f"pair {pair.id}: the target {pair.target} equals its render, which would teach copying; "
        "propagate the clip again or drop the pair."
    )


def _latents_item(profile: Profile, pair: Pair) -> stage.Item[Pair]:
    path = profile.layout.pairs / "latents" / f"{pair.id}.safetensors"
    inputs = {"render": store.fingerprint(pair.render), "target": store.fingerprint(pair.target)}
    model = wan.fingerprint(profile, "vae")
    return stage.Item(path, store.Recipe("latents", VERSION, {}, inputs, model=model), pair)


def _latents(pipeline: "WanPipeline", pair: Pair) -> "dict[str, torch.Tensor]":
    """Latents of both sides of a pair, float32 [C, F, H, W] each."""
    frames = {"render": video.read(pair.render), "target": video.read(pair.target)}  # [F, H, W, 3] each
    if np.array_equal(frames["render"], frames["target"]):
        raise _copy(pair)  # the same pictures in files that differ
    return {side: encode.latents(pipeline, clip)[0].cpu() for side, clip in frames.items()}


def _text_item(profile: Profile, pipeline: "WanPipeline", prompt: str) -> stage.Item[str]:
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    recipe = store.Recipe(
        stage="text",
        version=VERSION,
        settings={
            "prompt": prompt,
            "tokens": models.text_length(pipeline.tokenizer),
            "dtype": profile.models.dtype,
        },
        inputs={},
        model=wan.fingerprint(profile, "text_encoder") + wan.fingerprint(profile, "tokenizer"),
    )
    return stage.Item(profile.layout.pairs / "text" / f"{digest}.safetensors", recipe, prompt)


def _text(pipeline: "WanPipeline", prompt: str) -> "dict[str, torch.Tensor]":
    """Embeddings of a prompt, [T, D]."""
    return {"text": encode.text(pipeline, prompt)[0].cpu()}


def _ready(encoded: "Callable[[T], dict[str, torch.Tensor]]") -> stage.Make[T]:
    from safetensors.torch import save_file

    def make(item: stage.Item[T], temporary: Path) -> None:
        tensors = encoded(item.subject)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)

    return make
