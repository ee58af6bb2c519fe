"""Per-frame editing: the image editor on every source frame by itself (ours; not in the paper).

What RealMaster would be without propagation: each frame can be as good as an anchor, and nothing holds them
together. Reads validation clips; writes enhanced/per_frame/<clip>.mp4 for a few of them, because it costs an edit a
frame.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rmkit.kit import models, store, video
from rmkit.kit.progress import track
from rmkit.method import anchoring, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

NAME = "per_frame"
VERSION = 1
T = TypeVar("T")
CLIPS = 8  # evenly spread over the validation clips


def chosen(clips: Sequence[T]) -> list[T]:
    """The clips (or their numbers) this baseline is run on: at most CLIPS of them, evenly spread."""
    return [clips[i] for i in video.evenly(min(CLIPS, len(clips)), len(clips))]


def edit(profile: Profile, clips: Sequence[Clip]) -> Path:
    """Edit every source frame of the chosen clips with a seed of its own; returns the folder of results."""
    folder, some = profile.layout.enhanced / NAME, chosen(clips)
    models.check(profile, "editor")
    model = models.fingerprint(profile, "editor")
    recipes = {clip.id: _recipe(profile, clip, model) for clip in some}
    missing = [clip for clip in some if not store.is_done(folder / f"{clip.id}.mp4", recipes[clip.id])]
    if missing:
        pipeline = models.load_editor(profile)
        for clip in track(missing, "per-frame editing"):
            with store.writing(folder / f"{clip.id}.mp4", recipes[clip.id]) as temporary:
                video.write(temporary, _edited(profile, pipeline, clip), profile.clips.fps)
    return folder


def _edited(profile: Profile, pipeline: Any, clip: Clip) -> np.ndarray:
    """All frames of a clip, the twins of a repeated source frame edited once: uint8 [F, H, W, 3]."""
    frames = video.read(sampling.path(profile, clip))
    times = sampling.repeats(clip, len(frames))
    edited = []
    for number, frame in enumerate(frames[::times]):
        seed = store.seed_for(profile.seed, NAME, f"{clip.id}/{number}")
        edited.append(anchoring.edit_frame(profile, pipeline, frame, seed))
    return np.repeat(np.stack(edited), times, axis=0)[: len(frames)]


def _recipe(profile: Profile, clip: Clip, model: str) -> store.Recipe:
    settings = profile.anchors
    return store.Recipe(
        stage=NAME,
        version=VERSION,
        settings={
            **settings.model_dump(include={"prompt", "steps", "true_cfg_scale", "edit_area"}),
            "dtype": profile.models.dtype,
        },
        inputs={"clip": store.fingerprint(sampling.path(profile, clip))},
        seed=store.seed_for(profile.seed, NAME, clip.id),
        model=model,
    )
