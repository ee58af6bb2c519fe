"""Scoring two folders: the same values as the metrics give, what is refused before measuring, and resuming."""

from pathlib import Path

import av
import numpy as np
import pytest
from conftest import set_model
from test_cli import saved
from test_dino import checkpoint as checkpoint
from test_metrics import PLAIN, rows_of, write_interpolator

from rehearsal.faces import KNOWN, OTHER
from rmkit import cli, metrics, profile
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, metrics_csv, statistics
from rmkit.extras import score
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.metrics import sharpness
from rmkit.metrics.edge_f1 import edge_f1
from rmkit.metrics.motion_smoothness import motion_smoothness
from rmkit.metrics.temporal_flickering import temporal_flickering

FRAMES, RATE = 9, 16


def moving(seed: int) -> np.ndarray:
    """A square with the colour of a known face crosses a textured wall, each moment twice, uint8 [9, 32, 48, 3]."""
    wall = np.kron(np.random.default_rng(seed).integers(60, 160, (8, 12, 3)), np.ones((4, 4, 1)))
    moments = np.stack([wall] * 5).astype(np.uint8)
    for i, frame in enumerate(moments):
        frame[8:24, 6 + 4 * i : 20 + 4 * i] = KNOWN
    return sampling.repeat(moments, 2, FRAMES)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Renders, and outputs of which `a` is darker and `b` has other faces."""
    renders, outputs = tmp_path / "game", tmp_path / "made"
    for seed, name in enumerate(("a", "b")):
        frames = moving(seed)
        video.write(renders / f"{name}.mp4", frames, RATE)
        square = (frames == KNOWN).all(-1)[..., None]
        changed = frames * 0.7 if name == "a" else np.where(square, OTHER, frames)
        video.write(outputs / f"{name}.mp4", changed.astype(np.uint8), RATE)
    return renders, outputs


def values(path: Path) -> dict[tuple[str, str, str], float]:
    return {(row["method"], row["clip"], row["metric"]): float(row["value"]) for row in rows_of(path)}


def test_every_metric_that_needs_no_truth(capsys, tiny_profile: profile.Profile, folders, tmp_path: Path):
    renders, outputs = folders
    command = ["evaluate", "--renders", str(renders), "--outputs", str(outputs), "--repeats", "2"]
    assert cli.main([*command, "--profile", str(saved(tiny_profile, tmp_path))]) == 0
    path = tiny_profile.layout.scored / "made.csv"
    assert list(rows_of(path)[0]) == [*metrics_csv.COLUMNS, *metrics_csv.PROVENANCE, "note"]
    found = values(path)
    wanted = {column.name for column in PLAIN if column.against != "truth" and not column.asked}
    assert {name for method, _, name in found if method == "output"} == wanted
    assert {name for method, _, name in found if method == "render"} == wanted - {"edge_f1"}
    render, output = (video.read(folder / "a.mp4") for folder in folders)
    expected = {
        "edge_f1": edge_f1(output, render),
        "temporal_flickering": temporal_flickering(output),
        "temporal_flickering_distinct": temporal_flickering(output[::2]),
        "motion_smoothness_distinct": motion_smoothness(output[::2]),
    }
    assert expected["edge_f1"] < 1
    assert {name: found["output", "a", name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["render", "a", "temporal_flickering"] == pytest.approx(temporal_flickering(render), abs=1e-6)
    out = capsys.readouterr().out
    assert "made.csv: 2 clips" in out and "ArcFace: not run: no face model" in out and "DINO: not run" in out
    line = next(line for line in out.splitlines() if line.strip().startswith("Sharpness"))
    mean = statistics.mean(metrics_csv.read(path), "output", "sharpness").value
    assert f" {mean:.0f} " in line


def test_frames_that_are_not_repeated_have_no_distinct_ones(capsys, tiny_profile, folders, tmp_path: Path):
    out = tmp_path / "deep" / "er" / "mine.csv"
    assert score.score(tiny_profile, *folders, out) == out
    assert not [name for _, _, name in values(out) if "distinct" in name]
    assert "--repeats says how often" in capsys.readouterr().out


def test_faces_and_features_where_the_profile_names_models(with_faces, checkpoint: Path, folders, capsys):
    settings = set_model(with_faces, "dino", checkpoint)
    path = score.score(settings, *folders)
    found = values(path)
    assert found["output", "b", "arcface"] == pytest.approx(0.35, abs=0.02)
    assert found["output", "b", "arcface_coverage"] == 1
    assert found["output", "b", "dino"] > 0 and ("output", "b", "dino_truth") not in found
    options = {row["metric"]: row["options"] for row in rows_of(path)}
    assert options["arcface"] == "pack=squares;frames=5 linspace"
    assert options["dino"].startswith(f"model={checkpoint};revision=")
    assert "ArcFace, minimum" in capsys.readouterr().out


def test_amt_where_the_profile_names_it(tiny_profile: profile.Profile, folders, tmp_path: Path, capsys):
    assert {n for _, _, n in values(score.score(tiny_profile, *folders))}.isdisjoint(
        c.name for c in metrics.metric_of("motion_smoothness_amt").columns
    )
    assert "Motion Smoothness (AMT-S): not run: metrics.motion_smoothness_amt" in capsys.readouterr().out
    settings = set_model(tiny_profile, "motion_smoothness_amt", write_interpolator(tmp_path / "amt.onnx"))
    found = values(score.score(settings, *folders, repeats=2))
    for method in ("render", "output"):
        assert (
            found[method, "a", "motion_smoothness_amt"] > found[method, "a", "motion_smoothness_amt_distinct"]
        )
    assert "Motion Smoothness (AMT-S), distinct frames" in capsys.readouterr().out
    write_interpolator(tmp_path / "amt.onnx", inputs=3)
    with pytest.raises(InputError, match="has 3 inputs"):
        score.score(settings, *folders)


def test_nothing_is_measured_twice(tiny_profile: profile.Profile, folders, monkeypatch: pytest.MonkeyPatch):
    before = score.score(tiny_profile, *folders).read_bytes()
    measured, measure = [], sharpness.METRIC.measure
    monkeypatch.setattr(
        sharpness.METRIC, "measure", lambda s, *rest: measured.append(s.clip) or measure(s, *rest)
    )
    assert score.score(tiny_profile, *folders).read_bytes() == before and not measured
    video.write(folders[1] / "b.mp4", moving(1), RATE)
    again = values(score.score(tiny_profile, *folders))
    assert measured == ["b"] and again["output", "b", "edge_f1"] == 1


def test_bad_folders_are_a_sentence_before_anything_is_measured(
    tiny_profile: profile.Profile, folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    renders, outputs = folders
    monkeypatch.setattr(evaluate, "measured", lambda *_: pytest.fail("measured"))

    def refusal(*changes: object, **settings: object) -> str:
        with pytest.raises(InputError) as refused:
            score.score(tiny_profile, *(changes or (renders, outputs)), **settings)
        return str(refused.value)

    assert "nowhere does not exist or is no folder" in refusal(renders, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "._a.mp4").touch()
    assert "empty holds no .mp4 file" in refusal(tmp_path / "empty", outputs)
    assert "is a folder: name a file" in refusal(out=tmp_path / "empty")
    (tmp_path / "file").touch()
    assert "nothing can be written to" in refusal(out=tmp_path / "file" / "mine.csv")
    assert "each shown 5 times: 3 are needed" in refusal(repeats=5)
    assert "--repeats is 0" in refusal(repeats=0)
    video.write(renders / "c.mp4", moving(2), RATE)
    video.write(outputs / "d.mp4", moving(2), RATE)
    said = refusal()
    assert f"only in {renders}: c.mp4; only in {outputs}: d.mp4" in said
    for folder, name in ((renders, "c"), (outputs, "d")):
        (folder / f"{name}.mp4").unlink()
    for strict, frames, rate, what in (
        (True, moving(1)[:, :16], RATE, "9 frames of 16x48 at 16 a second"),
        (False, moving(1)[:7], RATE, "7 frames of 32x48 at 16 a second"),
        (True, moving(1), 8, "9 frames of 32x48 at 8 a second"),
    ):
        video.write(outputs / "b.mp4", frames, rate)
        said = refusal(strict=strict)
        assert f"b.mp4 has {what} and its render 9 frames of 32x48 at 16 a second" in said


def index_to_front(path: Path) -> None:
    """The same packets in a file that players can start before it has arrived."""
    target = path.with_name("front.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as made:
        stream = made.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    target.rename(path)


@pytest.mark.parametrize("index_first", [False, True])
def test_a_truncated_video_is_found_before_anything_is_measured(
    tiny_profile: profile.Profile, folders, index_first: bool, monkeypatch: pytest.MonkeyPatch
):
    """Cut anywhere: a file with its index in front still says that all its frames are there."""
    bad = folders[1] / "b.mp4"
    if index_first:
        index_to_front(bad)
    bad.write_bytes(bad.read_bytes()[: -bad.stat().st_size // 4])
    monkeypatch.setattr(evaluate, "measured", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match=r"b\.mp4 .*truncated"):
        score.score(tiny_profile, *folders)


def test_one_folder_alone_is_refused(capsys, tiny_profile: profile.Profile, folders, tmp_path: Path):
    path = saved(tiny_profile, tmp_path)
    assert cli.main(["evaluate", "--profile", str(path), "--renders", str(folders[0])]) == 2
    assert "give both folders" in capsys.readouterr().err


def test_a_metric_leaves_out_the_clips_that_it_cannot_take(tiny_profile, checkpoint: Path, folders, capsys):
    for folder in folders:
        video.write(folder / "b.mp4", moving(1)[:, :30], RATE)
    found = values(score.score(set_model(tiny_profile, "dino", checkpoint), *folders))
    assert {clip for _, clip, name in found if name == "dino"} == {"a"}
    assert ("output", "b", "sharpness") in found
    assert "b.mp4 is left out" in (said := capsys.readouterr().out) and "do not divide clips of 30x48" in said
