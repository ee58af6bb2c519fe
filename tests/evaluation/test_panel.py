"""A panel's statistics: intervals that hold what they should, agreement by published examples, plans that come true."""

import math

import numpy as np
import pandas as pd
import pytest

from rmkit.evaluation import panel, study
from rmkit.evaluation.panel import Clustering

QUESTIONS = ("realism", "quality")


def sessions(people, clips, methods="xyz"):
    pairs = [(f"c{i}", method) for method in methods for i in range(clips)]
    return [[seen[:2] for seen in one] for one in study.sessions(pairs, 15, 0, people)]


def agreeing(people, clips, ours=1):
    rows = [(f"p{i}", "x", "realism", f"c{j}", ours) for i in range(people) for j in range(clips)]
    return pd.DataFrame(rows, columns=["participant", "against", "question", "clip", "ours"])


@pytest.mark.parametrize("alike", [Clustering(0.1, 0.1), Clustering(0.3, 0.0)])
def test_intervals_hold_the_truth_and_plans_come_true(alike):
    preference, people, clips = 0.65, 24, 12
    seen = sessions(people, clips)
    frames = [panel.simulated(seen, QUESTIONS, preference, alike, seed) for seed in range(25)]
    found = pd.concat([panel.preferences(frame) for frame in frames])
    held = ((found.low <= preference) & (preference <= found.high)).mean()
    assert 0.9 <= held <= 1  # 150 intervals of 95 %
    estimated = np.mean([panel.clustering(frame) for frame in frames], axis=0)
    assert estimated == pytest.approx(alike, abs=0.04)
    width = ((found.high - found.low) / 2).mean()
    assert width == pytest.approx(panel.half_width(people, 5, clips, alike), rel=0.12)
    above = (found.low > 0.5).mean()
    assert above == pytest.approx(panel.power(preference, people, 5, clips, alike), abs=0.15)


def test_no_interval_is_of_length_zero():
    for ours in (0, 1):
        (row,) = panel.preferences(agreeing(10, 6, ours)).itertuples()
        assert row.preferred == ours and 0 <= row.low < row.high <= 1 and row.high - row.low > 0.1
    assert panel.clustering(agreeing(10, 6)) == panel.PLANNED
    for frame in (agreeing(1, 6), agreeing(6, 1)):
        (row,) = panel.preferences(frame).itertuples()
        assert math.isnan(row.low) and math.isnan(row.high)


def test_one_person_who_is_asked_more_often_is_not_more_people():
    alike = Clustering(0.5, 0.0)
    few, many = panel.share(agreeing(6, 8), alike), panel.share(agreeing(6, 80), alike)
    assert many.high - many.low > 0.85 * (few.high - few.low)


def test_a_plan_gives_the_fewest_people_or_asks_for_clips():
    people = panel.people_for(5, 24, width=0.1)
    assert panel.half_width(people, 5, 24) <= 0.1 < panel.half_width(people - 1, 5, 24)
    people = panel.people_for(5, 24, preference=0.7)
    assert panel.power(0.7, people, 5, 24) >= panel.POWER > panel.power(0.7, people - 1, 5, 24)
    assert panel.people_for(5, 6, width=0.05) is None


def test_alpha_is_krippendorffs():
    """His examples, of 2011: binary, two observers (A); nominal, four of them and missing values (C)."""
    binary = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]])
    nominal = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    )
    units = np.broadcast_to(np.arange(10), binary.shape)
    assert panel.alpha(binary.ravel(), units.ravel()) == pytest.approx(0.095, abs=5e-4)
    rated = nominal > 0
    units = np.broadcast_to(np.arange(12), nominal.shape)
    assert panel.alpha(nominal[rated], units[rated]) == pytest.approx(0.743, abs=5e-4)
    assert math.isnan(panel.alpha(np.ones(4), np.array([0, 0, 1, 1])))
    assert panel.agreement(agreeing(3, 2).assign(ours=[0, 1, 0, 1, 0, 1])).to_dict() == {"realism": 1}
