"""Metrics against their definitions, the baselines, and evaluate end to end on the tiny profile."""

import csv
import itertools
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import set_model

from rmkit import baselines, metrics, profile
from rmkit.baselines import colour_transfer, per_frame, prefilter, truth
from rmkit.errors import InputError
from rmkit.evaluation import evaluate
from rmkit.kit import store, video
from rmkit.method import anchoring, propagation, sampling, structure
from rmkit.metrics import Column, Subject
from rmkit.metrics.edge_f1 import REGIONS, edge_f1
from rmkit.metrics.motion_smoothness import flow_midpoint, motion_smoothness
from rmkit.metrics.motion_smoothness_amt import Amt
from rmkit.metrics.psnr import psnr
from rmkit.metrics.sharpness import sharpness
from rmkit.metrics.ssim import ssim
from rmkit.metrics.temporal_flickering import temporal_flickering
from rmkit.pipeline import doctor


def noise(count: int, height: int = 96, width: int = 144, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def moving_square(count: int = 7, step: int = 3) -> np.ndarray:
    """A smooth blob that moves `step` pixels a frame over a plain ground."""
    frames = np.full((count, 64, 96, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        cv2.circle(frame, (24 + step * i, 32), 12, (220, 180, 140), -1)
        frames[i] = cv2.GaussianBlur(frame, (0, 0), 2)
    return frames


class Live:
    """Frames made one by one, and how many of them were in memory at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def frames(self, count: int, seed: int) -> Iterator[np.ndarray]:
        for i in range(count):
            yield self._made(100 * seed + i)

    def _made(self, seed: int) -> np.ndarray:
        frame = noise(1, 32, 48, seed)[0].copy()
        weakref.finalize(frame, self._gone)
        self.now += 1
        self.most = max(self.most, self.now)
        return frame

    def _gone(self) -> None:
        self.now -= 1


# The columns that need no model.
PLAIN = tuple(c for c in metrics.columns().values() if metrics.metric_of(c.name).name in metrics.ORDER[:6])


def subject(**frames: Callable[[], Iterator[np.ndarray]]) -> Subject:
    """A clip of 81 frames, each source frame twice, that `frames` opens: output, and render or truth."""
    inputs = dict.fromkeys(frames, "")
    size = {"count": 81, "times": 2, "source_frames": ()}
    return Subject("a", "clip", frames, inputs, **size, sequence="s", subsets=(), folder=Path())


def value(column: str, frames: np.ndarray) -> float:
    """Of a clip without a render or a truth."""
    metric = metrics.metric_of(column)
    measure = metric.ready(None, ())
    return measure(subject(output=lambda: iter(frames)), [metrics.columns()[column]])[column]


@pytest.mark.parametrize("column", PLAIN, ids=lambda column: column.name)
def test_the_length_of_a_clip_costs_no_memory(column: Column) -> None:
    """Three frames of the clip, and the one it is compared with and its twin: all that any metric needs."""
    live = Live()
    frames = {"output": lambda: live.frames(81, 0)}
    if column.against:
        frames[column.against] = lambda: live.frames(81, 1)
    if column.beside:
        number = REGIONS[column.name][0]
        frames[column.beside] = lambda: (np.full((32, 48), number, np.uint8) for _ in range(81))
    measure = metrics.metric_of(column.name).ready(None, ())
    assert set(measure(subject(**frames), [column])) == {column.name}
    assert 0 < live.most <= 5


@pytest.mark.parametrize("height", [96, 400])
def test_temporal_flickering_rounds_where_vbench_rounds(height: int) -> None:
    """VBench: BGR frames as float32, cv2.absdiff, float32 means; at 400x600 a float32 sum is inexact."""
    frames = noise(4, height, height * 3 // 2)
    bgr = [np.array(frame[..., ::-1], dtype=np.float32) for frame in frames]
    means = np.array([np.mean(cv2.absdiff(a, b)) for a, b in itertools.pairwise(bgr)])
    assert means.dtype == np.float32
    assert temporal_flickering(iter(frames)) == (255.0 - np.mean(means).item()) / 255.0


def test_motion_smoothness_arithmetic_given_the_interpolated_frames() -> None:
    """Truncated to uint8, then absdiff in uint8; the last odd frame without a neighbour is left out."""
    frames = noise(6, 16, 24)
    predicted = [
        np.random.default_rng(i).uniform(-20, 280, frames[0].shape).astype(np.float32) for i in (1, 2)
    ]
    queue = iter(predicted)
    found = motion_smoothness(iter(frames), lambda left, right: next(queue))
    truncated = [np.clip(p, 0, 255).astype(np.uint8) for p in predicted]
    errors = [np.mean(cv2.absdiff(frames[i], p)) for i, p in zip((1, 3), truncated, strict=True)]
    assert found == pytest.approx((255.0 - np.mean(errors)) / 255.0, abs=1e-12)


def test_the_flow_interpolator_follows_motion() -> None:
    frames = moving_square(3, step=3)
    warped = np.abs(flow_midpoint(frames[0], frames[2]) - frames[1]).mean()
    blended = np.abs((frames[0].astype(np.float32) + frames[2]) / 2 - frames[1]).mean()
    assert warped < blended / 2


def test_temporal_metrics_of_still_and_repeated_frames() -> None:
    still = np.repeat(noise(1, 32, 48), 5, axis=0)
    assert temporal_flickering(still) == 1.0 and motion_smoothness(still) == 1.0
    frames = moving_square(5)
    repeated = sampling.repeat(frames, 2, 9)
    at_rate = value("temporal_flickering", repeated)
    distinct = value("temporal_flickering_distinct", repeated)
    assert distinct == temporal_flickering(frames)
    assert 1 - at_rate == pytest.approx((1 - distinct) / 2, rel=1e-5)
    with pytest.raises(ValueError):
        temporal_flickering(frames[:1])
    with pytest.raises(ValueError):
        motion_smoothness(frames[:2])


def test_psnr_is_of_the_whole_clip() -> None:
    frames = np.full((2, 8, 8, 3), 100, np.uint8)
    other = frames.copy()
    other[1] += 10  # mean squared error 50 over both frames
    assert psnr(frames, other) == pytest.approx(10 * np.log10(255**2 / 50))
    assert psnr(frames, frames) == np.inf
    with pytest.raises(ValueError):
        psnr(frames, frames[:1])


def test_ssim_equals_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    frames = moving_square(3)
    other = np.clip(frames.astype(int) + np.random.default_rng(0).integers(-25, 25, frames.shape), 0, 255)
    other = other.astype(np.uint8)
    options = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True}
    expected = [
        structural_similarity(b, a, sigma=1.5, use_sample_covariance=False, **options)
        for a, b in zip(frames, other, strict=True)
    ]
    assert ssim(frames, other) == pytest.approx(np.mean(expected), abs=1e-9)
    repeated = ssim(sampling.repeat(frames, 2, 6), sampling.repeat(other, 2, 6))
    assert repeated == pytest.approx(np.mean(expected), abs=1e-9)


def test_sharpness_falls_with_blur() -> None:
    frames = noise(2, 48, 64)
    assert sharpness([cv2.GaussianBlur(frame, (0, 0), 1) for frame in frames]) < 0.1 * sharpness(frames)
    assert sharpness(np.full((1, 16, 16, 3), 90, np.uint8)) == 0


def test_edge_f1_counts_outlines_that_stayed() -> None:
    frame = np.full((40, 60, 3), 40, np.uint8)
    frame[10:30, 15:45] = 220
    beside, away = np.roll(frame, 1, axis=1), np.roll(frame, 6, axis=1)
    assert edge_f1([frame], [frame]) == 1
    assert edge_f1([beside], [frame]) > 0.99  # within the tolerance
    assert 0.2 < edge_f1([away], [frame]) < 0.8  # the horizontal sides still meet
    flat = np.zeros_like(frame)
    assert edge_f1([flat], [frame]) == 0 and edge_f1([flat], [flat]) == 1
    # An outline too many costs precision: 2 * p / (p + 1) with recall 1.
    more = frame.copy()
    more[34:38, 4:10] = 220
    assert 0.8 < edge_f1([more], [frame]) < 1


def test_colour_map_is_found_again() -> None:
    wanted = np.array([[0.8, 0.1, 0, 10], [0, 0.7, 0.1, 20], [0.05, 0, 0.9, 5]])
    frames = noise(3, 16, 24)
    found = colour_transfer.least_squares([(frames, colour_transfer.apply(wanted, frames))])
    assert np.abs(found - wanted).max() < 0.05  # rounding to uint8 is all that differs
    assert np.abs(found[:, :3] - wanted[:, :3]).max() < 1e-3


def write_interpolator(path: Path, inputs: int = 2, sides: tuple = ("H", "W"), dtype: str = "FLOAT") -> Path:
    """An ONNX file in AMT-S' place: the mean of its frames."""
    import onnx
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, dtype)
    names = [f"frame{i}" for i in range(inputs)]
    ports = [helper.make_tensor_value_info(name, kind, [1, 3, *sides]) for name in names]
    out = helper.make_tensor_value_info("middle", kind, [1, 3, *sides])
    graph = helper.make_graph([helper.make_node("Mean", names, ["middle"])], "mean", ports, [out])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, path)
    return path


@pytest.mark.parametrize("size", [(32, 48), (30, 41)])
def test_amt_sees_frames_in_whole_cells_and_gives_back_their_size(tmp_path: Path, size: tuple) -> None:
    left, right = noise(2, *size)
    model = Amt(write_interpolator(tmp_path / "amt.onnx"))
    seen, run = [], model._session.run

    class Session:
        def run(self, outputs: None, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.extend(tensors.values())
            return run(outputs, tensors)

    model._session = Session()
    middle = model(left, right)
    assert middle.shape == left.shape
    assert np.allclose(middle, (left.astype(np.float64) + right) / 2, atol=1e-3)
    rows, columns = ((-(-side // 16) * 16 - side) // 2 for side in size)
    for tensor, frame in zip(seen, (left, right), strict=True):
        assert tensor.dtype == np.float32 and tensor.shape == (1, 3, 32, 48)
        inside = tensor[0, :, rows : rows + size[0], columns : columns + size[1]]
        assert np.array_equal(inside, (frame.transpose(2, 0, 1) / 255).astype(np.float32))
        assert np.array_equal(
            tensor[0, :, 0, 0], (frame[0, 0] / 255).astype(np.float32)
        )  # the edge, repeated


def test_motion_smoothness_by_amt_has_columns_of_its_own(
    measured: profile.Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = metrics.metric_of("motion_smoothness_amt")
    said = "not run: metrics.motion_smoothness_amt of this profile names no model."
    assert metric.why_not(measured) == metric.why_no_row(measured) == said
    before = rows_of(evaluate.evaluate(measured))
    settings = set_model(measured, "motion_smoothness_amt", write_interpolator(tmp_path / "amt.onnx"))
    assert metric.why_not(settings) is None and metric.why_no_row(settings) == metrics.NO_ROW
    assert [f.ok for f in doctor.check(settings) if f.what == "model motion_smoothness_amt"] == [True]
    path = evaluate.evaluate(settings)
    rows = rows_of(path)
    added = [row for row in rows if row["metric"] in {column.name for column in metric.columns}]
    assert [row for row in rows if row not in added] == before
    assert {(r["method"], r["clip"]) for r in added} == {(r["method"], r["clip"]) for r in before}
    revision = metric.fingerprint(settings)[:12]
    assert {row["options"] for row in added} == {
        f"model={metric.model(settings)};revision={revision};interpolator=amt_s"
    }
    clip = sampling.load(settings, "validation")[0]
    frames = video.read(baselines.every(settings)["realmaster"].path(settings, clip))
    value = {(r["method"], r["clip"], r["metric"]): float(r["value"]) for r in rows}
    for name, chosen in (("motion_smoothness_amt", frames), ("motion_smoothness_amt_distinct", frames[::2])):
        expected = motion_smoothness(chosen, lambda a, b: (a.astype(np.float32) + b) / 2)
        assert value["realmaster", clip.id, name] == pytest.approx(expected, abs=1e-3)

    # Again: the same file, and no frame goes through the model.
    kept = path.read_bytes()
    monkeypatch.setattr(Amt, "__call__", lambda *_: pytest.fail("interpolated"))
    assert evaluate.evaluate(settings).read_bytes() == kept


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", r"metrics.motion_smoothness_amt is .*, and .* is no file"),
        ("damaged", r"is damaged or no ONNX model"),
        ("inputs", r"has 3 inputs and 1 outputs: export AMT-S so that it takes two frames"),
        ("type", r"is a tensor\(float16\) of .* and must be float32 \[1, 3, H, W\]"),
        ("size", r"takes \[1, 3, 64, 96\] and frames of 32x48 come as \[1, 3, 32, 48\]"),
    ],
)
def test_an_interpolator_that_cannot_serve_stops_before_anything(
    measured: profile.Profile, tmp_path: Path, what: str, said: str
) -> None:
    path = tmp_path / "amt.onnx"
    if what != "missing":
        changes = {"inputs": {"inputs": 3}, "type": {"dtype": "FLOAT16"}, "size": {"sides": (64, 96)}}
        write_interpolator(path, **changes.get(what, {}))
    if what == "damaged":
        path.write_bytes(path.read_bytes()[:-20])
    settings = set_model(measured, "motion_smoothness_amt", path)
    with pytest.raises(InputError, match=said) as refused:
        evaluate.evaluate(settings)
    assert "\n" not in str(refused.value)
    finding = next(f for f in doctor.check(settings) if f.what == "model motion_smoothness_amt")
    assert finding.needed and not finding.ok
    assert (
        not (settings.layout.root / "metrics").exists() and not (settings.layout.enhanced / "blur").exists()
    )


def put_truth(settings: profile.Profile) -> None:
    for clip in sampling.load(settings, "validation"):
        frames = sampling.sequence_of(settings, clip).frames(list(clip.source_frames))
        video.write(truth.path(settings, clip), (frames * 0.9).astype(np.uint8), 8)


def put_results(settings: profile.Profile) -> None:
    """Stand-ins for what the model stages write: renders a little changed, and pairs of them."""
    shades = {"edges": 0.92, "depth": 0.7, "multi_anchor": 0.8}
    pairs = []
    for clip in sampling.load(settings):
        frames = video.read(sampling.path(settings, clip))
        for variant, shade in shades.items():
            target = propagation.path(settings, variant, clip)
            video.write(target, (frames * shade).astype(np.uint8), settings.clips.fps)
        target = settings.layout.enhanced / "realmaster" / f"{clip.id}.mp4"
        video.write(target, (frames * 0.9).astype(np.uint8) + 1, settings.clips.fps)
        if clip.split == "train":
            root = settings.layout.root
            pairs.append(
                {
                    "clip": clip.id,
                    "caption": clip.caption,
                    "render": sampling.path(settings, clip).relative_to(root).as_posix(),
                    "target": propagation.path(settings, "edges", clip).relative_to(root).as_posix(),
                    "kept": True,
                    "reason": "",
                }
            )
    settings.layout.pairs.mkdir(parents=True)
    store.write_json(settings.layout.pairs / "pairs.json", pairs)


@pytest.fixture
def measured(tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip]) -> profile.Profile:
    put_results(tiny_profile)
    return tiny_profile


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate_measures_everything_once(measured: profile.Profile) -> None:
    put_truth(measured)
    path = evaluate.evaluate(measured)
    rows = rows_of(path)
    assert list(rows[0])[:5] == ["profile", "method", "clip", "metric", "value"]
    measured_methods = [
        method for method in baselines.FIRST + baselines.LAST[:-1] if method not in baselines.EXTERNAL
    ]
    assert list(dict.fromkeys(row["method"] for row in rows)) == measured_methods
    assert {row["metric"] for row in rows} == {column.name for column in PLAIN if not column.asked}
    assert {row["options"] for row in rows if "smooth" in row["metric"]} == {"interpolator=dis_flow"}
    assert not [row for row in rows if row["method"] == "truth" and "truth" in row["metric"]]
    assert {row["artefact"] for row in rows if row["method"] == "render"} == {
        store.fingerprint(sampling.path(measured, clip)) for clip in sampling.load(measured, "validation")
    }
    value = {(r["method"], r["clip"], r["metric"]): float(r["value"]) for r in rows}
    clip = sampling.load(measured, "validation")[0].id
    assert value["realmaster", clip, "psnr_truth"] > value["depth", clip, "psnr_truth"]
    assert value["colour_transfer", clip, "psnr_truth"] > value["render", clip, "psnr_truth"]

    # Again: the same bytes, no file touched; after a kill in the middle: the same bytes.
    before = path.read_bytes()
    stamps = {p: p.stat().st_mtime_ns for p in measured.layout.root.rglob("*.json")}
    assert evaluate.evaluate(measured).read_bytes() == before
    assert stamps == {p: p.stat().st_mtime_ns for p in measured.layout.root.rglob("*.json")}
    for metric in (measured.layout.root / "metrics").iterdir():
        shutil.rmtree(metric / "edges")
        (metric / "depth" / f"{clip}.json").write_text("[")
        store.sidecar_of(metric / "depth" / f"{clip}.json").unlink()
    path.unlink()
    assert evaluate.evaluate(measured).read_bytes() == before


def test_a_changed_edge_detector_renews_edge_f1_and_nothing_else(
    measured: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate.evaluate(measured)
    artefacts = list((measured.layout.root / "metrics").glob("*/*/*.json"))
    stamps = {path: path.stat().st_mtime_ns for path in artefacts}
    monkeypatch.setattr(structure, "VERSION", structure.VERSION + 1)
    evaluate.evaluate(measured)
    renewed = {path.parts[-3] for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert renewed == {"edge_f1"} and len({path.parts[-3] for path in stamps}) > 3


def test_another_methods_clips_are_measured_where_they_lie(measured: profile.Profile) -> None:
    for clip in sampling.load(measured, "validation"):
        target = baselines.every(measured)["lucy_edit"].path(measured, clip)
        video.write(target, video.read(sampling.path(measured, clip)), measured.clips.fps)
    rows = rows_of(evaluate.evaluate(measured))
    mine = {row["metric"]: float(row["value"]) for row in rows if row["method"] == "lucy_edit"}
    assert mine["edge_f1"] == 1


def test_an_external_method_is_made_and_measured_in_one_go(measured: profile.Profile, monkeypatch) -> None:
    """After everything else was found to be there, and before anything is measured."""

    plainly = baselines.make

    def make(made: profile.Profile, clips) -> None:
        plainly(measured, clips)
        for clip in clips:
            frames = video.read(sampling.path(made, clip))
            video.write(baselines.every(made)["editto"].path(made, clip), frames, made.clips.fps)

    asked = measured.model_copy(update={"baselines": profile.Baselines(editto={"model": "nowhere"})})
    with pytest.raises(InputError, match=r"baselines\.editto\.model is nowhere"):
        evaluate.evaluate(asked)
    assert not (asked.layout.enhanced / "blur").exists()
    monkeypatch.setattr(baselines, "make", make)
    put_truth(asked)
    held = sampling.load(asked, "validation")
    # An earlier run's clip of another size is made again, not refused.
    video.write(baselines.every(asked)["editto"].path(asked, held[0]), np.zeros((9, 16, 16, 3), np.uint8), 16)
    rows = rows_of(evaluate.evaluate(asked))
    assert {row["clip"] for row in rows if row["method"] == "editto"} == {clip.id for clip in held}
    video_count = len({(row["method"], row["clip"]) for row in rows})
    assert baselines.videos(asked) == video_count


def test_simple_baselines(measured: profile.Profile) -> None:
    held = sampling.load(measured, "validation")
    render = video.read(sampling.path(measured, held[0]))
    baselines.make(measured, held)
    methods = baselines.every(measured)
    soft = video.read(methods["blur"].path(measured, held[0]))
    assert soft.shape == render.shape and sharpness(soft) < 0.9 * sharpness(render)
    filtered = video.read(methods["prefilter"].path(measured, held[0]))
    assert np.array_equal(filtered[3], prefilter.filtered(render[3]))
    flat = np.full((16, 16, 3), 90, np.uint8)
    assert (prefilter.filtered(flat) == 90).all()
    step = np.where(np.arange(16) < 8, 60, 180).astype(np.uint8)[None, :, None].repeat(16, 0).repeat(3, 2)
    row = prefilter.filtered(step)[8, :, 0].astype(int)
    # A ramp in place of the step, with less than a fifth of its height beyond it on either side.
    assert 60 < row[7] < row[8] < 180 and 36 < row.min() < 60 and 180 < row.max() < 204
    some = video.spread(held, per_frame.CLIPS)
    assert 0 < len(some) <= per_frame.CLIPS
    edited = video.read(methods["per_frame"].path(measured, some[0]))
    assert edited.shape == render.shape
    assert (edited[0] == edited[1]).all() and (edited[0] != edited[2]).any()  # twins are edited once


def test_without_a_truth_nothing_is_near_to_it(measured: profile.Profile) -> None:
    rows = rows_of(evaluate.evaluate(measured))
    assert not {"truth", "vae_ceiling"} & {row["method"] for row in rows}
    assert not {"psnr_truth", "ssim_truth"} & {row["metric"] for row in rows}
    assert {"sharpness", "temporal_flickering_distinct"} <= {row["metric"] for row in rows}


def test_a_clip_with_a_refused_anchor_has_no_row_of_that_variant(measured: profile.Profile) -> None:
    clip = sampling.load(measured, "validation")[0]
    for index in anchoring.indices(measured, "edges"):
        picture = anchoring.path(measured, clip, index)
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
        store.sidecar_of(picture).write_text(json.dumps({"accepted": index == 0}))
    propagation.path(measured, "edges", clip).unlink()
    rows = rows_of(evaluate.evaluate(measured))
    assert clip.id not in {row["clip"] for row in rows if row["method"] == "edges"}
    assert clip.id in {row["clip"] for row in rows if row["method"] == "realmaster"}


def test_bad_outputs_are_named_before_anything_is_measured(measured: profile.Profile) -> None:
    clip = sampling.load(measured, "validation")[0]
    target = measured.layout.enhanced / "realmaster" / f"{clip.id}.mp4"
    whole = video.read(target)
    video.write(target, whole[:-4], measured.clips.fps)
    with pytest.raises(InputError, match="has 5 frames of 32x48 and the profile asks for 9"):
        evaluate.evaluate(measured)
    target.write_bytes(b"not a video")
    with pytest.raises(InputError, match="truncated or not a video"):
        evaluate.evaluate(measured)
    target.unlink()
    with pytest.raises(InputError, match=r"realmaster has not been run on clip"):
        evaluate.evaluate(measured)
    assert not (measured.layout.root / "metrics").exists()


def test_a_truth_that_is_too_short_is_a_sentence(measured: profile.Profile) -> None:
    put_truth(measured)
    clip = sampling.load(measured, "validation")[0]
    path = truth.path(measured, clip)
    video.write(path, video.read(path)[:2], 8)
    with pytest.raises(InputError, match=r"ends before frame 4, which clip .* needs"):
        baselines.make(measured, [clip])
