"""The notebooks: their form in git, and the whole series at smoke size."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rmkit import profile
from rmkit.errors import InputError
from rmkit.evaluation import statistics
from rmkit.kit import machine, store, video
from rmkit.paths import REPOSITORY
from rmkit.pipeline import notebooks
from rmkit.sources import sailvos

BOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MOST_CELLS, MOST_LINES = 15, 20


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_the_series_is_what_lies_in_the_folder() -> None:
    assert [path.stem for path in BOOKS] == [notebook.name for notebook in notebooks.SERIES]


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
    """The tiny profile with results in the repository, where other processes find them, and a truth."""
    content = tiny_profile.model_dump(mode="json")
    content["name"] = f"pytest-{os.getpid()}"
    content["data"]["root"] = str(tiny_profile.data_root)
    monkeypatch.undo()
    made = profile.Profile.model_validate(content)
    for sequence in sailvos.sequences(made.data_root, "validation"):
        frames = sequence.frames(range(len(sequence.images)))
        truth = (frames * np.array([0.9, 0.95, 1.0])).astype(np.uint8)
        video.write(made.layout.truth / f"{sequence.id}.mp4", truth, sequence.fps)
    yield made
    shutil.rmtree(made.layout.root)


def test_the_series_runs_and_then_does_nothing(
    series: profile.Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    report = notebooks.run(series)
    text = report.read_text()
    assert "Table 2" in text and "does not hold" in text and "| 05_evaluation |" in text
    frame = statistics.load(series)
    assert set(frame.method) >= {"render", "colour_transfer", "vae_ceiling", "edges", "realmaster"}
    for notebook in notebooks.SERIES:
        copy = notebooks.executed(series, notebook)
        assert any(cell["outputs"] for cell in cells(copy))
        assert machine.notebook_times(series)[notebook.name]["peak_mib"] > 50

    def state() -> dict[str, int]:
        files = (p for p in series.layout.root.rglob("*") if p.is_file())
        return {str(p): p.stat().st_mtime_ns for p in files}

    before = state()
    capsys.readouterr()
    notebooks.run(series)
    assert capsys.readouterr().out.count("up to date") == len(notebooks.SERIES)
    assert state() == before

    # One clip is lost: the notebook that makes it runs again, and the values stay.
    values = series.layout.metrics.read_bytes()
    lost = next((series.layout.enhanced / "realmaster").glob("*.mp4"))
    lost.unlink()
    notebooks.run(series)
    out = capsys.readouterr().out
    assert "03_propagation_ablations: up to date" in out and "04_iclora_training: done" in out
    assert lost.is_file() and series.layout.metrics.read_bytes() == values


def test_clips_that_a_user_adds_are_measured(tiny_profile: profile.Profile, tmp_path: Path) -> None:
    """Of another method, or real footage for the judge: what has run before must run again."""
    folders = {"folders": {"mine": "My method"}}
    settings = tiny_profile.model_copy(
        update={
            "baselines": tiny_profile.baselines.model_copy(update=folders),
            "judge": tiny_profile.judge.model_copy(update={"real": str(tmp_path)}),
        }
    )
    last = len(notebooks.SERIES) - 1
    seen = [notebooks._recipe(settings, last).inputs]
    for folder in (
        settings.layout.enhanced / "mine",
        settings.layout.enhanced / "lucy_edit",
        tmp_path,
    ):
        video.write(folder / "a.mp4", np.zeros((2, 32, 48, 3), np.uint8), 16)
        seen.append(notebooks._recipe(settings, last).inputs)
    assert len({inputs["added"] for inputs in seen}) == 4
    assert all("added" not in notebooks._recipe(settings, i).inputs for i in range(last))


def test_a_failing_cell_leaves_no_executed_copy(series: profile.Profile, tmp_path: Path, monkeypatch) -> None:
    book = json.loads((REPOSITORY / "notebooks" / "00_start_here.ipynb").read_text())
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    monkeypatch.setattr(notebooks, "SERIES", notebooks.SERIES[:1])

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
    copy = notebooks.executed(series, notebooks.SERIES[0])
    assert not copy.exists() and not store.sidecar_of(copy).exists()
    assert copy.with_name("00_start_here.failed.ipynb").exists()


def test_a_missing_checkpoint_stops_the_series_before_it_starts(series: profile.Profile) -> None:
    content = series.model_dump(mode="json")
    content["models"]["vace"] = "no/such folder"
    with pytest.raises(InputError, match="no/such folder"):
        notebooks.run(profile.Profile.model_validate(content))
