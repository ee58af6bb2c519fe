"""Progress: one line a milestone, none of what takes no time."""

import time

import pytest

from rmkit.kit import progress


def test_quick_work_prints_nothing(capsys: pytest.CaptureFixture) -> None:
    assert list(progress.track(range(20), "faces")) == list(range(20))
    assert capsys.readouterr().out == ""


def test_long_work_prints_a_line_a_milestone(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert len(list(progress.track(range(36), "faces"))) == 36
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == progress.MILESTONES and lines[-1].startswith("faces: 36 of 36")
