"""Structure: polarity, one range a clip, equal twins, and the two sources of depth."""

import numpy as np
import pytest
import torch

from rehearsal import models as stand_ins
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.kit.depth import disparity_of
from rmkit.method import sampling, structure
from rmkit.profile import Structure


def with_structure(profile, **settings):
    return profile.model_copy(update={"structure": profile.structure.model_copy(update=settings)})


def test_edges_are_black_lines_on_white():
    frame = np.full((1, 32, 48, 3), 40, np.uint8)
    frame[:, 8:24, 12:36] = 220
    lines = structure.edges(frame, Structure())
    assert lines.shape == frame.shape and lines.dtype == np.uint8
    assert set(np.unique(lines)) == {0, 255}
    assert (lines == 255).mean() > 0.8
    assert lines[0, 16, 11:13].min() == 0 and lines[0, 16, 24].min() == 255


def test_soft_edges_are_as_dark_as_the_step_is_high():
    frame = np.full((1, 32, 48, 3), 40, np.uint8)
    frame[:, :, 16:32], frame[:, :, 32:] = 80, 240
    lines = structure.edges(frame, Structure(edges="gradient"))
    assert lines.shape == frame.shape and lines.dtype == np.uint8
    row = lines[0, 16, :, 0].astype(int)
    assert row[8] == 255 and row[24] == 255
    # Steps of 40 and 160 grey levels; 128 are black.
    assert abs(row[15] - (255 - 80)) <= 1 and row[16] == row[15] and row[31] == row[32] == 0


def test_depth_is_near_white_on_one_range_a_clip():
    depth = np.full((2, 4, 4), 10.0, np.float32)
    depth[0, :2], depth[1, :2] = 1.0, 2.0
    depth[1, 3, 3] = np.inf
    shown = structure.disparity_video(disparity_of(depth))
    assert shown[0, 0, 0, 0] == 255 and shown[1, 3, 3, 0] == 0
    # The second frame's nearest is half as near as the clip's: a range a frame would show it white.
    assert shown[1, 0, 0, 0] == round(0.5 * 255)
    assert np.array_equal(shown[0, 2], shown[1, 2])


def test_flat_or_empty_depth_does_not_divide_by_zero():
    for value in (5.0, 0.0, np.inf, np.nan, -1.0):
        shown = structure.disparity_video(disparity_of(np.full((1, 2, 2), value, np.float32)))
        assert not shown.any()


def test_stage_writes_both_kinds_and_twins_stay_equal(tiny_profile, tiny_clips):
    paths = structure.extract(tiny_profile, tiny_clips)
    assert len(paths) == 2 * len(tiny_clips) and all(p.is_file() for p in paths)
    for kind in ("edges", "depth"):
        frames = video.read(structure.path(tiny_profile, kind, tiny_clips[0]))
        assert frames.shape == (9, 32, 48, 3)
        assert np.array_equal(frames[:8:2], frames[1::2])
        assert not np.array_equal(frames[0], frames[2])
    # The square of the test's scenes, at 2 m before a wall at 10 m, is where the depth is white.
    depth = video.read(structure.path(tiny_profile, "depth", tiny_clips[0]))
    assert (depth[0, 8:24, 6:20] == 255).all() and (depth[0, :8] == 0).all()
    before = [p.stat().st_mtime_ns for p in paths]
    structure.extract(tiny_profile, tiny_clips)
    assert [p.stat().st_mtime_ns for p in paths] == before


def test_settings_of_one_kind_do_not_remake_the_other(tiny_profile, tiny_clips):
    clip = tiny_clips[0]
    structure.extract(tiny_profile, [clip])
    files = [structure.path(tiny_profile, kind, clip) for kind in ("edges", "depth")]
    before = [p.stat().st_mtime_ns for p in files]
    structure.extract(with_structure(tiny_profile, canny=(20, 60)), [clip])
    after = [p.stat().st_mtime_ns for p in files]
    assert after[0] != before[0] and after[1] == before[1]


def test_depth_is_left_out_where_no_variant_wants_it(tiny_profile, tiny_clips):
    plain = tiny_profile.propagation.model_copy(update={"variants": ("edges",)})
    paths = structure.extract(tiny_profile.model_copy(update={"propagation": plain}), tiny_clips)
    assert {p.parent.name for p in paths} == {"edges"}


def test_source_without_depth_is_refused_before_anything_is_written(tiny_profile, tiny_clips):
    sequence = sampling.sequence_of(tiny_profile, tiny_clips[0])
    (sequence.folder / "depth" / "000002.npy").unlink()
    with pytest.raises(InputError, match="no depth maps"):
        structure.extract(tiny_profile, tiny_clips)
    assert not structure.path(tiny_profile, "edges", tiny_clips[0]).exists()


def test_estimator_runs_the_real_class(tiny_profile, tiny_clips, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "depth"
    stand_ins.depth_anything(folder)
    estimated = with_structure(tiny_profile, depth="depth_anything", depth_model=str(folder))
    path = structure.extract(estimated, tiny_clips[:1], kinds=["depth"])[0]
    frames = video.read(path)
    assert frames.shape == (9, 32, 48, 3)
    assert frames.min() == 0 and frames.max() == 255
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[8])

    with pytest.raises(InputError, match="depth_model is empty"):
        structure.extract(with_structure(estimated, depth_model=None), tiny_clips[:1])
    with pytest.raises(InputError, match=r"depth_model is .*no, and .* does not exist"):
        structure.extract(with_structure(estimated, depth_model=str(tmp_path / "no")), tiny_clips[:1])


def test_lines_are_thickened_on_request_and_keep_their_polarity(tiny_profile):
    frame = np.zeros((1, 32, 48, 3), np.uint8)
    frame[:, :, 24:] = 255
    settings = tiny_profile.structure
    drawn = {n: structure.edges(frame, settings.model_copy(update={"thickness": n}))[0] for n in (None, 3, 5)}
    widths = {n: int((lines[16, :, 0] < 128).sum()) for n, lines in drawn.items()}
    assert widths[3] == widths[None] + 2 and widths[5] == widths[None] + 4
    assert all(lines[0, 0, 0] == 255 for lines in drawn.values())


def test_the_key_of_lines_as_detected_is_that_of_before(tiny_profile, tiny_clips):
    plain = structure._recipe(tiny_profile, "edges", tiny_clips[0], None)
    assert plain.settings == {"canny": tiny_profile.structure.canny}
    thick = tiny_profile.structure.model_copy(update={"thickness": 3})
    thicker = tiny_profile.model_copy(update={"structure": thick})
    assert structure._recipe(thicker, "edges", tiny_clips[0], None).key != plain.key
