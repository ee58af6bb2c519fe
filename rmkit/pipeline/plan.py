"""What a run takes, before it starts: a row a stage, what is done of it, and what does not fit (ours).

Reads the profile, the models' configs (see `costs`), the sidecars under results/<profile>/ and what was calibrated here;
writes nothing but the cache of counts. What an edited profile makes anew, and what one that extends another takes from there,
is foretold by `changes`. Hours are the run's own where it has begun, else as calibrated, else FLOP at a stated efficiency (`cards`).
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import psutil

from rmkit import baselines, metrics
from rmkit.errors import InputError
from rmkit.kit import store, weights
from rmkit.method import anchoring
from rmkit.metrics import gpt_rs
from rmkit.pipeline import advice, calibration, cards, changes, costs
from rmkit.pipeline.cards import Card
from rmkit.pipeline.costs import Work
from rmkit.profile import Profile

ENOUGH = 3  # finished items from which an average is taken
KEPT = 1216 / 3050  # pairs that the filter keeps, before it has run (paper, B.1)
STORED = 0.6  # of raw frames, what lossless video takes (ours)
GIB = 2**30
NOTHING = Work()
# A model of a kind that the counts do not know has no numbers in the plan; whether it runs is for its loader to say.
UNCOUNTED = (InputError, KeyError, AttributeError, TypeError, ValueError, RuntimeError)
UNLESS = "go on all the same with --anyway (make: ANYWAY=1)"


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
    return [_with_changes(profile, step) for step in _steps(profile, card, own)]


def _with_changes(profile: Profile, step: Step) -> Step:
    """A step of a run that was edited since, or extends another: what is stale is not done, what can be taken is."""
    if not (profile.extended or profile.layout.record.is_file()):
        return step
    wanted = {"low": profile.train.low.steps, "high": profile.train.high.steps}
    wanted["single"] = sum(wanted.values())
    wanted[step.stage] = step.count  # of a demonstration, whose notebook says that all is done
    whole = step.stage == "train" or step.stage in changes.DEMONSTRATIONS
    found = changes.counted(profile, step.stage, wanted if whole else None)
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
    yield row(
        "anchors", "anchors", frames, (layout.anchors, "*/*.png"), costs.anchors, each=video / clip.frames
    )
    shown = train + kinds * held
    estimated = held if kinds == 2 else 0
    yield row(
        "structure", "videos", shown, (layout.structure, "*/*.mp4"), lambda p, _: costs.depth(p, estimated),
        rates=("video", "edges"), each=video,
    )  # fmt: skip
    made = train + len(variants) * held
    yield row(
        "propagate",
        "clips",
        made,
        (layout.propagated, "*/*.mp4"),
        costs.propagate,
        rates=("video",),
        each=video,
    )
    yield row(
        "encode", "pairs", pairs, (layout.pairs / "latents", "*.safetensors"), costs.encode, rates=("video",)
    )
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
        yield row(
            metric.name, "clips x methods", videos, (layout.root / "metrics" / metric.name, "*/*.json"),
            lambda p, n, metric=metric: costs.features(p, metric.name, n), rates=("video",),
        )  # fmt: skip
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
        except UNCOUNTED as error:
            why = str(error) if isinstance(error, InputError) else f"its models cannot be counted ({error!r})"
        if self.is_own and len(spent) >= ENOUGH:
            seconds = median(spent)
        elif why or not count:
            seconds = None if why else 0.0
        else:
            seconds = self.time(stage, found, count, rates)
        done = min(len(spent), count) if done is None else done
        raw = self.profile.clips.raw_bytes * 8  # a clip in float32, as shown and as made
        memory = self.measured.process + raw + found.weights
        if self.card.memory is None:  # computed in CPU memory
            memory = self.measured.process + raw + max(found.device_bytes, found.weights)
        return Step(stage, items, count, done, seconds, found, count * each, memory, why)

    def time(self, stage: str, work: Work, count: int, rates: tuple[str, ...]) -> float | None:
        """Seconds an item: as calibrated, else the calls' FLOP and the CPU's share at what is assumed of each."""
        megapixels = self.profile.clips.raw_bytes / 3e6
        like = "enhance" if stage[0] == "0" else stage  # the demonstrations run the trained model
        seconds = self.measured.seconds(like, self.card, work.flops / count, megapixels)
        if seconds is not None:
            return seconds
        times = [self.card.seconds(use.flops, use.dtype) for use in work.uses]
        if None in times:
            return None
        return sum(times) / count + sum(calibration.ASSUMED[rate] for rate in rates) * megapixels


def _training(row: _Rows) -> Step:
    """Counted in optimiser steps; an adapter of an unfinished expert counts as nothing."""
    profile = row.profile
    adapters = profile.layout.adapters / "realmaster"
    wanted = {"low": profile.train.low.steps, "high": profile.train.high.steps}
    done = sum(n for name, n in wanted.items() if store.sidecar_of(adapters / name).is_file())
    if store.sidecar_of(adapters / "single").is_file():
        done = sum(wanted.values())
    return row("train", "optimiser steps", sum(wanted.values()), None, lambda p, _: costs.train(p), done=done)


def _evaluation(row: _Rows) -> Step:
    """Every video by all metrics that need no model of their own: together they take the sum of what each takes."""
    plain = [metric for metric in metrics.every() if not (metric.needs_model or metric.last)]
    folder, count = row.profile.layout.root / "metrics", baselines.videos(row.profile)
    spent = [_seconds(folder / metric.name, "*/*.json") for metric in plain]
    done = min(count, max(map(len, spent), default=0))
    step = row("evaluate", "clips x methods", count, None, rates=("evaluate",), done=done)
    if row.is_own and done >= ENOUGH:
        return Step(
            step.stage, step.items, count, done, sum(map(median, filter(None, spent))), memory=step.memory
        )
    return step


def _demonstrations(row: _Rows) -> Iterator[Step]:
    """06 to 09: of a notebook that has been run, all is done."""
    try:
        found = costs.demonstrations(row.profile)
    except UNCOUNTED:
        return
    for name, (count, works) in found.items():
        whole = Work(tuple(use for work in works for use in work.uses), works[0].offload, works[0].models)
        done = count if (row.profile.layout.notebooks / f"{name}.ipynb").is_file() else 0
        video = row.profile.clips.raw_bytes * STORED
        yield row(
            name, "clips", count, None, lambda p, _, whole=whole: whole, ("video", "evaluate"), video, done
        )


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


def gigabytes(profile: Profile) -> float:
    """About how much disk a run of the profile fills, without what it downloads."""
    return sum(step.disk for step in steps(profile)) / 1e9 + 0.5  # and tables, notebooks, latents


def downloads(profile: Profile) -> dict[str, float]:
    """Bytes of each model of the hub's that a run needs and the cache lacks, at two bytes a weight."""
    named = {profile.models.editor, profile.models.vace, profile.models.wan, *profile.metrics.values()}
    named |= {name for step in steps(profile) for name in step.work.models}
    found = {}
    for name in sorted(filter(weights.is_hub_name, named)):
        if not _is_cached(name):
            try:
                found[name] = costs.size(name, profile.models.dtype)
            except UNCOUNTED:
                found[name] = 0.0
    return found


def _is_cached(name: str) -> bool:
    """Whether weights of a hub's model are here: an index alone is not a model."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{weights.repository(name).replace('/', '--')}"
    return any(folder.glob("snapshots/*/**/*.safetensors"))


def require_fits(profile: Profile, stage: str | None = None, anyway: bool = False) -> None:
    """Raise InputError when what is left of a run, or of one stage, does not fit this machine; loads nothing.

    The sentence is the plan's: what is needed, what there is, and the setting that makes it fit.
    """
    if not anyway:
        for sentence in misfits(profile, stage=stage):
            raise InputError(f"{sentence}; {UNLESS}.")


def misfits(profile: Profile, card: Card | None = None, stage: str | None = None) -> Iterator[str]:
    """A sentence for each stage that has work left and does not fit the card, the CPU memory, or the disk."""
    here, memory = card or cards.here(profile), psutil.virtual_memory().total
    rows = [step for step in steps(profile, card) if stage in (None, step.stage) and step.count > step.done]
    for step in rows:
        if here.memory and step.device > here.memory:
            how = advice.that_fits(profile, step.stage, step.device, here.memory)
            yield (
                f"{step.stage} takes {step.device / GIB:.0f} GiB of GPU memory and {here.name} has "
                f"{here.memory / GIB:.0f}: {how}"
            )
        if card is None and step.memory > memory:
            yield (
                f"{step.stage} takes {step.memory / GIB:.0f} GiB of CPU memory and this machine has "
                f"{memory / GIB:.0f}: use a machine with more, or smaller models"
            )
    if card is None and stage is None:
        root = profile.layout.root
        free = shutil.disk_usage(next(f for f in (root, *root.parents) if f.exists())).free
        need = sum(step.disk * (1 - step.done / step.count) for step in rows) + sum(
            downloads(profile).values()
        )
        if need > free:
            yield (
                f"the run takes {need / 1e9:.0f} GB of disk more and {free / 1e9:.0f} GB are free: make room, or "
                "lower data.train_clips"
            )


def show(profile: Profile, gpu: str | None = None) -> None:
    """Print the plan as a table with totals, and what does not fit. Raises InputError for an unknown card."""
    card = cards.named(gpu) if gpu else None
    rows, here = steps(profile, card), card or cards.here(profile)
    print(f"profile {profile.name}: {profile.data.train_clips} training and ", end="")
    print(f"{profile.data.validation_clips} validation clips, results in {profile.layout.root}")
    print(f"on {here.name}: {calibration.basis(here, card is None)}")
    heads = ("to do", "done", "calls", "PFLOP", "about", "GPU GiB", "CPU GiB", "GB disk")
    print(f"{'stage':15}" + "".join(f"{head:>12}" for head in heads) + "  of")
    for row in rows:
        device = row.device if here.memory else 0.0
        cells = (
            *(f"{number:,}" for number in (row.count, row.done)),
            f"{row.work.calls:,.0f}" if row.work.uses else "-",
            f"{row.work.flops / 1e15:,.4g}" if row.work.uses else "-",
            duration(row.left),
            f"{device / GIB:,.1f}" if device else "-",
            f"{row.memory / GIB:,.1f}",
            f"{row.disk / 1e9:,.1f}",
        )
        print(f"{row.stage:15}" + "".join(f"{cell:>12}" for cell in cells) + f"  {row.items}")
        if row.why:
            print(f"{'':15}  n/a: {row.why}")
    _show_totals(profile, rows, here)
    for line in changes.lines(profile):
        print(line)
    for row in rows if profile.extended else ():
        print(f"  {row.stage:15} {row.count - row.done:,} {row.items} to make, {row.reused:,} reused")
    for sentence in misfits(profile, card):
        print(f"does not fit: {sentence}.")


def _show_totals(profile: Profile, rows: list[Step], here: Card) -> None:
    left = [row.left for row in rows]
    known = sum(seconds for seconds in left if seconds)
    flops, disk = sum(row.work.flops for row in rows), sum(row.disk for row in rows)
    print(
        f"all: {flops / 1e15:,.4g} PFLOP, {disk / 1e9:,.1f} GB of disk, about {duration(known)} to go", end=""
    )
    if here.usd:
        print(f", {known / 3600 * here.usd:,.0f} USD at {here.usd:.2f} an hour (assumed)", end="")
    print("; not all is known" if None in left else "")
    for name, size in downloads(profile).items():
        print(
            f"download {name}: {size / GIB:.1f} GiB, more where it is kept in float32"
            if size
            else f"download {name}: n/a"
        )
    print(f"judge: {gpt_rs.judging(profile)}")
    for name, usd in baselines.usd(profile, profile.data.validation_clips).items():
        print(f"{name}: at most about {usd:.2f} USD")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "not known"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
