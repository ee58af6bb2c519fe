"""The report and its figures, from files alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from test_tables import put_metrics

from rmkit import baselines, profile
from rmkit.baselines import truth
from rmkit.evaluation import evaluate, figures, report, sheets
from rmkit.kit import store, video
from rmkit.method import anchoring, propagation, record, sampling
from rmkit.paths import REPOSITORY

PARTS = (
    "Videos and contact sheets",
    "Table 2",
    "User study",
    "Paired differences",
    "Settings that are ours",
    "Notebooks and times",
    "Environment",
)


@pytest.fixture
def finished(
    tiny_profile: profile.Profile, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> profile.Profile:
    """A run whose stages are played by simple changes of colour: played once, and copied from then on."""
    root, kept = tiny_profile.layout.root, tmp_path_factory.getbasetemp() / "finished"
    if kept.is_dir():
        shutil.copytree(kept, root)
    else:
        play(tiny_profile, request.getfixturevalue("tiny_clips"))
        shutil.copytree(root, kept)
    return tiny_profile


def play(tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip]) -> None:
    layout, pairs = tiny_profile.layout, []
    for clip in tiny_clips:
        frames = video.read(sampling.path(tiny_profile, clip))
        for variant, shade in (("edges", 0.95), ("depth", 0.8), ("multi_anchor", 0.85)):
            result = (frames * shade).astype(np.uint8)
            video.write(propagation.path(tiny_profile, variant, clip), result, tiny_profile.clips.fps)
        video.write(layout.enhanced / "realmaster" / f"{clip.id}.mp4", (frames * 0.9).astype(np.uint8), 16)
        for index in anchoring.indices(tiny_profile, "edges"):
            picture = anchoring.path(tiny_profile, clip, index)
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cv2.GaussianBlur(frames[index], (0, 0), 1)).save(picture)
            facts = {"accepted": True, "measured": True, "drift_pixels": 0.4, "residual_pixels": 0.1}
            store.write_json(store.sidecar_of(picture), facts | {"attempts": 1})
        if clip.split == "train":
            sides = (sampling.path(tiny_profile, clip), propagation.path(tiny_profile, "edges", clip))
            names = [path.relative_to(layout.root).as_posix() for path in sides]
            entry = dict(zip(("render", "target"), names, strict=True))
            entry |= {"clip": clip.id, "caption": clip.caption}
            pairs.append(entry | {"kept": True, "reason": "no face model: not applied"})
        elif not truth.exists(tiny_profile, clip):
            sequence = sampling.sequence_of(tiny_profile, clip)
            whole = sequence.frames(range(len(sequence)))
            video.write(truth.path(tiny_profile, clip), (whole * 0.9).astype(np.uint8) + 2, 8)
    layout.pairs.mkdir(parents=True)
    store.write_json(layout.pairs / "pairs.json", pairs)
    for name in ("high", "low"):
        folder = layout.adapters / "realmaster" / name
        folder.mkdir(parents=True)
        done = record.Record(
            [(i, i % 2, 0.5, 1 / (i + 1), 1e-4, i) for i in range(20)],
            [(step, 0, 0.5, 0.9, 1 / (step + 1)) for step in (0, 10, 20)],
        )
        record.write(folder, done.tables(name, ["one", "two"], ["three"]))
    evaluate.evaluate(tiny_profile)


def test_the_report_says_all_and_its_links_lead_somewhere(finished: profile.Profile) -> None:
    path = report.write(finished)
    text = path.read_text()
    for part in PARTS:
        assert f"## {part}" in text
    assert "eft out" not in text
    assert "did not come out" in text or "This is the paper's order" in text
    assert "RealMaster is at least 1 dB nearer to the truth than a colour transfer" in text
    assert re.search(r"\| (holds|does not hold)", text)
    assert "`structure.canny`" in text and "no face model: not applied: 2" in text
    assert "Not recorded" in text  # times, as no notebook was run
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 5 + 2 * 2
    for link in links:
        assert (path.parent / link).exists(), link
    assert not re.search(r"\bnan\b", text)


def blocked(folder: Path, settings: profile.Profile) -> tuple[list[str], dict[str, bytes]]:
    """Make the report in a process that cannot import torch; returns its lines and what it wrote, by path."""
    (folder / "torch.py").write_text("raise ImportError('torch is not to be imported')")
    (folder / "own.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    code = (
        "import pathlib, sys; from rmkit import cli, profile; profile.REPOSITORY = pathlib.Path(sys.argv[1]); "
        "sys.exit(cli.main(['report', '--profile', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, str(profile.REPOSITORY), str(folder / "own.yaml")]
    paths = {"PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | paths)
    assert run.returncode == 0, run.stderr
    files = (path for path in settings.layout.root.rglob("*") if path.is_file())
    made = {path.relative_to(settings.layout.root).as_posix(): path.read_bytes() for path in files}
    return run.stdout.splitlines(), made


FIGURES = {
    f"figures/{name}.{form}" for name in ("fidelity", "temporal", "gain_by_clip") for form in ("png", "pdf")
}


def test_metrics_alone_are_enough_and_torch_is_not_imported(
    tiny_profile: profile.Profile, tmp_path: Path
) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    lines, made = blocked(tmp_path, tiny_profile)
    written = {path for path in made if path.startswith("figures/")}
    assert written >= FIGURES and "tables/table2.tex" in made
    text = made["report.md"].decode()
    for part, missing in (
        ("figure training", "adapters/realmaster/high/curve.csv"),
        ("figure anchors", "clips/clips.json"),
        ("What was generated", "clips/clips.json"),
        ("Videos and contact sheets", "clips/clips.json"),
    ):
        (line,) = [line for line in lines if line.startswith(f"report: {part} left out: {missing}")]
        assert line.partition(" left out: ")[2] in text
    assert "| device | not recorded |" in text and str(tmp_path) not in text


def test_before_a_run_the_report_is_of_the_shipped_record(
    tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip], tmp_path: Path
) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    record = tiny_profile.layout.reference / "metrics.csv"
    record.parent.mkdir(parents=True)
    tiny_profile.layout.metrics.rename(record)
    lines, made = blocked(tmp_path, tiny_profile)
    assert len(lines) == 1 and "results/reference/tiny/metrics.csv" in lines[0]
    assert "metrics.csv" not in made and "tables/claims.csv" in made
    assert {path for path in made if path.startswith("figures/")} == FIGURES
    opening, *sections = made["report.md"].decode().split("\n## ")
    assert "**Nothing has been measured here" in opening
    # The clips of a run that has only begun are not the record's.
    for part in sections:
        if part.startswith(("Videos", "What was generated", "Notebooks", "Environment")):
            assert "*left out: the shipped record" in part


def test_again_gives_the_same_bytes(finished: profile.Profile) -> None:
    def contents() -> dict[Path, bytes]:
        report.write(finished)
        layout = finished.layout
        files = [
            *layout.figures.iterdir(),
            *layout.tables.iterdir(),
            layout.report,
            layout.root / "index.html",
        ]
        return {file: file.read_bytes() for file in files}

    assert contents() == contents()


def test_sheets_show_every_row(finished: profile.Profile) -> None:
    clip = sampling.load(finished, "validation")[0]
    assert all(sheets.available(finished, clip, row) for row in sheets.ROWS)
    moments = video.evenly(3, finished.clips.frames)
    shown = sheets.frames(finished, clip, "anchors", moments)
    assert (shown[1] == sheets.EMPTY).all() and not (shown[0] == sheets.EMPTY).all()
    small = sheets.of_clip(finished, clip, columns=3, width=96)
    assert small.height == len(sheets.ROWS) * (64 + 4) + 4
    (*_, last) = shown = list(sheets.beside(finished, clip))
    assert len(shown) == 9 and last.shape == (video.STRIP + 2 * 32, 4 * 2 * 48, 3)
    render = video.read(sampling.path(finished, clip))[-1].repeat(2, 0).repeat(2, 1)
    assert (last[video.STRIP :, : 2 * 48] == render).all()  # in step, the render first


def test_labelled_subsets_are_among_the_clips_shown() -> None:
    many = [
        sampling.Clip(f"c{i}", "validation", f"s{i}", (0,), "", ("fast",) if i in (7, 9) else ())
        for i in range(12)
    ]
    chosen = report.choose(many, 4)
    assert len(chosen) == 4 and "c7" in [clip.id for clip in chosen]
    assert report.choose(many[:2], 4) == many[:2]


def test_figures_without_a_truth_say_so(finished: profile.Profile) -> None:
    frame = (finished.layout.metrics).read_text().splitlines()
    kept = [line for line in frame if "_truth" not in line and ",truth," not in line]
    finished.layout.metrics.write_text("\n".join(kept) + "\n")
    figure = figures.gain_by_clip(finished)
    assert "no truth" in figure.axes[0].texts[0].get_text()
    assert figures.fidelity(finished).axes


def test_a_figure_is_replaced_whole(tiny_profile: profile.Profile) -> None:
    class Broken:
        def savefig(self, path: Path, **_: object) -> None:
            path.write_bytes(b"half")
            raise OSError

    (folder := tiny_profile.layout.figures).mkdir(parents=True)
    (folder / "a.png").write_bytes(b"whole")
    with pytest.raises(OSError):
        figures.save(tiny_profile, "a", Broken())
    assert [path.read_bytes() for path in folder.iterdir()] == [b"whole"]
