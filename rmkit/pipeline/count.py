"""What one call of a model costs, from its config alone: FLOPs, weights, memory (ours).

The real classes run on the meta device (`passes`). Transformers are built with two and with three blocks and continued to
their depth in a straight line, which is exact: all blocks are alike, and the third one adds to the highest moment what every
further one adds (the first one does not: nothing before it needs a gradient). Long clips are continued likewise. Counts are
kept in results/.counts.json, by hash of all they depend on.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rmkit.kit import store
from rmkit.paths import REPOSITORY
from rmkit.pipeline import passes
from rmkit.pipeline.passes import Config, Cost, Latents
from rmkit.profile import Profile

VERSION = 1
CACHE = REPOSITORY / "results" / ".counts.json"
BLOCKS = 3  # a model with more is continued from two and three
LONGER = 13  # frames; what a VAE makes of more is continued from 9 and 13
UNSHAPED = ("latents_mean", "latents_std")  # of a config: numbers alone, which many models differ in
PACKAGES = ("torch", "diffusers", "transformers", "peft")
# Of training: what changes neither FLOPs nor memory of a step, and what is told apart from it.
_SCHEDULE = {"low", "high", "warmup", "held_out", "evaluate_every", "checkpoint_every", "tensorboard"}
_NUMBERS = {"prompt", "weight_decay", "gradient_clip", "sampler", "shift", "logit_mean", "logit_std", "alpha"}
_FREE = _SCHEDULE | _NUMBERS | {"batch", "block_inputs"}


def _kept(measure: Callable[..., Cost]) -> Callable[..., Cost]:
    """Look a count up before it is made; a file that cannot be read or written is done without."""

    @wraps(measure)
    def look_up(config: Config, *args: Any, **options: Any) -> Cost:
        plain = {name: value for name, value in options.items() if name != "train"}
        train = options.get("train")
        told = train and train.train.model_dump(exclude=_FREE)
        shape = {name: value for name, value in config.items() if name not in UNSHAPED}
        facts = [measure.__name__, VERSION, _versions(), shape, args, plain, told]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        known = _known(CACHE)
        if key not in known:
            known[key] = measure(config, *args, **options)
            if os.access(CACHE.parent, os.W_OK):  # beside what others have counted meanwhile
                found = {**_read(CACHE), key: known[key]}
                store.write_json(CACHE, {key: asdict(cost) for key, cost in found.items()})
        return known[key]

    return look_up


@_kept
def denoise(
    config: Config, latents: Latents, tokens: int, dtype: str, mode: str | None = None, rank: int = 0
) -> Cost:
    """A pass of a Wan or VACE transformer over one clip; mode: in context; rank: with a LoRA on it."""
    return _deepened(config, lambda own: passes.denoise(own, latents, tokens, dtype, mode, rank))


@_kept
def train_step(config: Config, latents: Latents, tokens: int, dtype: str, batch: int, train: Profile) -> Cost:
    """A training step in context on `batch` pairs, backward pass included; weights: base and adapter.

    train: the profile whose `train` says how. The optimiser's state is counted as working memory.
    """
    return _deepened(config, lambda own: passes.train_step(own, latents, tokens, dtype, batch, train))


@_kept
def edit(config: Config, side: tuple[int, int], pictures: int, tokens: int, dtype: str) -> Cost:
    """A pass of Qwen's transformer; side: height and width in tokens of the result and of each picture shown."""
    return _deepened(config, lambda own: passes.edit(own, side, pictures, tokens, dtype))


@_kept
def encode(config: Config, frames: int, height: int, width: int, dtype: str) -> Cost:
    """A VAE's encoder over one clip or picture (one frame)."""
    return _lengthened(encode, config, frames, height, width, dtype)


@_kept
def decode(config: Config, frames: int, height: int, width: int, dtype: str) -> Cost:
    """A VAE's decoder to one clip or picture (one frame)."""
    return _lengthened(decode, config, frames, height, width, dtype)


@_kept
def read(config: Config, tokens: int, dtype: str, patches: int = 0) -> Cost:
    """A text encoder over a prompt; patches: of a picture that it is shown."""
    return _deepened(config, lambda own: passes.read(own, tokens, dtype, patches))


@_kept
def look(config: Config, height: int, width: int) -> Cost:
    """A vision model of transformers over one picture, in float32."""
    return passes.look(config, height, width)


@_kept
def weigh(config: Config, dtype: str) -> Cost:
    """A part's weights alone."""
    return _deepened(config, lambda own: passes.weigh(own, dtype))


def _deepened(config: Config, measure: Callable[[Config], Cost]) -> Cost:
    """A count for a config of any depth, from shallow ones."""
    text = config.get("text_config")
    # 0: of no blocks that are alike.
    depth = text["num_hidden_layers"] if text else config.get("num_layers", 0)
    hints = len(config.get("vace_layers", ()))

    def shallow(layers: int, hinted: int = 1) -> Cost:
        if text:
            return measure({**config, "text_config": {**text, "num_hidden_layers": layers}})
        own = {"vace_layers": list(range(hinted))} if hints else {}
        return measure({**config, "num_layers": layers, **own})

    if depth <= BLOCKS:
        return measure(config)
    two, three = shallow(BLOCKS - 1), shallow(BLOCKS)
    found = three + (three + two * -1) * (depth - BLOCKS)
    if hints > 1:
        more = [shallow(BLOCKS, count) for count in (2, 3)]
        found = found + (more[0] + three * -1) + (more[1] + more[0] * -1) * (hints - 2)
    return replace(found, block=three.block)  # of one block, however many there are


def _lengthened(
    verb: Callable[..., Cost], config: Config, frames: int, height: int, width: int, dtype: str
) -> Cost:
    """A count for a clip of any length: past the first chunks, every four frames cost the same."""
    if frames <= LONGER:
        return passes.vae(config, (frames, height, width), dtype, verb.__name__)
    short, longer = (verb(config, count, height, width, dtype) for count in (LONGER - 4, LONGER))
    found = longer + (longer + short * -1) * ((frames - LONGER) // 4)
    return replace(longer, flops=found.flops, working=found.working)


@cache
def _known(file: Path) -> dict[str, Cost]:
    return _read(file)


def _read(file: Path) -> dict[str, Cost]:
    try:
        return {key: Cost(**cost) for key, cost in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@cache
def _versions() -> list[str]:
    return [version(name) for name in PACKAGES]
