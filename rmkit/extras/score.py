"""Scoring: a user's own renders and what was made of them, by every metric that needs neither a truth nor a judge.

Reads two folders of mp4 files of the same names; writes a csv of metrics.csv's form, and on the way
results/<profile>/scored/<outputs>/metrics/, so that it resumes. Of the profile it takes the metrics' models and the device;
sizes are the clips' own.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from rmkit import metrics
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, statistics, typeset
from rmkit.extras import own_video
from rmkit.kit import store, video
from rmkit.kit.progress import track
from rmkit.method import sampling
from rmkit.metrics import Subject
from rmkit.profile import Profile

FEWEST = 3  # distinct frames, of Motion Smoothness


def score(profile: Profile, renders: Path, outputs: Path, out: Path | None = None, repeats: int = 1) -> Path:
    """Measure every output beside its render, write the csv, print the means, and return its path.

    repeats: how often each source frame is shown; the `_distinct` metrics are measured where it is more than once.
    Raises InputError before anything is measured: folders, names, sizes, rates or lengths that do not match, a video
    that cannot be decoded to its end, fewer than three distinct frames, a model that the profile names and is missing.
    """
    if repeats < 1:
        raise InputError(f"--repeats is {repeats} and must be 1 or more.")
    files = _matched(renders, outputs)
    name = outputs.resolve().name
    target = _writable(out or profile.layout.scored / f"{name}.csv")
    infos = [_checked(render, output, repeats) for render, output in track(files, "checking")]
    own = [metric for metric in metrics.every() if metric.own_clips]
    for metric in own:
        if metric.why_not(profile) is None:
            for height, width in {(info.height, info.width) for info in infos}:
                metric.check(profile, height, width)
    subjects = []
    for pair, info in zip(files, infos, strict=True):
        subjects += _subjects(*pair, info.frames, profile.layout.scored / name, repeats)
    wanted = {c.name for metric in own for c in metric.columns if repeats > 1 or not c.distinct}
    rows = evaluate.measure(profile, subjects, wanted)
    rows.sort(key=lambda row: (row["method"] == "output", row["clip"]))
    evaluate.write(target, rows)
    _show(profile, target, repeats)
    return target


def _subjects(render: Path, output: Path, count: int, folder: Path, repeats: int) -> list[Subject]:
    """The render alone, then the output beside it; frames are streamed, so that length costs no memory."""
    paths = {"render": render, "output": output}
    streams = {side: partial(video.stream, path) for side, path in paths.items()}
    inputs = {side: store.fingerprint(path) for side, path in paths.items()}
    return [
        Subject(
            method=method,
            clip=render.stem,
            frames={side: streams[of] for side, of in sides.items()},
            inputs={side: inputs[of] for side, of in sides.items()},
            source_frames=(),
            count=count,
            times=repeats,
            sequence=render.stem,
            subsets=(),
            folder=folder,
        )
        for method, sides in (
            ("render", {"output": "render"}),
            ("output", {"output": "output", "render": "render"}),
        )
    ]


def _matched(renders: Path, outputs: Path) -> list[tuple[Path, Path]]:
    """Files of the same names; raises InputError that says which have no partner."""
    a, b = _files(renders), _files(outputs)
    lone = [
        f"only in {folder}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for folder, names in ((renders, sorted(a.keys() - b.keys())), (outputs, sorted(b.keys() - a.keys())))
        if names
    ]
    if lone:
        raise InputError(f"renders and outputs must have the same names; {'; '.join(lone)}.")
    return [(a[name], b[name]) for name in a]


def _files(folder: Path) -> dict[str, Path]:
    """The mp4 files of a folder by name, without hidden ones, which systems leave there, and previews, which `enhance` adds."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is no folder.")
    found = (path for path in sorted(folder.glob("*.mp4")) if not path.name.startswith("."))
    files = {path.name: path for path in found if not path.name.endswith(own_video.PREVIEW)}
    if not files:
        raise InputError(f"{folder} holds no .mp4 file.")
    return files


def _checked(render: Path, output: Path, repeats: int) -> video.VideoInfo:
    """What render and output are alike in, with the length as decoded; InputError where they differ."""
    a, b = (video.probe(path) for path in (render, output))
    # What a file says of its length does not tell that it was cut short: all of it is decoded once.
    lengths = [sum(1 for _ in video.stream(path)) for path in (render, output)]
    said = [
        f"{count} frames of {info.height}x{info.width} at {float(info.fps):g} a second"
        for count, info in zip(lengths, (a, b), strict=True)
    ]
    if (lengths[0], a.height, a.width, a.fps) != (lengths[1], b.height, b.width, b.fps):
        raise InputError(f"{output} has {said[1]} and its render {said[0]}: they must be alike.")
    if sampling.distinct(lengths[0], repeats) < FEWEST:
        raise InputError(f"{render} has {said[0]}, each shown {repeats} times: {FEWEST} are needed.")
    return replace(a, frames=lengths[0])


def _writable(path: Path) -> Path:
    """The path, its folder made; raises InputError where no file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {path}: its folder cannot be made ({error.strerror}).") from None
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file.")
    return path


def _show(profile: Profile, path: Path, repeats: int) -> None:
    """Print the means over clips with their 95 % intervals, and what was not measured."""
    frame = statistics.read(path)
    names = set(frame.metric)
    print(f"{path}: {frame['clip'].nunique()} clips, mean [95 % interval]")
    print(f"  {'':42} {'render':>26} {'output':>26}")
    for column in (column for column in metrics.columns().values() if column.name in names):
        means = (statistics.mean(frame, method, column.name) for method in ("render", "output"))
        print(f"  {column.label:42}", *(f"{typeset.cell(mean, column.digits):>26}" for mean in means))
    if repeats == 1:
        print("  Distinct frames: not measured; --repeats says how often each source frame is shown.")
    for metric in metrics.every():
        truthless = [column for column in metric.columns if column.against != "truth"]
        if metric.own_clips and truthless and names.isdisjoint(column.name for column in truthless):
            print(f"  {metric.label}: {metric.why_no_row(profile)}")
