"""What this machine has and what a profile needs: asked before hours are spent, not after.

Asks the data source, models, metrics and methods themselves, which read headers of weights only; writes nothing but a
table on standard output.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rmkit import baselines, metrics, sources
from rmkit.baselines import Made, real
from rmkit.demos import carla
from rmkit.errors import InputError
from rmkit.kit import devices, face_pack, keys, machine, models
from rmkit.kit.accelerators import Role
from rmkit.method import wan
from rmkit.metrics import Metric, gpt_rs
from rmkit.paths import REPOSITORY
from rmkit.pipeline import fit, plan
from rmkit.pipeline.plan import Step
from rmkit.profile import Profile


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
    # The identity filter's model, without which the filter does nothing.
    faceless = f"{face_pack.NO_PACK}; every pair is kept, and ArcFace is not measured"
    # A metric without its model is not measured, and stops nothing; with a broken one the run would stop.
    with_model = [metric for metric in metrics.every() if metric.needs_model]
    rows = plan.steps(profile)
    return [
        *_software(),
        *_hardware(profile, rows),
        _asked("data", sources.describe, profile),
        _asked("07_carla", carla.describe, profile, unused=carla.why_not(profile)),
        _asked("judge", _judge, profile, unused=gpt_rs.METRIC.why_not(profile)),
        _asked("face model", _faces, profile, unused=None if profile.identity.model_pack else faceless),
        *(_asked(f"model {role}", _model, profile, role) for role in models.ROLES),
        *(_asked(f"model {m.name}", _metric, profile, m, unused=m.why_not(profile)) for m in with_model),
        _training(profile),
        # What the run would refuse for: a GPU that is there and too small is not ok.
        *(
            Finding(f"fits: {said.split()[0]}", said, False, needed=False)
            for said in fit.misfits(profile, rows)
        ),
        *(Finding("download", said, False, needed=False) for said in _downloads(profile, rows)),
        *(_asked(name, _method, profile, method) for name, method in baselines.asked(profile).items()),
    ]


def versions(lock: Path = REPOSITORY / "requirements.lock") -> list[str]:
    """Packages that are absent or differ from the lock, as sentences; a local suffix (+cpu) is no difference."""
    from packaging.requirements import Requirement

    differing = []
    for line in lock.read_text().splitlines():
        if not (line := line.partition("#")[0].strip()):
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


def _software() -> list[Finding]:
    import av

    version = ".".join(map(str, sys.version_info[:3]))
    differing = versions()
    shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
    have = {"libx264", "libx264rgb"} <= av.codecs_available
    video = f"PyAV {av.__version__}, libx264rgb{'' if have else ' absent'}"
    return [
        Finding("Python", f"{version} in {sys.prefix}", sys.version_info >= (3, 11)),
        Finding("packages", shown or "as in requirements.lock", not differing, needed=False),
        Finding("lossless video", video, have),
    ]


def _hardware(profile: Profile, rows: list[Step]) -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        gpu = Finding("GPU", f"{device.name}, {device.total_memory / 2**30:.0f} GB", True)
    else:
        is_fixed = profile.models.device == "cuda"
        missing = is_fixed or profile.models.dtype == "bfloat16"
        use = ", and this profile needs one" if missing else ": not needed"
        gpu = Finding("GPU", f"no CUDA GPU that torch can see{use}", not missing, needed=is_fixed)
    root = profile.layout.root
    free = shutil.disk_usage(next(f for f in (root, *root.parents) if f.exists())).free / 1e9
    # What is there already has taken its share.
    left = plan.gigabytes(rows) - sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) / 1e9
    space = f"{free:.1f} GB free, about {max(left, 0):.1f} GB more needed"
    return [Finding("machine", machine.machine(), True), gpu, Finding("disk", space, free > left)]


def _downloads(profile: Profile, rows: list[Step]) -> list[str]:
    """Models whose weights are not here, though an index of theirs may be; some ask for their licence to be accepted."""
    return [
        f"{name}: weights are not here, {f'about {size / 2**30:.0f} GiB' if size else 'of a size that is not known'}; "
        f"accept its licence at huggingface.co/{name} where it asks for that"
        for name, size in fit.downloads(profile, rows).items()
    ]


def _asked(what: str, answer: Callable[..., str], *arguments: object, unused: str | None = None) -> Finding:
    """What a part of the kit says of itself, or its InputError, which would stop a run.

    unused: why the profile does without it, which stops nothing.
    """
    if unused:
        return Finding(what, unused, False, needed=False)
    try:
        return Finding(what, answer(*arguments), True)
    except InputError as error:
        return Finding(what, str(error), False)


def _judge(profile: Profile) -> str:
    keys.read(gpt_rs.KEY)
    real.check(profile)
    return gpt_rs.judging(profile)


def _faces(profile: Profile) -> str:
    face_pack.check(profile)
    return ": ".join(filter(None, [profile.identity.model_pack, face_pack.licence(profile)]))


def _model(profile: Profile, role: Role) -> str:
    models.check(profile, role)
    return getattr(profile.models, role)


def _metric(profile: Profile, metric: Metric) -> str:
    metric.check(profile, profile.clips.height, profile.clips.width)
    return str(metric.model(profile))


def _training(profile: Profile) -> Finding:
    def answer() -> str:
        devices.require(profile)
        return ", ".join(f"{expert.name}: {expert.steps} steps" for expert in wan.experts(profile))

    try:
        return _asked("training", answer)
    except OSError as error:  # a model that is not there has a line of its own
        return Finding("training", str(error), True)


def _method(profile: Profile, method: Made) -> str:
    """How many clips an external method has left to make, once it can."""
    done = len(list((profile.layout.enhanced / method.name).glob("*.mp4")))
    left = max(profile.data.validation_clips - done, 0)
    if left:
        method.check(profile, left)
    return f"{left} clips left to make"
