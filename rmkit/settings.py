"""The groups of a profile's settings: what each is, its default, and the values that make sense.

Fields the paper does not state carry "(ours)" in their description; the report lists them. Reads and writes nothing.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

# Wan's own, `sample_neg_prompt` in wan/configs/shared_config.py of the repository Wan-Video/Wan2.1 (and Wan2.2): garish,
# over-exposed, static, blurred, subtitles, style, deformed hands, a still picture, a crowd in the background, ...
WAN_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
WEATHERS = ("clear", "rain", "snow", "fog", "dusk")  # the first is what the adapter was trained on


class Settings(BaseModel):
    """Base of all groups: frozen, and a misspelt key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's yes and on would count as 1."""
        if isinstance(value, bool):
            asked = _types(cls.model_fields[info.field_name].annotation)
            if bool not in asked and (int in asked or float in asked):
                raise ValueError("yes, no, on, off, true and false are no numbers")
        return value


def _types(annotation: Any) -> list[Any]:
    """The types that a field may have."""
    return [kind for part in get_args(annotation) for kind in _types(part)] or [annotation]


# Numbers of the same kind have the same bounds: those beyond which none can be meant.
AtLeastOne = Annotated[int, Field(ge=1, le=10_000_000)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Rate = Annotated[int, Field(ge=1, le=240)]  # frames a second
Side = Annotated[int, Field(ge=16, le=8192)]  # pixels
Length = Annotated[int, Field(ge=5, le=10_001)]  # frames, 4k+1
Steps = Annotated[int, Field(ge=1, le=1000)]  # of denoising
Guidance = Annotated[float, Field(ge=0, le=100)]
Shift = Annotated[float, Field(gt=0, le=100)]
Gradient = Annotated[int, Field(ge=0, le=2040)]  # of 8-bit grey by Sobel, both directions together
Share = Annotated[float, Field(ge=0, le=1)]
Dollars = Annotated[float, Field(ge=0, le=1e6)]


def _require_file(room: str, name: str) -> str:
    """The name, if rmkit/<room>/<name>.py exists (it is not imported); ValueError with the known ones if not."""
    known = sorted(path.stem for path in (Path(__file__).parent / room).glob("[a-z]*.py"))
    if name not in known:
        raise ValueError(f"there is no rmkit/{room}/{name}.py; known are {', '.join(known)}")
    return name


class Stride(Settings):
    """Frames of the source from one clip's start to the next one's within a shot; fewer than a clip's: they overlap."""

    train: AtLeastOne | None = Field(
        None, description="null: the largest, up to a clip, that gives the clips asked for (ours)"
    )
    validation: AtLeastOne | None = Field(None, description="at least a clip; null: a clip (ours)")


class Data(Settings):
    source: Annotated[str, AfterValidator(partial(_require_file, "sources"))] = Field(
        "sailvos", description="the file of rmkit/sources/ that reads the data set"
    )
    root: str | None = Field(None, description="folder of the data set; null: the source needs none")
    bundle: str | None = Field(None, description="the diorama's bundle, which 01_data_prep unpacks")
    weather: str = Field("ClearNoon", description="which of CARLA-LOC's three is read")
    fps: Rate | None = Field(None, description="frames a second of carla_loc's pictures; null: its own 20")
    train_clips: Count = Field(description="clips sampled for training (paper: 3,050)")
    validation_clips: AtLeastOne = Field(description="benchmark clips (paper: 100)")
    stride: Stride = Stride()
    cuts: str | None = Field(
        None, description="JSON file of each sequence's first frames after a cut; null: they are found (ours)"
    )
    cut_ratio: float = Field(
        2.0, gt=1, le=1000, description="change at a cut, in that of the frames around it (ours)"
    )


class Clips(Settings):
    fps: Rate = Field(16, description="frame rate after repetition (paper: 16)")
    frames: Length = Field(81, description="frames a clip, 4k+1 (paper: 81)")
    height: Side = Field(800, description="pixels, a multiple of 16 (paper: 800)")
    width: Side = Field(1200, description="pixels, a multiple of 16 (paper: 1200)")

    @model_validator(mode="after")
    def _sizes(self) -> "Clips":
        if self.frames % 4 != 1:
            raise ValueError(f"clips.frames must be 4k+1 for the Wan VAE, not {self.frames}")
        if self.height % 16 or self.width % 16:
            raise ValueError(
                f"clips.height and clips.width must be multiples of 16, not {self.height}x{self.width}"
            )
        return self

    @property
    def raw_bytes(self) -> int:
        """Bytes of a clip's frames, uint8 RGB, before they are encoded."""
        return self.frames * self.height * self.width * 3


class Accelerator(Settings):
    """A LoRA distilled to generate in a few steps without guidance (ours): the stage's own steps and shift must be its."""

    model: str = Field(description="folder or hub name that holds it")
    file: str = Field(description="the LoRA in it; of a model with two experts the high-noise one's (ours)")
    file_2: str | None = Field(None, description="of the low-noise expert, where there are two")
    sigmas: tuple[Share, ...] = Field(
        (1.0, 0.75, 0.5, 0.25), description="noise levels of its steps before the shift, 1 to 0 (ours)"
    )
    shift: Shift = Field(description="flow shift that it was distilled at (ours)")


class Accelerators(Settings):
    editor: Accelerator | None = Field(None, description="of anchors (ours)")
    vace: Accelerator | None = Field(None, description="of propagation (ours)")
    wan: Accelerator | None = Field(None, description="of enhance, beside the adapter (ours)")


def _offload(given: Any) -> Any:
    """YAML's on and off are true and false: `model` and `none`."""
    return {True: "model", False: "none"}[given] if isinstance(given, bool) else given


class Models(Settings):
    wan: str = Field(description="folder or hub name of the text-to-video pipeline")
    vace: str = Field(description="folder or hub name of the VACE pipeline")
    editor: str = Field(description="folder or hub name of the image editing pipeline")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="compute type (ours)")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA when present")
    offload: Annotated[Literal["none", "model", "group"], BeforeValidator(_offload)] = Field(
        "none",
        description="what waits in CPU memory; model: whole models, moved to the GPU one by one; group: their blocks, "
        "streamed while the one before computes (ours)",
    )
    attention: str | None = Field(
        None, description="diffusers' attention backend, as _native_cudnn or flash; null: its default (ours)"
    )
    editor_weights: Literal["full", "fp8", "nf4"] = Field(
        "full",
        description="how the editor's are kept; fp8: half the memory, nf4: a quarter, by bitsandbytes; rounded (ours)",
    )
    accelerators: Accelerators = Accelerators()


class Anchors(Settings):
    prompt: str = Field("make it look photorealistic", description="paper, B.1")
    # One step is a division by zero in the scheduler that Qwen-Image-Edit ships.
    steps: int = Field(40, ge=2, le=1000, description="denoising steps (ours)")
    true_cfg_scale: Guidance = Field(4.0, description="1 switches guidance off (ours)")
    edit_area: int = Field(
        1024 * 1024, ge=32 * 32, le=4096 * 4096, description="pixels at which the editor works"
    )
    max_shift: Share = Field(0.02, description="largest drift undone, of the image's diagonal (ours)")
    attempts: int = Field(3, ge=1, le=100, description="seeds tried before an anchor is refused (ours)")


class Structure(Settings):
    edges: Literal["canny", "gradient"] = Field(
        "canny", description="edge detector; gradient: soft lines, as strong as the step (ours)"
    )
    canny: tuple[Gradient, Gradient] = Field((100, 200), description="Canny thresholds (ours)")
    thickness: int | None = Field(
        None,
        ge=2,
        le=64,
        description="pixels that lines are thickened to; null: as the detector draws them (ours)",
    )
    depth: Literal["engine", "depth_anything"] = Field("engine", description="depth source (ours)")
    depth_model: str | None = Field(None, description="checkpoint of the depth estimator")


Variant = Literal["edges", "depth", "multi_anchor"]


class Propagation(Settings):
    variants: tuple[Variant, ...] = Field(("edges", "depth", "multi_anchor"), description="4.5")
    anchor_seconds: float = Field(0.5, gt=0, le=3600, description="spacing of multi-anchor (paper: 0.5)")
    anchor_frames: tuple[Annotated[int, Field(ge=0, le=100_000)], ...] | None = Field(
        None, min_length=1, description="multi-anchor's frames themselves; null: by the spacing (ours)"
    )
    steps: Steps = Field(50, description="denoising steps (VACE's authors: 50; ours)")
    guidance: Guidance = Field(5.0, description="1: off (VACE's authors: 5; ours)")
    shift: Shift = Field(16.0, description="flow shift (VACE's authors: 16; ours)")
    conditioning: float = Field(
        1.0, ge=0, le=10, description="strength of anchors and structure (VACE's authors: 1; ours)"
    )
    prompt: str = Field("a photorealistic video", description="of clips without a caption (ours)")
    negative_prompt: str = Field(
        WAN_NEGATIVE_PROMPT, description="used with guidance only (Wan's authors'; ours)"
    )


class Identity(Settings):
    model_pack: str | None = Field(
        None, description="insightface pack, a folder or a name it knows; null: not applied, not measured"
    )
    # The detector's stride is 32.
    det_size: int = Field(
        640, ge=32, le=8192, multiple_of=32, description="pixels a side at which faces are looked for (ours)"
    )
    det_thresh: float = Field(0.5, gt=0, lt=1, description="score from which something is a face (ours)")
    iou_gate: float = Field(0.3, gt=0, le=1, description="least overlap of matched faces (ours)")
    threshold: float = Field(0.4, ge=-1, le=1, description="ArcFace cosine (paper: 0.4)")
    over: Literal["mean", "minimum"] = Field("mean", description="B.1 says mean, 3.3 minimum")
    frames: Literal["sampled", "all"] = Field(
        "sampled", description="sampled: five, as ArcFace is measured (ours)"
    )
    faceless: Literal["keep", "drop"] = Field("keep", description="clips in which no face is found (ours)")
    fewest_pairs: AtLeastOne = Field(16, description="training stops when the filter leaves fewer (ours)")


class Expert(Settings):
    steps: AtLeastOne = Field(description="optimiser steps (ours)")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="peak of the optimiser's (ours)")
    sigma: tuple[Share, Share] = Field(description="range of noise levels it is trained on")

    @model_validator(mode="after")
    def _range(self) -> "Expert":
        if self.sigma[0] >= self.sigma[1]:
            raise ValueError(f"sigma is a range from low to high, not {list(self.sigma)}")
        return self


class Train(Settings):
    """The adapter's training (paper, 3.3 and B.2).

    The paper trains in "a few hours ... on a single GPU" (3.2) and does not say at which size. A joint step at 800x1200x81
    takes minutes there (`make plan`), so that a few hours are some fifty steps, or a smaller size: an estimate of ours.
    """

    height: Side | None = Field(
        None, multiple_of=16, description="pixels that pairs are resized to; null: as clips (ours)"
    )
    width: Side | None = Field(None, multiple_of=16, description="null: as clips (ours)")
    frames: Length | None = Field(
        None, description="first frames of a pair trained on, 4k+1; null: as clips (ours)"
    )
    mode: Literal["joint", "one-way"] = Field("joint", description="who attends to whom (paper: joint)")
    rank: int = Field(32, ge=1, le=4096, description="LoRA rank (paper: 32)")
    alpha: int = Field(32, ge=1, le=65536, description="LoRA alpha (ours)")
    weight_decay: Share = Field(0.0, description="(ours)")
    gradient_clip: float = Field(1.0, gt=0, le=1e6, description="(ours)")
    batch: int = Field(1, ge=1, le=65536, description="pairs a step, over all processes (ours)")
    warmup: Count = Field(20, description="steps of linear warm-up (ours)")
    sampler: Literal["shifted", "uniform", "logit-normal"] = Field(
        "shifted", description="distribution of noise levels (ours)"
    )
    shift: Shift = Field(3.0, description="of the sampler `shifted` (ours)")
    logit_mean: float = Field(0.0, ge=-20, le=20, description="of the sampler `logit-normal` (ours)")
    logit_std: float = Field(1.0, gt=0, le=20, description="of the sampler `logit-normal` (ours)")
    held_out: Count = Field(0, description="pairs not trained on, whose loss is measured (ours)")
    evaluate_every: AtLeastOne = Field(50, description="steps between measurements on held-out pairs")
    checkpoint_every: AtLeastOne = Field(50, description="steps between resumable checkpoints")
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="adamw8bit: bitsandbytes', less memory, a GPU only (ours)"
    )
    base: Literal["full", "fp8"] = Field(
        "full", description="how the frozen weights are stored; fp8: half the memory, rounded (ours)"
    )
    gradient_checkpointing: bool = Field(False, description="less memory, more time (ours)")
    block_inputs: Literal["device", "cpu"] = Field(
        "device",
        description="where the inputs of checkpointed blocks wait; cpu: less GPU memory, more time (ours)",
    )
    tensorboard: bool = Field(False, description="write events for TensorBoard too")
    prompt: str = Field("a photorealistic video", description="of clips without a caption (ours)")
    low: Expert
    high: Expert

    @model_validator(mode="after")
    def _settings_that_go_together(self) -> "Train":
        if self.frames and self.frames % 4 != 1:
            raise ValueError(f"train.frames must be 4k+1 for the Wan VAE, not {self.frames}")
        if self.block_inputs == "cpu" and not self.gradient_checkpointing:
            raise ValueError("train.block_inputs is 'cpu', which needs train.gradient_checkpointing: true")
        return self


class Enhance(Settings):
    mode: Literal["joint", "one-way", "one-way cached"] | None = Field(
        None, description="null: train.mode; one-way cached: the same as one-way, faster, more memory"
    )
    cache: Literal["auto", "device", "cpu", "8-bit"] = Field(
        "auto", description="where one-way cached keeps keys and values; 8-bit: less room, rounded (ours)"
    )
    steps: Steps = Field(40, description="denoising steps (Wan2.2: 40)")
    guidance_low: Guidance = Field(3.0, description="low-noise expert (Wan2.2: 3)")
    guidance_high: Guidance = Field(4.0, description="high-noise expert (Wan2.2: 4)")
    shift: Shift = Field(12.0, description="flow shift (Wan2.2: 12)")
    overlap: int = Field(
        16,
        ge=4,
        le=10_000,
        multiple_of=4,
        description="frames that windows of a video longer than clips.frames share (ours)",
    )
    negative_prompt: str = Field(
        WAN_NEGATIVE_PROMPT, description="used with guidance only (Wan's authors'; ours)"
    )


class Weather(Settings):
    """The demonstration of 06_weather (paper, 5): the adapter of the run, unchanged, asked for other weather."""

    outdoor: str = Field(
        "", description="part of the names of outdoor sequences; empty: all are outdoors (ours)"
    )
    clips: AtLeastOne = Field(6, description="clips, one a sequence, of each place (ours)")
    steps: Steps | None = Field(None, description="denoising steps; null: as in enhance (ours)")
    guidance_low: Guidance | None = Field(None, description="low-noise expert; null: as in enhance (ours)")
    guidance_high: Guidance | None = Field(None, description="high-noise expert; null: as in enhance (ours)")
    dose: tuple[Guidance, ...] = Field(
        (), description="guidance of both experts in the dose-response; empty: not run (ours)"
    )
    dose_weathers: tuple[str, ...] = Field(WEATHERS[1:], description="the weathers asked for in it (ours)")
    prompts: dict[str, str] = Field(
        {
            "clear": "",
            "rain": "in the rain, ",
            "snow": "in the snow, ",
            "fog": "in fog, ",
            "dusk": "at dusk, ",
        },
        description="the words that a clip's prompt begins with, by weather (ours)",
    )

    @model_validator(mode="after")
    def _weathers(self) -> "Weather":
        if sorted(self.prompts) != sorted(WEATHERS) or not set(self.dose_weathers) <= set(WEATHERS[1:]):
            raise ValueError(
                f"weather.prompts must name {', '.join(WEATHERS)}, and weather.dose_weathers some of them"
            )
        return self


def require_plain(address: str, key: str, variable: str) -> None:
    """ValueError unless an address is http(s) and tells no secret: it is written beside the results."""
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query:
        raise ValueError(f"{key} must hold no name, password or query: the key goes to {variable}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{key} must start with http:// or https:// and a host, not {address}")


class Judge(Settings):
    enabled: bool = Field(True, description="rate by GPT-RS where OPENAI_API_KEY is set")
    base_url: str = Field("https://api.openai.com/v1", description="any OpenAI-compatible endpoint (ours)")
    model: str = Field("gpt-4o", description="paper: GPT-4o")
    frames: int = Field(5, ge=1, le=1000, description="frames rated in a clip (paper: 5)")
    sampling: Literal["linspace", "midpoints"] = Field(
        "linspace", description="linspace: ends included (ours)"
    )
    repeats: int = Field(3, ge=1, le=100, description="ratings of a frame (ours)")
    concurrency: int = Field(8, ge=1, le=256, description="requests at a time")
    timeout: float = Field(60.0, gt=0, le=3600, description="seconds that an answer may keep silent")
    usd_per_million_input: Dollars | None = Field(None, description="price of tokens read; null: n/a")
    usd_per_million_output: Dollars | None = Field(None, description="price of tokens written; null: n/a")
    budget_usd: Dollars = Field(20.0, description="a dearer judge does not run")
    real: str | None = Field(
        None, description="folder of real footage, mp4s, rated once as the method `real`; null: none"
    )

    @model_validator(mode="after")
    def _address(self) -> "Judge":
        require_plain(self.base_url, "judge.base_url", "OPENAI_API_KEY")
        return self


FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Label = Annotated[str, Field(min_length=1)]
MethodName = Annotated[str, AfterValidator(partial(_require_file, "baselines"))]
MetricName = Annotated[str, AfterValidator(partial(_require_file, "metrics"))]


class Baselines(BaseModel):
    """Settings of methods by name, each validated by its file in baselines/; null or absent: not run (4.1, B.3)."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[MethodName, dict[str, Any] | None]

    folders: dict[FolderName, Label] = Field(
        {}, description="methods of your own, name and label; clips in enhanced/<name>/, named as the kit's"
    )

    @property
    def asked(self) -> dict[str, dict[str, Any]]:
        """The settings that are not null, by method."""
        return {name: settings for name, settings in self.model_extra.items() if settings is not None}

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.asked[name]
