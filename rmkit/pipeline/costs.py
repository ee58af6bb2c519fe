"""What each stage calls, how often, and what it holds: from the profile and the models' configs alone (ours).

Serves `plan`. One function a stage, which says what that stage's code does with its models; nothing is loaded. Reads
configs; writes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rmkit import baselines
from rmkit.attention.one_way import CACHED, TEXTS
from rmkit.demos import cuts
from rmkit.errors import InputError
from rmkit.kit import models, weights
from rmkit.method import enhance as enhancing
from rmkit.pipeline import configs, count, passes
from rmkit.pipeline.passes import Cost, Latents
from rmkit.profile import WEATHERS, Clips, Profile

VIDEO = "float32"  # the type of the VAEs of video
BYTES = {"float32": 4, "bfloat16": 2}  # of a number
STEPS_OF_DEPTH = 518  # pixels of the shorter side at which Depth Anything works
PATCH = 14  # pixels of Qwen2.5-VL's vision patches, four of which become one token
WORDS = 80  # tokens of the editor's template and prompt


@dataclass(frozen=True)
class Use:
    """Calls of one part of a model in a stage."""

    part: str
    cost: Cost
    calls: float
    dtype: str

    @property
    def flops(self) -> float:
        return self.cost.flops * self.calls


@dataclass(frozen=True)
class Work:
    """A stage's calls, and what of the models is held on the device."""

    uses: tuple[Use, ...] = ()
    offload: str = "none"  # which of them wait in CPU memory: none, model, group
    models: tuple[str, ...] = ()  # by name, for downloads

    def __add__(self, other: "Work") -> "Work":
        """One after the other, by the same models."""
        return replace(self, uses=self.uses + other.uses)

    @property
    def flops(self) -> float:
        return sum(use.flops for use in self.uses)

    @property
    def calls(self) -> float:
        """Of the largest model: a denoiser's passes, a VAE's where there is no denoiser."""
        if not self.uses:
            return 0
        kind = max(self.uses, key=lambda use: use.flops).part.split()[0]
        return sum(use.calls for use in self.uses if use.part.split()[0] == kind)

    @property
    def weights(self) -> float:
        """Bytes of all parts, each once."""
        parts = {use.part: use.cost.weights for use in self.uses}
        return sum(parts.values())

    @property
    def device_bytes(self) -> float:
        """On the device at the highest moment, by the placement."""
        if self.offload == "none":
            return self.weights + max((use.cost.working for use in self.uses), default=0.0)
        streamed = {
            "model": lambda cost: cost.weights,
            "group": lambda cost: min(2 * cost.block, cost.weights),
        }
        return max((streamed[self.offload](use.cost) + use.cost.working for use in self.uses), default=0.0)

    def cpu_bytes(self, is_all: bool) -> float:
        """In CPU memory: the weights on their way to a GPU, or all that is computed there."""
        return max(self.device_bytes, self.weights) if is_all else self.weights


class Demonstration(NamedTuple):
    """A notebook's clips, how many are made of them, and by what work."""

    name: str
    clips: int
    made: int
    work: Callable[[], Work]


def anchors(profile: Profile, pictures: int) -> Work:
    """Qwen-Image-Edit on so many frames (3.1)."""
    name, dtype, settings = profile.models.editor, profile.models.dtype, profile.anchors
    height, width = edited_size(profile)
    vae, cell = configs.counted(name, "vae"), 16
    side, guided = (height // cell, width // cell), settings.true_cfg_scale > 1
    shown = height * width if "Plus" not in configs.index(name)["_class_name"] else 384 * 384
    patches = shown // PATCH**2
    tokens = patches // 4 + WORDS
    transformer = count.edit(configs.counted(name, "transformer"), side, 1, tokens, dtype)
    if profile.models.editor_weights != "full":
        share = {"fp8": 0.5, "nf4": 0.25}[profile.models.editor_weights]
        transformer = _lighter(transformer, share)
    text = count.read(configs.counted(name, "text_encoder"), tokens, dtype, patches)
    uses = (
        Use("transformer", transformer, pictures * settings.steps * (1 + guided), dtype),
        Use("text encoder", text, pictures * (1 + guided), dtype),
        Use("vae", count.encode(vae, 1, height, width, dtype), pictures, dtype),
        Use("vae", count.decode(vae, 1, height, width, dtype), pictures, dtype),
    )
    return Work(uses, profile.models.offload, (name,))


def edited_size(profile: Profile) -> tuple[int, int]:
    """Height and width at which the editor works: about `edit_area` pixels, multiples of 32."""
    ratio = profile.clips.width / profile.clips.height
    width = (profile.anchors.edit_area * ratio) ** 0.5
    return round(width / ratio / 32) * 32, round(width / 32) * 32


def propagate(profile: Profile, clips: int) -> Work:
    """VACE on so many clips (3.1)."""
    settings = profile.propagation
    return _vace(profile, profile.clips, clips, settings.steps, settings.guidance > 1)


def encode(profile: Profile, pairs: int) -> Work:
    """Both sides of the pairs to latents, and their prompts: text encoder and VAE are held together."""
    name, size = profile.models.wan, profile.training_size
    vae = count.encode(configs.counted(name, "vae"), size.frames, size.height, size.width, VIDEO)
    return Work((Use("vae", vae, 2 * pairs, VIDEO), _text(profile, name, pairs)), "none", (name,))


def train(profile: Profile) -> Work:
    """The adapter's steps, one expert after the other (3.3): the transformer, and the VAE for samples."""
    name, size, dtype = profile.models.wan, profile.training_size, profile.models.dtype
    vae = configs.counted(name, "vae")
    latents = passes.latents(vae, size.frames, size.height, size.width)
    tokens, batch = _tokens(name), profile.train.batch
    step = count.train_step(
        configs.counted(name, "transformer"), latents, tokens, dtype, batch, train=profile
    )
    if profile.train.block_inputs == "cpu":
        step = _without_block_inputs(profile, name, step, latents, batch)
    steps = profile.train.low.steps + profile.train.high.steps
    # Samples are decoded with the first latent alone: one frame.
    sample = count.decode(vae, 1, size.height, size.width, VIDEO)
    measured = steps / profile.train.evaluate_every * profile.train.held_out * 7
    return Work(
        (Use("transformer", step, steps, dtype), Use("vae", sample, measured, VIDEO)), "none", (name,)
    )


def enhance(profile: Profile, clips: int, size: Clips | None = None) -> Work:
    """The trained model on so many clips, by the profile's own steps and guidance (3.3)."""
    settings, name, dtype = profile.enhance, profile.models.wan, profile.models.dtype
    size, mode = size or profile.clips, enhancing.mode(profile)
    guided = max(settings.guidance_low, settings.guidance_high) > 1
    if not configs.has(name, "transformer_2"):
        guided = settings.guidance_low > 1
    calls, rank = clips * settings.steps * (1 + guided), profile.train.rank
    vae, transformer = configs.counted(name, "vae"), configs.counted(name, "transformer")
    latents, tokens = passes.latents(vae, size.frames, size.height, size.width), _tokens(name)
    if mode == CACHED:
        plain = count.denoise(transformer, latents, tokens, dtype, None, rank)
        both = count.denoise(transformer, latents, tokens, dtype, "one-way", rank)
        # The reference's own pass runs once a text and expert; its keys and values are kept from step to step.
        numbers = 2 * transformer["num_layers"] * _widths(transformer, latents)
        kept = TEXTS * numbers * BYTES[dtype]
        cost = replace(plain, flops=both.flops - plain.flops, working=plain.working + kept)
    else:
        cost = count.denoise(transformer, latents, tokens, dtype, mode, rank)
    experts = [cost] * (1 + configs.has(name, "transformer_2"))
    uses = [Use(f"transformer {i}", cost, calls / len(experts), dtype) for i, cost in enumerate(experts)]
    return Work((*uses, *_ends(profile, name, size, clips)), profile.models.offload, (name,))


def demonstrations(profile: Profile) -> list[Demonstration]:
    """06 to 09, which run the trained model again."""
    from rmkit.demos import weather

    count, road = profile.data.validation_clips, profile.carla
    own, trials = min(profile.weather.clips, count), min(cuts.COUNT, count)
    shown = own + (min(profile.weather.clips, road.validation_clips) if road else 0)
    doses = [(w, g) for g in profile.weather.dose for w in profile.weather.dose_weathers]
    dosed = [g for _, g in doses if g != weather.of(profile).enhance.guidance_high]
    short = profile.clips.model_copy(update={"frames": cuts.kept(profile.clips.frames)})

    def in_weather() -> Work:
        plain = enhance(weather.of(profile), shown * len(WEATHERS))
        return sum((enhance(weather.of(profile, g), own) for g in dosed), start=plain)

    def cut() -> Work:
        return enhance(profile, 2 * trials) + enhance(profile, trials, short)

    found = [Demonstration("06_weather", shown, shown * len(WEATHERS) + len(dosed) * own, in_weather)]
    if road:
        number = road.validation_clips
        found += [Demonstration("07_carla", number, number, lambda: enhance(profile, number))]
    return [
        *found,
        Demonstration("08_limits", trials, 3 * trials, cut),
        Demonstration("09_your_clip", 1, 1, lambda: enhance(profile, 1)),
    ]


def depth(profile: Profile, clips: int) -> Work:
    """Depth of so many clips, where it is estimated."""
    name, size = profile.structure.depth_model, profile.clips
    if profile.structure.depth != "depth_anything" or not name:
        return Work()
    scale = STEPS_OF_DEPTH / min(size.height, size.width)
    height, width = (max(PATCH, round(side * scale / PATCH) * PATCH) for side in (size.height, size.width))
    config = configs.part(name)
    if config["model_type"] != "depth_anything":
        raise InputError(f"{name} is not counted: it is a {config['model_type']}, and no Depth Anything.")
    use = Use("depth", count.look(config, height, width), clips * size.frames, VIDEO)
    return Work((use,), "none", (name,))


def features(profile: Profile, metric: str, videos: int) -> Work:
    """A vision model of a metric on every frame of so many videos."""
    name, size = profile.metrics[metric], profile.clips
    config = configs.part(name)
    if config.get("model_type") != "vit" or config.get("architectures", [""])[0] != "ViTModel":
        return Work()
    patch = config["patch_size"]
    cost = count.look(config, size.height // patch * patch, size.width // patch * patch)
    return Work((Use(metric, cost, videos * size.frames, VIDEO),), "none", (name,))


def method(profile: Profile, name: str, made: baselines.Made, clips: int) -> Work:
    """A method that the kit runs on so many clips; empty where it needs no model here."""
    if name == "per_frame":
        repeated = 2 if profile.clips.fps == 16 else 1
        return anchors(profile, clips * (profile.clips.frames // repeated + 1))
    if name not in ("lucy_edit", "editto"):
        return Work()
    own = made.settings(profile)
    size = Clips(
        fps=profile.clips.fps,
        frames=min(own.frames, profile.clips.frames),
        height=own.height,
        width=own.width,
    )
    runs = clips * -(-profile.clips.frames // own.frames)
    if name == "editto":
        return _vace(profile, size, runs, own.steps, own.guidance > 1, (own.model,))
    dtype, vae = profile.models.dtype, configs.counted(own.model, "vae")
    latents = passes.latents(vae, size.frames, size.height, size.width)
    tokens = _tokens(own.model)
    cost = count.denoise(configs.counted(own.model, "transformer"), latents, tokens, dtype)
    calls = runs * own.steps * (1 + (own.guidance > 1))
    uses = (Use("transformer", cost, calls, dtype), *_ends(profile, own.model, size, runs))
    return Work(uses, profile.models.offload, (own.model,))


def size(name: str, dtype: str) -> float:
    """Bytes of a model's weights in this type, the VAE's of a video pipeline in float32."""
    parts = ("transformer", "transformer_2", "text_encoder", "vae", "model")
    found = 0.0
    for part in (part for part in parts if configs.has(name, part)):
        config = configs.part(name, part)
        own = VIDEO if part in ("model", "vae") and "Qwen" not in config.get("_class_name", "") else dtype
        found += count.weigh(config, own).weights
    return found


def _vace(
    profile: Profile, size: Clips, clips: int, steps: int, guided: bool, more: Sequence[str] = ()
) -> Work:
    name, dtype = profile.models.vace, profile.models.dtype
    rest = profile.models.wan if not configs.has(name, "vae") else name  # a folder may leave it to Wan's
    latents = passes.latents(configs.counted(rest, "vae"), size.frames, size.height, size.width)
    tokens = _tokens(rest)
    cost = count.denoise(configs.counted(name, "transformer"), latents, tokens, dtype)
    use = Use("transformer", cost, clips * steps * (1 + guided), dtype)
    # What is kept and what is generated are encoded apart.
    return Work((use, *_ends(profile, rest, size, clips, encoded=2)), profile.models.offload, (name, *more))


def _ends(profile: Profile, name: str, size: Clips, clips: int, encoded: int = 1) -> tuple[Use, ...]:
    """What stands before and after the denoising: the prompt, the videos that are shown, the result."""
    vae, pixels = configs.counted(name, "vae"), (size.frames, size.height, size.width)
    return (
        _text(profile, name, clips),
        Use("vae", count.encode(vae, *pixels, VIDEO), encoded * clips, VIDEO),
        Use("vae", count.decode(vae, *pixels, VIDEO), clips, VIDEO),
    )


def _text(profile: Profile, name: str, prompts: int) -> Use:
    dtype = profile.models.dtype
    cost = count.read(configs.counted(name, "text_encoder"), _tokens(name), dtype)
    return Use("text encoder", cost, prompts, dtype)


def _tokens(name: str) -> int:
    """Tokens a prompt is padded to; a local tokenizer may be made for less."""
    if weights.is_hub_name(name):
        return models.TEXT_TOKENS
    longest = configs.part(name, configs.TOKENIZER).get("model_max_length", models.TEXT_TOKENS)
    return int(min(models.TEXT_TOKENS, longest))


def _widths(transformer: dict, latents: Latents) -> int:
    """Numbers in one vector a token."""
    frames, height, width = (n // p for n, p in zip(latents, transformer["patch_size"], strict=True))
    return frames * height * width * transformer["num_attention_heads"] * transformer["attention_head_dim"]


def _lighter(cost: Cost, share: float) -> Cost:
    """Weights in fewer bits, one block of them unpacked at a time."""
    return replace(
        cost, weights=cost.weights * share, working=cost.working + cost.block, block=cost.block * share
    )


def _without_block_inputs(profile: Profile, name: str, step: Cost, latents: Latents, batch: int) -> Cost:
    """The inputs of checkpointed blocks wait in CPU memory: but for two, they are not on the device."""
    config = configs.counted(name, "transformer")
    size = 2 * batch * _widths(config, latents) * BYTES[profile.models.dtype]
    return replace(step, working=step.working - (config["num_layers"] - 2) * size)
