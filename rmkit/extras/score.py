"""Scoring: a user's own renders and what was made of them, by every metric that needs neither a truth nor a judge.

Reads two folders of videos of the same names; writes a csv of metrics.csv's form with a note a row, pair by pair, and on
the way results/<profile>/scored/<outputs>/metrics/, so that it resumes. Of the profile it takes the metrics' models and
the device; sizes are the outputs' own.
"""

import functools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rmkit import metrics
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, metrics_csv, statistics, typeset
from rmkit.extras import outputs as files
from rmkit.kit import footage, store, video
from rmkit.kit.footage import Footage
from rmkit.kit.progress import track
from rmkit.method import sampling
from rmkit.metrics import Metric, Subject
from rmkit.profile import Profile

# Bytes of a decoded video that is kept for all metrics of its pair; a larger one is read anew for each.
KEPT = 512 * 2**20
FEWEST = 3  # distinct frames, of Motion Smoothness
STRETCHED = 0.05  # share by which a picture's shape may differ and count as resized (ours)


@dataclass(frozen=True)
class Pair:
    """A render and what was made of it, frame by frame; `note` says what they differ in."""

    render: Footage
    output: Footage
    note: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that they are compared at."""
        return self.output.height, self.output.width

    def frames(self, side: str) -> Iterator[np.ndarray]:
        """Frames of "render" or "output" at the output's size, uint8 [H, W, 3], from memory where there is room."""
        is_small = 3 * self.output.frames * self.size[0] * self.size[1] <= KEPT
        return iter(_decoded(self, side)) if is_small else self.read(side)

    def read(self, side: str) -> Iterator[np.ndarray]:
        """The same, decoded."""
        return (video.resized(frame, *self.size) for frame in video.stream(getattr(self, side).path))


def score(
    profile: Profile,
    renders: Path,
    outputs: Path,
    out: Path | None = None,
    repeats: int = 1,
    asked: Collection[str] = (),
    strict: bool = False,
    force: bool = False,
) -> Path:
    """Measure every output beside its render, write the csv after each pair, print the means, and return its path.

    repeats: how often each source frame is shown; the `_distinct` metrics are measured where it is more than once. asked:
    names of metrics; none for all but those whose model knows one world only. strict: sizes and rates must be alike. force:
    a csv that is not of this kind is replaced. Raises InputError before anything is measured: folders, names or lengths
    that do not match, a video that cannot be decoded to its end, fewer than three distinct frames, a model that the profile
    names and is missing. What a metric cannot take is left out, with a note.
    """
    if repeats < 1:
        raise InputError(f"--repeats is {repeats} and must be 1 or more.")
    matched = _matched(renders, outputs)
    name = outputs.resolve().name
    target = _writable(out or profile.layout.scored / f"{name}.csv", force)
    pairs = [_checked(*pair, repeats, strict) for pair in track(matched, "reading")]
    chosen, notes = _chosen(profile, asked)
    groups = []
    for pair in pairs:
        taken = []
        for metric in chosen:
            if reason := metric.why_not_of(profile, *pair.size) if metric.why_not(profile) is None else None:
                notes.append(f"{metric.label}: {pair.output.path.name} is left out: {reason}.")
                continue
            if metric.why_not(profile) is None:
                metric.check(profile, *pair.size)
            taken += [column.name for column in metric.columns if repeats > 1 or not column.distinct]
        groups.append((_subjects(pair, profile.layout.scored / name, repeats), taken))
    for note, count in Counter(pair.note for pair in pairs if pair.note).items():
        notes.append(f"{count} of {len(pairs)} pairs: {note}.")
    for note in notes:
        print(note, flush=True)
    rows: list[metrics_csv.Row] = []
    for pair, found in zip(
        pairs, track(evaluate.measured(profile, groups), "measured", len(pairs)), strict=True
    ):
        rows += [{**row, "note": pair.note} for row in found]
        rows.sort(key=lambda row: (row["method"] == "output", row["clip"]))
        metrics_csv.write(target, rows, ["note"])
    _decoded.cache_clear()
    _show(profile, target, repeats, chosen)
    return target


@functools.lru_cache(maxsize=2)
def _decoded(pair: Pair, side: str) -> list[np.ndarray]:
    return list(pair.read(side))


def _chosen(profile: Profile, asked: Collection[str]) -> tuple[list[Metric], list[str]]:
    """The metrics to measure, and notes on those that are not; InputError for a name that is none."""
    own = {metric.name: metric for metric in metrics.every() if metric.own_clips}
    if unknown := sorted(set(asked) - own.keys()):
        raise InputError(
            f"--metrics {unknown[0]}: there is no such metric for clips of one's own: {', '.join(own)}."
        )
    if asked:
        return [metric for name, metric in own.items() if name in asked], []
    chosen, notes = [], []
    for name, metric in own.items():
        world = metric.knows(profile) if metric.why_not(profile) is None else ""
        if world:
            notes.append(
                f"{metric.label}: left out, since its model knows {world} only; --metrics {name} asks for it."
            )
        else:
            chosen.append(metric)
    return chosen, notes


def _subjects(pair: Pair, folder: Path, repeats: int) -> list[Subject]:
    """The render alone, then the output beside it."""
    streams = {side: partial(pair.frames, side) for side in ("render", "output")}
    inputs = {side: store.fingerprint(getattr(pair, side).path) for side in streams}
    if (pair.render.height, pair.render.width) != pair.size:
        inputs["render"] += f" at {pair.size[0]}x{pair.size[1]}"
    clip = pair.render.path.stem
    return [
        Subject(
            method=method,
            clip=clip,
            frames={side: streams[of] for side, of in sides.items()},
            inputs={side: inputs[of] for side, of in sides.items()},
            source_frames=(),
            count=pair.output.frames,
            times=repeats,
            sequence=clip,
            subsets=(),
            folder=folder,
        )
        for method, sides in (
            ("render", {"output": "render"}),
            ("output", {"output": "output", "render": "render"}),
        )
    ]


def _matched(renders: Path, outputs: Path) -> list[tuple[Path, Path]]:
    """Files of the same names but for their endings; raises InputError that says which have no partner."""
    a, b = _files(renders), _files(outputs)
    lone = [
        f"only in {folder}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for folder, names in (
            (renders, [a[stem].name for stem in sorted(a.keys() - b.keys())]),
            (outputs, [b[stem].name for stem in sorted(b.keys() - a.keys())]),
        )
        if names
    ]
    if lone:
        raise InputError(f"renders and outputs must have the same names; {'; '.join(lone)}.")
    return [(a[stem], b[stem]) for stem in a]


def _files(folder: Path) -> dict[str, Path]:
    """The videos of a folder by name without ending."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is no folder.")
    found: dict[str, Path] = {}
    for path in files.videos(folder):
        if path.stem in found:
            raise InputError(
                f"{folder} has {found[path.stem].name} and {path.name}: one name must be one video."
            )
        found[path.stem] = path
    if not found:
        raise InputError(
            f"{folder} holds no .mp4 file, nor another video ({', '.join(footage.ENDINGS[1:])})."
        )
    return found


def _checked(render: Path, output: Path, repeats: int, strict: bool) -> Pair:
    """Both as decoded to their ends; InputError where they cannot be laid side by side."""
    a, b = footage.scan(render), footage.scan(output)
    differ = []
    if (a.height, a.width) != (b.height, b.width):
        shape = a.width * b.height / (a.height * b.width)
        how = "resized" if abs(shape - 1) < STRETCHED else "stretched"
        differ.append(f"render {how} from {a.width}x{a.height} to {b.width}x{b.height}")
    if not footage.are_alike(a.fps, b.fps):
        differ.append(
            f"render at {float(a.fps):.4g} fps, output at {float(b.fps):.4g}: paired frame by frame"
        )
    if a.frames != b.frames or (strict and differ):
        said = [
            f"{each.frames} frames of {each.height}x{each.width} at {float(each.fps):g} a second"
            for each in (a, b)
        ]
        raise InputError(f"{output} has {said[1]} and its render {said[0]}: they must be alike.")
    if sampling.distinct(a.frames, repeats) < FEWEST:
        raise InputError(f"{render} has {a.frames} frames, each shown {repeats} times: {FEWEST} are needed.")
    noted = [f"{side}: {what}" for side, each in (("render", a), ("output", b)) for what in each.lost]
    return Pair(a, b, "; ".join([*differ, *noted]))


def _writable(path: Path, force: bool) -> Path:
    """The path, its folder made; raises InputError where no file can be written, or one of the user's would be replaced."""
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file.")
    store.require_writable(path.parent)
    if path.exists() and not force:
        with path.open("rb") as file:
            header = file.readline().decode(errors="replace").strip().split(",")
        if header[: len(metrics_csv.COLUMNS)] != metrics_csv.COLUMNS:
            raise InputError(
                f"--out {path} exists and is no table of this kind: name another, or give --force."
            )
    return path


def _show(profile: Profile, path: Path, repeats: int, chosen: Sequence[Metric]) -> None:
    """Print the means over clips with their 95 % intervals, and what was not measured."""
    frame = metrics_csv.read(path)
    names = set(frame.metric)
    print(f"{path}: {frame['clip'].nunique()} clips, mean [95 % interval]")
    print(f"  {'':42} {'render':>26} {'output':>26}")
    for column in (column for column in metrics.columns().values() if column.name in names):
        means = (statistics.mean(frame, method, column.name) for method in ("render", "output"))
        print(f"  {column.label:42}", *(f"{typeset.cell(mean, column.digits):>26}" for mean in means))
    if repeats == 1:
        print("  Distinct frames: not measured; --repeats says how often each source frame is shown.")
    for metric in chosen:
        truthless = [column for column in metric.columns if column.against != "truth"]
        if truthless and names.isdisjoint(column.name for column in truthless):
            print(f"  {metric.label}: {metric.why_no_row(profile)}")
