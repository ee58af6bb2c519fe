"""Another engine: weathers paired in time, two samples beside each other, and the whole on a small tree of drives."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rmkit import profile, sources
from rmkit.demos import carla
from rmkit.errors import InputError
from rmkit.evaluation import metrics_csv, tables
from rmkit.method import dataset, sampling, training
from rmkit.pipeline import doctor, notebooks
from rmkit.sources import carla_loc

HEIGHT, WIDTH = 48, 72


def scene(moment: int, seed: int = 0) -> np.ndarray:
    """A wall of blocks past which a camera drives by three pixels a frame."""
    wall = np.random.default_rng(seed).integers(20, 235, (HEIGHT // 6, 60, 3)).astype(np.float32)
    return np.kron(wall, np.ones((6, 6, 1), np.float32))[:, 3 * moment :][:, :WIDTH]


LOOKS = {
    "ClearNoon": lambda frame, noise: frame,
    "FoggyNoon": lambda frame, noise: 0.25 * frame + 150,
    "RainyNight": lambda frame, noise: 0.15 * frame + noise.normal(0, 4, frame.shape),
}


def write_drive(root: Path, town: str, weather: str, frames: int = 26, late: int = 0) -> None:
    """A drive whose first picture shows moment 4 + late."""
    folder, noise = root / town / weather / "dynamic" / "stereo_l", np.random.default_rng(7)
    folder.mkdir(parents=True)
    for i in range(frames):
        frame = LOOKS[weather](scene(4 + late + i, seed=len(town)), noise)
        Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "carla_loc"


@pytest.mark.parametrize("weather", ["FoggyNoon", "RainyNight"])
@pytest.mark.parametrize("late", [-2, 0, 1, 3])
def test_weathers_are_paired_by_what_they_show(root: Path, tmp_path: Path, weather: str, late: int) -> None:
    write_drive(root, "Town01", "ClearNoon")
    write_drive(root, "Town01", weather, frames=24, late=late)
    (clear,) = carla_loc.read(root, "ClearNoon", tmp_path, 20)
    other = carla_loc.in_weather(clear, weather)
    assert (other.id, other.fps, len(other)) == (f"Town01_{weather}_dynamic", 20, 24)
    found = carla.pair(clear, other)
    assert found == [(i, i - late) for i in range(26) if 0 <= i - late < 24]
    assert dict(carla.pair(other, clear))[5] == 5 + late
    assert carla_loc.in_weather(clear, "SnowyNoon") is None


def test_a_camera_that_stands_still_is_paired_as_it_lies(root: Path, tmp_path: Path) -> None:
    for weather in ("ClearNoon", "FoggyNoon"):
        folder = root / "Town01" / weather / "static" / "stereo_l"
        folder.mkdir(parents=True)
        for i in range(12):
            Image.fromarray(scene(0).astype(np.uint8)).save(folder / f"{i}.png")
    (clear,) = carla_loc.read(root, "ClearNoon", tmp_path, 20)
    assert carla.pair(clear, carla_loc.in_weather(clear, "FoggyNoon")) == [(i, i) for i in range(12)]


def rows(gain: float, count: int, seed: int) -> list[dict[str, object]]:
    """Values of a metrics.csv: RealMaster is `gain` above the render, sequences differ by much more."""
    draw, found = np.random.default_rng(seed), []
    for i in range(count):
        level = draw.normal(20, 3)
        for j in range(2):
            for method, value in (("render", level), ("realmaster", level + gain + draw.normal(0, 0.1))):
                ids = {"profile": "tiny", "method": method, "clip": f"{seed}{i}_{j}", "metric": "psnr_truth"}
                found.append(ids | {"value": value, "sequence": f"{seed}{i}", "subsets": "", "options": ""})
    return found


@pytest.mark.parametrize(("towns", "has_verdict"), [(4, False), (8, True)])
def test_fewer_than_eight_sequences_have_a_range_and_no_verdict(
    tiny_profile: profile.Profile, towns: int, has_verdict: bool
) -> None:
    here = tiny_profile.model_copy(update={"carla": tiny_profile.data}).demo("carla")
    for settings, made in ((tiny_profile, rows(2.0, 12, 1)), (here, rows(0.5, towns, 2))):
        settings.layout.root.mkdir(parents=True, exist_ok=True)
        metrics_csv.write(settings.layout.metrics, made)
    table = carla.compare(tiny_profile, here)
    assert [row[1] for row in table.cells] == ["in domain", "out of domain", "out − in"]
    place = table.header.index("RealMaster − Render (input)")
    inside, outside, difference = (row[place] for row in table.cells)
    assert inside.startswith("+2.0") and "[" in inside and outside.startswith("+0.")
    assert ("[" in outside, "[" in difference) == (has_verdict, has_verdict)
    assert ("(" in outside, "(" in difference) == (not has_verdict, not has_verdict)
    # The levels are too far apart to tell anything, the gains are not.
    assert table.bold == (frozenset({(2, place)}) if has_verdict else frozenset())
    data = table.data[(table.data.method == "realmaster") & (table.data.less == "render")].set_index("part")
    assert data.value["difference"] == pytest.approx(data.value["out"] - data.value["in"], abs=1e-5)
    gains = pd.DataFrame(rows(0.5, towns, 2)).pivot(
        index=["sequence", "clip"], columns="method", values="value"
    )
    gains = (gains.realmaster - gains.render).groupby("sequence").mean()
    if not has_verdict:
        assert data.low["out"] == pytest.approx(gains.min(), abs=1e-5)
        assert data.high["difference"] == pytest.approx(gains.max() - data.value["in"], abs=1e-5)
    assert f"out of domain {2 * towns} clips of {towns} towns" in table.notes[2]


def test_what_is_not_there_is_not_run(tiny_profile: profile.Profile, tmp_path: Path) -> None:
    assert carla.why_not(tiny_profile).startswith("not run: this profile has no data for it")
    (line,) = [finding for finding in doctor.check(tiny_profile) if finding.what == "07_carla"]
    assert (line.ok, line.needed, line.found) == (False, False, carla.why_not(tiny_profile))
    data = {"source": "carla_loc", "root": str(tmp_path / "nowhere"), "train_clips": 0, "validation_clips": 2}
    absent = profile.Profile.model_validate(tiny_profile.model_dump() | {"carla": data})
    assert carla.why_not(absent) == (
        f"not run: {tmp_path}/nowhere does not exist; data/README.md says how to get CARLA-LOC."
    )
    # Once it is there the notebook has to run again.
    book = next(book for book in notebooks.series() if book.name == "07_carla")
    before = notebooks._recipe(absent, book, ()).key
    write_drive(tmp_path / "nowhere", "Town01", "ClearNoon", frames=2)
    assert notebooks._recipe(absent, book, ()).key != before
    shutil.rmtree(tmp_path / "nowhere")
    # What is there and damaged is no reason to go on in silence.
    (tmp_path / "nowhere").mkdir()
    assert carla.why_not(absent) is None
    with pytest.raises(InputError, match="has no folder Town01"):
        carla.prepare(absent)
    (line,) = [finding for finding in doctor.check(absent) if finding.what == "07_carla"]
    assert line.needed and not line.ok and "has no folder Town01" in line.found


@pytest.mark.parametrize("name", ["paper", "consumer"])
def test_real_profiles_do_without_the_data_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carla, "resolve", lambda path: tmp_path / path)
    asked = profile.load(name)
    assert carla.why_not(asked).startswith("not run: data/carla_loc does not exist")
    (tmp_path / asked.carla.root).mkdir(parents=True)
    assert carla.why_not(asked) is None


def test_drives_are_enhanced_measured_and_set_beside_the_run(
    pairs_profile: profile.Profile, root: Path
) -> None:
    """The reader's own drives, smaller than a clip of the paper, with another weather of one of them."""
    for town in ("Town01", "Town02"):
        write_drive(root, town, "ClearNoon")
    write_drive(root, "Town02", "FoggyNoon", late=2)
    data = {"source": "carla_loc", "root": str(root), "train_clips": 0, "validation_clips": 3}
    settings = profile.Profile.model_validate(pairs_profile.model_dump() | {"carla": data})
    dataset.encode(settings)
    training.train(settings)
    here = carla.prepare(settings)
    assert here.clips == settings.clips and here.layout.root == settings.layout.root / "carla"
    path = carla.measure(here)
    frame = pd.read_csv(path)
    assert list(frame.columns) == metrics_csv.COLUMNS + metrics_csv.PROVENANCE
    assert list(frame.method.unique()) == [
        "render",
        "colour_transfer",
        "realmaster",
    ]  # no truth, so no ceiling
    assert set(frame.sequence) == {"Town01", "Town02"} and frame["clip"].nunique() == 3
    before = path.stat().st_mtime_ns
    assert carla.measure(here).stat().st_mtime_ns == before
    settings.layout.metrics.write_text(path.read_text())
    table = carla.compare(settings, here)
    assert table.header[2:] == [
        *("Render (input)", "Colour transfer", "RealMaster", "VAE ceiling", "Truth"),
        *("RealMaster − Render (input)", "RealMaster − Colour transfer"),
    ]
    assert {row[5] for row in table.cells} == {"n/a"} and any("ArcFace" in note for note in table.notes)
    assert len(tables.write(here, [table])) == 3
    clips = sampling.load(here)
    assert [carla.other_weathers(here, clip) for clip in clips] == [[], ["FoggyNoon"], ["FoggyNoon"]]
    sheet = carla.weather_sheet(here, clips[1], "FoggyNoon", columns=2, width=WIDTH)
    assert sheet.height > 3 * 40
    asked = here.layout.enhanced / "realmaster_foggynoon"
    assert [file.name for file in asked.glob("*.mp4")] == [f"{clips[1].id}.mp4"]


def test_clips_are_no_larger_than_the_pictures(tiny_profile: profile.Profile, root: Path) -> None:
    """The paper's clips are 800 pixels high, and the data set's pictures 720: cut, and never stretched."""
    write_drive(root, "Town01", "ClearNoon")
    data = {"source": "carla_loc", "root": str(root), "train_clips": 0, "validation_clips": 1}
    content = tiny_profile.model_dump() | {"carla": data}
    content["clips"] |= {"height": 64, "width": 64}
    here = carla.prepare(profile.Profile.model_validate(content))
    assert (here.clips.height, here.clips.width) == (48, 64)
    assert sources.describe(here).endswith("drives in ClearNoon: 1, with 26 frames at 20 a second")
