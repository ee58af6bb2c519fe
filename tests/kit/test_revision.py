"""Looking is not changing: what viewers leave behind makes neither a stage stale nor the commit dirty."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rmkit import sources
from rmkit.kit import revision, store, weights
from rmkit.paths import REPOSITORY, visible
from rmkit.pipeline import notebooks
from rmkit.profile import Data

BOOK = REPOSITORY / "notebooks" / "00_start_here.ipynb"


def looked_at(path: Path) -> None:
    """What JupyterLab writes when a notebook is run and saved."""
    book = json.loads(path.read_text())
    for number, cell in enumerate(c for c in book["cells"] if c["cell_type"] == "code"):
        cell["execution_count"] = number
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello\n"]}]
        cell["metadata"]["collapsed"] = True
    book["metadata"]["kernelspec"]["display_name"] = "Mine"
    book["metadata"]["language_info"]["version"] = "3.12.0"
    path.write_text(json.dumps(book, indent=2))


def edited(path: Path) -> None:
    book = json.loads(path.read_text())
    book["cells"][-1]["source"] = ["other words"]
    path.write_text(json.dumps(book))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository with a module and a notebook."""
    shutil.copy(BOOK, tmp_path / "book.ipynb")
    (tmp_path / "code.py").write_text("x = 1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "First"]):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(revision, "REPOSITORY", tmp_path)
    return tmp_path


def test_a_notebook_looked_at_is_the_commits(clone: Path):
    clean = revision.commit.__wrapped__()
    assert len(clean) == 12 and not clean.endswith("+")
    looked_at(clone / "book.ipynb")
    (clone / "untracked.txt").write_text("notes")
    assert revision.commit.__wrapped__() == clean
    edited(clone / "book.ipynb")
    assert revision.commit.__wrapped__() == f"{clean}+"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "code.py").write_text("x = 2\n"),
        lambda root: (root / "code.py").unlink(),
        lambda root: (root / "book.ipynb").unlink(),
        lambda root: (root / "book.ipynb").write_text("{}"),
        lambda root: (root / "book.ipynb").write_text("broken"),
    ],
)
def test_a_change_is_one(clone: Path, change):
    change(clone)
    assert revision.commit.__wrapped__().endswith("+")


def test_outside_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(revision, "REPOSITORY", tmp_path)
    assert revision.commit.__wrapped__() == "unknown"


def test_a_notebook_is_stale_by_what_it_computes(tmp_path: Path):
    path = tmp_path / BOOK.name
    shutil.copy(BOOK, path)
    before = revision.of_notebook(path)
    looked_at(path)
    assert revision.of_notebook(path) == before
    edited(path)
    assert revision.of_notebook(path) != before
    path.write_text("[]")
    with pytest.raises(ValueError, match="no notebook"):
        revision.of_notebook(path)


@pytest.mark.parametrize(
    "left", [".DS_Store", ".ipynb_checkpoints/config-checkpoint.json", "part/._config.json"]
)
def test_hidden_files_change_no_fingerprint(tmp_path: Path, left: str):
    (tmp_path / "data" / "part").mkdir(parents=True)
    (tmp_path / "data" / "part" / "config.json").write_text("{}")
    (tmp_path / "data" / "a.py").write_text("")
    data = Data(source="sailvos", root=str(tmp_path / "data"), train_clips=1, validation_clips=1)

    def prints() -> list[str]:
        folder = tmp_path / "data"
        return [
            store.fingerprint(folder),
            weights.content(folder),
            notebooks._digest([folder]),
            notebooks._digest(visible(folder, "*.py"), tmp_path),
            sources.digest(data),
        ]

    before = prints()
    (tmp_path / "data" / left).parent.mkdir(exist_ok=True)
    (tmp_path / "data" / left).write_text("left by a viewer")
    assert prints() == before
    (tmp_path / "data" / "part" / "config.json").write_text("{ }")
    assert all(one != other for one, other in zip(prints()[:3], before[:3], strict=True))
