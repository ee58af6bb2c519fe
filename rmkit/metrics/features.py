"""The feature model's metrics: every method of a clip side by side, so that each picture is looked at once (paper, 4.1).

Reads the frames that evaluate.py hands it; writes features/<method>/<clip>.json under results/<profile>/, so that it
resumes. Exists only where the profile names a feature model.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmkit.kit import models, store, weights
from rmkit.kit.progress import track
from rmkit.metrics.dino import FeatureModel, compare
from rmkit.metrics.listed import Metric
from rmkit.profile import Profile

VERSION = 1
AT_ONCE = 4  # methods side by side: their decoders hold more than their features do

Frames = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Subject:
    """A clip of one method, and what it is compared with."""

    method: str
    clip: str
    source_frames: tuple[int, ...]  # the file of a truth is the whole sequence's
    inputs: Mapping[str, str]  # fingerprints of the method's video and of what it is compared with
    metrics: Sequence[Metric]
    frames: Frames
    against: Mapping[str, Frames]  # render, and truth where there is one


@dataclass(frozen=True)
class Found:
    """Values by metric, and the commit that computed them."""

    values: Mapping[str, float]
    commit: str


def why_not(profile: Profile) -> str | None:
    """Why there are no values ('not run', a colon, and the reason); None when a feature model is named."""
    return None if profile.models.features else "not run: models.features of this profile names no model."


def options(profile: Profile) -> dict[str, str]:
    """What the values depend on, to stand beside them."""
    revision = models.fingerprint(profile, "features")[:12]
    return {"model": str(profile.models.features), "revision": revision}


def measure(profile: Profile, subjects: Sequence[Subject]) -> list[Found]:
    """Values of every subject, from the store when nothing they depend on has changed.

    Raises InputError when the model is missing or the videos of a clip differ in length.
    """
    revision = models.fingerprint(profile, "features")
    recipes = [_recipe(subject, revision) for subject in subjects]
    targets = [path(profile, subject) for subject in subjects]
    left: dict[str, list[int]] = {}
    for i, subject in enumerate(subjects):
        if not store.is_done(targets[i], recipes[i]):
            left.setdefault(subject.clip, []).append(i)
    model = load(profile) if left else None
    for chosen in track(list(left.values()), "features"):
        for first in range(0, len(chosen), AT_ONCE):
            some = chosen[first : first + AT_ONCE]
            started = time.time()
            values = _together(model, [subjects[i] for i in some])
            each = {"seconds": round((time.time() - started) / len(some), 3)}
            for i in some:
                with store.writing(targets[i], recipes[i], facts=each) as temporary:
                    temporary.write_text(json.dumps(values[subjects[i].method], indent=1) + "\n")
    return [
        Found(json.loads(target.read_text()), store.read_sidecar(target).get("commit", "unknown"))
        for target in targets
    ]


def load(profile: Profile) -> FeatureModel:
    """The profile's feature model; raises InputError when it is missing or cannot serve."""
    models.check(profile, "features")
    name, commit = weights.single("models.features", profile.models.features)
    return FeatureModel(name, commit, models.device(profile))


def path(profile: Profile, subject: Subject) -> Path:
    """Where a subject's values are kept."""
    return profile.layout.features / subject.method / f"{subject.clip}.json"


def _together(model: FeatureModel, subjects: Sequence[Subject]) -> dict[str, dict[str, float]]:
    """Values of some methods on one clip, by method."""
    needed = {metric.against for subject in subjects for metric in subject.metrics}
    streams = {name: open_() for name, open_ in subjects[0].against.items() if name in needed}
    for subject in subjects:
        streams.setdefault(subject.method, subject.frames())
    return compare(model, streams, {subject.method: subject.metrics for subject in subjects})


def _recipe(subject: Subject, revision: str) -> store.Recipe:
    settings = {"metrics": [m.name for m in subject.metrics], "source_frames": subject.source_frames}
    return store.Recipe("features", VERSION, settings, subject.inputs, model=revision)
