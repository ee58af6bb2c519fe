"""Anchors: key frames of a clip made photorealistic by an image editor (paper, 3.1 and B.1).

Reads `clips/`; writes `anchors/<clip>/<frame>.png` with a sidecar that says how far the edit had drifted
and whether it is accepted. Every anchor passes an alignment gate (ours), since the editor shifts pictures.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from rmkit.errors import InputError
from rmkit.kit import accelerators, alignment, editor, models, prompts, stage, store, video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

VERSION = 1
Frames = Literal["ends", "every"]


def edit(
    profile: Profile,
    clips: Sequence[Clip],
    frames: Frames = "ends",
    more: Mapping[Frames, Sequence[Clip]] | None = None,
) -> list[Path]:
    """Edit the ends of each clip, or every anchor of the multi-anchor variant (ends included).

    more: further clips by what is edited of them, by the same loaded model. Returns the pictures' paths. An anchor that no
    seed brought into place is written and marked refused. Raises InputError before the model is loaded when clips, model or
    disk space are missing.
    """
    asked = [(frames, clips), *(more or {}).items()]
    wanted = [
        (clip, indices(profile, "edges" if which == "ends" else "multi_anchor"))
        for which, some in asked
        for clip in some
    ]
    sampling.check(profile, [clip for clip, _ in wanted])
    models.check(profile, "editor")
    model = models.fingerprint(profile, "editor")
    items = [
        stage.Item(path(profile, clip, index), recipe(profile, clip, index, model), (clip, index))
        for clip, at in wanted
        for index in at
    ]
    ready, size = functools.partial(_ready, profile), profile.clips.raw_bytes // profile.clips.frames
    made = stage.run("anchors", items, ready, size, str(models.device(profile)), spread=True)
    for clip, at in wanted:
        if bad := refused(profile, clip, at):
            places = ("frame " if len(bad) == 1 else "frames ") + ", ".join(map(str, bad))
            print(f"anchors: {clip.id}: refused at {places}; later stages leave the clip out.")
    return made


def indices(profile: Profile, variant: str) -> list[int]:
    """Frames that are anchors: the ends, or for 'multi_anchor' one every anchor_seconds and the last, or anchor_frames."""
    last = profile.clips.frames - 1
    if variant != "multi_anchor":
        return [0, last]
    if profile.propagation.anchor_frames:
        return list(profile.propagation.anchor_frames)
    step = max(1, round(profile.propagation.anchor_seconds * profile.clips.fps))
    return [*range(0, last, step), last]


def path(profile: Profile, clip: Clip, index: int) -> Path:
    """Where the anchor of a frame is stored."""
    return profile.layout.anchors / clip.id / f"{index:06d}.png"


def load(profile: Profile, clip: Clip, at: Sequence[int]) -> dict[int, np.ndarray]:
    """Anchors by frame, uint8 [H, W, 3]; raises InputError when one has not been made."""
    require(profile, [clip], at)
    return {index: video.image(path(profile, clip, index)) for index in at}


def require(profile: Profile, clips: Sequence[Clip], at: Sequence[int]) -> None:
    """Raise InputError unless every anchor has been made, accepted or not."""
    for clip in clips:
        for index in at:
            file = path(profile, clip, index)
            if not (file.is_file() and store.read_sidecar(file)):
                raise InputError(f"{file} does not exist: run 02_anchoring (or `make reproduce`) first.")


def refused(profile: Profile, clip: Clip, at: Sequence[int]) -> list[int]:
    """Frames whose anchor the gate refused; a clip with one is left out by later stages."""
    sidecars = {index: store.read_sidecar(path(profile, clip, index)) for index in at}
    return [index for index, sidecar in sidecars.items() if not sidecar.get("accepted", True)]


def edit_frame(profile: Profile, pipeline: Any, render: np.ndarray, seed: int) -> np.ndarray:
    """One edit at the editor's own size, resized back, without the gate: uint8 [H, W, 3] -> the same.

    Raises InputError for a prompt that is longer than the editor reads.
    """
    settings = profile.anchors
    # The pipeline names a longest prompt, after the tokens that it drops, and feeds a longer one to a model not made for it.
    length = pipeline.tokenizer_max_length + pipeline.prompt_template_encode_start_idx
    template = pipeline.prompt_template_encode
    prompts.require_tokens(pipeline.tokenizer, length, "anchors.prompt", settings.prompt, template)
    # Guidance needs a negative prompt, and warns of one that it does not use.
    options = {"negative_prompt": " "} if settings.true_cfg_scale > 1 else {}
    if accelerator := accelerators.of(profile, "editor"):
        options["sigmas"] = list(accelerator.sigmas)
    # Height and width are never passed: the reference would keep its own size, and the edit come out zoomed.
    with editor.at_area(pipeline, settings.edit_area):
        picture = pipeline(
            image=Image.fromarray(render),
            prompt=settings.prompt,
            true_cfg_scale=settings.true_cfg_scale,
            num_inference_steps=settings.steps,
            generator=models.generator(seed),
            output_type="np",
            **options,
        ).images[0]
    return video.resized(video.to_uint8(picture), *render.shape[:2])


def recipe(profile: Profile, clip: Clip, index: int, model: str) -> store.Recipe:
    """What decides an anchor's content; model: the editor's fingerprint."""
    return store.Recipe(
        stage="anchors",
        version=VERSION,
        settings={
            **profile.anchors.model_dump(),
            **models.settings(profile, "editor"),
            **accelerators.settings(profile, "editor"),
            "frame": index,
        },
        inputs={"clip": store.fingerprint(sampling.path(profile, clip))},
        seed=store.seed_for(profile.seed, "anchors", f"{clip.id}/{index}"),
        model=model,
    )


def _ready(profile: Profile) -> stage.Make[tuple[Clip, int]]:
    return maker(profile, models.load_editor(profile))


def maker(profile: Profile, pipeline: Any) -> stage.Make[tuple[Clip, int]]:
    """What makes one anchor by a loaded editor."""
    render = functools.lru_cache(maxsize=1)(video.read)  # all anchors of a clip follow one another

    def make(item: stage.Item[tuple[Clip, int]], temporary: Path) -> dict[str, Any]:
        clip, index = item.subject
        frame = render(sampling.path(profile, clip))[index]
        picture, facts = gated(profile, pipeline, f"{clip.id}/{index}", frame)
        Image.fromarray(picture).save(temporary)
        return facts

    return make


def gated(
    profile: Profile, pipeline: Any, name: str, render: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """One anchor, with further seeds while the gate refuses; the least drifted attempt is kept."""
    limit = profile.anchors.max_shift * float(np.hypot(*render.shape[:2]))
    tries: list[tuple[np.ndarray, dict[str, Any]]] = []
    for attempt in range(profile.anchors.attempts):
        seed = store.seed_for(profile.seed, "anchors", f"{name}/{attempt}" if attempt else name)
        edited = edit_frame(profile, pipeline, render, seed)
        tries.append(alignment.align(render, edited, limit))
        if tries[-1][1]["accepted"]:
            break
    picture, facts = min(tries, key=lambda one: (not one[1]["accepted"], one[1]["drift_pixels"]))
    drifts = [one[1]["drift_pixels"] for one in tries]
    return picture, {**facts, "attempts": len(tries), "attempted_drifts": drifts, "limit": round(limit, 3)}
