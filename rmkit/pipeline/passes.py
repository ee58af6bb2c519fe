"""One pass of each kind of model on the meta device, from its config alone (ours).

Serves `count`. The real classes of diffusers and transformers are built with no weights, called as the stages call them,
and read by `meter`. Reads and writes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from rmkit.errors import InputError
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch

Config = dict[str, Any]  # a part's config.json
Latents = tuple[int, int, int]  # frames, height and width of what a transformer works on


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


def latents(config: Config, frames: int, height: int, width: int) -> Latents:
    """Frames, height and width of what a VAE makes of a clip."""
    pixels = config.get("scale_factor_spatial") or 2 ** len(config["temperal_downsample"])
    return (frames - 1) // config.get("scale_factor_temporal", 4) + 1, height // pixels, width // pixels


def denoise(config: Config, latents: Latents, tokens: int, dtype: str, mode: str | None, rank: int) -> Cost:
    """A Wan or VACE transformer over one clip; mode: in context; rank: of the LoRA on it, 0 for none."""
    import torch

    from rmkit.method import lora
    from rmkit.method.incontext import in_context

    model = build(config, dtype)
    if rank:
        from peft import LoraConfig

        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=lora.TARGETS))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    inputs = inputs_of(model, latents, tokens, getattr(torch, dtype), 1)
    with ExitStack() as stack:
        if mode:
            stack.enter_context(in_context(model, torch.empty_like(inputs["hidden_states"]), mode=mode))
        return run(model, lambda: model(**inputs, return_dict=False))


def train_step(
    config: Config, latents: Latents, tokens: int, dtype: str, batch: int, profile: Profile
) -> Cost:
    """Forward and backward in context, with the optimiser's state among what works."""
    import torch

    from rmkit.method import lora
    from rmkit.method.incontext import in_context

    model = build(config, dtype).train()
    trained = sum(p.numel() for p in lora.add(profile, model, 0).values())
    kind = getattr(torch, dtype)
    inputs = inputs_of(model, latents, tokens, torch.float32, batch)  # noise is drawn in float32
    inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].to(kind)
    reference = torch.empty_like(inputs["hidden_states"])

    def step() -> None:
        velocity = model(**inputs, return_dict=False)[0]
        torch.autograd.backward((velocity.float() - reference).square().mean())

    with in_context(model, reference, mode=profile.train.mode):
        found = run(model, step, None if kind is torch.float32 else kind, grad=True)
    state = {"adamw": 8, "adamw8bit": 2}[profile.train.optimizer] * trained
    return replace(found, trained=trained, working=found.working + state)


def edit(config: Config, side: tuple[int, int], pictures: int, tokens: int, dtype: str) -> Cost:
    """Qwen's transformer over a result and the pictures that it is shown, all of one size in tokens."""
    import torch

    model, kind = build(config, dtype), getattr(torch, dtype)
    height, width = side
    seen = (1 + pictures) * height * width
    shapes = [[(1, height, width)] * (1 + pictures)]
    inputs = {
        "hidden_states": _empty(1, seen, model.config.in_channels, dtype=kind),
        "timestep": _empty(1, dtype=kind),
        "encoder_hidden_states": _empty(1, tokens, model.config.joint_attention_dim, dtype=kind),
        "encoder_hidden_states_mask": None,
        "img_shapes": shapes,
    }
    return run(model, lambda: model(**inputs, return_dict=False))


def vae(config: Config, size: tuple[int, int, int], dtype: str, verb: str) -> Cost:
    """verb: encode or decode."""
    import torch

    model, kind = build(config, dtype), getattr(torch, dtype)
    if verb == "encode":
        given = _empty(1, 3, *size, dtype=kind)
        return run(model, lambda: model.encode(given).latent_dist.mode())
    given = _empty(1, model.config.z_dim, *latents(config, *size), dtype=kind)
    return run(model, lambda: model.decode(given).sample)


def look(config: Config, height: int, width: int) -> Cost:
    """A vision model over one picture, in float32."""
    import torch

    model = build(config, "float32")
    picture = _empty(1, 3, height, width, dtype=torch.float32)
    options = {"interpolate_pos_encoding": True} if config["model_type"] == "vit" else {}
    return run(model, lambda: model(pixel_values=picture, **options))


def weigh(config: Config, dtype: str) -> Cost:
    """No pass: its weights."""
    return run(build(config, dtype), lambda: None)


def read(config: Config, tokens: int, dtype: str, patches: int) -> Cost:
    """A text encoder; patches: of a picture shown beside the prompt."""
    import torch

    model = build(config, dtype)
    if "vision_config" not in config:
        ids = _empty(1, tokens, dtype=torch.int64)
        return run(model, lambda: model(input_ids=ids))
    part = model.model.language_model
    embedded = _empty(1, tokens, model.config.text_config.hidden_size, dtype=getattr(torch, dtype))
    places = _empty(3, 1, tokens, dtype=torch.int64)
    found = run(model, lambda: part(inputs_embeds=embedded, position_ids=places, use_cache=False))
    # The vision tower looks at its input's values, which the meta device has not: two FLOPs a weight and patch.
    vision = 2 * patches * sum(p.numel() for p in model.model.visual.parameters())
    return replace(found, flops=found.flops + vision)


def run(
    model: "torch.nn.Module",
    call: Callable[[], object],
    autocast: "torch.dtype | None" = None,
    grad: bool = False,
) -> Cost:
    """Meter a call of a model."""
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


def build(config: Config, dtype: str) -> Any:
    """A model on the meta device in the type that loading gives it: parts that must stay in float32 do.

    Raises InputError for a class that is not installed.
    """
    import diffusers
    import torch
    import transformers

    is_diffusers = "_class_name" in config
    package = diffusers if is_diffusers else transformers
    kind = config["_class_name"] if is_diffusers else config["architectures"][0]
    if not hasattr(package, kind):
        raise InputError(
            f"{package.__name__} {package.__version__} has no class {kind}, which a model's config names."
        )
    with torch.device("meta"):
        if is_diffusers:
            model = getattr(package, kind).from_config(config)
        else:  # what transformers is given it changes
            model = getattr(package, kind)(transformers.AutoConfig.for_model(**deepcopy(dict(config))))
    # transformers keeps parts in float32 beside float16 only, but for the strict ones.
    name = "_keep_in_fp32_modules" if is_diffusers else "_keep_in_fp32_modules_strict"
    kept = set(getattr(model, name, None) or ())
    for name, parameter in model.named_parameters():
        own = torch.float32 if kept & set(name.split(".")) else getattr(torch, dtype)
        parameter.data = parameter.data.to(own)
    return model.eval()


def inputs_of(
    model: Any, latents: Latents, tokens: int, dtype: "torch.dtype", batch: int
) -> "dict[str, torch.Tensor]":
    """What a Wan or VACE transformer is given."""
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
