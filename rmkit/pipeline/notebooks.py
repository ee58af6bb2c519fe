"""The series of notebooks, run in order, each in a process of its own (papermill; not in the paper).

Reads notebooks/NN_*.ipynb; writes results/<profile>/notebooks/<name>.ipynb (executed copies, after success only),
times.json (seconds and peak memory of each), and at the end report.md and index.html once more, with all times in them.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from rmkit import baselines, metrics, sources
from rmkit import profile as profiles
from rmkit.baselines import real
from rmkit.errors import InputError
from rmkit.evaluation import report
from rmkit.kit import claims, depth, machine, models, revision, store, workers
from rmkit.paths import REPOSITORY, visible
from rmkit.pipeline import changes, fit, plan
from rmkit.profile import Profile

VERSION = 1
FOLDER = REPOSITORY / "notebooks"
TAIL = 12  # lines of a failing cell's traceback that are shown
SMALL = 2**20  # bytes; larger outputs are told apart by size and time instead of content


class NotebookError(Exception):
    """A cell failed for a reason that is not the user's to mend; the message ends in its traceback."""


@dataclass(frozen=True)
class Notebook:
    """One of the series: `writes` and `measures` stand in its own metadata, under `rmkit`."""

    path: Path
    writes: tuple[str, ...] = ()  # files and folders under results/<profile>/
    measures: bool = False  # whether its result depends on the metrics' models, and on clips that a user adds

    @property
    def name(self) -> str:
        return self.path.stem


def series() -> tuple[Notebook, ...]:
    """The notebooks in the order in which they run, which is that of their names; InputError for a file that is none."""
    found = []
    for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        content = store.read_json(path, "save it again, or move it away")
        if not isinstance(content, dict) or not {"cells", "metadata"} <= content.keys():
            raise InputError(f"{path} is no notebook: save it again, or move it away.")
        facts = content["metadata"].get("rmkit", {})
        found.append(Notebook(path, tuple(facts.get("writes", ())), facts.get("measures", False)))
    if not found:
        raise InputError(f"{FOLDER} holds no notebook of the series (NN_name.ipynb): restore it with git.")
    return tuple(found)


def run(profile: Profile, anyway: bool = False) -> Path:
    """Run what is not up to date, stop at the first failure; returns the report's path.

    Raises InputError where the run does not fit this machine (not with `anyway`) and with the sentence of a cell that raised
    one, NotebookError for any other failure.
    """
    if not anyway:
        fit.require(profile, plan.steps(profile))
    for role in models.ROLES:
        models.check(profile, role)  # before the first notebook, not in the second
    if profile.structure.depth == "depth_anything" and "depth" in profile.propagation.variants:
        depth.source(profile)
    for metric in metrics.with_models(profile):
        metric.check(profile, profile.clips.height, profile.clips.width)
    parameter, books, ran = _parameter(profile), series(), False
    changes.begin(profile)
    for i, notebook in enumerate(books):
        copy = executed(profile, notebook)
        # Another run on the same folder may be at it: then it is found done.
        with claims.held(copy, wait=True):
            recipe = _recipe(profile, notebook, books[:i])
            if (
                store.is_done(copy, recipe)
                and _listing(profile, notebook) == store.read_sidecar(copy)["outputs"]
            ):
                print(f"{notebook.name}: up to date", flush=True)
                continue
            workers.start()  # one cluster for all notebooks
            print(f"{notebook.name}: running", flush=True)
            started, facts = time.monotonic(), {}
            with store.writing(copy, recipe, facts=facts) as temporary:
                peak = _execute(notebook, parameter, temporary, copy.with_suffix(".failed.ipynb"))
                facts |= {"outputs": _listing(profile, notebook), "peak_mib": round(peak)}
            seconds = time.monotonic() - started
            times = machine.notebook_times(profile)
            times[notebook.name] = {
                "seconds": round(seconds, 1),
                "peak_mib": round(peak),
                "device": machine.device_name(profile),
            }
            ordered = {book.name: times[book.name] for book in books if book.name in times}
            store.write_json(profile.layout.notebooks / "times.json", ordered)
            print(f"{notebook.name}: done in {seconds:.0f} s, at most {peak:.0f} MiB", flush=True)
            ran = True
    page = profile.layout.root / "index.html"
    if ran or not (profile.layout.report.is_file() and page.is_file()):
        report.write(profile)  # the last notebook wrote it before its own time was known
    print(f"report: {page}", flush=True)
    return profile.layout.report


def executed(profile: Profile, notebook: Notebook) -> Path:
    """Where the executed copy of a notebook is."""
    return profile.layout.notebooks / notebook.path.name


def _parameter(profile: Profile) -> str:
    """What the notebooks are told: the shipped profile's name, or a file that holds the profile."""
    shipped = profiles.PROFILES / f"{profile.name}.yaml"
    if shipped.is_file() and profiles.load(profile.name).model_dump() == profile.model_dump():
        return profile.name
    path = profile.layout.settings
    text = profiles.text(profile)
    if not (path.is_file() and path.read_text() == text):
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write_text(path, text)
    return str(path)


def _recipe(profile: Profile, notebook: Notebook, earlier: Sequence[Notebook]) -> store.Recipe:
    """Everything a notebook's result depends on: itself, the code, the profile, models, data, earlier outputs.

    Errs on the side of running again: a stage that finds its artefacts done takes no time.
    """
    inputs = {
        "notebook": revision.of_notebook(notebook.path),
        "code": _digest(visible(REPOSITORY / "rmkit", "*.py"), REPOSITORY),
        "models": "+".join(models.fingerprint(profile, role) for role in models.ROLES),
    }
    places = {"data": profile.data, "carla": profile.carla}
    inputs |= {key: sources.digest(data) for key, data in places.items() if data}
    inputs |= {before.name: _listing(profile, before) for before in earlier}
    if notebook.measures:
        for metric in metrics.every():
            inputs[f"metric {metric.name}"] = metric.why_not(profile) or json.dumps(
                [metric.version, metric.settings(profile), metric.fingerprint(profile)], default=str
            )
        known = baselines.every(profile)
        added = [profile.layout.enhanced / name for name, method in known.items() if method.is_users(profile)]
        inputs["added"] = _digest([*added, *real.files(profile)])
    return store.Recipe("notebooks", VERSION, profile.model_dump(mode="json"), inputs)


def _listing(profile: Profile, notebook: Notebook) -> str:
    """Fingerprint of what a notebook wrote; changes when a file of it is edited or deleted."""
    return _digest([profile.layout.root / name for name in notebook.writes])


def _digest(paths: Iterable[Path], root: Path | None = None) -> str:
    """Of small files the content; of large ones size and time, as terabytes of clips are not read again.

    Names count from `root`, else from the folder that holds the path.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        for file in visible(path) if path.is_dir() else [path]:
            is_sidecar = file.suffix == ".json" and file.with_suffix("").exists()
            if not file.is_file() or file.name.startswith(".") or is_sidecar:
                continue
            stat = file.stat()
            what = f"{stat.st_size} {stat.st_mtime_ns}" if stat.st_size > SMALL else store.fingerprint(file)
            digest.update(f"{file.relative_to(root or path.parent).as_posix()} {what}\n".encode())
    return digest.hexdigest()[:32]


def _execute(notebook: Notebook, parameter: str, target: Path, failed: Path) -> float:
    """Run one notebook into `target`; returns MiB of its largest process.

    The copy of a notebook that failed is moved to `failed`, to be looked at.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "papermill"])  # once for all notebooks: it takes seconds
    receiving, sending = context.Pipe(duplex=False)
    given = notebook.path, target, parameter, dict(os.environ), sending
    process = context.Process(target=_work, args=given, daemon=True)
    process.start()
    sending.close()
    try:
        came = receiving.recv()
    except EOFError:
        came = NotebookError(f"{notebook.name} ended without a word: the machine may have run out of memory.")
    finally:
        process.terminate()
        process.join()
    if isinstance(came, Exception):
        if target.is_file():
            target.replace(failed)
        raise came
    failed.unlink(missing_ok=True)
    return came


def _work(path: Path, target: Path, parameter: str, environment: dict[str, str], sending: Connection) -> None:
    """The process of one notebook: sends back MiB of the largest process, or the exception to be raised.

    environment: the runner's as it is now; the server that forks this process has that of the first notebook.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner is interrupted too, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import resource

    import papermill
    from papermill.exceptions import PapermillExecutionError

    os.environ.clear()
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), environment.get("PYTHONPATH")]))
    os.environ.update(environment | {"PYTHONPATH": paths})
    try:
        papermill.execute_notebook(
            path,
            target,
            parameters={"profile": parameter},
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            cwd=REPOSITORY,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel warns of its sockets and of its own end
        )
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            return sending.send(InputError(error.evalue))
        return sending.send(NotebookError(f"{path.stem} failed:\n{_tail(str(error))}"))
    except Exception:
        said = _tail(traceback.format_exc())
        return sending.send(NotebookError(f"{path.stem} failed outside its cells:\n{said}"))
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    sending.send(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _end_with_parent() -> None:
    """End with a runner that is killed, and the kernel, which watches its parent, ends with this: two must not run."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL:])
