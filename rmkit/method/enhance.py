"""Enhancing: a clip made realistic by the stock Wan pipeline with the render in context (paper, 3.3).

Reads `clips/` and `adapters/<name>/`; writes `enhanced/<name>/<clip_id>.mp4`. No anchors and no edges: the
render's own latents are all the model sees besides the prompt.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rmkit.attention.key_value_cache import Placement, placement
from rmkit.attention.one_way import CACHED
from rmkit.kit import accelerators, encode, models, prompts, stage, store, video
from rmkit.method import lora, sampling, training, wan
from rmkit.method.incontext import Reference, in_context, training_mode
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline, WanTransformer3DModel

VERSION = 1
ADAPTER = "incontext"  # its name in the pipeline, whatever its folder is called


class Job(NamedTuple):
    """A clip, what is asked of it, and the profile that says how."""

    clip: Clip
    prompt: str
    profile: Profile


def enhance(
    profile: Profile,
    clips: Sequence[Clip],
    name: str = training.NAME,
    prompt: Callable[[Clip], str] | None = None,
    into: str | None = None,
) -> list[Path]:
    """Enhance clips with a trained adapter; returns the videos, in order, finished ones untouched.

    name: of the adapter; prompt: what to ask of a clip (its caption); into: the folder of `enhanced/` that they go to (the
    adapter's name). The noise of a clip is the same whatever the prompt. Raises InputError, before a model is loaded, on a
    missing, foreign or unfit adapter, on clips of another size or length than the profile's, and on a prompt that the model
    would cut.
    """
    return make(profile, items(profile, clips, name, prompt, into), name)


def items(
    profile: Profile,
    clips: Sequence[Clip],
    name: str = training.NAME,
    prompt: Callable[[Clip], str] | None = None,
    into: str | None = None,
) -> list[stage.Item[Job]]:
    """What `enhance` makes, for `make`: of several prompts or guidances at once. Raises InputError as `enhance`."""
    sampling.check(profile, clips)
    models.check(profile, "wan")
    files = check_adapter(profile, profile.layout.adapters / name)
    target = profile.layout.enhanced / (into or name)
    asked = prompt or functools.partial(prompt_of, profile)
    jobs = [Job(clip, asked(clip), profile) for clip in clips]
    return [stage.Item(target / f"{job.clip.id}.mp4", _recipe(job, files), job) for job in jobs]


def make(profile: Profile, items: Sequence[stage.Item[Job]], name: str = training.NAME) -> list[Path]:
    """Make items by one loaded model, finished ones untouched; returns the videos. Models and mode are the profile's."""
    folder, device = profile.layout.adapters / name, str(models.device(profile))
    ready = functools.partial(_ready, profile, folder, [item.subject for item in items])
    return stage.run("enhance", items, ready, profile.clips.raw_bytes, device, spread=True)


def check_adapter(profile: Profile, folder: Path) -> dict[str, str]:
    """Fingerprint of the adapter's file of each expert; loads nothing.

    Raises InputError unless `folder` holds an adapter for each expert that fits the profile and its mode.
    """
    experts = wan.experts(profile)
    for expert in experts:
        lora.check(profile, folder / expert.name, expert, training_mode(mode(profile)))
    return {expert.name: store.fingerprint(folder / expert.name / lora.WEIGHTS) for expert in experts}


def load(profile: Profile, folder: Path) -> "WanPipeline":
    """The Wan pipeline with the adapter of `folder` in every expert and the profile's flow shift."""
    pipeline = models.load_wan(profile)
    models.set_flow_shift(pipeline, profile.enhance.shift)
    accelerators.put_on(profile, pipeline, "wan")
    for expert in wan.experts(profile):
        lora.load(pipeline, folder / expert.name, expert, ADAPTER)
    return pipeline


def run(
    profile: Profile,
    pipeline: "WanPipeline",
    render: np.ndarray,
    text: "torch.Tensor",
    negative: "torch.Tensor | None",
    seed: int,
) -> np.ndarray:
    """One clip through the pipeline: uint8 [F, H, W, 3] in and out; text and negative [1, T, D]."""
    with seeing(profile, pipeline, render):
        options = {"generator": models.generator(seed), "output_type": "np"}
        made = sample(profile, pipeline, render.shape[:3], text, negative, **options)
    return video.to_uint8(made[0])


@contextmanager
def seeing(profile: Profile, pipeline: "WanPipeline", render: np.ndarray) -> Iterator["torch.Tensor"]:
    """Let every expert see a render, uint8 [F, H, W, 3], inside; yields its latents [1, C, F, H, W]."""
    # One reference for both experts: the first one's cache is dropped when the second takes over.
    reference = Reference(encode.latents(pipeline, render))
    with ExitStack() as contexts:
        for transformer in transformers(pipeline):
            contexts.enter_context(in_context(transformer, reference, mode(profile), profile.enhance.cache))
        yield reference.latents


def sample(
    profile: Profile,
    pipeline: "WanPipeline",
    size: tuple[int, int, int],
    text: "torch.Tensor",
    negative: "torch.Tensor | None",
    **options: Any,
) -> Any:
    """What the pipeline makes by the profile's steps and guidance, of text and negative [B, T, D].

    size: frames, height and width in pixels; `options` are the pipeline's own.
    """
    frames, height, width = size
    return pipeline(
        prompt_embeds=text,
        negative_prompt_embeds=negative,
        height=height,
        width=width,
        num_frames=frames,
        num_inference_steps=profile.enhance.steps,
        **_guidance(profile, pipeline),
        **options,
    ).frames


def transformers(pipeline: "WanPipeline") -> "list[WanTransformer3DModel]":
    """The experts a pipeline has: two, or one."""
    return [expert for expert in (pipeline.transformer, pipeline.transformer_2) if expert is not None]


def mode(profile: Profile) -> str:
    """Who attends to whom in enhancing; as in training unless the profile says otherwise."""
    return profile.enhance.mode or profile.train.mode


def _guidance(profile: Profile, pipeline: "WanPipeline") -> dict[str, float]:
    """Guidance by expert, in the pipeline's arguments; 1 for all experts costs no second pass.

    A model with one expert takes the low-noise value, because most of its steps are there (ours).
    """
    low, high = profile.enhance.guidance_low, profile.enhance.guidance_high
    if pipeline.transformer_2 is None:
        return {"guidance_scale": low}
    if _is_guided(profile):
        # The pipeline asks the high-noise value alone whether guidance is on at all.
        high = max(high, math.nextafter(1.0, 2.0))
    return {"guidance_scale": high, "guidance_scale_2": low}


def negative(profile: Profile, pipeline: "WanPipeline") -> "torch.Tensor | None":
    """The negative prompt's embeddings [1, T, D], None where the profile does not guide."""
    return encode.text(pipeline, profile.enhance.negative_prompt) if _is_guided(profile) else None


def check_prompts(profile: Profile, wanted: Mapping[str, str]) -> None:
    """Raise InputError unless Wan reads all of these prompts, by where they come from, and of the negative one; loads no weights."""
    unwanted = {"enhance.negative_prompt": profile.enhance.negative_prompt} if _is_guided(profile) else {}
    prompts.check(profile.models.wan, {**wanted, **unwanted})


def _is_guided(profile: Profile) -> bool:
    return max(profile.enhance.guidance_low, profile.enhance.guidance_high) > 1


def prompt_of(profile: Profile, clip: Clip) -> str:
    """The clip's caption, or the prompt that the profile trains with where it has none."""
    return clip.caption.strip() or profile.train.prompt


def _ready(profile: Profile, folder: Path, jobs: Sequence[Job]) -> stage.Make[Job]:
    """What enhances one clip; each prompt is embedded once, since many clips may share it."""
    said = {f"the prompt of clip {job.clip.id} (its caption, or train.prompt)": job.prompt for job in jobs}
    check_prompts(profile, said)
    pipeline = load(profile, folder)
    text = functools.cache(functools.partial(encode.text, pipeline))
    if mode(profile) == CACHED:
        print(f"in context: {_placement(profile, pipeline)}")

    def make(item: stage.Item[Job], temporary: Path) -> None:
        clip, prompt, profile = item.subject
        unwanted = text(profile.enhance.negative_prompt) if _is_guided(profile) else None
        render = video.read(sampling.path(profile, clip))
        frames = run(profile, pipeline, render, text(prompt), unwanted, item.recipe.seed)
        video.write(temporary, frames, profile.clips.fps)

    return make


def _placement(profile: Profile, pipeline: "WanPipeline") -> Placement:
    """Where the keys and values of a clip's render will be cached: said before the first clip."""
    import torch

    size, spatial = profile.clips, pipeline.vae_scale_factor_spatial
    transformer = transformers(pipeline)[0]
    channels = transformer.config.in_channels
    shape = (1, channels, size.frames // 4 + 1, size.height // spatial, size.width // spatial)
    noisy = torch.empty(shape, dtype=transformer.dtype, device=pipeline._execution_device)
    return placement(transformer, noisy, profile.enhance.cache)


def _recipe(job: Job, files: dict[str, str]) -> store.Recipe:
    profile = job.profile
    return store.Recipe(
        stage="enhance",
        version=VERSION,
        settings={
            **profile.enhance.model_dump(exclude={"overlap"}),  # no clip is longer than a window
            "prompt": job.prompt,
            "mode": mode(profile),
            "fps": profile.clips.fps,
            **models.settings(profile, "wan"),
            **accelerators.settings(profile, "wan"),
        },
        inputs={"clip": store.fingerprint(sampling.path(profile, job.clip))} | files,
        seed=store.seed_for(profile.seed, "enhance", job.clip.id),
        model=models.fingerprint(profile, "wan"),
    )
