"""What this machine has and what a profile needs: asked before hours are spent, not after.

Reads the lock, the bundle and the model folders (headers only); writes nothing but a table on standard output.
"""

import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rmkit import baselines, metrics, sources
from rmkit.baselines import Made, real
from rmkit.errors import InputError
from rmkit.kit import face_pack, keys, machine, models
from rmkit.method import devices, wan
from rmkit.metrics import Metric, gpt_rs
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile

STORED = 0.6  # of raw frames, what lossless video takes
COPIES = {
    "train": 4,
    "validation": 10,
}  # videos a clip leaves: render, structure, variants, enhanced, references
FIXED_GB = 0.5  # adapters, latents, notebooks


@dataclass(frozen=True)
class Finding:
    """One line of the table: `needed` findings that are not `ok` stop a run."""

    what: str
    found: str
    ok: bool
    needed: bool = True


def show(profile: Profile) -> int:
    """Print the table; returns 0, or 2 when something needed is missing."""
    findings = check(profile)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark = "ok" if finding.ok else "MISSING" if finding.needed else "note"
        print(f"{mark:8}{finding.what:{width}}  {finding.found}")
    return 0 if all(finding.ok for finding in findings if finding.needed) else 2


def require(profile: Profile) -> None:
    """Raise InputError with the first thing that would stop a run of this profile."""
    for finding in check(profile):
        if finding.needed and not finding.ok:
            raise InputError(f"{finding.what}: {finding.found}")


def check(profile: Profile) -> list[Finding]:
    """All findings, machine first, then data and models."""
    return [
        _python(),
        _packages(),
        _video(),
        Finding("machine", machine.machine(), True),
        _gpu(profile),
        _disk(profile),
        _data(profile),
        _judge(profile),
        _faces(profile),
        *(_model(profile, which) for which in models.NAMED),
        *(_metric(profile, metric) for metric in metrics.with_models(profile)),
        _training(profile),
        *(_asked(profile, method) for method in baselines.asked(profile).values()),
    ]


def gigabytes(profile: Profile) -> float:
    """About how much disk a run of the profile fills."""
    size = profile.clips
    raw = size.frames * size.height * size.width * 3 * STORED / 1e9
    held = COPIES["validation"] + len(baselines.asked(profile))
    return FIXED_GB + raw * (
        COPIES["train"] * profile.data.train_clips + held * profile.data.validation_clips
    )


def versions(lock: Path = REPOSITORY / "requirements.lock") -> list[str]:
    """Packages that are absent or differ from the lock, as sentences; a local suffix (+cpu) is no difference."""
    from packaging.requirements import Requirement

    differing = []
    for line in lock.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        wanted = str(requirement.specifier).removeprefix("==")
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = "absent"
        if found.partition("+")[0] != wanted:
            differing.append(f"{requirement.name} {found} (lock: {wanted})")
    return differing


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", f"{version} in {sys.prefix}", sys.version_info >= (3, 11))


def _packages() -> Finding:
    differing = versions()
    shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
    return Finding("packages", shown or "as in requirements.lock", not differing, needed=False)


def _video() -> Finding:
    import av

    have = {"libx264", "libx264rgb"} <= av.codecs_available
    return Finding(
        "lossless video", f"PyAV {av.__version__}, libx264rgb {'' if have else 'absent'}".strip(), have
    )


def _gpu(profile: Profile) -> Finding:
    import torch

    if not torch.cuda.is_available():
        missing = profile.models.device == "cuda" or profile.models.dtype == "bfloat16"
        text = "no CUDA GPU that torch can see" + (
            ", and this profile needs one" if missing else ": not needed"
        )
        return Finding("GPU", text, not missing, needed=profile.models.device == "cuda")
    device = torch.cuda.get_device_properties(0)
    return Finding("GPU", f"{device.name}, {device.total_memory / 2**30:.0f} GB", True)


def _disk(profile: Profile) -> Finding:
    folder = profile.layout.root
    while not folder.exists():
        folder = folder.parent
    free, wanted = shutil.disk_usage(folder).free / 1e9, gigabytes(profile)
    # What is there already has taken its share.
    done = sum(f.stat().st_size for f in profile.layout.root.rglob("*") if f.is_file()) / 1e9
    text = f"{free:.1f} GB free, about {max(wanted - done, 0):.1f} GB more needed"
    return Finding("disk", text, free > wanted - done)


def _data(profile: Profile) -> Finding:
    try:
        return Finding("data", sources.describe(profile), True)
    except InputError as error:
        return Finding("data", str(error), False)


def _judge(profile: Profile) -> Finding:
    text = gpt_rs.judging(profile)
    if gpt_rs.METRIC.why_not(profile):
        return Finding("judge", text, False, needed=False)
    try:
        keys.read(gpt_rs.KEY)
        real.check(profile)
    except InputError as error:
        return Finding("judge", str(error), False)
    return Finding("judge", text, True)


def _faces(profile: Profile) -> Finding:
    if not profile.identity.model_pack:
        text = f"{face_pack.NO_PACK}; every pair is kept, and ArcFace is not measured"
        return Finding("face model", text, False, needed=False)
    try:
        face_pack.check(profile)
    except InputError as error:
        return Finding("face model", str(error), False)
    terms = face_pack.licence(profile)
    return Finding("face model", profile.identity.model_pack + (f": {terms}" if terms else ""), True)


def _model(profile: Profile, which: models.Which) -> Finding:
    try:
        models.check(profile, which)
    except InputError as error:
        return Finding(f"model {which}", str(error), False)
    return Finding(f"model {which}", getattr(profile.models, which), True)


def _metric(profile: Profile, metric: Metric) -> Finding:
    try:
        metric.check(profile, profile.clips.height, profile.clips.width)
    except InputError as error:
        return Finding(f"model {metric.name}", str(error), False)
    return Finding(f"model {metric.name}", str(metric.model(profile)), True)


def _training(profile: Profile) -> Finding:
    try:
        devices.require(profile)
        names = ", ".join(f"{expert.name}: {expert.steps} steps" for expert in wan.experts(profile))
    except (InputError, OSError) as error:  # a model that is not there has a line of its own
        return Finding("training", str(error), not isinstance(error, InputError))
    return Finding("training", names, True)


def _asked(profile: Profile, method: Made) -> Finding:
    name = method.name
    done = len(list((profile.layout.enhanced / name).glob("*.mp4")))
    left = max(profile.data.validation_clips - done, 0)
    try:
        if left:
            method.check(profile, left)
    except InputError as error:
        return Finding(name, str(error), False)
    return Finding(name, f"{left} clips left to make", True)
