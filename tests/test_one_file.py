"""A usual change is one file: a metric with a model, a method, a data set and a notebook, each found by being there.

A copy of the kit gets one new file of each kind and a profile that names them; nothing else is edited. Its whole series of
notebooks is run, and then again: nothing is done twice, and what was lost is made anew.
"""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from shutil import copytree

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import FRAMES, HEIGHT, WIDTH, tiny_settings
from PIL import Image
from safetensors.numpy import save_file

from rmkit.kit import video
from rmkit.paths import REPOSITORY

FILES = {
    "rmkit/metrics/warmth.py": '''"""Warmth: how far colours lie along a direction that a model folder holds (a test's)."""

from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.metrics import Column, Metric
from rmkit.paths import resolve


class Warmth(Metric):
    columns = (Column("warmth", "Warmth", "grey levels", 1, digits=1, floor=0.1, shown="always"),)
    needs_model = True

    def file(self, profile):
        return resolve(self.model(profile)) / "warmth.safetensors"

    def check(self, profile, height, width):
        if not self.file(profile).is_file():
            raise InputError(f"metrics.warmth: {self.file(profile)} does not exist.")

    def fingerprint(self, profile):
        return store.fingerprint(self.file(profile))

    def ready(self, profile, subjects):
        from safetensors.numpy import load_file

        direction = load_file(self.file(profile))["direction"]

        def measure(subject, columns):
            frames = list(subject.frames["output"]())
            return {"warmth": float(sum((frame @ direction).mean() for frame in frames) / len(frames))}

        return measure

    def note(self, profile, rows):
        return "" if len(rows) else f"Warmth: {self.why_no_row(profile)}"


METRIC = Warmth()
''',
    "rmkit/baselines/mirror.py": '''"""Mirror: the render mirrored (a test's)."""

from rmkit.baselines import Made
from rmkit.kit import video
from rmkit.method import sampling


class Mirror(Made):
    name, label = "mirror", "Mirrored render"

    def ready(self, profile):
        return lambda clip, seed: video.read(sampling.path(profile, clip))[:, :, ::-1]


METHODS = (Mirror(),)
''',
    "rmkit/sources/stills.py": '''"""Stills: a folder of pictures a sequence, `<data.root>/<split>/<sequence>/*.png` (a test's)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmkit.kit import store, video
from rmkit.paths import resolve
from rmkit.sources import Sequence


@dataclass(frozen=True, kw_only=True)
class Stills(Sequence):
    images: tuple[Path, ...]

    def __len__(self):
        return len(self.images)

    def frames(self, indices):
        return np.stack([video.image(self.images[index]) for index in indices])

    def depth(self, indices):
        pictures = self.frames(indices)
        return np.broadcast_to(np.linspace(9, 1, pictures.shape[1])[:, None], pictures.shape[:3])

    def fingerprints(self, indices):
        return {str(index): store.fingerprint(self.images[index]) for index in indices}

    depth_fingerprints = fingerprints


def prepare(profile):
    pass


def sequences(profile, split):
    folders = sorted((resolve(profile.data.root) / split).iterdir())
    return [Stills(id=f.name, split=split, fps=8, images=tuple(sorted(f.iterdir()))) for f in folders]


def describe(profile):
    return f"stills in {profile.data.root}"
''',
}
CELLS = (
    'profile = "mini"  # a name in rmkit/profiles/, or the path of a .yaml file',
    "from rmkit import profile as profiles\nfrom rmkit.evaluation import metrics_csv\n\n"
    "settings = profiles.load(profile)",
    'means = metrics_csv.load(settings).query("metric == \'warmth\'").groupby("method").value.mean()\n'
    '(settings.layout.root / "warmth.txt").write_text(means.to_string())\nmeans',
)


@pytest.fixture(scope="module")
def kit(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the kit with four files more; data and the lock are shared."""
    root = tmp_path_factory.mktemp("one_file") / "kit"
    for room in ("rmkit", "notebooks"):
        copytree(REPOSITORY / room, root / room)
    for shared in ("data", "requirements.lock"):
        (root / shared).symlink_to(REPOSITORY / shared)
    for name, text in FILES.items():
        (root / name).write_text(text)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    book.cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    book.metadata |= {"kernelspec": kernel, "rmkit": {"writes": ["warmth.txt"]}}
    nbformat.write(book, root / "notebooks" / "06_warmth.ipynb")
    for split in ("train", "validation"):
        for shot in sorted((REPOSITORY / "data/diorama/clips" / split).glob("*_street_*"))[:2]:
            frames = video.stream(shot / "render.mp4")
            pictures = [Image.fromarray(frame).resize((WIDTH, HEIGHT)) for frame in islice(frames, FRAMES)]
            folder = root / "stills" / split / f"still_{shot.name}"
            folder.mkdir(parents=True)
            for number, picture in enumerate(pictures):
                picture.save(folder / f"{number:03d}.png")
            truth = np.stack(pictures) * np.array([0.9, 0.95, 1.0])
            video.write(root / "results/one-file/truth" / f"{folder.name}.mp4", truth.astype(np.uint8), 8)
    (root / "warmth").mkdir()
    save_file({"direction": np.array([0.5, 0.0, -0.5], np.float32)}, root / "warmth" / "warmth.safetensors")
    tiny = tiny_settings(tiny_checkpoints, Path("stills"))
    tiny["data"]["source"] = "stills"
    (root / "tiny.json").write_text(json.dumps(tiny))
    return root


def run(kit: Path, name: str, command: str, **metrics: str) -> subprocess.CompletedProcess[str]:
    """A command of the copy, with the tiny profile on the stills."""
    content = json.loads((kit / "tiny.json").read_text()) | {"name": name, "metrics": metrics}
    profile = kit / f"{name}.yaml"
    profile.write_text(yaml.safe_dump(content))
    arguments = [sys.executable, "-m", "rmkit", command, "--profile", str(profile)]
    variables = {**os.environ, "PYTHONPATH": str(kit)}
    return subprocess.run(arguments, cwd=kit, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(kit: Path) -> Path:
    """What a run of the whole series left."""
    done = run(kit, "one-file", "notebooks", warmth="warmth")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return kit / "results" / "one-file"


def test_one_file_each_is_enough(results: Path) -> None:
    frame = pd.read_csv(results / "metrics.csv", keep_default_na=False)
    # The data set: its clips, and its frames.
    assert set(frame["clip"]) == {path.stem for path in (results / "clips").glob("still_validation_*.mp4")}
    assert len(list((results / "clips").glob("*.mp4"))) == 4
    # The metric, of every method; the method, by every metric that has one of the render.
    warmth = frame[frame.metric == "warmth"].set_index(["method", "clip"]).value
    assert set(warmth.index.unique("method")) == set(frame.method) >= {"mirror", "realmaster", "edges"}
    assert np.allclose(warmth["mirror"], warmth["render"], atol=1e-4)
    assert {"edge_f1", "sharpness", "temporal_flickering"} <= set(frame[frame.method == "mirror"].metric)
    table = (results / "tables" / "table1_further.md").read_text()
    assert "Warmth" in table.splitlines()[2] and "| Mirrored render | 2 |" in table
    # The notebook, after the others.
    assert "mirror" in (results / "warmth.txt").read_text()
    assert "mirror" in str(cells(results, "06_warmth")[-1].outputs)


def test_the_series_leaves_a_report_and_executed_copies(kit: Path, results: Path) -> None:
    text = (results / "report.md").read_text()
    assert "Table 2" in text and "does not hold" in text and "| [05_evaluation](" in text
    frame = pd.read_csv(results / "metrics.csv", keep_default_na=False)
    assert set(frame.method) >= {"render", "colour_transfer", "vae_ceiling", "edges", "realmaster", "truth"}
    times = json.loads((results / "notebooks" / "times.json").read_text())
    names = {path.stem for path in (kit / "notebooks").glob("*.ipynb")}
    assert times.keys() == names
    for name in names:
        assert any(cell.get("outputs") for cell in cells(results, name))
        assert times[name]["peak_mib"] > 50


def test_a_second_run_does_nothing_and_what_is_lost_is_made_again(kit: Path, results: Path) -> None:
    def state() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in results.rglob("*") if p.is_file()}

    before, values = state(), (results / "metrics.csv").read_bytes()
    again = run(kit, "one-file", "notebooks", warmth="warmth")
    books = len(list((kit / "notebooks").glob("*.ipynb")))
    assert again.stdout.count("up to date") == books and "06_warmth: up to date" in again.stdout
    assert state() == before
    # One clip is lost: the notebook that makes it runs again, and the values stay.
    lost = next((results / "enhanced" / "realmaster").glob("*.mp4"))
    lost.unlink()
    out = run(kit, "one-file", "notebooks", warmth="warmth").stdout
    assert "03_propagation_ablations: up to date" in out and "04_iclora_training: done" in out
    assert lost.is_file() and (results / "metrics.csv").read_bytes() == values


def test_a_metric_without_its_model_is_said(kit: Path, results: Path) -> None:
    lost = run(kit, "lost", "doctor", warmth="nowhere")
    assert lost.returncode == 2
    assert any("MISSING" in line and "nowhere" in line for line in lost.stdout.splitlines())
    reason = "not run: metrics.warmth of this profile names no model."
    assert reason in run(kit, "unnamed", "doctor").stdout
    # Of a run that has not measured it, the table says the same.
    frame = pd.read_csv(results / "metrics.csv", keep_default_na=False)
    (kit / "results" / "unnamed").mkdir()
    frame[frame.metric != "warmth"].to_csv(kit / "results" / "unnamed" / "metrics.csv", index=False)
    reported = run(kit, "unnamed", "report")
    assert reported.returncode == 0, reported.stderr
    table = (kit / "results" / "unnamed" / "tables" / "table1_further.md").read_text()
    row = next(line for line in table.splitlines() if "Mirrored render" in line)
    assert f"Warmth: {reason}" in table and "Warmth ↑" in table and "| not run |" in row


def cells(results: Path, name: str) -> list[nbformat.NotebookNode]:
    """Of an executed copy."""
    return nbformat.read(results / "notebooks" / f"{name}.ipynb", 4).cells
