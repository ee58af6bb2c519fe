"""Alignment: known drifts are measured through a change of look and undone, large ones refused."""

import cv2
import numpy as np
import pytest

from rmkit.kit import alignment


@pytest.fixture
def render() -> np.ndarray:
    """A flat-shaded scene of blocks and discs, uint8 [96, 144, 3]."""
    random = np.random.default_rng(3)
    picture = np.full((96, 144, 3), 120, np.uint8)
    for _ in range(14):
        x, y = int(random.integers(0, 130)), int(random.integers(0, 85))
        w, h = (int(v) for v in random.integers(10, 40, 2))
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        cv2.circle(picture, (y, x % 96), w // 3, colour[::-1], -1)
    return picture


def look_of_a_camera(picture: np.ndarray) -> np.ndarray:
    """Another look on the same geometry: other contrast and tint, soft, with grain."""
    grain = np.random.default_rng(5).normal(0, 4, picture.shape)
    toned = 255 * (picture / 255) ** 1.6 * (0.8, 0.9, 1.0) + 20
    return np.clip(cv2.GaussianBlur(toned, (0, 0), 0.7) + grain, 0, 255).astype(np.uint8)


def moved(picture: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    return cv2.warpAffine(
        picture, np.array(matrix, np.float32), picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.0, -1.0), (-1.5, 2.5), (6.0, 3.0)])
def test_shift_is_measured_through_a_change_of_look(render, shift):
    edited = moved(look_of_a_camera(render), [[1, 0, shift[0]], [0, 1, shift[1]]])
    drift = alignment.measure(render, edited)
    assert drift.measured
    assert drift.pixels == pytest.approx(np.hypot(*shift), abs=0.35)


def test_zoom_which_has_no_shift_is_measured(render):
    zoom = 1.04  # what a forced output size does to Qwen-Image-Edit (FACTS 3)
    centre = [[zoom, 0, -0.02 * 144], [0, zoom, -0.02 * 96]]
    drift = alignment.measure(render, moved(look_of_a_camera(render), centre))
    assert drift.pixels == pytest.approx(0.02 * np.hypot(96, 144), abs=0.5)


def test_small_drift_is_undone_and_large_one_refused(render):
    look = look_of_a_camera(render)
    small = moved(look, [[1, 0, 2.0], [0, 1, -1.0]])
    picture, facts = alignment.align(render, small, limit=3.5)
    assert facts["accepted"] and facts["drift_pixels"] > 1.8 and facts["residual_pixels"] < 0.5
    inner = (slice(6, -6), slice(6, -6))
    error = [np.abs(one[inner].astype(int) - look[inner]).mean() for one in (small, picture)]
    assert error[1] < 0.6 * error[0]

    large = moved(look, [[1, 0, 8.0], [0, 1, 0.0]])
    picture, facts = alignment.align(render, large, limit=3.5)
    assert not facts["accepted"] and np.array_equal(picture, large)


def test_aligned_edit_is_returned_untouched(render):
    look = look_of_a_camera(render)
    picture, facts = alignment.align(render, look, limit=3.5)
    assert np.array_equal(picture, look) and facts["accepted"] and facts["drift_pixels"] < 0.5


@pytest.mark.parametrize("kind", ["flat", "noise"])
def test_pictures_without_common_edges_are_not_measured(render, kind):
    noise = np.random.default_rng(1).integers(0, 255, render.shape).astype(np.uint8)
    edited = noise if kind == "noise" else np.full_like(render, 90)
    picture, facts = alignment.align(render, edited, limit=3.5)
    assert not facts["measured"] and facts["residual_pixels"] is None
    assert facts["accepted"] and np.array_equal(picture, edited)
