"""The report and its figures, from files alone."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rmkit import anchors, clips, evaluate, figures, profile, propagate, report, sheets, store, train, video
from rmkit.metrics import truth

PARTS = ("Contact sheets", "Table 2", "Paired differences", "Settings that are ours", "Times", "Environment")


@pytest.fixture
def finished(tiny_profile: profile.Profile, tiny_clips: list[clips.Clip]) -> profile.Profile:
    """A run whose stages are played by simple changes of colour."""
    layout, pairs = tiny_profile.layout, []
    for clip in tiny_clips:
        frames = video.read(clips.path(tiny_profile, clip))
        for variant, shade in (("edges", 0.95), ("depth", 0.8), ("multi_anchor", 0.85)):
            result = (frames * shade).astype(np.uint8)
            video.write(propagate.path(tiny_profile, variant, clip), result, tiny_profile.clips.fps)
        video.write(layout.enhanced / "realmaster" / f"{clip.id}.mp4", (frames * 0.9).astype(np.uint8), 16)
        for index in anchors.indices(tiny_profile, "edges"):
            picture = anchors.path(tiny_profile, clip, index)
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cv2.GaussianBlur(frames[index], (0, 0), 1)).save(picture)
            facts = {"accepted": True, "measured": True, "drift_pixels": 0.4, "residual_pixels": 0.1}
            store.write_json(store.sidecar_of(picture), facts | {"attempts": 1})
        if clip.split == "train":
            sides = (clips.path(tiny_profile, clip), propagate.path(tiny_profile, "edges", clip))
            names = [path.relative_to(layout.root).as_posix() for path in sides]
            entry = dict(zip(("render", "target"), names, strict=True))
            pairs.append(entry | {"clip": clip.id, "kept": True, "reason": "no face model: not applied"})
        elif not truth.exists(tiny_profile, clip):
            sequence = clips.sequence_of(tiny_profile, clip)
            whole = sequence.frames(range(len(sequence.images)))
            video.write(truth.path(tiny_profile, clip), (whole * 0.9).astype(np.uint8) + 2, 8)
    layout.pairs.mkdir(parents=True)
    store.write_json(layout.pairs / "pairs.json", pairs)
    for name in ("high", "low"):
        curve = layout.adapters / "realmaster" / name / "curve.csv"
        curve.parent.mkdir(parents=True)
        lines = [f"{i},{name},{1 / (i + 1):.4f},0.5,1e-4,{i}" for i in range(20)]
        curve.write_text("\n".join([",".join(train.COLUMNS), *lines, ""]))
    evaluate.evaluate(tiny_profile)
    return tiny_profile


def test_the_report_says_all_and_its_links_lead_somewhere(finished: profile.Profile) -> None:
    path = report.write(finished)
    text = path.read_text()
    for part in PARTS:
        assert f"## {part}" in text
    assert "did not come out" in text or "This is the paper's order" in text
    assert "RealMaster is at least 1 dB nearer to the truth than a colour transfer" in text
    assert re.search(r"\| (holds|does not hold)", text)
    assert "`structure.canny`" in text and "no face model: not applied: 2" in text
    assert "Not recorded" in text  # times, as no notebook was run
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 5 + 2 * 2
    for link in links:
        assert (path.parent / link).is_file(), link
    assert not re.search(r"\bnan\b", text)


def test_again_gives_the_same_bytes(finished: profile.Profile) -> None:
    def contents() -> dict[Path, bytes]:
        report.write(finished)
        layout = finished.layout
        files = [*layout.figures.iterdir(), *layout.tables.iterdir(), layout.report]
        return {file: file.read_bytes() for file in files}

    assert contents() == contents()


def test_sheets_show_every_row(finished: profile.Profile) -> None:
    clip = clips.load(finished, "validation")[0]
    assert all(sheets.available(finished, clip, row) for row in sheets.ROWS)
    moments = video.evenly(3, finished.clips.frames)
    shown = sheets.frames(finished, clip, "anchors", moments)
    assert (shown[1] == sheets.EMPTY).all() and not (shown[0] == sheets.EMPTY).all()
    small = sheets.of_clip(finished, clip, columns=3, width=96)
    assert small.height == len(sheets.ROWS) * (64 + 4) + 4
    assert sheets.beside(finished, clip).shape == (9, 32, 3 * 48, 3)


def test_labelled_subsets_are_among_the_clips_shown() -> None:
    many = [
        clips.Clip(f"c{i}", "validation", f"s{i}", (0,), "", ("fast",) if i in (7, 9) else ())
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
