"""What training is fed: kept pairs as latents and text embeddings, encoded once (paper, 3.3).

Reads `pairs/pairs.json` and the clips it names; writes `pairs/latents/<clip>.safetensors` (render and target)
and `pairs/text/<hash>.safetensors` (one a distinct prompt).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, progress, store, video
from rmkit.method import encode, identity, lora
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline

VERSION = 1


@dataclass(frozen=True)
class Pair:
    """One training example: the render, what it should become, and the prompt."""

    id: str
    render: Path
    target: Path
    prompt: str


@dataclass(frozen=True)
class Encoded:
    """Files of a pair as the transformer takes it."""

    latents: Path
    text: Path


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
        render, target = (profile.layout.root / entry[side] for side in ("render", "target"))
        pair = Pair(entry["clip"], render, target, entry["caption"].strip() or profile.train.prompt)
        _check(profile, pair)
        found.append(pair)
    return found


def split(profile: Profile, pairs_: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and the held-out ones: the last of the listing, as neighbours in it may be of one sequence.

    Raises InputError when none is left to train on.
    """
    count = len(pairs_) - profile.train.held_out
    if count < 1:
        raise InputError(
            f"train.held_out is {profile.train.held_out} and there are only {len(pairs_)} pairs: lower it, or "
            "sample more training clips."
        )
    return pairs_[:count], pairs_[count:]


def cache(profile: Profile, pipeline: "WanPipeline", pairs_: list[Pair]) -> list[Encoded]:
    """Encode what is not encoded yet, and return the files in the order of the pairs."""
    return [
        Encoded(_latents(profile, pipeline, pair), _text(profile, pipeline, pair.prompt))
        for pair in progress.track(pairs_, "encode pairs")
    ]


def batch(encoded: list[Encoded]) -> dict[str, "torch.Tensor"]:
    """Rows together: `render`, `target` float32 [B, C, F, H, W] and `text` [B, T, D]."""
    import torch
    from safetensors.torch import load_file

    rows = [{**load_file(row.latents), **load_file(row.text)} for row in encoded]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def draw(count: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of a step's pairs: every pair once an epoch, each epoch in an order of its own."""
    chosen = []
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, count)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        chosen.append(int(order[place]))
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


def _latents(profile: Profile, pipeline: "WanPipeline", pair: Pair) -> Path:
    from safetensors.torch import save_file

    path = profile.layout.pairs / "latents" / f"{pair.id}.safetensors"
    sides = {"render": pair.render, "target": pair.target}
    inputs = {side: store.fingerprint(file) for side, file in sides.items()}
    recipe = store.Recipe("latents", VERSION, {}, inputs, model=lora.base(profile, "vae"))
    if not store.is_done(path, recipe):
        frames = {side: video.read(file) for side, file in sides.items()}
        if np.array_equal(frames["render"], frames["target"]):
            raise _copy(pair)  # the same pictures in files that differ
        with store.writing(path, recipe) as temporary:
            encoded = {side: encode.latents(pipeline, clip)[0].cpu() for side, clip in frames.items()}
            save_file({side: latent.contiguous() for side, latent in encoded.items()}, temporary)
    return path


def _text(profile: Profile, pipeline: "WanPipeline", prompt: str) -> Path:
    from safetensors.torch import save_file

    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    path = profile.layout.pairs / "text" / f"{digest}.safetensors"
    recipe = store.Recipe(
        stage="text",
        version=VERSION,
        settings={
            "prompt": prompt,
            "tokens": models.text_length(pipeline),
            "dtype": profile.models.dtype,
        },
        inputs={},
        model=lora.base(profile, "text_encoder") + lora.base(profile, "tokenizer"),
    )
    if not store.is_done(path, recipe):
        with store.writing(path, recipe) as temporary:
            save_file({"text": encode.text(pipeline, prompt)[0].cpu()}, temporary)
    return path
