"""The metrics (paper, 4.1): one file each, found by being there, which holds all that is known of the metric.

A file `metrics/<name>.py` ends with `METRIC = ItsClass()`, a `Metric` with one or more columns. Reads and writes nothing.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np

from rmkit.kit import weights
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.paths import resolve
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd

ORDER = (
    *("psnr", "ssim", "edge_f1", "temporal_flickering", "motion_smoothness", "sharpness"),
    *("motion_smoothness_amt", "arcface", "dino", "gpt_rs", "offline_judge"),
)
NO_ROW = "not run: metrics.csv has no row of it; run 05_evaluation again."
NO_TRUTH = "n/a: this data has no truth."


@dataclass(frozen=True)
class Column:
    """One number of a metric: a column of the tables, and the rows of one name in metrics.csv."""

    name: str
    label: str
    unit: str
    better: Literal[1, -1, 0]  # 1: higher is better, -1: lower, 0: neither (compare with a reference)
    digits: int = 4  # decimals in the tables
    # The least tolerance of `verify`, in the column's unit: numerical noise. Six times and more what another convolution
    # kernel changes in the VAE's ceiling: 3e-5 dB, SSIM 2e-7, edge F1 3e-4, temporal metrics 1e-7, sharpness 4e-4.
    floor: float = 0.0
    against: Literal["truth", "render"] | None = None  # what the output is compared with
    with_itself: bool = False  # measured of the render, too, where it is compared with the render
    distinct: bool = False  # on the source's own frames, without the repetition that raises the rate
    options: Mapping[str, str] = field(default_factory=dict)  # written beside the values
    optional: bool = False  # a clip may have no value though its metric ran
    # Another stream of `Subject.frames` that it reads: without it there is no value.
    beside: str | None = None
    asked: bool = False  # measured only where somebody asks for it by name
    paper: bool = False  # in the paper's tables, or in the place of one that is
    # always: in the tables even where it was not run; never: in metrics.csv only.
    shown: Literal["always", "measured", "never"] = "measured"


Opens = Callable[[], Iterator[np.ndarray]]  # a stream anew, at each call


@dataclass(frozen=True)
class Subject:
    """What a metric measures: a clip of one method, with its render and its truth where there are such.

    `frames` opens a stream of uint8 [H, W, 3] anew at each call: of "output", and of "render" and "truth"; in a demonstration
    also of what its columns read `beside`. `inputs` has the fingerprints of the same files by the same names.
    """

    method: str
    clip: str
    frames: Mapping[str, Opens]
    inputs: Mapping[str, str]
    source_frames: tuple[int, ...]  # of the sequence; the file of a truth is the whole sequence's
    count: int  # frames
    times: int  # how often each source frame is shown
    sequence: str
    subsets: tuple[str, ...]
    folder: Path  # where intermediate artefacts of it may be kept

    @classmethod
    def of(
        cls, profile: Profile, clip: Clip, method: str, frames: Mapping[str, Opens], inputs: Mapping[str, str]
    ) -> "Subject":
        """A clip of the profile's by a method."""
        count, times = profile.clips.frames, sampling.repeats(clip, profile.clips.frames)
        facts = (clip.source_frames, count, times, clip.sequence, clip.subsets, profile.layout.root)
        return cls(method, clip.id, frames, inputs, *facts)

    def output(self, column: Column) -> Iterator[np.ndarray]:
        """The output's frames, uint8 [H, W, 3], without repetitions where the column counts distinct frames."""
        return islice(self.frames["output"](), 0, None, self.times if column.distinct else 1)


Measure = Callable[[Subject, Sequence[Column]], Mapping[str, float]]


class Metric:
    """A metric: its columns, what it needs, and how it is measured. Subclasses set the attributes they differ in."""

    columns: tuple[Column, ...] = ()
    version: int = 1
    uses: tuple[ModuleType, ...] = ()  # modules whose VERSION a value depends on
    needs_model = False  # `profile.metrics[<name>]` says where it is
    own_clips = True  # False: not for folders of a user's own
    last = False  # measured after all others, since it may stop
    rates_real = False  # a judge, which rates real footage, too, and varies where the video does not

    def __reduce__(self) -> tuple:
        """Sent to a worker as its name: a metric is one object a process."""
        return _of_file, (type(self).__module__,)

    @property
    def name(self) -> str:
        """The name of its file, which is its key in `profile.metrics`."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def key(self) -> str:
        """Where the profile names its model."""
        return f"metrics.{self.name}"

    @property
    def label(self) -> str:
        """How it is named in sentences."""
        return self.columns[0].label

    def model(self, profile: Profile) -> str | None:
        """The folder, file or hub name of its model, as the profile names it."""
        return profile.metrics.get(self.name)

    def place(self, profile: Profile) -> tuple[str, str | None]:
        """(folder, None) or (hub name, commit) of its model in transformers' format; InputError unless it is whole."""
        return weights.single(self.key, self.model(profile))

    def why_not(self, profile: Profile, missing: Sequence[Subject] | None = None) -> str | None:
        """Why it is not run ('not run', a colon, and the reason), or None where it is.

        missing: the subjects that have no value yet, maybe none; None: all that a run of the profile has.
        """
        if self.needs_model and not self.model(profile):
            return f"not run: {self.key} of this profile names no model."
        return None

    def why_no_row(self, profile: Profile) -> str:
        """Why metrics.csv has no row of it: 'not run' or 'n/a', a colon, and the reason."""
        if all(column.against == "truth" for column in self.columns):
            return NO_TRUTH
        return self.why_not(profile) or NO_ROW

    def check(self, profile: Profile, height: int, width: int) -> None:
        """Raise InputError unless its model is whole and takes frames of this size; loads nothing big."""
        if self.needs_model:
            self.place(profile)

    def why_not_of(self, profile: Profile, height: int, width: int) -> str | None:
        """Why frames of this size cannot be measured though its model is whole, or None where they can."""
        return None

    def knows(self, profile: Profile) -> str:
        """The one world that its model knows; '' for a model of the world at large, or none."""
        return weights.knows(resolve(self.model(profile))) if self.needs_model and self.model(profile) else ""

    def fingerprint(self, profile: Profile) -> str | None:
        """Content hash of its model, or the commit of a hub name; None without a model."""
        return weights.single_fingerprint(self.key, self.model(profile)) if self.needs_model else None

    def settings(self, profile: Profile) -> Mapping[str, object]:
        """What else of the profile a value depends on."""
        return {}

    def options(self, profile: Profile) -> dict[str, str]:
        """What is written beside its values, before the column's own options: its model and that model's revision."""
        if not self.needs_model:
            return {}
        return {"model": str(self.model(profile)), "revision": str(self.fingerprint(profile))[:12]}

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        """Load what measuring these subjects needs; the function returned gives the values of some columns by name."""
        return self.measure

    def measure(self, subject: Subject, columns: Sequence[Column]) -> Mapping[str, float]:
        """The values of a metric that has nothing to load."""
        raise NotImplementedError

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        """The sentence under the tables about its `rows` of metrics.csv, or why there are none; '' for nothing to say."""
        return ""


def _of_file(module: str) -> Metric:
    return importlib.import_module(module).METRIC


@functools.cache
def every() -> tuple[Metric, ...]:
    """All metrics: those of ORDER first, then files of other names by name."""
    files = sorted(module.name for module in pkgutil.iter_modules(__path__))
    names = sorted(files, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.METRIC for module in modules if hasattr(module, "METRIC"))


def with_models(profile: Profile) -> tuple[Metric, ...]:
    """The metrics whose model the profile names."""
    return tuple(metric for metric in every() if metric.needs_model and metric.model(profile))


def columns() -> dict[str, Column]:
    """All columns by name, in the order of metrics.csv and of the tables; those that no table shows come last."""
    found = [column for metric in every() for column in metric.columns]
    return {column.name: column for column in sorted(found, key=lambda column: column.shown == "never")}


def shown(names: Iterable[str]) -> tuple[Column, ...]:
    """The columns of the tables: those that are always shown, and what else `names` (of metrics.csv) has."""
    present = set(names)
    return tuple(
        column
        for column in columns().values()
        if column.shown == "always" or (column.shown == "measured" and column.name in present)
    )


def papers_first(names: Iterable[str]) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """The columns of the tables in two: those that the paper's tables have, and the others."""
    found = shown(names)
    return tuple(c for c in found if c.paper), tuple(c for c in found if not c.paper)


def metric_of(name: str) -> Metric:
    """The metric that has a column of this name."""
    return next(metric for metric in every() if name in {column.name for column in metric.columns})


def options_of(rows: "pd.DataFrame") -> str:
    """What the values of these rows of metrics.csv depend on beside the clip, as a note says it."""
    return "; ".join(text.replace(";", ", ") for text in rows.options.unique())
