"""Offline judge: how much a clip looks like the diorama's truth, 1 to 10, by a small classifier (ours; not in the paper).

Not GPT-RS, and no stand-in for it: it knows one world, and only that world's render from its truth. Reads the model's
folder, whose config holds the calibration that data/diorama/train_judge.py fitted; writes nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, video, weights
from rmkit.kit.vision import Classifier
from rmkit.method import anchoring
from rmkit.metrics import Column, Measure, Metric, Subject, options_of
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd

FRAMES = 5  # as many as GPT-RS and ArcFace look at


class OfflineRating(Metric):
    """The rating of a clip by a classifier of ours; never in GPT-RS's column."""

    columns = (Column("offline_judge", "Offline judge, 1-10 (ours)", "1-10", 1, digits=2, floor=0.05),)
    version = 2
    label = "Offline judge"
    needs_model = True
    own_clips = False  # it knows one world and one size

    def check(self, profile: Profile, height: int, width: int) -> None:
        """A classifier of other things, or of frames of another size, would give numbers that mean nothing."""
        name, config = weights.single_config(self.key, self.model(profile))
        known = config.get("calibration")
        numbers = [known.get(key) for key in ("slope", "offset")] if isinstance(known, dict) else [None]
        calibrated = all(isinstance(value, int | float) for value in numbers)
        if config.get("id2label") != {"0": "render", "1": "truth"} or not calibrated:
            raise InputError(
                f"{self.key}: {name} is no judge: its config.json must name the classes render and truth and hold a "
                "calibration, as data/diorama/train_judge.py writes it."
            )
        if config.get("frame_size") != [height, width]:
            raise InputError(
                f"{self.key}: {name} is calibrated for frames of {config.get('frame_size')} pixels and the profile's "
                f"clips have {[height, width]}: train one for them, or leave it out."
            )

    def settings(self, profile: Profile) -> Mapping[str, object]:
        return {"frames": between_anchors(profile)}

    def options(self, profile: Profile) -> dict[str, str]:
        frames = between_anchors(profile)
        numbers = ", ".join(map(str, frames))
        return super().options(profile) | {"frames": f"{len(frames)} between anchors ({numbers})"}

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        judge, wanted = OfflineJudge(*self.place(profile), models.device(profile)), between_anchors(profile)

        def measure(subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
            return {"offline_judge": offline_judge(judge, subject.frames["output"](), wanted)}

        return measure

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        if rows.empty:
            return f"Offline judge: {self.why_no_row(profile)}"
        return (
            f"Offline judge (ours, not GPT-RS and not comparable with it), {options_of(rows)}: 1 + 9 x the probability, "
            "by a small classifier trained on other scenes of the diorama, that a frame is of its truth rather than of "
            "its render."
        )


class OfflineJudge(Classifier):
    """A classifier in transformers' format, its two classes render and truth."""

    what = "the offline judge"

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Ratings, float64 [N] in 1..10, of pictures uint8 [H, W, 3]: 1 + 9 x probability of the truth."""
        calibration, logits = self.model.config.calibration, self.logits(frames)  # [N, 2]
        score = logits[:, 1] - logits[:, 0]
        probability = (calibration["slope"] * score + calibration["offset"]).sigmoid()
        return (1 + 9 * probability).cpu().numpy()


def between_anchors(profile: Profile) -> list[int]:
    """The frames rated: five spread evenly over the middle halves of the stretches between anchors, where none is handed over.

    Anchors are those of `multi_anchor`, which has most. Fewer than five where there are fewer such frames; out of all frames
    where every one is an anchor.
    """
    anchors, every = np.array(anchoring.indices(profile, "multi_anchor")), np.arange(profile.clips.frames)
    distance = np.abs(every[:, None] - anchors).min(axis=1)
    middles = every[distance > np.diff(anchors).max() / 4]
    rated = middles if len(middles) else every
    return sorted({int(rated[i]) for i in video.midpoints(FRAMES, len(rated))})


def offline_judge(judge: OfflineJudge, frames: Iterable[np.ndarray], wanted: Collection[int]) -> float:
    """Mean rating, 1 to 10, of the frames of these numbers in a stream of uint8 [H, W, 3]; higher is better."""
    return float(judge([frame for i, frame in enumerate(frames) if i in wanted]).mean())


METRIC = OfflineRating()
