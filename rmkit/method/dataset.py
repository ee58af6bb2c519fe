"""What training is fed: kept pairs as latents and text embeddings, encoded once, before it (paper, 3.3).

Reads `pairs/pairs.json` and the clips it names; writes `pairs/latents/<clip>.safetensors` (render and target, at the size
that is trained on) and `pairs/text/<hash>.safetensors` (one a distinct prompt).
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rmkit.errors import InputError
from rmkit.kit import encode as wan_input
from rmkit.kit import models, prompts, stage, store, video
from rmkit.method import identity, wan
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline

VERSION = 1
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


def encode(profile: Profile) -> list[Path]:
    """Encode what is not encoded yet, an item a prompt and a pair; returns the files of all that are there afterwards.

    A stage of its own, so that in training by several processes none waits for another. Raises InputError as `pairs`, for a
    prompt that the model would cut, and for a pair of equal pictures.
    """
    models.check(profile, "wan")
    found = pairs(profile)
    said = {f"the prompt of pair {pair.id} (its caption, or train.prompt)": pair.prompt for pair in found}
    prompts.check(profile.models.wan, said)
    texts, latents = _items(profile, found)
    device = str(models.device(profile))
    return stage.run("encode", [*texts, *latents], partial(_ready, profile), device=device, spread=True)


def encoded(profile: Profile, pairs: list[Pair]) -> list[Encoded]:
    """The files of pairs, in order; raises InputError unless all are encoded as this profile asks, and whole."""
    texts, latents = _items(profile, pairs)
    if missing := [item.path for item in (*texts, *latents) if not item.is_done]:
        raise InputError(
            f"{len(missing)} of the pairs' files are not encoded as this profile asks, {missing[0]} the first: run "
            "`rmkit encode` first (04_iclora_training does)."
        )
    for item in (*texts, *latents):
        store.require_whole(item.path)
    by_prompt = {item.subject: item.path for item in texts}
    return [(item.path, by_prompt[item.subject.prompt]) for item in latents]


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
    for path in (pair.render, pair.target):
        video.require_size(path, profile.clips, "delete it and make it again")
    if store.fingerprint(pair.render) == store.fingerprint(pair.target):
        raise _copy(pair)


def _copy(pair: Pair) -> InputError:
    return InputError(
        f"pair {pair.id}: the target {pair.target} equals its render, which would teach copying; "
        "propagate the clip again or drop the pair."
    )


def _items(profile: Profile, pairs: list[Pair]) -> tuple[list[stage.Item[str]], list[stage.Item[Pair]]]:
    """What is encoded: every distinct prompt, every pair."""
    distinct = dict.fromkeys(pair.prompt for pair in pairs)
    length = models.text_length(prompts.tokenizer(profile.models.wan))
    texts = [_text_item(profile, prompt, length) for prompt in distinct]
    return texts, [_latents_item(profile, pair) for pair in pairs]


def _latents_item(profile: Profile, pair: Pair) -> stage.Item[Pair]:
    path = profile.layout.pairs / "latents" / f"{pair.id}.safetensors"
    inputs = {"render": store.fingerprint(pair.render), "target": store.fingerprint(pair.target)}
    model, size = wan.fingerprint(profile, "vae"), own_size(profile)
    return stage.Item(path, store.Recipe("latents", VERSION, size, inputs, model=model), pair)


def own_size(profile: Profile) -> dict[str, int]:
    """The size that pairs are trained at, by name, where it is not that of the clips; else empty."""
    size, clips = profile.training_size, profile.clips
    names = ("frames", "height", "width")
    return {} if size == clips else {name: getattr(size, name) for name in names}


def sized(profile: Profile, frames: np.ndarray) -> np.ndarray:
    """A clip's first frames at the size that is trained on: uint8 [F, H, W, 3] to the same."""
    size = profile.training_size
    frames = frames[: size.frames]
    if frames.shape[1:3] == (size.height, size.width):
        return frames
    # Areas are averaged, so that fine texture does not become noise.
    resize = partial(cv2.resize, dsize=(size.width, size.height), interpolation=cv2.INTER_AREA)
    return np.stack([resize(frame) for frame in frames])


def _latents(profile: Profile, pipeline: "WanPipeline", pair: Pair) -> "dict[str, torch.Tensor]":
    """Latents of both sides of a pair, float32 [C, F, H, W] each."""
    frames = {"render": video.read(pair.render), "target": video.read(pair.target)}  # [F, H, W, 3] each
    if np.array_equal(frames["render"], frames["target"]):
        raise _copy(pair)  # the same pictures in files that differ
    return {side: wan_input.latents(pipeline, sized(profile, clip))[0].cpu() for side, clip in frames.items()}


def _text_item(profile: Profile, prompt: str, length: int) -> stage.Item[str]:
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    recipe = store.Recipe(
        stage="text",
        version=VERSION,
        settings={"prompt": prompt, "tokens": length, "dtype": profile.models.dtype},
        inputs={},
        model=wan.fingerprint(profile, "text_encoder") + wan.fingerprint(profile, "tokenizer"),
    )
    return stage.Item(profile.layout.pairs / "text" / f"{digest}.safetensors", recipe, prompt)


def _ready(profile: Profile) -> stage.Make[str | Pair]:
    """Load the VAE and the text encoder; returns what encodes one prompt or one pair."""
    from safetensors.torch import save_file

    pipeline = models.load_wan(profile, without=("transformer", "transformer_2"))

    def make(item: stage.Item[str | Pair], temporary: Path) -> None:
        if isinstance(item.subject, str):
            tensors = {"text": wan_input.text(pipeline, item.subject)[0].cpu()}  # [T, D]
        else:
            tensors = _latents(profile, pipeline, item.subject)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)

    return make
