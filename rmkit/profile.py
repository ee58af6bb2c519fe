"""One validated, frozen configuration: every size, count, step and model folder of a run.

A profile is a YAML file in rmkit/profiles/ or a path of the user's; unknown keys are refused.
Fields the paper does not state carry "(ours)" in their description; the report lists them.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from rmkit.errors import InputError
from rmkit.paths import REPOSITORY, Layout

PROFILES = Path(__file__).parent / "profiles"
# Wan's own, `sample_neg_prompt` in wan/configs/shared_config.py of the repository Wan-Video/Wan2.1 (and Wan2.2): garish,
# over-exposed, static, blurred, subtitles, style, deformed hands, a still picture, a crowd in the background, ...
WAN_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
WEATHERS = ("clear", "rain", "snow", "fog", "dusk")  # the first is what the adapter was trained on


class Settings(BaseModel):
    """Base of all groups: frozen, and a misspelt key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _require_file(room: str, name: str) -> str:
    """The name, if rmkit/<room>/<name>.py exists (it is not imported); ValueError with the known ones if not."""
    known = sorted(path.stem for path in (Path(__file__).parent / room).glob("[a-z]*.py"))
    if name not in known:
        raise ValueError(f"there is no rmkit/{room}/{name}.py; known are {', '.join(known)}")
    return name


class Stride(Settings):
    """Frames of the source from one clip's start to the next one's within a shot; fewer than a clip's: they overlap."""

    train: int | None = Field(
        None, ge=1, description="null: the largest, up to a clip, that gives the clips asked for (ours)"
    )
    validation: int | None = Field(None, ge=1, description="at least a clip; null: a clip (ours)")


class Data(Settings):
    source: Annotated[str, AfterValidator(partial(_require_file, "sources"))] = Field(
        "sailvos", description="the file of rmkit/sources/ that reads the data set"
    )
    root: str | None = Field(None, description="folder of the data set; null: the source needs none")
    bundle: str | None = Field(None, description="the diorama's bundle, which 01_data_prep unpacks")
    weather: str = Field("ClearNoon", description="which of CARLA-LOC's three is read")
    fps: int | None = Field(
        None, ge=1, description="frames a second of carla_loc's pictures; null: its own 20"
    )
    train_clips: int = Field(ge=0, description="clips sampled for training (paper: 3,050)")
    validation_clips: int = Field(ge=1, description="benchmark clips (paper: 100)")
    stride: Stride = Stride()
    cuts: str | None = Field(
        None, description="JSON file of each sequence's first frames after a cut; null: they are found (ours)"
    )
    cut_ratio: float = Field(2.0, gt=1, description="change at a cut, in that of the frames around it (ours)")


class Clips(Settings):
    fps: int = Field(16, description="frame rate after repetition (paper: 16)")
    frames: int = Field(81, description="frames a clip, 4k+1 (paper: 81)")
    height: int = Field(800, description="pixels, a multiple of 16 (paper: 800)")
    width: int = Field(1200, description="pixels, a multiple of 16 (paper: 1200)")

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
    sigmas: tuple[float, ...] = Field(
        (1.0, 0.75, 0.5, 0.25), description="noise levels of its steps before the shift, 1 to 0 (ours)"
    )
    shift: float = Field(gt=0, description="flow shift that it was distilled at (ours)")


class Accelerators(Settings):
    editor: Accelerator | None = Field(None, description="of anchors (ours)")
    vace: Accelerator | None = Field(None, description="of propagation (ours)")
    wan: Accelerator | None = Field(None, description="of enhance, beside the adapter (ours)")


def _offload(given: Any) -> Any:
    """Profiles of before there were groups say true or false."""
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
    steps: int = Field(40, ge=2, description="denoising steps (ours)")
    true_cfg_scale: float = Field(4.0, description="1 switches guidance off (ours)")
    edit_area: int = Field(1024 * 1024, description="pixels at which the editor works")
    max_shift: float = Field(0.02, description="largest drift undone, of the image's diagonal (ours)")
    attempts: int = Field(3, ge=1, description="seeds tried before an anchor is refused (ours)")


class Structure(Settings):
    edges: Literal["canny", "gradient"] = Field(
        "canny", description="edge detector; gradient: soft lines, as strong as the step (ours)"
    )
    canny: tuple[int, int] = Field((100, 200), description="Canny thresholds, 0-255 (ours)")
    thickness: int | None = Field(
        None, ge=2, description="pixels that lines are thickened to; null: as the detector draws them (ours)"
    )
    depth: Literal["engine", "depth_anything"] = Field("engine", description="depth source (ours)")
    depth_model: str | None = Field(None, description="checkpoint of the depth estimator")


Variant = Literal["edges", "depth", "multi_anchor"]


class Propagation(Settings):
    variants: tuple[Variant, ...] = Field(("edges", "depth", "multi_anchor"), description="4.5")
    anchor_seconds: float = Field(0.5, gt=0, description="spacing of multi-anchor (paper: 0.5)")
    anchor_frames: tuple[int, ...] | None = Field(
        None, min_length=1, description="multi-anchor's frames themselves; null: by the spacing (ours)"
    )
    steps: int = Field(50, ge=1, description="denoising steps (VACE's authors: 50; ours)")
    guidance: float = Field(5.0, description="1: off (VACE's authors: 5; ours)")
    shift: float = Field(16.0, description="flow shift (VACE's authors: 16; ours)")
    conditioning: float = Field(
        1.0, ge=0, description="strength of anchors and structure (VACE's authors: 1; ours)"
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
        640, ge=32, multiple_of=32, description="pixels a side at which faces are looked for (ours)"
    )
    det_thresh: float = Field(0.5, gt=0, lt=1, description="score from which something is a face (ours)")
    iou_gate: float = Field(0.3, gt=0, le=1, description="least overlap of matched faces (ours)")
    threshold: float = Field(0.4, ge=-1, le=1, description="ArcFace cosine (paper: 0.4)")
    over: Literal["mean", "minimum"] = Field("mean", description="B.1 says mean, 3.3 minimum")
    frames: Literal["sampled", "all"] = Field(
        "sampled", description="sampled: five, as ArcFace is measured (ours)"
    )
    faceless: Literal["keep", "drop"] = Field("keep", description="clips in which no face is found (ours)")
    fewest_pairs: int = Field(16, ge=1, description="training stops when the filter leaves fewer (ours)")


class Expert(Settings):
    steps: int = Field(ge=1, description="optimiser steps (ours)")
    learning_rate: float = Field(1e-4, gt=0, description="peak of the optimiser's (ours)")
    sigma: tuple[float, float] = Field(description="range of noise levels it is trained on")


class Train(Settings):
    """The adapter's training (paper, 3.3 and B.2).

    The paper trains in "a few hours ... on a single GPU" (3.2) and does not say at which size. A joint step at 800x1200x81
    takes minutes there (`make plan`), so that a few hours are some fifty steps, or a smaller size: an estimate of ours.
    """

    height: int | None = Field(
        None, multiple_of=16, ge=16, description="pixels that pairs are resized to; null: as clips (ours)"
    )
    width: int | None = Field(None, multiple_of=16, ge=16, description="null: as clips (ours)")
    frames: int | None = Field(
        None, ge=5, description="first frames of a pair trained on, 4k+1; null: as clips (ours)"
    )
    mode: Literal["joint", "one-way"] = Field("joint", description="who attends to whom (paper: joint)")
    rank: int = Field(32, description="LoRA rank (paper: 32)")
    alpha: int = Field(32, description="LoRA alpha (ours)")
    weight_decay: float = Field(0.0, ge=0, description="(ours)")
    gradient_clip: float = Field(1.0, gt=0, description="(ours)")
    batch: int = Field(1, ge=1, description="pairs a step, over all processes (ours)")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up (ours)")
    sampler: Literal["shifted", "uniform", "logit-normal"] = Field(
        "shifted", description="distribution of noise levels (ours)"
    )
    shift: float = Field(3.0, gt=0, description="of the sampler `shifted` (ours)")
    logit_mean: float = Field(0.0, description="of the sampler `logit-normal` (ours)")
    logit_std: float = Field(1.0, gt=0, description="of the sampler `logit-normal` (ours)")
    held_out: int = Field(0, ge=0, description="pairs not trained on, whose loss is measured (ours)")
    evaluate_every: int = Field(50, ge=1, description="steps between measurements on held-out pairs")
    checkpoint_every: int = Field(50, ge=1, description="steps between resumable checkpoints")
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
    steps: int = Field(40, ge=1, description="denoising steps (Wan2.2: 40)")
    guidance_low: float = Field(3.0, description="low-noise expert (Wan2.2: 3)")
    guidance_high: float = Field(4.0, description="high-noise expert (Wan2.2: 4)")
    shift: float = Field(12.0, description="flow shift (Wan2.2: 12)")
    overlap: int = Field(
        16,
        ge=4,
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
    clips: int = Field(6, ge=1, description="clips, one a sequence, of each place (ours)")
    steps: int | None = Field(None, ge=1, description="denoising steps; null: as in enhance (ours)")
    guidance_low: float | None = Field(None, description="low-noise expert; null: as in enhance (ours)")
    guidance_high: float | None = Field(None, description="high-noise expert; null: as in enhance (ours)")
    dose: tuple[float, ...] = Field(
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
    frames: int = Field(5, ge=1, description="frames rated in a clip (paper: 5)")
    sampling: Literal["linspace", "midpoints"] = Field(
        "linspace", description="linspace: ends included (ours)"
    )
    repeats: int = Field(3, ge=1, description="ratings of a frame (ours)")
    concurrency: int = Field(8, ge=1, description="requests at a time")
    timeout: float = Field(60.0, gt=0, description="seconds that an answer may keep silent")
    usd_per_million_input: float | None = Field(None, ge=0, description="price of tokens read; null: n/a")
    usd_per_million_output: float | None = Field(None, ge=0, description="price of tokens written; null: n/a")
    budget_usd: float = Field(20.0, ge=0, description="a dearer judge does not run")
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


class Profile(Settings):
    """All settings of a run. `Profile.layout` is where its results go."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    seed: int = 0
    data: Data
    clips: Clips
    models: Models
    anchors: Anchors = Anchors()
    structure: Structure = Structure()
    propagation: Propagation = Propagation()
    identity: Identity = Identity()
    train: Train
    enhance: Enhance = Enhance()
    weather: Weather = Weather()
    metrics: dict[MetricName, str] = Field(
        {},
        description="the model of each metric that has one, by the metric's name: folder, file or hub name",
    )
    judge: Judge = Judge()
    baselines: Baselines = Baselines()
    carla: Data | None = Field(None, description="the data of 07_carla, in place of `data`; null: not run")
    _demo: str = PrivateAttr("")

    @model_validator(mode="after")
    def _training_size(self) -> "Profile":
        size, clips = self.training_size, self.clips
        if size.frames > clips.frames:
            raise ValueError(f"train.frames is {size.frames} and a clip has only {clips.frames}")
        stretched = (size.width / size.height) / (clips.width / clips.height)
        if not 0.95 < stretched < 1.05:
            raise ValueError(
                f"train.height and train.width, {size.height}x{size.width}, must have the shape of the clips, "
                f"{clips.height}x{clips.width}"
            )
        return self

    @model_validator(mode="after")
    def _anchor_frames(self) -> "Profile":
        frames = self.propagation.anchor_frames or (0,)
        if list(frames) != sorted(set(frames)) or not 0 <= frames[0] <= frames[-1] < self.clips.frames:
            raise ValueError(
                f"propagation.anchor_frames must be frames of a clip, 0 to {self.clips.frames - 1}, in order"
            )
        return self

    @model_validator(mode="after")
    def _accelerated(self) -> "Profile":
        stages = {"editor": self.anchors, "vace": self.propagation, "wan": self.enhance}
        for role, stage in stages.items():
            if not (asked := getattr(self.models.accelerators, role)):
                continue
            group = type(stage).__name__.lower()
            if stage.steps != len(asked.sigmas) or getattr(stage, "shift", asked.shift) != asked.shift:
                raise ValueError(
                    f"models.accelerators.{role} was distilled to {len(asked.sigmas)} steps at shift {asked.shift:g}: "
                    f"set {group}.steps{' and ' + group + '.shift' if role != 'editor' else ''} to that"
                )
        return self

    @property
    def training_size(self) -> Clips:
        """What the adapter is trained on: `clips`, but for the sizes that `train` gives itself."""
        own = self.train.model_dump(include={"height", "width", "frames"}, exclude_none=True)
        return Clips.model_validate({**self.clips.model_dump(), **own})

    @property
    def layout(self) -> Layout:
        return Layout(REPOSITORY / "results" / self.name, self._demo)

    def demo(self, folder: str, **groups: dict[str, Any]) -> "Profile":
        """The profile of a demonstration: stages write to results/<profile>/<folder>/ and use this run's adapters.

        groups: settings of its own by group, as data={"source": "carla_loc"}; all others are this profile's. Raises
        ValidationError for a wrong one.
        """
        content = self.model_dump()
        # Nothing is trained there, and its clips may have another shape.
        content["train"] |= dict.fromkeys(("height", "width", "frames"))
        for group, changes in groups.items():
            content[group] |= changes
        made = Profile.model_validate(content)
        made._demo = folder
        return made


def load(name: str | Path) -> Profile:
    """Read a profile by name (a file in rmkit/profiles/) or by path.

    Raises InputError naming the file, the key and what was expected.
    """
    path = Path(name) if str(name).lower().endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise InputError(f"unknown profile '{name}': no file {path.name}; known are {known}.")
    try:
        return Profile.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        raise InputError(f"{path.name}: {first_mistake(error)}") from None


def first_mistake(error: ValidationError, group: str = "") -> str:
    """The first thing that is wrong, as "'key': what."; `group`: the dotted key of what was validated."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in (group, *first["loc"]) if part not in ("", "[key]")) or "profile"
    said = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
    return f"'{key}': {said.removeprefix('Value error, ')}."


def ours(settings: Settings, prefix: str = "") -> list[tuple[str, Any, str]]:
    """Every setting the paper leaves open: (dotted key after `prefix`, value, description), for the report."""
    rows = []
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if isinstance(value, Settings):
            rows += ours(value, f"{prefix}{key}.")
        elif "(ours)" in (field.description or ""):
            rows.append((f"{prefix}{key}", value, field.description))
    return rows
