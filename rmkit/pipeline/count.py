"""What one call of a model costs, from its config alone: FLOPs, weights, memory (ours).

The real classes of diffusers and transformers are built on the meta device and run there under `meter`. Transformers
are built with two and with three blocks and continued to their depth in a straight line, which is exact: all blocks are
alike, and the third one adds to the highest moment what every further one adds (the first one does not: nothing before
it needs a gradient). Counts are kept in results/.counts.json, by hash of all they depend on.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass
from functools import wraps
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rmkit.kit import store
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch

VERSION = 1
CACHE = REPOSITORY / "results" / ".counts.json"
BLOCKS = 3  # a model with more is continued from two and three
LONGER = 13  # frames; what a VAE makes of more is continued from 9 and 13
Config = dict[str, Any]  # a part's config.json
Latents = tuple[int, int, int]  # frames, height and width of what a transformer works on
# Of training: what changes neither FLOPs nor memory.
_FREE = {"low", "high", "prompt", "warmup", "weight_decay", "gradient_clip", "sampler", "shift", "logit_mean"}
_FREE |= {
    "logit_std",
    "held_out",
    "evaluate_every",
    "checkpoint_every",
    "tensorboard",
    "alpha",
    "batch",
    "block_inputs",
}


@dataclass(frozen=True)
class Cost:
    """One call: FLOPs; bytes of the weights, of all else at the highest moment, and of the largest block; parameters."""

    flops: float
    weights: float
    working: float
    block: float
    parameters: float
    trained: float = 0.0  # parameters that are

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> "Cost":
        return Cost(*(factor * a for a in astuple(self)))


def _kept(measure: Callable[..., Cost]) -> Callable[..., Cost]:
    """Look a count up in the cache before it is made; a cache that cannot be read or written is done without."""

    @wraps(measure)
    def look_up(config: Config, *args: Any, **options: Any) -> Cost:
        train = options.pop("train", None)
        told = train and train.train.model_dump(exclude=_FREE)
        packages = [version(name) for name in ("torch", "diffusers", "transformers", "peft")]
        facts = [measure.__name__, VERSION, packages, config, args, options, told]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        try:
            known = json.loads(CACHE.read_text())
        except (OSError, ValueError):
            known = {}
        if key not in known:
            given = {"train": train} if train else {}
            known[key] = asdict(measure(config, *args, **options, **given))
            if os.access(CACHE.parent, os.W_OK):
                store.write_json(CACHE, known)
        return Cost(**known[key])

    return look_up


@_kept
def denoise(
    config: Config, latents: Latents, tokens: int, dtype: str, mode: str | None = None, rank: int = 0
) -> Cost:
    """A pass of a Wan or VACE transformer over one clip; mode: in context; rank: with a LoRA on it."""
    return _continued(config, lambda own: _denoise(own, latents, tokens, dtype, mode, rank))


@_kept
def train_step(config: Config, latents: Latents, tokens: int, dtype: str, batch: int, train: Profile) -> Cost:
    """A training step in context on `batch` pairs, backward pass included; weights: base and adapter.

    train: the profile whose `train` says how. The optimiser's state is counted as working memory.
    """
    return _continued(config, lambda own: _train_step(own, latents, tokens, dtype, batch, train))


@_kept
def edit(config: Config, side: tuple[int, int], pictures: int, tokens: int, dtype: str) -> Cost:
    """A pass of Qwen's transformer; side: height and width in tokens of the result and of each picture shown."""
    return _continued(config, lambda own: _edit(own, side, pictures, tokens, dtype))


@_kept
def encode(config: Config, frames: int, height: int, width: int, dtype: str) -> Cost:
    """A VAE's encoder over one clip or picture (one frame)."""
    return _vae(config, (frames, height, width), dtype, "encode")


@_kept
def decode(config: Config, frames: int, height: int, width: int, dtype: str) -> Cost:
    """A VAE's decoder to one clip or picture (one frame)."""
    return _vae(config, (frames, height, width), dtype, "decode")


@_kept
def read(config: Config, tokens: int, dtype: str, patches: int = 0) -> Cost:
    """A text encoder over a prompt; patches: of a picture that it is shown."""
    return _continued(config, lambda own: _read(own, tokens, dtype, patches))


@_kept
def look(config: Config, height: int, width: int) -> Cost:
    """A vision model of transformers over one picture, in float32."""
    import torch

    model = _build(config, "float32")
    picture = _empty(1, 3, height, width, dtype=torch.float32)
    options = {"interpolate_pos_encoding": True} if config["model_type"] == "vit" else {}
    return _run(model, lambda: model(pixel_values=picture, **options))


@_kept
def weigh(config: Config, dtype: str) -> Cost:
    """A part's weights alone."""
    return _continued(config, lambda own: _run(_build(own, dtype), lambda: None))


def latents(config: Config, frames: int, height: int, width: int) -> Latents:
    """Frames, height and width of what a VAE makes of a clip."""
    pixels = config.get("scale_factor_spatial") or 2 ** len(config["temperal_downsample"])
    return (frames - 1) // config.get("scale_factor_temporal", 4) + 1, height // pixels, width // pixels


def _continued(config: Config, measure: Callable[[Config], Cost]) -> Cost:
    """A count for a config of any depth, from shallow ones."""
    text = config.get("text_config")
    depth = (
        text["num_hidden_layers"] if text else config.get("num_layers", 0)
    )  # 0: of no blocks that are alike
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
    return Cost(**{**asdict(found), "block": three.block})  # of one block, however many there are


def _denoise(config: Config, latents: Latents, tokens: int, dtype: str, mode: str | None, rank: int) -> Cost:
    import torch

    from rmkit.method import lora
    from rmkit.method.incontext import in_context

    model = _build(config, dtype)
    if rank:
        from peft import LoraConfig

        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=lora.TARGETS))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    inputs = _inputs(model, latents, tokens, getattr(torch, dtype), 1)
    with ExitStack() as stack:
        if mode:
            stack.enter_context(in_context(model, torch.empty_like(inputs["hidden_states"]), mode=mode))
        return _run(model, lambda: model(**inputs, return_dict=False))


def _train_step(
    config: Config, latents: Latents, tokens: int, dtype: str, batch: int, profile: Profile
) -> Cost:
    import torch

    from rmkit.method import lora
    from rmkit.method.incontext import in_context

    model = _build(config, dtype).train()
    trained = sum(p.numel() for p in lora.add(profile, model, 0).values())
    kind = getattr(torch, dtype)
    inputs = _inputs(model, latents, tokens, torch.float32, batch)  # noise is drawn in float32
    inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].to(kind)
    reference = torch.empty_like(inputs["hidden_states"])

    def step() -> None:
        velocity = model(**inputs, return_dict=False)[0]
        torch.autograd.backward((velocity.float() - reference).square().mean())

    with in_context(model, reference, mode=profile.train.mode):
        found = _run(model, step, None if kind is torch.float32 else kind, grad=True)
    state = {"adamw": 8, "adamw8bit": 2}[profile.train.optimizer] * trained
    return Cost(**{**asdict(found), "trained": trained, "working": found.working + state})


def _edit(config: Config, side: tuple[int, int], pictures: int, tokens: int, dtype: str) -> Cost:
    import torch

    model, kind = _build(config, dtype), getattr(torch, dtype)
    height, width = side
    seen = (1 + pictures) * height * width
    shapes = [[(1, height, width)] * (1 + pictures)]
    inputs = {
        "hidden_states": _empty(1, seen, config["in_channels"], dtype=kind),
        "timestep": _empty(1, dtype=kind),
        "encoder_hidden_states": _empty(1, tokens, config["joint_attention_dim"], dtype=kind),
        "encoder_hidden_states_mask": None,
        "img_shapes": shapes,
    }
    return _run(model, lambda: model(**inputs, return_dict=False))


def _vae(config: Config, size: tuple[int, int, int], dtype: str, verb: str) -> Cost:
    """A long clip is continued from two shorter ones: past the first chunks, every four frames cost the same."""
    frames, *picture = size
    if frames > LONGER:
        chunks = (frames - LONGER) // 4
        short, longer = (_vae(config, (count, *picture), dtype, verb) for count in (LONGER - 4, LONGER))
        found = longer + (longer + short * -1) * chunks
        return Cost(**{**asdict(longer), "flops": found.flops, "working": found.working})
    import torch

    model, kind = _build(config, dtype), getattr(torch, dtype)
    if verb == "encode":
        given = _empty(1, 3, *size, dtype=kind)
        return _run(model, lambda: model.encode(given).latent_dist.mode())
    given = _empty(1, config["z_dim"], *latents(config, *size), dtype=kind)
    return _run(model, lambda: model.decode(given).sample)


def _read(config: Config, tokens: int, dtype: str, patches: int) -> Cost:
    import torch

    model = _build(config, dtype)
    if "vision_config" not in config:
        ids = _empty(1, tokens, dtype=torch.int64)
        return _run(model, lambda: model(input_ids=ids))
    part = model.model.language_model
    embedded = _empty(1, tokens, config["text_config"]["hidden_size"], dtype=getattr(torch, dtype))
    places = _empty(3, 1, tokens, dtype=torch.int64)
    found = _run(model, lambda: part(inputs_embeds=embedded, position_ids=places, use_cache=False))
    # The vision tower looks at its input's values, which the meta device has not: two FLOPs a weight and patch.
    vision = 2 * patches * sum(p.numel() for p in model.model.visual.parameters())
    return Cost(**{**asdict(found), "flops": found.flops + vision})


def _run(
    model: "torch.nn.Module",
    call: Callable[[], object],
    autocast: "torch.dtype | None" = None,
    grad: bool = False,
) -> Cost:
    import torch

    from rmkit.pipeline import meter

    weights = sum(p.nbytes for p in model.parameters())
    with torch.set_grad_enabled(grad), meter.reading(model, autocast) as found:
        made = call()
    del made
    blocks = [sum(p.nbytes for p in block.parameters()) for block in _blocks(model)]
    count = sum(p.numel() for p in model.parameters())
    return Cost(found.flops, weights, found.peak - weights, max(blocks, default=weights), count)


def _blocks(model: "torch.nn.Module") -> "Iterator[torch.nn.Module]":
    """The modules of the lists that the model is made of, as group offload streams them."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList):
            yield from module


def _build(config: Config, dtype: str) -> Any:
    """A model on the meta device in the type that loading gives it: parts that must stay in float32 do."""
    import diffusers
    import torch
    import transformers

    with torch.device("meta"):
        if "_class_name" in config:
            model = getattr(diffusers, config["_class_name"]).from_config(config)
        else:
            own = transformers.AutoConfig.for_model(**config)
            model = getattr(transformers, config["architectures"][0])(own)
    # transformers keeps parts in float32 beside float16 only, but for the strict ones.
    name = "_keep_in_fp32_modules" if "_class_name" in config else "_keep_in_fp32_modules_strict"
    kept = set(getattr(model, name, None) or ())
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(
            torch.float32 if kept & set(name.split(".")) else getattr(torch, dtype)
        )
    return model.eval()


def _inputs(
    model: Any, latents: Latents, tokens: int, dtype: "torch.dtype", batch: int
) -> "dict[str, torch.Tensor]":
    import torch

    config = model.config
    inputs = {
        "hidden_states": _empty(batch, config.in_channels, *latents, dtype=dtype),
        "timestep": _empty(batch, dtype=torch.float32),
        "encoder_hidden_states": _empty(batch, tokens, config.text_dim, dtype=dtype),
    }
    if "vace_in_channels" in config:
        inputs["control_hidden_states"] = _empty(batch, config.vace_in_channels, *latents, dtype=dtype)
    return inputs


def _empty(*shape: int, dtype: "torch.dtype") -> "torch.Tensor":
    import torch

    return torch.empty(shape, dtype=dtype, device="meta")
