"""The series of notebooks, run in order, each in a process of its own (papermill; not in the paper).

Reads notebooks/*.ipynb; writes results/<profile>/notebooks/<name>.ipynb (executed copies, after success only),
times.json (seconds and peak memory of each), and at the end report.md once more, with all times in it.
"""

import ctypes
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, methods, report
from rmkit.kit import machine, models, store
from rmkit.metrics import gpt_rs
from rmkit.paths import REPOSITORY, resolve
from rmkit.profile import Profile

VERSION = 1
FOLDER = REPOSITORY / "notebooks"
TAIL = 12  # lines of a failing cell's traceback that are shown
SMALL = 2**20  # bytes; larger outputs are told apart by size and time instead of content


class NotebookError(Exception):
    """A cell failed for a reason that is not the user's to mend; the message ends in its traceback."""


@dataclass(frozen=True)
class Notebook:
    """One of the series and what it writes under results/<profile>/."""

    name: str
    outputs: tuple[str, ...]
    measures: bool = False  # whether its result hangs on there being a judge, and on clips that a user adds

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.ipynb"


SERIES = (
    Notebook("00_start_here", ()),
    Notebook("01_data_prep", ("data", "truth", "clips")),
    Notebook("02_anchoring", ("anchors",)),
    Notebook("03_propagation_ablations", ("structure", "propagated")),
    Notebook("04_iclora_training", ("pairs", "adapters", "enhanced/realmaster")),
    Notebook(
        "05_evaluation",
        ("enhanced/colour_transfer", "enhanced/vae_ceiling", "metrics.csv", "tables", "figures"),
        measures=True,
    ),
)


def run(profile: Profile) -> Path:
    """Run what is not up to date, stop at the first failure; returns the report's path.

    Raises InputError with the sentence of a cell that raised one, NotebookError for any other failure.
    """
    for which in models.named(profile):
        models.check(profile, which)  # before the first notebook, not in the second
    parameter, ran = _parameter(profile), False
    for i, notebook in enumerate(SERIES):
        copy = executed(profile, notebook)
        recipe = _recipe(profile, i)
        if store.is_done(copy, recipe) and _listing(profile, notebook) == _recorded(copy):
            print(f"{notebook.name}: up to date", flush=True)
            continue
        print(f"{notebook.name}: running", flush=True)
        facts: dict[str, Any] = {}
        with store.writing(copy, recipe, facts=facts) as temporary:
            seconds, peak = _execute(profile, notebook, parameter, temporary)
            facts |= {"outputs": _listing(profile, notebook), "peak_mib": round(peak)}
        _record(profile, notebook, seconds, peak)
        print(f"{notebook.name}: done in {seconds:.0f} s, at most {peak:.0f} MiB", flush=True)
        ran = True
    if ran or not profile.layout.report.is_file():
        report.write(profile)  # the last notebook wrote it before its own time was known
    print(f"report: {profile.layout.report}", flush=True)
    return profile.layout.report


def executed(profile: Profile, notebook: Notebook) -> Path:
    """Where the executed copy of a notebook is."""
    return profile.layout.notebooks / f"{notebook.name}.ipynb"


def _parameter(profile: Profile) -> str:
    """What the notebooks are told: the shipped profile's name, or a file that holds the profile."""
    shipped = profiles.PROFILES / f"{profile.name}.yaml"
    if shipped.is_file() and profiles.load(profile.name) == profile:
        return profile.name
    path = profile.layout.root / "profile.yaml"
    text = yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False)
    if not (path.is_file() and path.read_text() == text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(path)


def _recipe(profile: Profile, index: int) -> store.Recipe:
    """Everything a notebook's result hangs on: itself, the code, the profile, models, data, earlier outputs.

    Errs on the side of running again: a stage that finds its artefacts done takes no time.
    """
    notebook = SERIES[index]
    inputs = {
        "notebook": store.fingerprint(notebook.path),
        "code": _sources(),
        "models": "+".join(models.fingerprint(profile, which) for which in models.named(profile)),
    }
    for key, folder in (("bundle", profile.data.bundle), ("root", profile.data.root)):
        if folder:
            inputs[key] = _digest([resolve(folder)])
    for earlier in SERIES[:index]:
        inputs[earlier.name] = _listing(profile, earlier)
    if notebook.measures:
        inputs["judge"] = evaluate.why_no_ratings(profile) or store.fingerprint(gpt_rs.PROMPTS)
        added = [profile.layout.enhanced / method for method in methods.users_own(profile)]
        inputs["added"] = _digest([*added, *gpt_rs.footage(profile)])
    return store.Recipe("notebooks", VERSION, profile.model_dump(mode="json"), inputs)


def _sources() -> str:
    digest = hashlib.sha256()
    for file in sorted((REPOSITORY / "rmkit").rglob("*.py")):
        digest.update(file.relative_to(REPOSITORY).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:32]


def _listing(profile: Profile, notebook: Notebook) -> str:
    """Fingerprint of what a notebook wrote; changes when a file of it is edited or deleted."""
    return _digest([profile.layout.root / name for name in notebook.outputs])


def _digest(paths: list[Path]) -> str:
    """Of small files the content; of large ones size and time, as terabytes of clips are not read again."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.is_file() or file.name.startswith(".") or _is_sidecar(file):
                continue
            facts = file.stat()
            large = facts.st_size > SMALL
            what = f"{facts.st_size} {facts.st_mtime_ns}" if large else store.fingerprint(file)
            digest.update(f"{file.relative_to(path.parent).as_posix()} {what}\n".encode())
    return digest.hexdigest()[:32]


def _is_sidecar(file: Path) -> bool:
    return file.suffix == ".json" and file.with_suffix("").exists()


def _recorded(copy: Path) -> str | None:
    return store.read_sidecar(copy).get("outputs")


def _execute(profile: Profile, notebook: Notebook, parameter: str, target: Path) -> tuple[float, float]:
    """Run one notebook into `target`; returns seconds and MiB of its largest process."""
    command = [sys.executable, "-m", "papermill", str(notebook.path), str(target), "-k", "python3"]
    command += ["-r", "profile", parameter, "--cwd", str(REPOSITORY), "--no-progress-bar"]
    command += ["--log-level", "ERROR", "--stdout-file", "-"]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    errors = target.with_name(f".{notebook.name}.stderr")
    started = time.time()
    with errors.open("w+") as stream:
        process = subprocess.Popen(
            command, env=variables, stderr=stream, cwd=REPOSITORY, preexec_fn=_die_with_parent
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            errors.unlink(missing_ok=True)
        process.returncode = os.waitstatus_to_exitcode(status)
        stream.seek(0)
        said = stream.read()
    if process.returncode:
        _keep_failed(profile, notebook, target)
        _explain(notebook, target, said)
    _failed(profile, notebook).unlink(missing_ok=True)
    # Linux counts in KiB, macOS in bytes.
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return time.time() - started, peak


def _die_with_parent() -> None:
    """On Linux, have the notebook end with a runner that is killed: two must not run at once."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _explain(notebook: Notebook, target: Path, said: str) -> None:
    """Raise what the failing cell raised: its InputError, or a NotebookError with the traceback's tail."""
    error = _error_of(target)
    if error is None:
        tail = "\n".join(said.strip().splitlines()[-TAIL:])
        raise NotebookError(f"{notebook.name} failed outside its cells:\n{tail}")
    if error["ename"] == "InputError":
        raise InputError(error["evalue"])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"])).splitlines()
    raise NotebookError(f"{notebook.name} failed:\n" + "\n".join(lines[-TAIL:]))


def _error_of(path: Path) -> dict[str, Any] | None:
    """The error output of an executed notebook, if it has one."""
    if not path.is_file():
        return None
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                return output
    return None


def _failed(profile: Profile, notebook: Notebook) -> Path:
    return profile.layout.notebooks / f"{notebook.name}.failed.ipynb"


def _keep_failed(profile: Profile, notebook: Notebook, target: Path) -> None:
    """A failed copy under another name, to look at; the executed one is only there after success."""
    if target.is_file():
        _failed(profile, notebook).write_bytes(target.read_bytes())


def _record(profile: Profile, notebook: Notebook, seconds: float, peak: float) -> None:
    facts = {
        "seconds": round(seconds, 1),
        "peak_mib": round(peak),
        "device": machine.device_name(profile),
    }
    recorded = {**machine.notebook_times(profile), notebook.name: facts}
    ordered = {n.name: recorded[n.name] for n in SERIES if n.name in recorded}
    store.write_json(profile.layout.notebooks / "times.json", ordered)
