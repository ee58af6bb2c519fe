"""Limits: coverage with known answers, newcomers in made masks, bins, clips that are cut, and the whole on tiny clips."""

from pathlib import Path

import numpy as np
import pytest

from rmkit import profile
from rmkit.baselines import truth
from rmkit.demos import cuts, limits, limits_clip, limits_crops, limits_figures, objects
from rmkit.errors import InputError
from rmkit.evaluation import claims, metrics_csv, verdicts
from rmkit.kit import store, video
from rmkit.method import enhance, sampling


def maps(*boxes: tuple[int, range, slice, slice], frames: int = 5) -> np.ndarray:
    """Object ids [D, 40, 60]: each box is an id, the frames in which it is seen, its rows and columns."""
    visible = np.zeros((frames, 40, 60), np.uint8)
    for number, seen, rows, columns in boxes:
        for frame in seen:
            visible[frame, rows, columns] = number
    return visible


THING = (3, range(5), slice(0, 4), slice(0, 4))
LATE = (7, range(2, 5), slice(10, 20), slice(10, 20))
BETWEEN = (9, range(1, 4), slice(20, 30), slice(40, 50))
WALL = (200, range(5), slice(35, 40), slice(0, 60))


def test_newcomers_are_absent_from_the_first_frame_and_scenery_is_no_object() -> None:
    found = objects.of_map(maps(THING, LATE, BETWEEN, WALL), {200: "wall", 7: "person"})
    assert found.ids == (3, 7, 9) and found.kinds == ("", "person", "")
    assert found.arrives.tolist() == [False, True, True] and found.unseen.tolist() == [False, False, True]
    assert found.size == pytest.approx([16 / 2400, 100 / 2400, 100 / 2400])  # of the frames it is seen in
    assert found.area[1].tolist() == [0, 0, 100, 100, 100]


def test_hardly_there_is_absent_and_a_speck_is_no_newcomer() -> None:
    visible = maps((1, range(5), slice(0, 20), slice(0, 20)), (2, range(2, 5), slice(30, 31), slice(0, 2)))
    visible[0, :20, :20] = 0
    visible[0, :3, :13] = 1  # 39 of 400 pixels: under a tenth
    found = objects.of_map(visible, {})
    assert found.arrives.tolist() == [True, False]
    visible[0, 3, :2] = 1  # 41 of 400
    assert not objects.of_map(visible, {}).arrives[0]


def pictures(level: float, count: int = 5) -> np.ndarray:
    return np.full((count, 40, 60, 3), level, np.uint8)


def scene(visible: np.ndarray, render: np.ndarray, target: np.ndarray | None) -> limits_clip.Scene:
    flow = np.zeros((*render[1:].shape[:3], 2), np.float32)
    return limits_clip.Scene(render, target, objects.of_map(visible, {}), flow, objects.speed(flow))


@pytest.mark.parametrize(
    ("level", "covered", "changed"),
    [(100, 0, 0), (140, 1, 1), (120, 0.5, 0.5), (80, -0.5, 0.5), (160, 0.5, 1.5)],
)
def test_coverage_and_change_of_an_object(level: float, covered: float, changed: float) -> None:
    """Render 100, truth 140: only the object's own pixels count."""
    visible, output = maps(THING), pictures(0)
    output[visible == 3] = level
    seen = scene(visible, pictures(100), pictures(140))
    found = limits_clip.by_object(seen, "realmaster", output, range(5))
    assert found["covered"][0] == pytest.approx(covered) and found["changed"][0] == pytest.approx(changed)
    assert found["error"][0] == pytest.approx(abs(level - 140))


def test_where_the_truth_is_the_render_there_is_no_way_to_cover() -> None:
    found = limits_clip.by_object(
        scene(maps(THING), pictures(100), pictures(100)), "edges", pictures(90), range(5)
    )
    assert np.isnan(found["covered"][0]) and np.isnan(found["changed"][0]) and found["error"][0] == 10


def test_a_clips_metrics_by_size_and_of_newcomers() -> None:
    """Small: 0.25 of the way; large: 0.75; the newcomer is 30 off, and 60 in the last frame, which does not count."""
    large = (5, range(5), slice(5, 35), slice(0, 20))
    newcomer = (6, range(2, 5), slice(0, 10), slice(50, 60))
    visible = maps((4, range(5), slice(0, 2), slice(0, 2)), large, newcomer)
    output = pictures(140)
    for number, level in ((4, 110), (5, 130), (6, 110)):
        output[visible == number] = level
    output[4][visible[4] == 6] = 80
    found = limits_clip.values(scene(visible, pictures(100), pictures(140)), "edges", output, list(range(5)))
    assert found["covered_small"] == pytest.approx(0.25) and found["covered_large"] == pytest.approx(0.75)
    assert found["covered_gap"] == pytest.approx(0.5) and found["change_gap"] == pytest.approx(0.5)
    assert found["newcomer_error"] == pytest.approx(30) and "unseen_error" not in found
    assert found["error_slow"] > 0 and "error_fast" not in found and found["object_colour_shift"] < 0.1


def test_change_at_the_ends_beside_the_truths() -> None:
    output = pictures(150)
    output[[0, 4]] = 160
    seen = scene(maps(THING), pictures(100), pictures(140))
    assert limits_clip.values(seen, "anchors", output[[0, 2, 4]], [0, 2, 4])["anchor_change_ratio"] == 1.5
    found = limits_clip.values(seen, "edges", output, list(range(5)))
    assert found["anchor_change_ratio"] == 1.5 and found["middle_gap"] == -10


def test_the_truth_and_the_render_are_not_compared_with_themselves() -> None:
    seen = scene(maps(THING), pictures(100), pictures(140))
    assert "covered_small" not in limits_clip.values(seen, "render", seen.render, list(range(5)))
    found = limits_clip.values(seen, "truth", seen.truth, list(range(5)))
    assert set(found) == {"flicker_slow", "object_colour_shift"}
    without = limits_clip.values(seen._replace(truth=None, found=None), "edges", pictures(1), list(range(5)))
    assert set(without) == {"flicker_slow"}


def test_bins_take_their_lower_edge_and_leave_out_what_is_empty() -> None:
    values, sizes = np.array([1.0, 3.0, 5.0, np.nan]), np.array([0.001, 0.005, 0.0049, 0.2])
    assert objects.bin_means(values, sizes, objects.SIZES) == {"small": 3.0, "medium": 3.0}


def test_flicker_is_what_motion_does_not_explain() -> None:
    """A texture that moves by 2 pixels a frame: moved along its flow nothing is left; standing still it all is."""
    wall = np.kron(
        np.random.default_rng(0).integers(0, 255, (10, 20, 3), np.uint8), np.ones((4, 4, 1), np.uint8)
    )
    frames = np.stack([wall[:, 2 * i : 2 * i + 60] for i in range(4)])
    flow = np.zeros((3, 40, 60, 2), np.float32)
    still = objects.flicker(frames, flow).mean()
    flow[..., 0] = 2
    assert objects.flicker(frames, flow)[:, :, :57].max() < 1e-3 and still > 10
    assert objects.speed(flow) == pytest.approx(2 / 60)
    assert np.median(objects.flow(frames)[:, 5:-5, 10:-10, 0]) == pytest.approx(2, abs=0.3)


def test_a_colour_shift_is_of_hue_not_of_light() -> None:
    found = objects.of_map(maps(THING), {})
    brighter = objects.colour_shift(found, pictures(150), pictures(100), range(5))
    red = pictures(100)
    red[..., 0] = 150
    assert brighter[0] < 0.1 and objects.colour_shift(found, red, pictures(100), range(5))[0] > 10


@pytest.mark.parametrize(("frames", "kept"), [(5, 5), (9, 5), (33, 21), (81, 53)])
def test_a_cut_clip_has_about_two_thirds_and_fits_the_vae(frames: int, kept: int) -> None:
    assert cuts.kept(frames) == kept and kept % 4 == 1


@pytest.mark.parametrize(("level", "share"), [(100, 0), (125, 0.25), (200, 1), (75, -0.25)])
def test_bleed_is_the_share_of_the_way_to_the_other_shot(level: float, share: float) -> None:
    assert cuts.bleed(pictures(level), pictures(100), pictures(200)) == pytest.approx(share)


@pytest.fixture
def played(
    tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip], monkeypatch: pytest.MonkeyPatch
) -> profile.Profile:
    """A run whose methods are shades of the render, and an adapter that adds a grey level a seed."""

    def shaded(settings, clips, name="realmaster", prompt=None, into=None):
        sampling.check(settings, clips)
        for clip in clips:
            frames = video.read(sampling.path(settings, clip))
            target = settings.layout.enhanced / (into or name) / f"{clip.id}.mp4"
            video.write(target, (frames * 0.9).astype(np.uint8) + settings.seed, settings.clips.fps)
        return []  # nothing is left to make

    monkeypatch.setattr(enhance, "items", shaded)
    monkeypatch.setattr(enhance, "make", lambda *_: [])
    validation = sampling.load(tiny_profile, "validation")
    enhance.enhance(tiny_profile, validation)
    for clip in validation:
        frames = video.read(sampling.path(tiny_profile, clip))
        video.write(
            tiny_profile.layout.propagated / "edges" / f"{clip.id}.mp4", (frames * 0.7).astype(np.uint8), 16
        )
        whole = sampling.sequence_of(tiny_profile, clip).frames(range(5))
        video.write(truth.path(tiny_profile, clip), (whole * 0.8).astype(np.uint8), 8)
    return tiny_profile


def test_the_whole_on_tiny_clips(played: profile.Profile) -> None:
    trials = cuts.make(played)
    assert [trial.cut.source_frames for trial in trials] == [(0, 1, 2)] * 2
    limits.measure(played)
    frame = limits.load(played)
    value = frame.set_index(["method", "metric", "clip"]).value
    first = trials[0].clip.id
    # The square, bright: the truth is 0.8 of the render, RealMaster 0.9, Edges 0.7.
    assert value["realmaster", "covered_large", first] == pytest.approx(0.5, abs=0.02)
    assert value["edges", "change_large", first] == pytest.approx(1.5, abs=0.02)
    # The end makes no difference to a shade, and another seed makes one grey level.
    assert (
        value["realmaster_cut", "cut_change", first] == 0
        and value["realmaster_reseeded", "cut_change", first] == 1
    )
    assert value["realmaster_joined", "join_bleed", first] == 0
    joined = video.read(played.demo("limits").layout.clips / f"{first}_joined.mp4")
    others = [video.read(sampling.path(played, trial.clip)) for trial in trials]
    assert np.array_equal(joined[:4], others[0][:4]) and np.array_equal(joined[4:], others[1][4:])
    points = limits.load(played, "objects")
    assert set(points.method) == {"edges", "realmaster"} and points.covered.notna().all()
    for figure in ("by_size", "by_speed", "newcomers", "over_editing", "without_the_end", "hard_cut"):
        assert getattr(limits_figures, figure)(played).axes
    assert limits_crops.fastest(played, trials[0].clip).height > 200
    (table,) = [limits.table(played)]
    assert [row[0] for row in table.cells] == ["Render (input)", "Edges", "RealMaster", "Truth"]


def test_again_nothing_is_measured_twice_and_the_bytes_are_the_same(
    played: profile.Profile, monkeypatch
) -> None:
    cuts.make(played)
    path = limits.measure(played)
    before = {file: file.read_bytes() for file in path.parent.glob("*.csv")}
    monkeypatch.setattr(limits_clip, "scene", None)
    limits.measure(played)
    assert {file: file.read_bytes() for file in path.parent.glob("*.csv")} == before and len(before) == 3


def test_claims_read_the_part(played: profile.Profile) -> None:
    cuts.make(played)
    limits.measure(played)
    store.write_text(played.layout.metrics, played.demo("limits").layout.metrics.read_text())  # some run
    beside = claims.measured_beside(played)
    assert set(beside) == {"limits"}
    found = {o.claim.id: o for o in claims.check(metrics_csv.load(played), beside)}
    assert found["editor_over_edits"].verdict == "not run"  # no anchors
    assert found["no_last_frame_change"].verdict == "holds" and found["no_last_frame_change"].found.value == 0
    assert found["rain_comes"].verdict == "not run"
    assert "weather, carla" in verdicts.table(played, metrics_csv.load(played)).notes[0]


def test_without_maps_and_truth_the_rest_is_measured(
    played: profile.Profile, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for folder in (tmp_path / "dataset").glob("*/visible"):
        folder.rename(folder.with_name("hidden"))
    for clip in sampling.load(played, "validation"):
        truth.path(played, clip).unlink()
    limits.measure(played)
    said = capsys.readouterr().out
    assert "no object maps" in said and "no truth" in said
    assert set(limits.load(played).metric) <= {"flicker_slow", "flicker_fast", "flicker_gap"}
    for figure in ("by_size", "by_speed", "newcomers", "over_editing", "without_the_end", "hard_cut"):
        assert getattr(limits_figures, figure)(played)
    assert any("n/a" in text.get_text() for text in limits_figures.by_size(played).axes[0].texts)
    clip = sampling.load(played, "validation")[0]
    for crop in (limits_crops.small_objects, limits_crops.newcomer):
        with pytest.raises(InputError):
            crop(played, clip)
    with pytest.raises(InputError, match="no small object"):
        limits_crops.crowded(played)
    with pytest.raises(InputError, match="was not measured"):
        limits_crops.most(played, "newcomer_error", "realmaster", "edges")
