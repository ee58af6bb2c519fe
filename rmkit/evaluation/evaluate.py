"""Evaluation: every method on every validation clip by every metric (paper, 4.1 and 4.5).

Reads clips, propagated, enhanced and the truth; writes metrics/<metric>/<method>/<clip>.json, an item of one stage each,
and metrics.csv: one row a clip, method and column, with provenance. Values are rounded to six decimals.
"""

import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmkit import baselines, metrics
from rmkit.baselines import Method, real, truth
from rmkit.errors import InputError
from rmkit.evaluation import metrics_csv
from rmkit.evaluation.metrics_csv import Row
from rmkit.kit import models, stage, store, video
from rmkit.kit.progress import track
from rmkit.method import sampling
from rmkit.method.incontext import MODES
from rmkit.method.sampling import Clip
from rmkit.metrics import Column, Measure, Metric, Subject
from rmkit.profile import Profile

EVERY = 10.0  # seconds between two lines of progress inside a clip
DECODED = 4  # videos: render, truth, and the outputs of a method and the one before it


class Job(NamedTuple):
    """One item of the stage: a metric, what it measures, and which of its columns."""

    metric: Metric
    subject: Subject
    columns: Sequence[Column]


class Videos:
    """Each method's clips, decoded once for all metrics, which takes longer than most of them; a worker gets them empty."""

    def __init__(self, profile: Profile, methods: Mapping[str, Method]) -> None:
        self.given = profile, methods
        self.decoded = functools.lru_cache(DECODED)(partial(_decode, profile, methods))

    def __reduce__(self) -> tuple:
        return Videos, self.given

    def stream(self, method: str, clip: Clip) -> Iterator[np.ndarray]:
        return iter(self.decoded(method, clip))


def evaluate(profile: Profile) -> Path:
    """Make the methods that run at evaluation, measure everything, and write metrics.csv; returns its path.

    Raises InputError before anything is made when a method's clip is missing or has another size than the profile's, a
    model of the metrics is not there, or an external method that the profile asks for cannot run; when the judge stops,
    the other metrics are written first.
    """
    for metric in metrics.every():
        if metric.why_not(profile) is None:
            metric.check(profile, profile.clips.height, profile.clips.width)
    real.check(profile)
    baselines.validate(profile)
    methods = baselines.every(profile)
    found = {clip.parent.name for clip in profile.layout.enhanced.glob("[!.]*/[!.]*.mp4")}
    for name in sorted(found - methods.keys() - set(MODES)):  # `make compare-modes` has folders of its own
        print(f"enhanced/{name} holds clips of no known method: list it under baselines.folders.", flush=True)
    validation = sampling.load(profile, "validation")
    made = baselines.made(profile)
    for name, method in methods.items():
        if name not in made:
            _check(profile, method, validation)
    baselines.make(profile, validation)
    items = _items(profile, subjects(profile, validation))
    try:
        stage.run("metrics", items, partial(_ready, profile, items), spread=True)
    finally:
        # Only a metric that may stop leaves a table without its rows.
        if all(item.is_done for item in items if not item.subject.metric.last):
            order = list(methods)
            by_method = sorted(_rows(profile, items), key=lambda r: (order.index(r["method"]), r["clip"]))
            metrics_csv.write(profile.layout.metrics, by_method)
    return profile.layout.metrics


def measure(
    profile: Profile, subjects: Sequence[Subject], wanted: Collection[str] | None = None
) -> list[Row]:
    """Rows of every subject, from the store where nothing they depend on has changed.

    wanted: names of columns; None: all but those that are measured only where they are asked for.
    Raises InputError when a video cannot be read to its end, or a metric stops.
    """
    items = _items(profile, subjects, wanted)
    stage.run("metrics", items, partial(_ready, profile, items), spread=True)
    return _rows(profile, items)


def measured(
    profile: Profile, groups: Sequence[tuple[Sequence[Subject], Collection[str]]]
) -> Iterator[list[Row]]:
    """Rows of one group of subjects after another, each with the columns wanted of it; as `measure`, models are loaded once."""
    items = [_items(profile, group, wanted) for group, wanted in groups]
    ready = functools.cache(partial(_ready, profile, [item for group in items for item in group]))
    for group in items:
        stage.run("", group, ready)
        yield _rows(profile, group)


def subjects(profile: Profile, clips: Sequence[Clip]) -> list[Subject]:
    """Every clip by every method that has a video of it, clip by clip, then the judge's real footage."""
    methods = baselines.every(profile)
    videos = Videos(profile, methods)
    having = {name: set(method.having(profile, clips)) for name, method in methods.items()}
    found = []
    for clip in clips:
        known = {"render": "render"} | ({"truth": "truth"} if truth.exists(profile, clip) else {})
        prints = {side: store.fingerprint(methods[side].path(profile, clip)) for side in known}
        for name in (name for name in methods if clip in having[name]):
            output = store.fingerprint(methods[name].path(profile, clip))
            sides = {"output": name} | known
            frames = {side: partial(videos.stream, of, clip) for side, of in sides.items()}
            found.append(Subject.of(profile, clip, name, frames, {"output": output} | prints))
    for path in real.files(profile):
        footage = Subject(
            method=real.Real.name,
            clip=path.stem,
            frames={"output": partial(real.stream, profile, path)},  # at the clips' size, which is not rated
            inputs={"output": store.fingerprint(path)},
            source_frames=(),
            count=video.probe(path).frames,
            times=1,
            sequence=path.stem,
            subsets=(),
            folder=profile.layout.root,
        )
        found.append(footage)
    return found


def _decode(profile: Profile, methods: Mapping[str, Method], method: str, clip: Clip) -> list[np.ndarray]:
    return list(methods[method].stream(profile, clip))


def _items(
    profile: Profile, subjects: Sequence[Subject], wanted: Collection[str] | None = None
) -> list[stage.Item[Job]]:
    """What is to be measured: subject by subject, so that each is decoded once; what may stop comes last.

    A metric that cannot run keeps what it has measured before.
    """
    # A reason though nothing is missing: there is no model, so not even what was measured before can be told.
    possible = [metric for metric in metrics.every() if metric.why_not(profile, ()) is None]
    prints = {metric: metric.fingerprint(profile) for metric in possible}
    items = [
        _item(profile, Job(metric, subject, columns), prints[metric])
        for subject in subjects
        for metric in possible
        if (columns := _columns(metric, subject, wanted))
    ]
    items.sort(key=lambda item: item.subject.metric.last)
    refused = set()
    for metric in possible:
        missing = [i.subject.subject for i in items if i.subject.metric is metric and not i.is_done]
        if missing and (reason := metric.why_not(profile, missing)):
            print(f"{metric.name}: {reason}", flush=True)
            refused.add(metric)
    return [item for item in items if item.subject.metric not in refused or item.is_done]


def _columns(metric: Metric, subject: Subject, wanted: Collection[str] | None) -> list[Column]:
    """The columns that a subject has: without a truth there is nothing to be near, and nothing is compared with itself."""
    if subject.method == real.Real.name and not metric.rates_real:
        return []
    return [
        column
        for column in metric.columns
        if (not column.asked if wanted is None else column.name in wanted)
        and all(side in subject.frames for side in (column.against, column.beside) if side)
        and (column.with_itself or column.against != subject.method)
    ]


def _item(profile: Profile, job: Job, model: str | None) -> stage.Item[Job]:
    metric, subject, columns = job
    sides = {"output", *(side for column in columns for side in (column.against, column.beside) if side)}
    recipe = store.Recipe(
        stage=metric.name,
        version=metric.version,
        settings={
            "columns": {column.name: dict(column.options) for column in columns},
            "source_frames": subject.source_frames,
            "frames": subject.count,
            "times": subject.times,
            "uses": {module.__name__: module.VERSION for module in metric.uses},
            **metric.settings(profile),
        },
        inputs={side: subject.inputs[side] for side in sorted(sides)},
        model=model,
    )
    path = subject.folder / "metrics" / metric.name / subject.method / f"{subject.clip}.json"
    return stage.Item(path, recipe, job)


def _ready(profile: Profile, items: Sequence[stage.Item[Job]]) -> stage.Make[Job]:
    @functools.cache
    def ready(metric: Metric) -> Measure:
        """Each metric is loaded when its first subject comes."""
        mine = [item.subject for item in items if item.subject.metric is metric and not item.is_done]
        return metric.ready(profile, [job.subject for job in mine])

    def make(item: stage.Item[Job], temporary: Path) -> dict[str, str] | None:
        metric, subject, columns = item.subject
        label, output = f"{subject.clip}, {subject.method}: {metric.name}", subject.frames["output"]
        shown = {"output": lambda: track(output(), label, subject.count, EVERY)}
        values = ready(metric)(replace(subject, frames={**subject.frames, **shown}), columns)
        rounded = {column.name: round(values[column.name], 6) for column in columns if column.name in values}
        temporary.write_text(json.dumps(rounded, indent=1) + "\n")
        return {"device": str(models.device(profile))} if metric.needs_model else None

    return make


def _rows(profile: Profile, items: Sequence[stage.Item[Job]]) -> list[Row]:
    """What metrics.csv says of the items that are done; of one subject in the order of the columns."""
    done = [item for item in items if item.is_done]
    options = {metric: metric.options(profile) for metric in {item.subject.metric for item in done}}
    rows = []
    for item in done:
        metric, subject, columns = item.subject
        commit = store.read_sidecar(item.path).get("commit", "unknown")
        values = store.read_json(item.path)
        for column in (column for column in columns if column.name in values):
            shown = options[metric] | dict(column.options)
            rows.append(
                {
                    "profile": profile.name,
                    "method": subject.method,
                    "clip": subject.clip,
                    "metric": column.name,
                    "value": values[column.name],
                    "sequence": subject.sequence,
                    "subsets": ";".join(subject.subsets),
                    "options": ";".join(f"{key}={option}" for key, option in shown.items()),
                    "artefact": subject.inputs["output"],
                    "commit": commit,
                }
            )
    names = list(metrics.columns())
    return sorted(rows, key=lambda row: names.index(row["metric"]))


def _check(profile: Profile, method: Method, clips: Sequence[Clip]) -> None:
    """Raise InputError unless the clips that a method must have are there, of the profile's length and size."""
    for clip in method.having(profile, clips):
        path = method.path(profile, clip)
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: {method.name} has not been run on clip {clip.id}; run the notebooks "
                "before 05_evaluation (or `make reproduce`) first."
            )
        if method.name == "truth":
            continue  # its frames are counted and cropped as they are read
        video.require_size(path, profile.clips, "delete it and run its stage again")
