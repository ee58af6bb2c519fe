"""Propagation: the look of the anchors carried through a clip by VACE on its structure (paper, 3.1, 4.5).

Reads `anchors/` and `structure/`; writes `propagated/<variant>/<clip>.mp4`. Variants: 'edges' and 'depth'
with the end frames as anchors, 'multi_anchor' with edges and an anchor every anchor_seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rmkit.errors import InputError
from rmkit.kit import models, store, video
from rmkit.kit.progress import track
from rmkit.method import anchoring, sampling, structure
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Variant

if TYPE_CHECKING:
    import torch
    from diffusers import WanVACEPipeline

VERSION = 1
PROMPTS_KEPT = 64  # embeddings held in memory; a real one is 4 MB


def propagate(profile: Profile, clips: Sequence[Clip], variant: Variant) -> list[Path]:
    """Generate each clip's photorealistic version and return the paths of those made.

    Clips with a refused anchor are left out and named. Raises InputError before the model is loaded when
    clips, anchors, structure, model or disk space are missing.
    """
    sampling.check(profile, clips)
    indices = anchoring.indices(profile, variant)
    anchoring.require(profile, clips, indices)
    _require_structure(profile, clips, variant)
    models.check(profile, "vace")
    kept = _without_refused(profile, clips, variant, indices)
    model = models.fingerprint(profile, "vace")
    recipes = [_recipe(profile, clip, variant, indices, model) for clip in kept]
    paths = [path(profile, variant, clip) for clip in kept]
    missing = [i for i in range(len(kept)) if not store.is_done(paths[i], recipes[i])]
    if missing:
        size = profile.clips.frames * profile.clips.height * profile.clips.width * 3
        store.require_space(profile.layout.propagated, len(missing) * size / 1e9)
        pipeline = load(profile)
        prompts: dict[str, Any] = {}
        for i in track(missing, f"propagate {variant}"):
            clip = kept[i]
            conditions = control(
                video.read(structure.path(profile, kind_of(variant), clip)),
                anchoring.load(profile, clip, indices),
                indices,
                sampling.repeats(clip, profile.clips.frames),
            )
            embeds = embeddings(profile, pipeline, prompt_of(profile, clip), prompts)
            with store.writing(paths[i], recipes[i]) as temporary:
                frames = run(profile, pipeline, *conditions, embeds, recipes[i].seed)
                video.write(temporary, frames, profile.clips.fps)
    return paths


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
    structure_: np.ndarray, anchors: Mapping[int, np.ndarray], indices: Sequence[int], repeat: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """VACE's condition: anchors in place, structure elsewhere; uint8 [F, H, W, 3] and mask [F, H, W].

    The mask is 0 where a frame is kept and 255 where it is generated. A source frame is shown `repeat`
    times and all its copies are anchors: VACE samples the mask in time, and a lone frame would be missed.
    """
    count = len(structure_)
    frames = structure_.copy()
    mask = np.full(structure_.shape[:3], 255, np.uint8)
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"anchor {index} is outside the clip's {count} frames")
        if anchors[index].shape != structure_.shape[1:]:
            raise ValueError(f"anchor {index} is {anchors[index].shape}, frames {structure_.shape[1:]}")
        first = index - index % repeat
        frames[first : first + repeat] = anchors[index]
        mask[first : first + repeat] = 0
    return frames, mask


def load(profile: Profile) -> "WanVACEPipeline":
    """VACE with the profile's flow shift; InputError when the clips' size is not a multiple of its cells."""
    pipeline = models.load_vace(profile)
    models.set_flow_shift(pipeline, profile.propagation.shift)
    height, width = profile.clips.height, profile.clips.width
    models.require_cells(pipeline, height, width, f"clips of {height}x{width} do not fit this VACE model")
    return pipeline


def embeddings(
    profile: Profile, pipeline: "WanVACEPipeline", prompt: str, known: dict[str, Any]
) -> dict[str, "torch.Tensor"]:
    """The prompt's embeddings as arguments of the pipeline; `known` keeps those of earlier prompts."""
    import torch

    if prompt not in known:
        if len(known) >= PROMPTS_KEPT:
            known.pop(next(iter(known)))
        with torch.no_grad():
            positive, negative = pipeline.encode_prompt(
                prompt,
                negative_prompt=profile.propagation.negative_prompt,
                do_classifier_free_guidance=profile.propagation.guidance > 1,
                max_sequence_length=models.text_length(pipeline),
            )
        known[prompt] = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    return known[prompt]


def run(
    profile: Profile,
    pipeline: "WanVACEPipeline",
    frames: np.ndarray,
    mask: np.ndarray,
    embeds: Mapping[str, "torch.Tensor"],
    seed: int,
) -> np.ndarray:
    """One clip from its condition (see `control`): uint8 [F, H, W, 3] and [F, H, W] to uint8 [F, H, W, 3]."""
    output = pipeline(
        video=[Image.fromarray(frame) for frame in frames],
        # Three channels, as the pipeline multiplies the video by it; all of them the same.
        mask=[Image.fromarray(one).convert("RGB") for one in mask],
        height=frames.shape[1],
        width=frames.shape[2],
        num_frames=len(frames),
        num_inference_steps=profile.propagation.steps,
        guidance_scale=profile.propagation.guidance,
        conditioning_scale=1.0,
        generator=models.generator(seed),
        output_type="np",
        **embeds,
    )
    return video.to_uint8(output.frames[0])


def _require_structure(profile: Profile, clips: Sequence[Clip], variant: Variant) -> None:
    for clip in clips:
        file = structure.path(profile, kind_of(variant), clip)
        if not file.is_file():
            raise InputError(f"{file} does not exist: run 02_anchoring (or `make reproduce`) first.")


def _without_refused(
    profile: Profile, clips: Sequence[Clip], variant: Variant, indices: Sequence[int]
) -> list[Clip]:
    kept = []
    for clip in clips:
        if not anchoring.refused(profile, clip, indices):
            kept.append(clip)
            continue
        # An earlier version, made from anchors that were accepted then, must not be taken for this run's.
        stale = path(profile, variant, clip)
        store.sidecar_of(stale).unlink(missing_ok=True)
        stale.unlink(missing_ok=True)
        print(f"propagate {variant}: {clip.id} is left out, an anchor of it was refused.")
    return kept


def _recipe(
    profile: Profile, clip: Clip, variant: Variant, indices: Sequence[int], model: str
) -> store.Recipe:
    settings = profile.propagation.model_dump(exclude={"variants", "anchor_seconds", "prompt"})
    inputs = {f"anchor/{i}": store.fingerprint(anchoring.path(profile, clip, i)) for i in indices}
    inputs["structure"] = store.fingerprint(structure.path(profile, kind_of(variant), clip))
    return store.Recipe(
        stage="propagate",
        version=VERSION,
        settings={
            **settings,
            "prompt": prompt_of(profile, clip),
            "dtype": profile.models.dtype,
            "repeat": sampling.repeats(clip, profile.clips.frames),
        },
        inputs=inputs,
        # The same noise for every variant, so that a comparison of them is paired.
        seed=store.seed_for(profile.seed, "propagate", clip.id),
        model=model,
    )
