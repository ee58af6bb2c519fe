"""KID to real footage: torchmetrics' own value, and why there is none."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rmkit import profile
from rmkit.evaluation import kid
from rmkit.kit import video
from rmkit.method import sampling


def with_footage(settings: profile.Profile, folder: Path) -> profile.Profile:
    content = settings.model_dump() | {"metrics": dict(profile.load("mini").metrics)}
    content["judge"] |= {"real": str(folder)}
    return profile.Profile.model_validate(content)


def test_what_it_needs_is_said(
    tiny_profile: profile.Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kid.why_not(tiny_profile).startswith("not run: judge.real names no folder")
    made = with_footage(tiny_profile, tmp_path / "footage")
    assert kid.why_not(made).startswith("not run: judge.real names no folder")
    video.write(tmp_path / "footage" / "a.mp4", np.zeros((2, 32, 48, 3), np.uint8), 16)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert kid.why_not(made).startswith("not run: torchmetrics is not installed")


def test_samples_of_one_distribution_are_no_distance_apart() -> None:
    pytest.importorskip("torchmetrics", reason="belongs to the extra `real`")
    draw = np.random.default_rng(0)
    a, b = draw.normal(0, 1, (2, 60, 16)).astype(np.float32)
    near, deviation = kid.distance(a, b)
    assert abs(near) < 2 * deviation and kid.distance(a, b) == (near, deviation)
    far, _ = kid.distance(a, b + 1)
    assert far > 10 * abs(near)


def test_a_render_is_farther_from_footage_than_the_footage(
    tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip], tmp_path: Path
) -> None:
    pytest.importorskip("torchmetrics", reason="belongs to the extra `real`")
    made = with_footage(tiny_profile, tmp_path / "footage")
    for clip in tiny_clips:
        frames = video.read(sampling.path(made, clip))
        video.write(tmp_path / "footage" / f"{clip.id}.mp4", 255 - frames, 16)
        video.write(made.layout.enhanced / "realmaster" / f"{clip.id}.mp4", 255 - frames, 16)
    assert kid.why_not(made) is None
    found = kid.measure(made, tiny_clips, ("render", "realmaster", "truth")).set_index("method")
    assert list(found.index) == ["Render (input)", "RealMaster"]
    assert found.kid["RealMaster"] < found.kid["Render (input)"]
    assert (found.frames == 8 * 4).all() and (found.real_frames == 8 * 4).all()
