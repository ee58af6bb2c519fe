"""Propagation: the look of the anchors carried through a clip by VACE on its structure (paper, 3.1, 4.5).

Reads `anchors/` and `structure/`; writes `propagated/<variant>/<clip>.mp4`. Variants: 'edges' and 'depth'
with the end frames as anchors, 'multi_anchor' with edges and an anchor every anchor_seconds.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from rmkit.kit import accelerators, models, prompts, stage, store, video
from rmkit.method import anchoring, sampling, structure
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Variant

if TYPE_CHECKING:
    import torch
    from diffusers import WanVACEPipeline

VERSION = 2
PROMPTS_KEPT = 64  # embeddings held in memory; a real one is 4 MB


class Job(NamedTuple):
    """A clip and how it is propagated."""

    clip: Clip
    variant: Variant


def propagate(
    profile: Profile, clips: Sequence[Clip], *variants: Variant, train: Sequence[Clip] = ()
) -> list[Path]:
    """Generate each clip's photorealistic version by each variant; returns the paths of those made.

    train: clips that are propagated by edges too, since all pairs are (3.2), by the same loaded model. Clips with a refused
    anchor are left out and named. Raises InputError before the model is loaded when clips, anchors, structure, model or disk
    space are missing, or a prompt is longer than the model reads.
    """
    jobs = [Job(clip, variant) for variant in variants for clip in clips]
    jobs += [Job(clip, "edges") for clip in train]
    sampling.check(profile, [*clips, *train])
    for job in jobs:
        anchoring.require(profile, [job.clip], anchoring.indices(profile, job.variant))
    models.check(profile, "vace")
    model = models.fingerprint(profile, "vace")
    items = []
    for job in jobs:
        target, indices = path(profile, job.variant, job.clip), anchoring.indices(profile, job.variant)
        if anchoring.refused(profile, job.clip, indices):
            # An earlier version, made from anchors that were accepted then, must not be taken for this run's.
            store.discard(target)
            print(f"propagate {job.variant}: {job.clip.id} is left out, an anchor of it was refused.")
        else:
            items.append(stage.Item(target, _recipe(profile, job.clip, job.variant, indices, model), job))
    ready, device = functools.partial(_ready, profile, [*clips, *train]), str(models.device(profile))
    return stage.run("propagate", items, ready, profile.clips.raw_bytes, device, spread=True)


def path(profile: Profile, variant: str, clip: Clip) -> Path:
    """Where a clip's propagated version is stored."""
    return profile.layout.propagated / variant / f"{clip.id}.mp4"


def kind_of(variant: str) -> structure.Kind:
    """The structure a variant is conditioned on; multi-anchor keeps the edges (ours)."""
    return "depth" if variant == "depth" else "edges"


def prompt_of(profile: Profile, clip: Clip) -> str:
    """The clip's caption, or the profile's prompt where it has none."""
    return clip.caption.strip() or profile.propagation.prompt


def control(
    guide: np.ndarray, anchors: Mapping[int, np.ndarray], indices: Sequence[int], repeat: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """VACE's condition: anchors in place, structure elsewhere; uint8 [F, H, W, 3] and mask [F, H, W].

    The mask is 0 where a frame is kept and 255 where it is generated. A source frame is shown `repeat` times; an anchor
    stands at one of these frames (`place`), the structure at the others.
    """
    count = len(guide)
    frames = guide.copy()
    mask = np.full(guide.shape[:3], 255, np.uint8)
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"anchor {index} is outside the clip's {count} frames")
        if anchors[index].shape != guide.shape[1:]:
            raise ValueError(f"anchor {index} is {anchors[index].shape}, frames {guide.shape[1:]}")
        frames[place(index, count, repeat)] = anchors[index]
        mask[place(index, count, repeat)] = 0
    return frames, mask


def place(index: int, count: int, repeat: int) -> int:
    """The frame of `count` at which the anchor of frame `index` stands: one that the mask's sampling skips, its own if it can.

    So no anchor reaches the mask's channels and all act alike, through their latents, as first and last frame do in VACE's
    own task of that name. The rule has no way out where a source frame is shown once and sampled: that anchor is seen.
    """
    first = index - index % repeat
    showings = [index, *range(first, min(first + repeat, count))]
    return next((frame for frame in showings if frame not in sampled(count)), index)


def sampled(count: int) -> list[int]:
    """The frames of a mask of `count` that become its latent frames: nearest-exact, as WanVACEPipeline samples it."""
    latents = (count + 3) // 4
    return [(2 * i + 1) * count // (2 * latents) for i in range(latents)]


def load(profile: Profile) -> "WanVACEPipeline":
    """VACE with the profile's flow shift; InputError when the clips' size is not a multiple of its cells."""
    pipeline = models.load_vace(profile)
    models.set_flow_shift(pipeline, profile.propagation.shift)
    accelerators.put_on(profile, pipeline, "vace")
    height, width = profile.clips.height, profile.clips.width
    models.require_cells(pipeline, height, width, f"clips of {height}x{width} do not fit this VACE model")
    return pipeline


def encoder(profile: Profile, pipeline: "WanVACEPipeline") -> Callable[[str], dict[str, "torch.Tensor"]]:
    """A function from a prompt to its embeddings, as arguments of the pipeline; it keeps the last PROMPTS_KEPT.

    Raises InputError for a prompt that the pipeline would cut; for the negative one at once.
    """
    import torch

    if profile.propagation.guidance > 1:
        prompts.require(
            pipeline.tokenizer, "propagation.negative_prompt", profile.propagation.negative_prompt
        )

    @functools.lru_cache(PROMPTS_KEPT)
    @torch.no_grad()
    def encode(prompt: str) -> dict[str, "torch.Tensor"]:
        prompts.require(pipeline.tokenizer, f"the prompt '{prompt}'", prompt)
        positive, negative = pipeline.encode_prompt(
            prompt,
            negative_prompt=profile.propagation.negative_prompt,
            do_classifier_free_guidance=profile.propagation.guidance > 1,
            max_sequence_length=models.text_length(pipeline.tokenizer),
        )
        return {"prompt_embeds": positive, "negative_prompt_embeds": negative}

    return encode


def run(
    profile: Profile,
    pipeline: "WanVACEPipeline",
    frames: np.ndarray,
    mask: np.ndarray,
    embeds: Mapping[str, "torch.Tensor"],
    seed: int,
    tell: Callable[[int], None] = lambda step: None,
) -> np.ndarray:
    """One clip from its condition (see `control`): uint8 [F, H, W, 3] and [F, H, W] to uint8 [F, H, W, 3].

    tell: called after each step with how many are done; what it raises stops the generation.
    """
    output = pipeline(
        video=[Image.fromarray(frame) for frame in frames],
        # Three channels, as the pipeline multiplies the video by it; all of them the same.
        mask=[Image.fromarray(one).convert("RGB") for one in mask],
        height=frames.shape[1],
        width=frames.shape[2],
        num_frames=len(frames),
        num_inference_steps=profile.propagation.steps,
        guidance_scale=profile.propagation.guidance,
        conditioning_scale=profile.propagation.conditioning,
        callback_on_step_end=lambda _pipeline, step, _time, tensors: tell(step + 1) or tensors,
        generator=models.generator(seed),
        output_type="np",
        **embeds,
    )
    return video.to_uint8(output.frames[0])


def settings_of(profile: Profile, clip: Clip, prompt: str) -> dict[str, Any]:
    """What of the profile a result depends on beside its anchors and structure, for its key."""
    settings = profile.propagation.model_dump(exclude={"variants", "anchor_seconds", "anchor_frames"})
    if settings["conditioning"] == 1.0:
        del settings["conditioning"]  # keys are as of before there was one
    settings |= {"prompt": prompt, **models.settings(profile, "vace")}
    settings |= accelerators.settings(profile, "vace")
    return settings | {"repeat": sampling.repeats(clip, profile.clips.frames)}


def _recipe(
    profile: Profile, clip: Clip, variant: Variant, indices: Sequence[int], model: str
) -> store.Recipe:
    settings = settings_of(profile, clip, prompt_of(profile, clip))
    inputs = {f"anchor/{i}": store.fingerprint(anchoring.path(profile, clip, i)) for i in indices}
    inputs["structure"] = store.fingerprint(structure.path(profile, kind_of(variant), clip))
    # The same noise for every variant, so that a comparison of them is paired.
    seed = store.seed_for(profile.seed, "propagate", clip.id)
    return store.Recipe("propagate", VERSION, settings, inputs, seed, model)


def _ready(profile: Profile, clips: Sequence[Clip]) -> stage.Make[Job]:
    """Load VACE, once all prompts have been found to fit; returns what generates one clip."""
    said = {
        f"the prompt of clip {clip.id} (its caption, or propagation.prompt)": prompt_of(profile, clip)
        for clip in clips
    }
    if profile.propagation.guidance > 1:
        said["propagation.negative_prompt"] = profile.propagation.negative_prompt
    prompts.check(models.vace_tokenizer(profile), said)
    pipeline = load(profile)
    encode = encoder(profile, pipeline)

    def make(item: stage.Item[Job], temporary: Path) -> None:
        clip, variant = item.subject
        indices = anchoring.indices(profile, variant)
        frames, mask = control(
            video.read(structure.path(profile, kind_of(variant), clip)),
            anchoring.load(profile, clip, indices),
            indices,
            sampling.repeats(clip, profile.clips.frames),
        )
        made = run(profile, pipeline, frames, mask, encode(prompt_of(profile, clip)), item.recipe.seed)
        video.write(temporary, made, profile.clips.fps)

    return make
