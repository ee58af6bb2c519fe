"""Evaluation: every method on every validation clip by every metric (paper, 4.1 and 4.5).

Reads clips, propagated, enhanced and the truth; writes metrics/<method>/<clip>.json (so that it resumes), what the
feature model found, Motion Smoothness by AMT-S (amt/), the offline judge's ratings, the judge's answers, and metrics.csv:
one row a clip, method and metric, with provenance. Values are rounded to six decimals.
"""

import csv
import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rmkit import baselines
from rmkit.baselines import Method, real, truth
from rmkit.errors import InputError
from rmkit.kit import face_pack, models, store, video, weights
from rmkit.kit.progress import track
from rmkit.method import faces, sampling
from rmkit.method.incontext import MODES
from rmkit.method.sampling import Clip
from rmkit.metrics import Subject, arcface, features, gpt_rs
from rmkit.metrics import listed as metrics
from rmkit.metrics.motion_smoothness_amt import Amt
from rmkit.metrics.offline_judge import VERSION as OFFLINE_VERSION
from rmkit.metrics.offline_judge import OfflineJudge, offline_judge
from rmkit.profile import Profile

VERSION = 1
COLUMNS = ["profile", "method", "clip", "metric", "value"]
PROVENANCE = ["sequence", "subsets", "options", "artefact", "commit"]


def evaluate(profile: Profile) -> Path:
    """Make the baselines and the ceiling, measure everything, and write metrics.csv; returns its path.

    Raises InputError before anything is made when a method's clip is missing or has another size than the profile's, a
    model of the metrics is not there, or an external method that the profile asks for cannot run; when the judge stops,
    the other metrics are written first.
    """
    for which in ("features", "amt", "judge"):
        if getattr(profile.models, which):
            models.check(profile, which)
    if profile.identity.model_pack:
        face_pack.check(profile)
    real.check(profile)
    baselines.validate(profile)
    order = list(baselines.every(profile))
    for name in unlisted(profile):
        print(f"enhanced/{name} holds clips of no known method: list it under baselines.folders.", flush=True)
    validation = sampling.load(profile, "validation")
    made_here = baselines.made(profile)
    _check(profile, [job for job in _jobs(profile, validation) if job[0] not in made_here])
    baselines.make(profile, validation)
    jobs = _jobs(profile, validation)
    rows: list[dict] = []
    for method, clip in track(jobs, "metrics"):
        rows += measure(profile, method, clip)
    rows += interpolated(profile, jobs)
    rows += compared(profile, jobs)
    rows += recognised(profile, jobs)
    rows += judged_offline(profile, jobs)
    try:
        rows += judged(profile, jobs)
    finally:
        names = list(metrics.BY_NAME)
        rows.sort(key=lambda row: (order.index(row["method"]), row["clip"], names.index(row["metric"])))
        write(profile.layout.metrics, rows)
    return profile.layout.metrics


def why_no_amt(profile: Profile) -> str:
    """Why metrics.csv has no row of Motion Smoothness by AMT-S ('not run', a colon, and the reason)."""
    return Method.no_row if profile.models.amt else "not run: models.amt of this profile names no model."


def why_no_features(profile: Profile) -> str:
    """Why metrics.csv has no row of DINO ('not run', a colon, and the reason)."""
    return features.why_not(profile) or Method.no_row


def why_no_faces(profile: Profile) -> str | None:
    """Why metrics.csv has no row of ArcFace ('not run' or 'n/a', a colon, and the reason); None when it can."""
    return None if profile.identity.model_pack else f"not run: {face_pack.NO_PACK}."


def why_no_offline(profile: Profile) -> str:
    """Why metrics.csv has no row of the offline judge ('not run', a colon, and the reason)."""
    return Method.no_row if profile.models.judge else "not run: models.judge of this profile names no model."


def why_no_ratings(profile: Profile) -> str | None:
    """Why metrics.csv has no row of the judge ('not run', a colon, and the reason); None when it can."""
    return gpt_rs.METRIC.why_not(profile)


def judging(profile: Profile) -> str:
    """Who judges and at what cost while no answer is kept yet, or why nobody does."""
    return gpt_rs.judging(profile)


def unlisted(profile: Profile) -> list[str]:
    """Folders under enhanced/ that hold clips and are no method's, nor of a mode that `make compare-modes` compares."""
    found = {clip.parent.name for clip in profile.layout.enhanced.glob("*/*.mp4")}
    return sorted(found - baselines.every(profile).keys() - set(MODES))


def measure(profile: Profile, method: str, clip: Clip) -> list[dict]:
    """Rows of one clip and method, from the store when nothing they depend on has changed."""
    chosen = [m for m in metrics.ALL if _has(profile, method, clip, m)]
    inputs = _inputs(profile, method, clip)
    artefact = inputs["video"]
    recipe = store.Recipe(
        stage="metrics",
        version=VERSION,
        settings={
            "metrics": {m.name: dict(m.options) for m in chosen},
            "source_frames": clip.source_frames,
            "frames": profile.clips.frames,
        },
        inputs=inputs,
    )
    target = profile.layout.root / "metrics" / method / f"{clip.id}.json"

    @functools.cache
    def frames(of: str) -> list[np.ndarray]:
        """Decoded once for all metrics, which takes longer than most of them."""
        return list(_stream(profile, of, clip))

    def compute() -> list[dict]:
        repeats = sampling.repeats(clip, profile.clips.frames)
        return [
            entry(m.name, m.of(frames(method), frames(m.against) if m.against else None, repeats))
            for m in chosen
        ]

    values, commit = _once(target, recipe, compute)
    common = _common(profile, method, clip, artefact) | {"commit": commit}
    return [common | value for value in values]


def interpolated(profile: Profile, jobs: Sequence[tuple[str, Clip]]) -> list[dict]:
    """Rows of Motion Smoothness by AMT-S for every clip and method; none where the profile does not name it."""
    if not profile.models.amt:
        return []
    revision, options = models.fingerprint(profile, "amt"), amt_options(profile)
    load, rows = functools.cache(partial(models.load_amt, profile)), []
    for method, clip in track(jobs, "AMT-S"):
        artefact = store.fingerprint(_path(profile, method, clip))
        times = sampling.repeats(clip, profile.clips.frames)
        settings = {"source_frames": clip.source_frames, "frames": profile.clips.frames}
        recipe = store.Recipe("amt", VERSION, settings, {"video": artefact}, model=revision)
        target = profile.layout.root / "amt" / method / f"{clip.id}.json"
        values, commit = _once(
            target,
            recipe,
            partial(by_amt, load, metrics.AMT, partial(_stream, profile, method, clip), times),
        )
        common = _common(profile, method, clip, artefact) | {"commit": commit}
        rows += [common | entry(name, value, options) for name, value in values.items()]
    return rows


def compared(profile: Profile, jobs: Sequence[tuple[str, Clip]]) -> list[dict]:
    """Rows of the feature model for every clip and method, the truth among them; none when the profile has none."""
    if features.why_not(profile):
        return []
    options, rows = features.options(profile), []
    subjects = [_compared_subject(profile, method, clip) for method, clip in jobs]
    for (method, clip), subject, found in zip(
        jobs, subjects, features.measure(profile, subjects), strict=True
    ):
        common = _common(profile, method, clip, subject.inputs["video"])
        common |= {"commit": found.commit}
        rows += [common | entry(name, value, options) for name, value in found.values.items()]
    return rows


def recognised(profile: Profile, jobs: Sequence[tuple[str, Clip]]) -> list[dict]:
    """Rows of ArcFace for every clip and method; none without a face model, or where the render has no face."""
    if not profile.identity.model_pack:
        return []
    length, gate = profile.clips.frames, profile.identity.iou_gate
    rows = []
    for method, clip in track(jobs, "faces"):
        render, output = (_faces(profile, name, clip) for name in ("render", method))
        common = _common(profile, method, clip, store.fingerprint(_path(profile, method, clip)))
        sidecar = store.read_sidecar(profile.layout.faces / method / f"{clip.id}.npz")
        common |= {"commit": sidecar.get("commit", "unknown")}
        pack = {"pack": Path(profile.identity.model_pack).name}
        found = arcface.arcface(render, output, length, gate)
        rows += [common | entry(name, value, pack) for name, value in found.items()]
    return rows


def judged_offline(profile: Profile, jobs: Sequence[tuple[str, Clip]]) -> list[dict]:
    """Rows of the offline judge for every clip and method, render and truth among them; none without its model."""
    if not profile.models.judge:
        return []
    (metric,), length = metrics.OFFLINE, profile.clips.frames
    name, commit = weights.single("models.judge", profile.models.judge)
    revision = models.fingerprint(profile, "judge")
    options = {"model": profile.models.judge, "revision": revision[:12]}
    load, rows = functools.cache(lambda: OfflineJudge(name, commit, models.device(profile))), []
    for method, clip in track(jobs, "offline judge"):
        artefact = store.fingerprint(_path(profile, method, clip))
        settings = {"source_frames": clip.source_frames, "frames": length}
        recipe = store.Recipe(metric.name, OFFLINE_VERSION, settings, {"video": artefact}, model=revision)
        target = profile.layout.offline_judge / method / f"{clip.id}.json"
        frames = partial(_stream, profile, method, clip)
        value, made = _once(target, recipe, lambda frames=frames: offline_judge(load(), frames(), length))
        common = _common(profile, method, clip, artefact) | {"commit": made}
        rows.append(common | entry(metric.name, value, options))
    return rows


def judged(profile: Profile, jobs: Sequence[tuple[str, Clip]]) -> list[dict]:
    """Rows of the judge for every clip and method, render and truth among them, and the profile's real footage.

    None when it does not run.
    """
    metric = gpt_rs.METRIC
    subjects = [_subject(profile, method, clip) for method, clip in jobs]
    subjects += [_footage(profile, path) for path in real.files(profile)]
    if reason := metric.why_not(profile, subjects):
        print(f"judge: {reason}", flush=True)
        return []
    measure, options, rows = metric.ready(profile, subjects), metric.options(profile), []
    for subject in subjects:
        common = {
            "profile": profile.name,
            "method": subject.method,
            "clip": subject.clip,
            "sequence": subject.sequence,
            "subsets": ";".join(subject.subsets),
            "artefact": subject.inputs["output"],
            "commit": store.commit(),
        }
        values = measure(subject, metric.columns)
        rows += [common | entry(name, value, options) for name, value in values.items()]
    return rows


def by_amt(
    load: Callable[[], Amt],
    wanted: Sequence[metrics.Metric],
    frames: Callable[[], Iterator[np.ndarray]],
    times: int,
) -> dict[str, float]:
    """Values of the `wanted` ones of metrics.AMT for one clip, by name; `times`: how often a source frame is shown."""
    return {metric.name: metric.of(frames(), None, times, interpolate=load()) for metric in wanted}


def amt_options(profile: Profile) -> dict[str, str]:
    """What Motion Smoothness by AMT-S depends on, to stand beside it."""
    revision = models.fingerprint(profile, "amt")[:12]
    return {"model": str(profile.models.amt), "revision": revision}


def entry(metric: str, value: float, model: Mapping[str, str] | None = None) -> dict[str, str | float]:
    """What a row says of a metric: its name, the value rounded, and what it depends on beside the clip."""
    options = {**(model or {}), **metrics.BY_NAME[metric].options}
    text = ";".join(f"{key}={option}" for key, option in options.items())
    return {"metric": metric, "value": round(value, 6), "options": text}


def write(target: Path, rows: Sequence[Mapping[str, str | float]]) -> None:
    """Rows as metrics.csv has them, by rename; left alone when nothing changes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS + PROVENANCE, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if not (target.is_file() and target.read_text() == text.getvalue()):
        store.write_text(target, text.getvalue())


def _jobs(profile: Profile, clips: Sequence[Clip]) -> list[tuple[str, Clip]]:
    """Every method with every clip that it has a video of."""
    return [
        (method, clip)
        for method, found in baselines.every(profile).items()
        for clip in found.having(profile, clips)
    ]


def _path(profile: Profile, method: str, clip: Clip) -> Path:
    return baselines.every(profile)[method].path(profile, clip)


def _stream(profile: Profile, method: str, clip: Clip) -> Iterator[np.ndarray]:
    return baselines.every(profile)[method].stream(profile, clip)


def _subject(profile: Profile, method: str, clip: Clip) -> Subject:
    sides = {"output": method, "render": "render"}
    size = profile.clips
    return Subject(
        method=method,
        clip=clip.id,
        frames={side: partial(_stream, profile, of, clip) for side, of in sides.items()},
        inputs={side: store.fingerprint(_path(profile, of, clip)) for side, of in sides.items()},
        source_frames=clip.source_frames,
        count=size.frames,
        times=sampling.repeats(clip, size.frames),
        height=size.height,
        width=size.width,
        sequence=clip.sequence,
        subsets=clip.subsets,
        folder=profile.layout.root,
    )


def _footage(profile: Profile, path: Path) -> Subject:
    """A file of real footage, shown at the clips' size, so that size is not what is rated."""
    return Subject(
        method="real",
        clip=path.stem,
        frames={"output": partial(real.stream, profile, path)},
        inputs={"output": store.fingerprint(path)},
        source_frames=(),
        count=video.probe(path).frames,
        times=1,
        height=profile.clips.height,
        width=profile.clips.width,
        sequence=path.stem,
        subsets=(),
        folder=profile.layout.root,
    )


def _compared_subject(profile: Profile, method: str, clip: Clip) -> features.Subject:
    against = ("render", "truth") if truth.exists(profile, clip) else ("render",)
    return features.Subject(
        method=method,
        clip=clip.id,
        source_frames=clip.source_frames,
        inputs=_inputs(profile, method, clip),
        metrics=[m for m in metrics.FEATURES if _has(profile, method, clip, m)],
        frames=partial(_stream, profile, method, clip),
        against={name: partial(_stream, profile, name, clip) for name in against},
    )


def _inputs(profile: Profile, method: str, clip: Clip) -> dict[str, str]:
    """Fingerprints of a method's video and of what it is compared with."""
    named = {"video": method, "render": "render"}
    if truth.exists(profile, clip):
        named["truth"] = "truth"
    return {key: store.fingerprint(_path(profile, name, clip)) for key, name in named.items()}


def _faces(profile: Profile, method: str, clip: Clip) -> face_pack.Faces:
    length = profile.clips.frames
    wanted = faces.linspace(length) + faces.midpoints(length)
    frames = partial(_stream, profile, method, clip)
    path, kept = _path(profile, method, clip), profile.layout.faces / method / f"{clip.id}.npz"
    return faces.of_video(profile, path, frames, wanted, kept, clip.source_frames)


def _common(profile: Profile, method: str, clip: Clip, artefact: str) -> dict[str, str]:
    """What all rows of a clip and method share."""
    return {
        "profile": profile.name,
        "method": method,
        "clip": clip.id,
        "sequence": clip.sequence,
        "subsets": ";".join(clip.subsets),
        "artefact": artefact,
    }


def _once(target: Path, recipe: store.Recipe, compute: Callable[[], Any]) -> tuple[Any, str]:
    """What `compute` gives, from `target` when nothing it depends on has changed, and the commit that computed it."""
    if not store.is_done(target, recipe):
        with store.writing(target, recipe) as temporary:
            temporary.write_text(json.dumps(compute(), indent=1) + "\n")
    return json.loads(target.read_text()), store.read_sidecar(target).get("commit", "unknown")


def _has(profile: Profile, method: str, clip: Clip, metric: metrics.Metric) -> bool:
    """Nothing is compared with itself; without a truth there is nothing to be near."""
    return metric.against != method and (metric.against != "truth" or truth.exists(profile, clip))


def _check(profile: Profile, jobs: list[tuple[str, Clip]]) -> None:
    size = (profile.clips.frames, profile.clips.height, profile.clips.width)
    for method, clip in jobs:
        if method == "truth":
            continue  # its frames are counted and cropped as they are read
        path = _path(profile, method, clip)
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: {method} has not been run on clip {clip.id}; run the notebooks "
                "before 05_evaluation (or `make reproduce`) first."
            )
        info = video.probe(path)
        if (info.frames, info.height, info.width) != size:
            raise InputError(
                f"{path} has {info.frames} frames of {info.height}x{info.width} and the profile asks for "
                f"{size[0]} of {size[1]}x{size[2]}: delete it and run its stage again."
            )
