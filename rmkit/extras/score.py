"""Scoring: a user's own renders and what was made of them, by every metric that needs neither a truth nor a judge.

Reads two folders of mp4 files of the same names; writes a csv of metrics.csv's form, and on the way
results/<profile>/scored/<outputs>/<clip>.json, so that it resumes. Of the profile it takes the face model, the feature
model, AMT-S and the device; sizes are the clips' own. The offline judge is left out: it knows one world and one size.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmkit.errors import InputError
from rmkit.evaluation import evaluate, statistics, typeset
from rmkit.kit import face_pack, models, store, video
from rmkit.kit.progress import track
from rmkit.method import faces, sampling
from rmkit.metrics import arcface, features
from rmkit.metrics import listed as metrics
from rmkit.metrics.dino import FeatureModel, compare
from rmkit.metrics.motion_smoothness_amt import Amt
from rmkit.profile import Profile

VERSION = 1
FEWEST = 3  # distinct frames, of Motion Smoothness
FEATURES = tuple(metric for metric in metrics.FEATURES if metric.against == "render")


@dataclass(frozen=True)
class Pair:
    """A render and its output, which are alike in size, length and rate."""

    name: str
    paths: Mapping[str, Path]  # of render and output
    frames: int
    height: int
    width: int


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
    pairs = [_pair(a, b, repeats) for a, b in track(files, "checking")]
    sized = [_sized(profile, pair) for pair in pairs]
    if profile.identity.model_pack:
        face_pack.check(profile)
    for which in ("features", "amt"):
        if getattr(profile.models, which):
            for settings in sized:
                models.check(settings, which)
    model, rows = None, []
    amt = functools.cache(functools.partial(models.load_amt, profile))
    for settings, pair in track(list(zip(sized, pairs, strict=True)), "metrics"):
        part = profile.layout.scored / name / f"{pair.name}.json"
        recipe = _recipe(profile, pair, repeats)
        if not store.is_done(part, recipe):
            if profile.models.features and model is None:
                model = features.load(settings)
            with store.writing(part, recipe) as temporary:
                temporary.write_text(
                    json.dumps(list(_measure(profile, pair, model, amt, repeats)), indent=1) + "\n"
                )
        common = {"profile": profile.name, "clip": pair.name, "sequence": pair.name, "subsets": ""}
        common["commit"] = store.read_sidecar(part).get("commit", "unknown")
        for row in json.loads(part.read_text()):
            rows.append(common | row | {"artefact": store.fingerprint(pair.paths[row["method"]])})
    rows.sort(key=lambda row: (row["method"] == "output", row["clip"]))
    evaluate.write(target, rows)
    _show(profile, target, repeats)
    return target


def _measure(
    profile: Profile, pair: Pair, model: FeatureModel | None, amt: Callable[[], Amt], repeats: int
) -> Iterator[dict[str, str | float]]:
    """Rows of one pair: the render's own values, then the output's; frames are streamed."""
    render, output = (pair.paths[method] for method in ("render", "output"))
    for method, path in pair.paths.items():
        for metric in _chosen(repeats):
            if metric.against != method:
                other = video.stream(render) if metric.against else None
                value = metric.of(video.stream(path), other, repeats)
                yield {"method": method} | evaluate.entry(metric.name, value)
    if profile.models.amt:
        for method, path in pair.paths.items():
            values = evaluate.by_amt(
                amt, _chosen(repeats, metrics.AMT), functools.partial(video.stream, path), repeats
            )
            for name, value in values.items():
                yield {"method": method} | evaluate.entry(name, value, evaluate.amt_options(profile))
    if profile.identity.model_pack:
        analysis, wanted = face_pack.load(profile), faces.linspace(pair.frames) + faces.midpoints(pair.frames)
        found = [
            face_pack.find(analysis, video.stream(path), sorted(set(wanted))) for path in (render, output)
        ]
        pack = {"pack": Path(profile.identity.model_pack).name}
        for name, value in arcface.arcface(*found, pair.frames, profile.identity.iou_gate).items():
            yield {"method": "output"} | evaluate.entry(name, value, pack)
    if model:
        streams = {method: video.stream(path) for method, path in pair.paths.items()}
        for name, value in compare(model, streams, {"output": FEATURES})["output"].items():
            yield {"method": "output"} | evaluate.entry(name, value, features.options(profile))


def _chosen(repeats: int, of: Sequence[metrics.Metric] = metrics.ALL) -> list[metrics.Metric]:
    """Metrics of frames alone; those of distinct frames only where frames are repeated."""
    return [m for m in of if m.against != "truth" and (repeats > 1 or not m.distinct)]


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
    """The mp4 files of a folder by name; hidden ones, which systems leave there, do not count."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is no folder.")
    files = {path.name: path for path in sorted(folder.glob("*.mp4")) if not path.name.startswith(".")}
    if not files:
        raise InputError(f"{folder} holds no .mp4 file.")
    return files


def _pair(render: Path, output: Path, repeats: int) -> Pair:
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
    return Pair(render.stem, {"render": render, "output": output}, lengths[0], a.height, a.width)


def _writable(path: Path) -> Path:
    """The path, its folder made; raises InputError where no file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {path}: its folder cannot be made ({error.strerror}).") from None
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file.")
    return path


def _sized(profile: Profile, pair: Pair) -> Profile:
    """The profile with the pair's size, which the feature model's patches must divide."""
    size = profile.clips.model_copy(update={"height": pair.height, "width": pair.width})
    return profile.model_copy(update={"clips": size})


def _recipe(profile: Profile, pair: Pair, repeats: int) -> store.Recipe:
    identity, named = profile.identity, profile.models.features
    found = ("det_size", "det_thresh", "iou_gate")
    settings = {
        "metrics": {m.name: dict(m.options) for m in _chosen(repeats)},
        "repeats": repeats,
        "faces": {key: getattr(identity, key) for key in found} if identity.model_pack else None,
    }
    revisions = [
        face_pack.fingerprint(profile) if identity.model_pack else "",
        models.fingerprint(profile, "features") if named else "",
        *([models.fingerprint(profile, "amt")] if profile.models.amt else []),
    ]
    inputs = {method: store.fingerprint(path) for method, path in pair.paths.items()}
    return store.Recipe("score", VERSION, settings, inputs, model="/".join(revisions))


def _show(profile: Profile, path: Path, repeats: int) -> None:
    """Print the means over clips with their 95 % intervals, and what was not measured."""
    frame = statistics.read(path)
    names = set(frame.metric)
    print(f"{path}: {frame['clip'].nunique()} clips, mean [95 % interval]")
    print(f"  {'':42} {'render':>26} {'output':>26}")
    for metric in (m for m in metrics.BY_NAME.values() if m.name in names):
        means = (statistics.mean(frame, method, metric.name) for method in ("render", "output"))
        print(f"  {metric.label:42}", *(f"{typeset.cell(mean, metric.name):>26}" for mean in means))
    for line in _left_out(profile, names, repeats):
        print(f"  {line}")


def _left_out(profile: Profile, names: set[str], repeats: int) -> Sequence[str]:
    lines = []
    if repeats == 1:
        lines.append("Distinct frames: not measured; --repeats says how often each source frame is shown.")
    if "arcface_coverage" not in names:
        lines.append(f"ArcFace: {evaluate.why_no_faces(profile) or 'n/a: no face was found in any render.'}")
    if not profile.models.amt:
        lines.append(f"Motion Smoothness (AMT-S): {evaluate.why_no_amt(profile)}")
    if reason := features.why_not(profile):
        lines.append(f"DINO: {reason}")
    return lines
