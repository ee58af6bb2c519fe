"""The notebooks: their form in git, what each depends on, and how one ends; test_one_file.py runs the whole series."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from rmkit import profile
from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.paths import REPOSITORY
from rmkit.pipeline import notebooks

BOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MOST_CELLS, MOST_LINES = 15, 20


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_the_series_is_what_lies_in_the_folder() -> None:
    assert BOOKS == [notebook.path for notebook in notebooks.series()]


def test_a_notebook_says_what_it_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clips, evaluation = (notebooks.series()[i] for i in (1, 5))
    assert clips.writes == ("data", "truth", "cuts", "clips") and not clips.measures
    assert "metrics.csv" in evaluation.writes and evaluation.measures
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    for name in ("10_b", "06_a", "notes"):
        (tmp_path / f"{name}.ipynb").write_text('{"cells": [], "metadata": {}}')
    assert [notebook.name for notebook in notebooks.series()] == ["06_a", "10_b"]
    assert notebooks.series()[0].writes == ()


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_form(path: Path) -> None:
    code = cells(path)
    assert len(code) <= MOST_CELLS
    for cell in code:
        assert not cell["outputs"] and cell["execution_count"] is None
        assert len("".join(cell["source"]).splitlines()) <= MOST_LINES
    tagged = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
    assert tagged == code[:1]
    assert "".join(tagged[0]["source"]).startswith('profile = "mini"')
    assert "profiles.load(profile)" in "".join(code[1]["source"])
    content = json.loads(path.read_text())
    assert "widgets" not in content["metadata"]
    text = ["".join(cell["source"]) for cell in cells(path, "markdown")]
    assert text[0].startswith("# ") and "| Paper |" in text[0] and "| Time |" in text[0]
    assert "Try next" in text[-1] and "Written" in text[-1]


@pytest.fixture
def series(tiny_profile: profile.Profile, monkeypatch: pytest.MonkeyPatch) -> Iterator[profile.Profile]:
    """The tiny profile with results in the repository, where other processes find them."""
    content = tiny_profile.model_dump(mode="json")
    content["name"] = f"pytest-{os.getpid()}"
    monkeypatch.undo()
    made = profile.Profile.model_validate(content)
    yield made
    shutil.rmtree(made.layout.root, ignore_errors=True)


def test_clips_that_a_user_adds_are_measured(tiny_profile: profile.Profile, tmp_path: Path) -> None:
    """Of another method, or real footage for the judge: what has run before must run again."""
    folders = {"folders": {"mine": "My method"}}
    settings = tiny_profile.model_copy(
        update={
            "baselines": tiny_profile.baselines.model_copy(update=folders),
            "judge": tiny_profile.judge.model_copy(update={"real": str(tmp_path)}),
        }
    )
    series = notebooks.series()
    number = next(i for i, notebook in enumerate(series) if notebook.name == "05_evaluation")
    others, last = series[:number], series[number]
    seen = [notebooks._recipe(settings, last, others).inputs]
    for folder in (
        settings.layout.enhanced / "mine",
        settings.layout.enhanced / "lucy_edit",
        tmp_path,
    ):
        video.write(folder / "a.mp4", np.zeros((2, 32, 48, 3), np.uint8), 16)
        seen.append(notebooks._recipe(settings, last, others).inputs)
    assert len({inputs["added"] for inputs in seen}) == 4
    assert all("added" not in notebooks._recipe(settings, other, ()).inputs for other in others)


def test_a_failing_cell_leaves_no_executed_copy(series: profile.Profile, tmp_path: Path, monkeypatch) -> None:
    book = json.loads((REPOSITORY / "notebooks" / "00_start_here.ipynb").read_text())
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)

    def write(source: str) -> None:
        book["cells"] = book["cells"][:4]
        book["cells"][3]["source"] = source
        (tmp_path / "00_start_here.ipynb").write_text(json.dumps(book))

    write('from rmkit.errors import InputError\n\nraise InputError("the clip is upside down; turn it.")')
    with pytest.raises(InputError, match=r"^the clip is upside down; turn it\.$"):
        notebooks.run(series)
    write("1 / 0")
    with pytest.raises(notebooks.NotebookError, match=r"ZeroDivisionError: division by zero$"):
        notebooks.run(series)
    copy = notebooks.executed(series, notebooks.series()[0])
    assert not copy.exists() and not store.sidecar_of(copy).exists()
    assert copy.with_name("00_start_here.failed.ipynb").exists()


def test_a_missing_checkpoint_stops_the_series_before_it_starts(series: profile.Profile) -> None:
    content = series.model_dump(mode="json")
    content["models"]["vace"] = "no/such folder"
    with pytest.raises(InputError, match="no/such folder"):
        notebooks.run(profile.Profile.model_validate(content))


RUNNER = """
import sys
from pathlib import Path
from rmkit.pipeline import notebooks
book, target = Path(sys.argv[1]), Path(sys.argv[2])
notebooks._execute(notebooks.Notebook(book), "mini", target, target.with_suffix(".failed"))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_notebook_ends_with_its_runner(tmp_path: Path, how: signal.Signals) -> None:
    """Two must not write to the same folder at once, however the first was ended."""
    book = json.loads((REPOSITORY / "notebooks" / "00_start_here.ipynb").read_text())
    book["cells"] = book["cells"][1:2] + book["cells"][3:4]
    running = tmp_path / "running"
    book["cells"][1]["source"] = (
        f"import os, pathlib, time\npathlib.Path({str(running)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}}')\n"
        "time.sleep(300)"
    )
    path = tmp_path / "00_sleeps.ipynb"
    path.write_text(json.dumps(book))
    command = [sys.executable, "-c", RUNNER, str(path), str(tmp_path / "copy.ipynb")]
    # A shell's background jobs ignore the interrupt, and what they start inherits that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    runner = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, preexec_fn=heard)
    assert _within(180, lambda: running.is_file() and running.read_text())
    runner.send_signal(how)
    assert runner.wait(120) != 0
    kernel, worker = (int(pid) for pid in running.read_text().split())
    assert _within(60, lambda: not any(_runs(pid) for pid in (kernel, worker)))
    assert not (tmp_path / "copy.failed").exists()


def _within(seconds: float, holds: Callable[[], object]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.1)
    return False


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
