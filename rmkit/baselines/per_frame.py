"""Per-frame editing: the image editor on every source frame by itself (ours; not in the paper).

What RealMaster would be without propagation: each frame can be as good as an anchor, and nothing holds them
together. Reads validation clips; gives the edited frames of a few of them, because it costs an edit a frame.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmkit.baselines import Edit, Made
from rmkit.kit import accelerators, models, store, video
from rmkit.method import anchoring, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

CLIPS = 8  # evenly spread over the validation clips


class PerFrame(Made):
    """Every source frame edited with a seed of its own."""

    name, label, colour, marker = "per_frame", "Per-frame editing", "#F0E442", "d"
    on_device = True

    def wanted(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        return video.spread(clips, CLIPS)

    def count(self, profile: Profile) -> int:
        return min(CLIPS, profile.data.validation_clips)

    def check(self, profile: Profile, count: int) -> None:
        models.check(profile, "editor")

    def depends_on(self, profile: Profile) -> dict[str, Any]:
        settings = profile.anchors.model_dump(include={"prompt", "steps", "true_cfg_scale", "edit_area"})
        return {**settings, **models.settings(profile, "editor"), **accelerators.settings(profile, "editor")}

    def fingerprint(self, profile: Profile) -> str:
        return models.fingerprint(profile, "editor")

    def ready(self, profile: Profile) -> Edit:
        pipeline = models.load_editor(profile)

        def edit(clip: Clip, seed: int) -> np.ndarray:
            frames = video.read(sampling.path(profile, clip))
            times = sampling.repeats(clip, len(frames))
            edited = []  # the twins of a repeated source frame once
            for number, frame in enumerate(frames[::times]):
                own_seed = store.seed_for(profile.seed, self.name, f"{clip.id}/{number}")
                edited.append(anchoring.edit_frame(profile, pipeline, frame, own_seed))
            return np.repeat(np.stack(edited), times, axis=0)[: len(frames)]

        return edit


METHODS = (PerFrame(),)
