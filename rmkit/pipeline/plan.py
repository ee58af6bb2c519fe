"""What a run takes, before it starts: a row a stage, and what is done of it (ours).

Reads the profile, the models' configs (see `costs`), the sidecars under results/<profile>/ and what was calibrated here;
writes nothing but the cache of counts. What an edited profile makes anew, and what one that extends another takes from there,
is foretold by `changes`. Hours are the run's own where it has begun, else as calibrated, else FLOP at a stated efficiency (`cards`).
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from rmkit import baselines, metrics
from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.method import anchoring
from rmkit.metrics import Metric
from rmkit.pipeline import calibration, cards, changes, costs
from rmkit.pipeline.cards import Card
from rmkit.pipeline.costs import Work
from rmkit.profile import Profile

ENOUGH = 3  # finished items from which an average is taken
KEPT = 1216 / 3050  # pairs that the filter keeps, before it has run (paper, B.1)
STORED = 0.6  # of raw frames, what lossless video takes (ours)
NOTHING = Work()


@dataclass(frozen=True)
class Step:
    """One stage: how many items of what, how many are done, what it calls, and seconds an item (None: not known)."""

    stage: str
    items: str
    count: int
    done: int
    seconds: float | None
    work: Work = NOTHING
    disk: float = 0.0  # bytes that all items take
    memory: float = 0.0  # bytes of CPU memory
    why: str = ""  # why something is not known
    is_own: bool = False  # whether the seconds are the run's own
    reused: int = 0  # of those done: they lie in a run that this one extends

    @property
    def left(self) -> float | None:
        """Seconds the rest takes."""
        return None if self.seconds is None else self.seconds * (self.count - self.done)

    @property
    def device(self) -> float:
        """Bytes on the device at the highest moment."""
        return self.work.device_bytes


def steps(profile: Profile, card: Card | None = None, own: bool = True) -> list[Step]:
    """The stages in order, with what is left of each; card: on another machine; own: by the run's own times where it has begun."""
    found = list(_steps(profile, card, own))
    if not (profile.extended or profile.layout.record.is_file()):
        return found
    runs = changes.runs(profile)
    return [_with_changes(profile, step, runs) for step in found]


def _with_changes(profile: Profile, step: Step, runs: Sequence[changes.Run]) -> Step:
    """A step of a run that was edited since, or extends another: what is stale is not done, what can be taken is."""
    wanted = {"low": profile.train.low.steps, "high": profile.train.high.steps}
    wanted["single"] = sum(wanted.values())
    wanted[step.stage] = step.count  # of a demonstration, whose notebook says that all is done
    whole = step.stage == "train" or step.stage in changes.DEMONSTRATIONS
    found = changes.counted(profile, step.stage, runs, wanted if whole else None)
    if found is None:
        return step
    done = min(found[0], step.count)
    reused = min(found[1], step.count - done)
    return replace(step, done=done + reused, reused=reused)


def _steps(profile: Profile, card: Card | None, own: bool) -> Iterator[Step]:
    layout, train, held = profile.layout, profile.data.train_clips, profile.data.validation_clips
    variants, videos, clip = profile.propagation.variants, baselines.videos(profile), profile.clips
    every = len(anchoring.indices(profile, "multi_anchor" if "multi_anchor" in variants else "edges"))
    kinds, pairs = 2 if "depth" in variants else 1, _pairs(profile)
    video = clip.raw_bytes * STORED
    row = _Rows(profile, card, own)
    yield row("data", "clips", train + held, (layout.clips, "*.mp4"), rates=("video",), each=video)
    frames = 2 * train + every * held
    pictures = (layout.anchors, "*/*.png")
    yield row("anchors", "anchors", frames, pictures, costs.anchors, each=video / clip.frames)
    shown = train + kinds * held
    estimated = held if kinds == 2 else 0
    yield row(
        "structure", "videos", shown, (layout.structure, "*/*.mp4"), lambda p, _: costs.depth(p, estimated),
        rates=("video", "edges"), each=video,
    )  # fmt: skip
    made = train + len(variants) * held
    videos_made = (layout.propagated, "*/*.mp4")
    yield row("propagate", "clips", made, videos_made, costs.propagate, rates=("video",), each=video)
    latents = (layout.pairs / "latents", "*.safetensors")
    yield row("encode", "pairs", pairs, latents, costs.encode, rates=("video",))
    yield _training(row)
    enhanced = layout.enhanced / "realmaster"
    yield row("enhance", "clips", held, (enhanced, "*.mp4"), costs.enhance, rates=("video",), each=video)
    for name, method in baselines.made(profile).items():
        number = method.count(profile) if name == "per_frame" else held
        if name != "per_frame" and not method.group:
            continue
        yield row(
            name, "clips", number, (layout.enhanced / name, "*.mp4"),
            lambda p, n, name=name, method=method: costs.method(p, name, method, n), rates=("video",), each=video,
        )  # fmt: skip
    yield _evaluation(row)
    for metric in metrics.with_models(profile):
        if all(column.asked for column in metric.columns):
            continue  # the demonstrations ask for them
        step = row(
            metric.name, "clips x methods", videos, (layout.root / "metrics" / metric.name, "*/*.json"),
            lambda p, n, metric=metric: costs.features(p, metric.name, n), rates=("video",),
        )  # fmt: skip
        yield replace(step, seconds=_a_video(profile, metric)) if step.is_own else step
    if profile.identity.model_pack:  # both sides of every training pair, for the filter, and what is measured
        yield row("faces", "videos", 2 * train + videos, (layout.faces, "*/*.npz"), rates=("faces",))
    yield from _demonstrations(row)


class _Rows:
    """Makes rows: what a stage costs here or on another card, and how far it is."""

    def __init__(self, profile: Profile, card: Card | None, own: bool):
        self.profile, self.card = profile, card or cards.here(profile)
        self.is_own = own and card is None
        self.measured = calibration.load() if card is None else calibration.Calibration()

    def __call__(
        self,
        stage: str,
        items: str,
        count: int,
        place: tuple[Path, str] | None,
        work: Callable[[Profile, int], Work] | None = None,
        rates: tuple[str, ...] = (),
        each: float = 0.0,
        done: int | None = None,
    ) -> Step:
        """A row; place: folder and pattern of its artefacts; rates: what the CPU does a megapixel; each: bytes an item."""
        spent = _seconds(*place) if place else []
        found, why = Work(), ""
        try:
            found = work(self.profile, count) if work and count else found
        except InputError as error:  # a model whose config is not here, or of a class that is not counted
            why = str(error)
        is_own = self.is_own and len(spent) >= ENOUGH
        if is_own:
            seconds = median(spent)
        elif why or not count:
            seconds = None if why else 0.0
        else:
            seconds = self.time(stage, found, count, rates)
        done = min(len(spent), count) if done is None else done
        disk, memory = count * each, self.memory(stage, found, count)
        return Step(stage, items, count, done, seconds, found, disk, memory, why, is_own)

    def time(self, stage: str, work: Work, count: int, rates: tuple[str, ...]) -> float | None:
        """Seconds an item: as calibrated, else the calls' FLOP and the CPU's share at what is assumed of each."""
        megapixels = self.profile.clips.raw_bytes / 3e6
        seconds = self.measured.seconds(stage, self.card, work.flops / count, megapixels)
        if seconds is not None:
            return seconds
        times = [self.card.seconds(use.flops, use.dtype) for use in work.uses]
        if None in times:
            return None
        return sum(times) / count + sum(calibration.ASSUMED[rate] for rate in rates) * megapixels

    def memory(self, stage: str, work: Work, count: int) -> float:
        """Bytes of CPU memory: as calibrated, else a process, a clip as shown and as made, and models where they are held."""
        if not count:
            return 0.0
        held = work.cpu_bytes(self.card.memory is None)
        measured = self.measured.memory(stage, self.card, held)
        raw = self.profile.clips.raw_bytes * 8  # in float32
        return calibration.PROCESS + raw + held if measured is None else measured


def _training(row: _Rows) -> Step:
    """Counted in optimiser steps; an adapter of an unfinished expert counts as nothing."""
    profile = row.profile
    adapters = profile.layout.adapters / "realmaster"
    wanted = {"low": profile.train.low.steps, "high": profile.train.high.steps}
    done = sum(n for name, n in wanted.items() if store.sidecar_of(adapters / name).is_file())
    if store.sidecar_of(adapters / "single").is_file():
        done = sum(wanted.values())
    step = row("train", "optimiser steps", sum(wanted.values()), None, lambda p, _: costs.train(p), done=done)
    spent = _differences(adapters)
    if row.is_own and len(spent) >= ENOUGH:
        return replace(step, seconds=median(spent), is_own=True)
    return step


def _differences(adapters: Path) -> list[float]:
    """Seconds of each optimiser step after the first of an expert: the curve has the time since the start."""
    found = []
    for file in adapters.glob("*/curve.csv"):
        with file.open(newline="") as lines:
            # Several rows are of one step.
            ends = {int(line["step"]): float(line["seconds"]) for line in csv.DictReader(lines)}
        found += [after - before for before, after in pairwise(ends.values())]
    return found


def _evaluation(row: _Rows) -> Step:
    """Every video by all metrics that need no model of their own: together they take the sum of what each takes."""
    plain = [metric for metric in metrics.every() if not (metric.needs_model or metric.last)]
    folder, count = row.profile.layout.root / "metrics", baselines.videos(row.profile)
    spent = [_seconds(folder / metric.name, "*/*.json") for metric in plain]
    done = min(count, max(map(len, spent), default=0))
    step = row("evaluate", "clips x methods", count, None, rates=("evaluate",), done=done)
    if row.is_own and done >= ENOUGH:
        measured = (metric for metric, seconds in zip(plain, spent, strict=True) if seconds)
        return replace(step, seconds=sum(_a_video(row.profile, metric) for metric in measured), is_own=True)
    return step


def _a_video(profile: Profile, metric: Metric) -> float:
    """Seconds a video of the whole run takes by a metric of which some are measured.

    Each method counts as often as it has videos, by its own median: the first of a clip pays for the render and the truth that
    all share, and repeated frames are looked at once. One that has none yet counts as realmaster, generated like most.
    """
    folders = (profile.layout.root / "metrics" / metric.name).glob("*/")
    known = {folder.name: median(spent) for folder in folders if (spent := _seconds(folder, "*.json"))}
    like = known.get("realmaster", median(known.values()))
    counts = {name: method.count(profile) for name, method in baselines.every(profile).items()}
    return sum(known.get(name, like) * count for name, count in counts.items()) / sum(counts.values())


def _demonstrations(row: _Rows) -> Iterator[Step]:
    """06 to 09: of a notebook that has been run, all is done."""
    video = row.profile.clips.raw_bytes * STORED
    for name, clips, made, work in costs.demonstrations(row.profile):
        done = made if (row.profile.layout.notebooks / f"{name}.ipynb").is_file() else 0
        yield row(
            name, f"clips, of {clips}", made, None, lambda *_, work=work: work(), ("video", "evaluate"), video, done
        )  # fmt: skip


def _pairs(profile: Profile) -> int:
    """Training pairs: as the filter kept them, else the paper's share of the clips."""
    from rmkit.method import identity

    if (profile.layout.pairs / "pairs.json").is_file():
        return sum(entry["kept"] for entry in identity.load(profile))
    return round(profile.data.train_clips * KEPT) if profile.identity.model_pack else profile.data.train_clips


def _seconds(folder: Path, pattern: str) -> list[float]:
    """What each artefact there took, by its sidecar."""
    sidecars = folder.glob(f"{pattern}.json")
    return [float(store.read_sidecar(path.with_suffix("")).get("seconds", 0.0)) for path in sidecars]


def gigabytes(rows: Iterable[Step]) -> float:
    """About how much disk a run fills, without what it downloads."""
    return sum(step.disk for step in rows) / 1e9 + 0.5  # and tables, notebooks, latents
