"""Verification: agreement within the spread over seeds, each kind of difference, and what cannot be compared."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import refused, saved
from test_tables import put_metrics

from rmkit import cli, metrics, profile
from rmkit.baselines import real
from rmkit.paths import REPOSITORY

FIXED = ["render", "blur", "vae_ceiling", "truth"]  # without randomness
METHODS = ["render", "blur", "colour_transfer", "edges", "realmaster", "truth"]


@pytest.fixture
def shipped(tiny_profile: profile.Profile, tmp_path: Path) -> Path:
    """Path of a profile whose run is the shipped one; three runs with other seeds lie beside it."""
    put_metrics(tiny_profile, METHODS)
    frame = pd.read_csv(tiny_profile.layout.metrics, keep_default_na=False)
    write(frame, tiny_profile.layout.reference)
    for seed in (1, 2, 3):
        noise = np.random.default_rng(seed).normal(0, 0.01, len(frame))
        noise[frame.method.isin(FIXED)] = 0
        write(frame.assign(value=(frame.value * (1 + noise)).round(6)), seed_run(tiny_profile, seed))
    return saved(tiny_profile, tmp_path)


@pytest.fixture
def spread(shipped: Path, tiny_profile: profile.Profile) -> Path:
    """The same, its tolerances written."""
    folders = [str(seed_run(tiny_profile, seed)) for seed in (1, 2, 3)]
    assert cli.main(["verify", "--profile", str(shipped), "--spread", *folders]) == 0
    return shipped


def seed_run(settings: profile.Profile, seed: int) -> Path:
    return settings.layout.root.parent / f"tiny-seed{seed}"


def write(frame: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "metrics.csv", index=False)


def changed(settings: profile.Profile, method: str, metric: str, by: float, clip: str | None = None) -> None:
    """Change the run's values of a method and metric, of all clips or of one."""
    frame = pd.read_csv(settings.layout.metrics, keep_default_na=False)
    chosen = (frame.method == method) & (frame.metric == metric)
    if clip:
        chosen &= frame["clip"] == clip
    assert chosen.any()
    frame.loc[chosen, "value"] += by
    write(frame, settings.layout.root)


def tolerances(settings: profile.Profile) -> pd.DataFrame:
    return pd.read_csv(settings.layout.reference / "tolerances.csv").set_index(["method", "metric"])


def verified(capsys: pytest.CaptureFixture, path: Path) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(["verify", "--profile", str(path)])
    return code, capsys.readouterr().out


def test_a_run_that_agrees(capsys, spread: Path, tiny_profile):
    code, out = verified(capsys, spread)
    assert code == 0 and out.endswith("pass: all agree.\n") and "tolerances from 4 seeds" in out
    # Every run that the tolerances were made from agrees with them, too.
    for seed in (1, 2, 3):
        tiny_profile.layout.metrics.write_text((seed_run(tiny_profile, seed) / "metrics.csv").read_text())
        assert verified(capsys, spread)[0] == 0


def test_ratings_and_footage_of_ones_own_are_left_out(capsys, spread: Path, tiny_profile):
    frame = pd.read_csv(tiny_profile.layout.metrics, keep_default_na=False)
    rated = frame[frame.metric == "sharpness"].assign(metric="gpt_rs", value=7.0)
    footage = rated.tail(2).assign(
        method=real.Real.name, clip=["street", "cafe"], sequence=["street", "cafe"]
    )
    write(pd.concat([frame, rated, footage]), tiny_profile.layout.root)
    code, out = verified(capsys, spread)
    assert code == 0 and out.endswith("pass: all agree.\n")


def test_tolerances_follow_the_stated_rule(spread: Path, tiny_profile):
    folders = [tiny_profile.layout.reference, *(seed_run(tiny_profile, seed) for seed in (1, 2, 3))]
    frames = [pd.read_csv(folder / "metrics.csv", keep_default_na=False) for folder in folders]
    chosen = [frame[(frame.method == "edges") & (frame.metric == "psnr_truth")].value for frame in frames]
    values = np.stack(chosen, axis=1)  # [clips, runs]
    assert values.shape == (16, 4)
    each = np.std(values, axis=1, ddof=1)
    mean = max(np.std(values.mean(axis=0), ddof=1), np.sqrt((each**2).mean() / 16))
    row = tolerances(tiny_profile).loc[("edges", "psnr_truth")]
    assert row.tolerance == pytest.approx(6 * mean, rel=1e-3)
    assert row.clip_tolerance == pytest.approx(6 * each.max(), rel=1e-3)
    assert row.seeds == 4
    fixed = tolerances(tiny_profile).loc["render"]
    assert (fixed.tolerance == [metrics.columns()[metric].floor for metric in fixed.index]).all()
    assert all(column.floor > 0 for column in metrics.columns().values())


def test_runs_that_hardly_differ_leave_the_floor(capsys, shipped: Path, tiny_profile):
    frame = pd.read_csv(tiny_profile.layout.metrics, keep_default_na=False)
    last = (frame.method == "realmaster") & (frame["clip"] == "s0_0")
    for seed in (1, 2):
        write(frame.assign(value=frame.value + seed * 1e-6 * last), seed_run(tiny_profile, seed))
    folders = [str(seed_run(tiny_profile, seed)) for seed in (1, 2)]
    assert cli.main(["verify", "--profile", str(shipped), "--spread", *folders]) == 0
    row = tolerances(tiny_profile).loc[("realmaster", "psnr_truth")]
    assert row.tolerance == row.clip_tolerance == metrics.columns()["psnr_truth"].floor


def test_what_differs_is_listed_with_its_tolerance(capsys, spread: Path, tiny_profile):
    tolerance = tolerances(tiny_profile).loc[("edges", "psnr_truth")]
    changed(tiny_profile, "edges", "psnr_truth", 0.9 * tolerance.tolerance)
    assert verified(capsys, spread)[0] == 0
    changed(tiny_profile, "edges", "psnr_truth", 0.2 * tolerance.tolerance)
    code, out = verified(capsys, spread)
    (line,) = [line for line in out.splitlines() if line.startswith("  edges")]
    words = line.split()
    assert code == 1 and words[1] == "psnr_truth" and words[5:] == ["the", "mean"]
    assert float(words[3]) - float(words[2]) == pytest.approx(1.1 * tolerance.tolerance, abs=2e-4)
    assert float(words[4]) == pytest.approx(tolerance.tolerance, rel=0.01)
    assert "differs: 1 of " in out


def test_one_clip_that_differs_is_named(capsys, spread: Path, tiny_profile):
    tolerance = tolerances(tiny_profile).loc[("realmaster", "sharpness")]
    changed(tiny_profile, "realmaster", "sharpness", 1.01 * tolerance.clip_tolerance, clip="s3_1")
    code, out = verified(capsys, spread)
    assert code == 1 and "s3_1, the furthest of 1 (of 16 clips)" in out


def test_methods_without_randomness_have_no_room(capsys, spread: Path, tiny_profile):
    changed(tiny_profile, "blur", "psnr_truth", 0.009)
    assert verified(capsys, spread)[0] == 0
    changed(tiny_profile, "blur", "psnr_truth", 0.002)
    code, out = verified(capsys, spread)
    assert (
        code == 1 and [line.split()[0] for line in out.splitlines() if "psnr_truth" in line] == ["blur"] * 2
    )


def test_what_only_one_has_is_a_difference(capsys, spread: Path, tiny_profile):
    frame = pd.read_csv(tiny_profile.layout.metrics, keep_default_na=False)
    of_edges = frame[frame.method == "edges"]
    rest = frame[(frame.method != "edges") & ~((frame.method == "blur") & (frame.metric == "sharpness"))]
    rest = rest.astype({"value": object})
    rest.loc[(rest.method == "realmaster") & (rest["clip"] == "s1_0"), "value"] = "not run"
    write(pd.concat([rest, of_edges.assign(method="depth")]), tiny_profile.layout.root)
    code, out = verified(capsys, spread)
    lines = {line.strip() for line in out.splitlines()}
    assert code == 1 and "edges: only in the reference." in lines and "depth: only here." in lines
    assert "blur, sharpness: only in the reference." in lines
    assert "realmaster, psnr_truth: only in the reference for 1 clips, s1_0 the first." in lines
    assert not [line for line in lines if line.startswith("render")]


def test_a_face_without_a_match_has_no_cosine(capsys, shipped: Path, tiny_profile):
    """A clip may lack `arcface`, whose coverage counts it; it may not lack the coverage."""

    def with_faces(folder: Path, seed: int, *absent: str) -> None:
        frame = pd.read_csv(folder / "metrics.csv", keep_default_na=False)
        frame = frame[~frame.metric.str.startswith("arcface")]
        draw = np.random.default_rng(seed)
        rows = frame[(frame.method == "realmaster") & (frame.metric == "sharpness")]
        cosines = rows.assign(metric="arcface", value=0.5 + 0.01 * draw.random(len(rows)))
        coverage = rows.assign(metric="arcface_coverage", value=0.8)
        faces = pd.concat([cosines, coverage])
        faces = faces[~((faces["clip"] == "s0_0") & faces.metric.isin(absent))]
        write(pd.concat([frame, faces]), folder)

    root = tiny_profile.layout
    for seed, folder in enumerate((root.reference, seed_run(tiny_profile, 1), seed_run(tiny_profile, 2))):
        with_faces(folder, seed, *(["arcface"] if seed == 1 else []))
    folders = [str(seed_run(tiny_profile, seed)) for seed in (1, 2)]
    assert cli.main(["verify", "--profile", str(shipped), "--spread", *folders]) == 0
    with_faces(root.root, 0, "arcface")
    assert verified(capsys, shipped)[0] == 0
    with_faces(root.root, 0, "arcface", "arcface_coverage")
    code, out = verified(capsys, shipped)
    assert code == 1 and "realmaster, arcface_coverage: only in the reference for 1 clips" in out


def test_nothing_is_compared_without_a_reference_tolerances_or_a_run(capsys, shipped: Path, tiny_profile):
    layout = tiny_profile.layout
    line = refused(capsys, "verify", shipped)
    assert "tolerances.csv does not exist, and none is made up" in line and "--spread" in line
    folders = [str(seed_run(tiny_profile, seed)) for seed in (1, 2, 3)]
    assert cli.main(["verify", "--profile", str(shipped), "--spread", *folders]) == 0
    layout.metrics.unlink()
    assert "metrics.csv does not exist: run 05_evaluation" in refused(capsys, "verify", shipped)
    (layout.reference / "metrics.csv").rename(layout.reference / "elsewhere.csv")
    assert "profiles with a reference are none" in refused(capsys, "verify", shipped)


def test_other_settings_are_not_compared(capsys, spread: Path, tiny_profile, tmp_path: Path):
    seeded = tiny_profile.model_copy(update={"seed": 7})
    assert verified(capsys, saved(seeded, tmp_path, models={"device": "auto"}))[0] == 0
    line = refused(capsys, "verify", saved(tiny_profile, tmp_path, train={"gradient_clip": 0.5}))
    assert re.search(r"train\.gradient_clip is 0\.5 here and 1\.0 in .*profile\.yaml \(1 differ\)", line)


@pytest.mark.parametrize("column", ["clip", "options"])
def test_other_clips_or_options_are_not_compared(capsys, spread: Path, tiny_profile, column: str):
    frame = pd.read_csv(tiny_profile.layout.metrics, keep_default_na=False)
    rows = frame["clip"] == "s0_0" if column == "clip" else frame.metric == "sharpness"
    frame.loc[rows, column] = "other"
    write(frame, tiny_profile.layout.root)
    said = {"clip": "is of other clips than the reference", "options": "sharpness was measured with other"}
    assert said[column] in refused(capsys, "verify", spread)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("metrics.csv", "metric,value", "metric,number", "no column value"),
        ("metrics.csv", "render,s0_0,psnr_truth,", "render,s0_0,psnr_truth,many", "could not convert"),
        ("metrics.csv", "render,s0_1,", "render,s0_0,", "two rows are of render, s0_0"),
        ("tolerances.csv", "clip_tolerance", "other", "is damaged"),
        ("tolerances.csv", "edges,psnr_truth,", "edges,psnr_truth,-", "something else than positive numbers"),
        ("tolerances.csv", "edges,psnr_truth,", "edges,ssim_truth,", "two rows of one method and metric"),
        ("tolerances.csv", "edges,psnr_truth,", "depth,psnr_truth,", "no row for edges, psnr_truth"),
        ("profile.yaml", "learning_rate", "learning_rat", "there is no such setting"),
    ],
)
def test_damaged_files_are_a_sentence(capsys, spread: Path, tiny_profile, file, old, new, said):
    path = tiny_profile.layout.reference / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert said in refused(capsys, "verify", spread)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ((1,), "a spread needs 2 runs or more"),
        ((1, 4), "tiny-seed4/metrics.csv does not exist"),
        ((1, 1, 2), "one folder is given twice"),
        ((1, 2, "copy"), "hold the same values"),
        ((1, 2, "settings"), "render, psnr_truth differs between these runs and knows no seed"),
        ((1, 2, "method"), "do not measure the same: edges: only in the reference"),
    ],
)
def test_runs_that_tell_no_spread(capsys, shipped: Path, tiny_profile, runs, said):
    frame = pd.read_csv(seed_run(tiny_profile, 1) / "metrics.csv", keep_default_na=False)
    write(frame, seed_run(tiny_profile, "copy"))
    write(frame.assign(value=frame.value + 1), seed_run(tiny_profile, "settings"))
    write(frame[frame.method != "edges"], seed_run(tiny_profile, "method"))
    folders = [str(seed_run(tiny_profile, run)) for run in runs]
    capsys.readouterr()
    assert cli.main(["verify", "--profile", str(shipped), "--spread", *folders]) == 2
    assert said in capsys.readouterr().err
    assert not (tiny_profile.layout.reference / "tolerances.csv").exists()


def test_it_loads_no_model_library():
    code = "import sys, rmkit.evaluation.verify; heavy = {'torch', 'diffusers', 'transformers'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
