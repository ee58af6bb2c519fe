"""What a changed profile computes again: which settings each stage reads, and what follows from what (ours).

The keys of the store decide; this foretells them for `plan` from the settings alone, before anything is made. So it errs on
the side of computing: an artefact that comes out as it was stops what follows it, and only the run finds that.
Reads and writes `run.json` in a run's folder: whose it is, what it extends, its settings, and since when what is stale.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rmkit import baselines, metrics
from rmkit import profile as profiles
from rmkit.kit import store
from rmkit.paths import REPOSITORY, Layout
from rmkit.profile import Profile

# Settings (a group stands for all in it), and stages whose results.
Reads = tuple[tuple[str, ...], tuple[str, ...]]

NUMBERS = ("models.dtype", "models.attention")  # how they are computed
EDITOR = ("models.editor", "models.editor_weights", "models.accelerators.editor", *NUMBERS)
VACE = ("models.vace", "models.wan", "models.accelerators.vace", *NUMBERS)
WAN = ("models.wan", *NUMBERS)
FACES = ("identity.model_pack", "identity.det_size", "identity.det_thresh")
SAMPLED = ("steps", "guidance", "shift", "conditioning", "prompt", "negative_prompt")
PROPAGATED = (*(f"propagation.{name}" for name in SAMPLED), "seed", *VACE)
# Settings that change what a run costs, and not what comes out.
COST = (
    *("train.checkpoint_every", "train.evaluate_every", "train.gradient_checkpointing", "train.block_inputs"),
    *("train.tensorboard", "enhance.overlap", "judge.concurrency", "judge.timeout", "judge.budget_usd"),
)
STAGES: dict[str, Reads] = {
    "data": (("data", "clips"), ()),
    "anchors": (("anchors", "seed", *EDITOR), ("data",)),
    "structure/edges": (("structure.edges", "structure.canny", "structure.thickness"), ("data",)),
    "structure/depth": (("structure.depth", "structure.depth_model"), ("data",)),
    "propagated/edges": (PROPAGATED, ("anchors", "structure/edges")),
    "propagated/depth": (PROPAGATED, ("anchors", "structure/depth")),
    "propagated/multi_anchor": (
        ("propagation.anchor_seconds", "propagation.anchor_frames", *PROPAGATED),
        ("anchors", "structure/edges"),
    ),
    "pairs": (("identity",), ("propagated/edges",)),
    "encode": (("train.height", "train.width", "train.frames", *WAN), ("propagated/edges",)),
    "train": (("train", "seed", *WAN), ("pairs",)),
    "realmaster": (
        ("enhance", "train.prompt", "train.mode", "seed", "models.accelerators.wan", *WAN),
        ("train",),
    ),
    "attention": ((), ("realmaster",)),  # of 04's last picture
}
# Notebooks that run the trained model again.
DEMONSTRATIONS: dict[str, Reads] = {
    "06_weather": (("weather", "carla", "metrics.weather"), ("realmaster",)),
    "07_carla": (("carla", "metrics", *FACES), ("realmaster", "enhanced/colour_transfer")),
    "08_limits": (("identity",), ("realmaster", "propagated/edges")),
    "09_your_clip": ((), ("realmaster",)),
}
# Of methods and metrics that read more, or other things, than clips and settings of their own name.
METHODS: dict[str, Reads] = {
    "edges": ((), ("propagated/edges",)),
    "depth": ((), ("propagated/depth",)),
    "multi_anchor": ((), ("propagated/multi_anchor",)),
    "colour_transfer": ((), ("pairs",)),
    "per_frame": (("anchors", "seed", *EDITOR), ("data",)),
    "vae_ceiling": (WAN, ("data",)),
    "render": ((), ("data",)),
    "truth": ((), ("data",)),
}
METRICS: dict[str, tuple[str, ...]] = {
    "arcface": ("identity.iou_gate", *FACES),
    "offline_judge": ("propagation.anchor_seconds", "propagation.anchor_frames", "propagation.variants"),
    "gpt_rs": ("judge",),
}


@dataclass(frozen=True)
class Run:
    """A run's folder, and since when what is stale there, in seconds of the clock by what it is."""

    layout: Layout
    stale: dict[str, float]

    def files(self, folder: str, pattern: str, what: str) -> set[str]:
        """The finished artefacts in one of its folders that are as the profile asks."""
        since, root = self.stale.get(what, 0.0), self.layout.root
        found = (root / folder).glob(f"{pattern}.json")
        return {str(path.relative_to(root)) for path in found if path.stat().st_mtime >= since}


def begin(profile: Profile) -> None:
    """Note whose the run is; say what a profile that was edited since, or extends another, computes anew."""
    layout = profile.layout
    # A run that is refused before it makes anything leaves no folder; what is extended must be known from the start.
    if layout.demo or not (profile.extended or layout.run.is_dir()):
        return
    known, settings = layout.noted, profile.model_dump(mode="json")
    was, is_copy = _settings(layout) or settings, profile.file == layout.settings.resolve()
    changed = differences(was, settings)
    anew = stale(profile, changed)
    left = {**known.get("stale", {}), **dict.fromkeys(anew, time.time())}
    made = {
        "profile": known.get("profile") if is_copy or not profile.file else _short(profile.file),
        "extends": list(profile.extended),
        "settings": settings,
        "stale": left,
    }
    if made == known:
        return
    if changed:
        print(f"{layout.run} was begun with other settings: {_told(was, settings, changed)}", flush=True)
        print(f"computed anew: {said(anew)}", flush=True)
    layout.run.mkdir(parents=True, exist_ok=True)
    store.write_json(layout.record, made)


def stale(profile: Profile, changed: list[str]) -> list[str]:
    """Stages, methods and metrics ("dino of blur") that read a changed setting, or the result of what does."""
    found: list[str] = []
    for name, (reads, after) in _graph(profile):
        if any(_reads(profile, reads, key) for key in changed) or set(after) & set(found):
            found.append(name)
    return found


def said(found: list[str]) -> str:
    """That in a line: what is measured is named by its method."""
    stages = [name for name in found if " of " not in name]
    measured = dict.fromkeys(name.partition(" of ")[2] for name in found if " of " in name)
    parts = [", ".join(stages), f"measured: {', '.join(measured)}" if measured else ""]
    return "; ".join(filter(None, parts)) or "nothing"


def differences(before: dict[str, Any], after: dict[str, Any], group: str = "") -> list[str]:
    """Dotted keys of settings that differ; a profile's name is not one of them."""
    keys = []
    for key in dict.fromkeys([*before, *after]):
        one, other = before.get(key), after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            keys += differences(one, other, f"{group}{key}.")
        elif one != other and f"{group}{key}" not in ("name", "extends"):
            keys.append(f"{group}{key}")
    return keys


def runs(profile: Profile) -> list[Run]:
    """The profile's own run, then those that it extends, the nearest first, with what it must not take from each."""
    found, settings = [], profile.model_dump(mode="json")
    for other in _chain(profile):
        known = other.layout.noted
        was = _settings(other.layout) or other.model_dump(mode="json")
        old = dict.fromkeys(stale(profile, differences(was, settings)), math.inf)
        layout = Layout(other.layout.run, profile.layout.demo)
        found.append(Run(layout, known.get("stale", {}) | old))
    return found


def counted(
    profile: Profile, stage: str, known: Sequence[Run], wanted: dict[str, int] | None = None
) -> tuple[int, int] | None:
    """How many artefacts of a row of the plan are done, and how many more an extended run has; None: not known here.

    known: the profile's `runs`; wanted: what an artefact counts, by its name (1).
    """
    places = _places(profile, stage)
    if not places:
        return None
    done = total = 0
    for group in places:  # the fullest counts: metrics that are measured together
        own, *others = [set().union(*(run.files(*place) for place in group)) for run in known]
        every = own.union(*others)
        done, total = max(done, _sum(own, wanted)), max(total, _sum(every, wanted))
    return done, total - done


def lines(profile: Profile) -> Iterator[str]:
    """What differs from the runs whose results could be used, and what is therefore computed again."""
    settings = profile.model_dump(mode="json")
    for other in _chain(profile):
        was = _settings(other.layout)
        if was is None and other is not profile:
            was = other.model_dump(mode="json")
        if was is not None and (changed := differences(was, settings)):
            what = (
                "since it was begun" if other is profile else f"beside {other.layout.run}, which it extends"
            )
            yield f"changed {what}: {_told(was, settings, changed)}"
            yield f"computes again: {said(stale(profile, changed))}"


def _settings(layout: Layout) -> dict[str, Any] | None:
    """The settings that a run noted; one that came into the kit later has its default there, with which nothing changed."""
    was = layout.noted.get("settings")
    try:
        return was and Profile.model_validate(was).model_dump(mode="json")
    except ValidationError:  # of a kit that knew others
        return was


def _chain(profile: Profile) -> Iterator[Profile]:
    """The profile, then what it extends, the nearest first."""
    yield profile
    while profile.extended:
        profile = profiles.load(profile.extends)
        yield profile


def _graph(profile: Profile) -> Iterator[tuple[str, Reads]]:
    """Everything that is made, in an order in which nothing comes before what it reads."""
    yield from STAGES.items()
    for name, method in baselines.every(profile).items():
        if name in STAGES:
            continue
        own = (f"baselines.{name}", "seed", *(["models"] if getattr(method, "on_device", False) else []))
        yield _method(name), METHODS.get(name, (own, ("data",)))
    for name in baselines.every(profile):
        yield f"faces of {name}", (FACES, (_method(name),))
        for metric in metrics.every():
            reads = (f"metrics.{metric.name}", *METRICS.get(metric.name, ()))
            yield f"{metric.name} of {name}", (reads, (_method(name),))
    yield from DEMONSTRATIONS.items()


def _method(name: str) -> str:
    return name if name in STAGES else f"enhanced/{name}"


def _reads(profile: Profile, reads: tuple[str, ...], key: str) -> bool:
    """Whether a changed setting is among those read; Canny's thresholds are not where another detector draws."""
    if key in COST or (key == "structure.canny" and profile.structure.edges != "canny"):
        return False
    return any(key == one or key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in reads)


def _places(profile: Profile, stage: str) -> list[list[tuple[str, str, str]]]:
    """Where a row's artefacts lie: folder, pattern and what they are; several groups where each counts all."""
    methods = [name for name in baselines.every(profile) if name != "real"]
    plain = [metric.name for metric in metrics.every() if not (metric.needs_model or metric.last)]
    if stage in DEMONSTRATIONS:
        return [[("notebooks", f"{stage}.ipynb", stage)]]
    if stage == "evaluate":
        return [[(f"metrics/{one}/{m}", "*.json", f"{one} of {m}") for m in methods] for one in plain]
    if stage in (metric.name for metric in metrics.every()):
        return [[(f"metrics/{stage}/{m}", "*.json", f"{stage} of {m}") for m in methods]]
    single = {
        "data": [("clips", "*.mp4", "data")],
        "anchors": [("anchors", "*/*.png", "anchors")],
        "structure": [(f"structure/{kind}", "*.mp4", f"structure/{kind}") for kind in ("edges", "depth")],
        "propagate": [
            (f"propagated/{variant}", "*.mp4", f"propagated/{variant}") for variant in profile.propagation.variants
        ],
        "encode": [("pairs/latents", "*.safetensors", "encode")],
        "train": [("adapters/realmaster", name, "train") for name in ("low", "high", "single")],
        "enhance": [("enhanced/realmaster", "*.mp4", "realmaster")],
        "faces": [(f"faces/{name}", "*.npz", f"faces of {name}") for name in methods],
    }  # fmt: skip
    if stage in single:
        return [single[stage]]
    return [[(f"enhanced/{stage}", "*.mp4", _method(stage))]] if stage in methods else []


def _sum(files: set[str], wanted: dict[str, int] | None) -> int:
    return sum(1 if wanted is None else wanted.get(Path(file).name.partition(".")[0], 0) for file in files)


def _told(was: dict[str, Any], now: dict[str, Any], changed: list[str]) -> str:
    """The first few changes as "enhance.steps 2 -> 3"."""

    def value(settings: Any, key: str) -> Any:
        for part in key.split("."):
            settings = settings.get(part) if isinstance(settings, dict) else None
        return "..." if isinstance(settings, dict) else settings

    shown = [f"{key} {value(was, key)} -> {value(now, key)}" for key in changed[:5]]
    return ", ".join(shown) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")


def _short(file: Path) -> str:
    return str(file.relative_to(REPOSITORY)) if file.is_relative_to(REPOSITORY) else str(file)
