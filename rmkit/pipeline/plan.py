"""What a run will do, what of it is done, and how long the rest takes, before it starts (ours).

Reads the sidecars under results/<profile>/; writes nothing. Files that were made with other settings count as
done here, yet the run makes them anew. Times are the run's own where it has begun, else
estimates for `mini` on two laptop cores; where neither applies it says so.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from rmkit import baselines, metrics
from rmkit.kit import store
from rmkit.method import anchoring
from rmkit.metrics import gpt_rs
from rmkit.profile import Profile

# Seconds an item, expected of `mini` (33 frames of 96x144) on two laptop cores.
EXPECTED = {
    "data": 0.3,
    "anchors": 0.2,
    "structure": 0.1,
    "propagate": 2.6,
    "train": 0.45,
    "enhance": 1.7,
    "evaluate": 0.35,
    "dino": 0.3,
    "faces": 0.2,
    "offline_judge": 0.05,
}
MINI_BYTES = 33 * 96 * 144 * 3  # a clip
ENOUGH = 3  # finished items from which an average is taken


@dataclass(frozen=True)
class Step:
    """One stage: how many items of what, how many are done, and seconds an item (None: not known)."""

    stage: str
    items: str
    count: int
    done: int
    seconds: float | None

    @property
    def left(self) -> float | None:
        """Seconds the rest takes."""
        return None if self.seconds is None else self.seconds * (self.count - self.done)


def steps(profile: Profile) -> list[Step]:
    """The stages in order, with what is left of each."""
    layout, train, held = profile.layout, profile.data.train_clips, profile.data.validation_clips
    variants, videos = profile.propagation.variants, baselines.videos(profile)
    every = len(anchoring.indices(profile, "multi_anchor" if "multi_anchor" in variants else "edges"))
    kinds = 2 if "depth" in variants else 1
    found = partial(_step, profile)
    steps = [
        found("data", "clips", train + held, layout.clips, "*.mp4"),
        found("anchors", "anchors", 2 * train + every * held, layout.anchors, "*/*.png"),
        found("structure", "videos", train + kinds * held, layout.structure, "*/*.mp4"),
        found("propagate", "clips", train + len(variants) * held, layout.propagated, "*/*.mp4"),
        _training(profile),
        found("enhance", "clips", held, layout.enhanced / "realmaster", "*.mp4"),
        *(found(name, "clips", held, layout.enhanced / name, "*.mp4") for name in baselines.asked(profile)),
        _evaluation(profile),
        *(
            found(metric.name, "clips x methods", videos, layout.root / "metrics" / metric.name, "*/*.json")
            for metric in metrics.with_models(profile)
            if not all(column.asked for column in metric.columns)  # the demonstrations ask for them
        ),
    ]
    if profile.identity.model_pack:  # both sides of every training pair, for the filter, and what is measured
        steps.append(found("faces", "videos", 2 * train + videos, layout.faces, "*/*.npz"))
    return steps


def show(profile: Profile) -> None:
    """Print the plan as a table with the total."""
    rows = steps(profile)
    print(f"profile {profile.name}: {profile.data.train_clips} training and ", end="")
    print(f"{profile.data.validation_clips} validation clips, results in {profile.layout.root}")
    print(f"{'stage':14}{'to do':>7}{'done':>7}  {'of':20}{'about':>10}")
    for row in rows:
        print(f"{row.stage:14}{row.count:7}{row.done:7}  {row.items:20}{duration(row.left):>10}")
    print(f"judge: {gpt_rs.judging(profile)}")
    for name, usd in baselines.usd(profile, profile.data.validation_clips).items():
        print(f"{name}: at most about {usd:.2f} USD")
    left = [row.left for row in rows]
    if None in left:
        print("time not known: nothing of this size has been measured; it shows once a stage has begun")
    else:
        print(f"about {duration(sum(left))} to go, and what 06_weather to 09_your_clip take")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "not known"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _step(profile: Profile, stage: str, items: str, count: int, folder: Path, pattern: str) -> Step:
    """A stage whose artefacts match `pattern` in `folder`."""
    seconds = _seconds(folder, pattern)
    each = median(seconds) if len(seconds) >= ENOUGH else _expected(profile, stage)
    return Step(stage, items, count, min(len(seconds), count), each)


def _evaluation(profile: Profile) -> Step:
    """Every video by all metrics that need no model of their own: together they take the sum of what each takes."""
    plain = [metric for metric in metrics.every() if not (metric.needs_model or metric.last)]
    seconds = [_seconds(profile.layout.root / "metrics" / metric.name, "*/*.json") for metric in plain]
    count, done = baselines.videos(profile), max(map(len, seconds))
    each = sum(map(median, filter(None, seconds))) if done >= ENOUGH else _expected(profile, "evaluate")
    return Step("evaluate", "clips x methods", count, min(done, count), each)


def _training(profile: Profile) -> Step:
    """Counted in optimiser steps; an adapter of an unfinished expert counts as nothing."""
    adapters = profile.layout.adapters / "realmaster"
    steps = {"low": profile.train.low.steps, "high": profile.train.high.steps}
    done = [count for name, count in steps.items() if store.sidecar_of(adapters / name).is_file()]
    return Step("train", "optimiser steps", sum(steps.values()), sum(done), _expected(profile, "train"))


def _expected(profile: Profile, stage: str) -> float | None:
    """Seconds an item by our estimate, scaled to the clip size; None for other models than mini's."""
    if stage not in EXPECTED or not profile.models.wan.startswith("data/diorama/"):
        return None
    return EXPECTED[stage] * profile.clips.raw_bytes / MINI_BYTES


def _seconds(folder: Path, pattern: str) -> list[float]:
    """What each artefact there took, by its sidecar."""
    sidecars = folder.glob(f"{pattern}.json")
    return [float(store.read_sidecar(path.with_suffix("")).get("seconds", 0.0)) for path in sidecars]
