"""Intervals: resampled by sequence, paired, and honest about too little data."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from rmkit import baselines
from rmkit.evaluation import claims, statistics


def frame_of(values: dict[str, dict[str, float]], metric: str = "psnr_truth") -> pd.DataFrame:
    """metrics.csv as a frame; a clip 's1_0' belongs to sequence 's1'."""
    rows = [
        {
            "profile": "tiny",
            "method": method,
            "clip": clip,
            "metric": metric,
            "value": value,
            "sequence": clip.split("_")[0],
            "subsets": "",
            "options": "",
        }
        for method, by_clip in values.items()
        for clip, value in by_clip.items()
    ]
    return pd.DataFrame(rows)


def sequences(count: int, clips: int, spread: float, seed: int = 0) -> dict[str, float]:
    """Clips that differ between sequences and hardly within one."""
    draw = np.random.default_rng(seed)
    levels = draw.normal(20, spread, count)
    return {f"s{i}_{j}": levels[i] + draw.normal(0, 0.01) for i in range(count) for j in range(clips)}


def test_the_interval_is_of_sequences_not_of_clips() -> None:
    values = sequences(10, 5, spread=2.0)
    found = statistics.mean(frame_of({"edges": values}), "edges", "psnr_truth")
    assert (found.clips, found.sequences, found.interval) == (50, 10, "BCa")
    assert found.value == pytest.approx(np.mean(list(values.values())))
    assert found.low < found.value < found.high
    alone = {clip.replace("_", ""): value for clip, value in values.items()}  # every clip a sequence
    naive = statistics.mean(frame_of({"edges": alone}), "edges", "psnr_truth")
    assert found.high - found.low > 1.8 * (naive.high - naive.low)


def test_the_interval_covers_about_as_often_as_it_says() -> None:
    means = [
        statistics.mean(frame_of({"edges": sequences(16, 2, 1.0, seed)}), "edges", "psnr_truth")
        for seed in range(40)
    ]
    assert sum(found.low <= 20 <= found.high for found in means) >= 34


def test_pairs_are_of_the_clips_both_have() -> None:
    easy = sequences(8, 2, spread=5.0)
    better = {clip: value + 1.5 for clip, value in easy.items() if clip != "s0_0"}
    frame = frame_of({"edges": better, "realmaster": easy})
    found = statistics.difference(frame, "psnr_truth", "edges")
    assert found.value == pytest.approx(1.5) and found.clips == 15
    assert (found.low, found.high, found.interval) == (found.value, found.value, "no spread")


def test_ratio_of_means() -> None:
    sharp = sequences(8, 2, spread=2.0)
    blurred = {clip: value / 2 for clip, value in sharp.items()}
    frame = frame_of({"edges": blurred, "vae_ceiling": sharp}, "sharpness")
    assert statistics.ratio(frame, "sharpness", "edges", "vae_ceiling").value == pytest.approx(0.5)


def test_an_unpaired_difference_is_of_means_and_resampled_by_sequence() -> None:
    ours = sequences(12, 3, spread=1.0)
    uneven = {
        clip: value for clip, value in sequences(10, 3, 1.0, seed=1).items() if clip not in ("s0_1", "s3_0")
    }
    here, there = frame_of({"edges": uneven}), frame_of({"edges": ours})
    found = statistics.two_sample(here, there, "psnr_truth", "edges")
    assert found.value == pytest.approx(np.mean(list(uneven.values())) - np.mean(list(ours.values())))
    assert (found.sequences, found.clips, found.interval) == (10, 64, "BCa")
    # Welch's interval of the sequences' means, which is about the same thing for so many.
    means = [frame.groupby("sequence").value.mean() for frame in (here, there)]
    error = math.sqrt(sum(mean.var() / len(mean) for mean in means))
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)
    turned = statistics.two_sample(there, here, "psnr_truth", "edges")
    assert turned.value == -found.value and turned.low == pytest.approx(-found.high, abs=0.1)


def test_an_unpaired_interval_covers_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(40):
        pair = (frame_of({"edges": sequences(n, 2, 1.0, seed + k)}) for n, k in ((16, 0), (12, 1000)))
        found = statistics.two_sample(*pair, "psnr_truth", "edges")
        hits += found.low <= 0 <= found.high
    assert 34 <= hits


def test_an_unpaired_difference_of_gains_knows_what_is_paired() -> None:
    """Levels differ by tens of decibels between clips and the gain hardly does: clip by clip within each sample."""
    frames = []
    for seed, gain in ((0, 2.0), (1, 0.5)):
        base, noise = sequences(9, 2, 30.0, seed), np.random.default_rng(seed)
        better = {clip: value + gain + noise.normal(0, 0.1) for clip, value in base.items()}
        frames.append(frame_of({"render": base, "realmaster": better}))
    found = statistics.two_sample(*frames, "psnr_truth", "realmaster", "render")
    assert found.value == pytest.approx(1.5, abs=0.1) and 0 < found.high - found.low < 0.3
    alone = statistics.two_sample(*frames, "psnr_truth", "realmaster")
    assert alone.high - alone.low > 10


def test_of_few_sequences_the_range_is_shown() -> None:
    frame = frame_of({"edges": {"s0_0": 1.0, "s0_1": 2.0, "s1_0": 6.0}})
    found = statistics.spread(frame, "psnr_truth", "edges")
    assert (found.value, found.low, found.high, found.interval) == (3.0, 1.5, 6.0, "range")
    assert (found.clips, found.sequences) == (3, 2)
    one = frame_of({"edges": {"s0_0": 1.0}})
    assert statistics.two_sample(one, frame, "psnr_truth", "edges").interval == "one sequence"
    assert statistics.two_sample(frame, frame, "psnr_truth", "render") == statistics.NOTHING
    flat = frame_of({"edges": {"s0_0": 1.0, "s1_0": 1.0}})
    assert statistics.two_sample(flat, flat, "psnr_truth", "edges").interval == "no spread"


@pytest.mark.parametrize(
    ("values", "why"), [({}, "no data"), ({"s0_0": 3.0, "s0_1": 4.0}, "one sequence")], ids=["none", "one"]
)
def test_too_little_data_has_no_interval(values: dict[str, float], why: str) -> None:
    frame = frame_of({"render": {"s9_0": 1.0}, "edges": values})
    found = statistics.mean(frame, "edges", "psnr_truth")
    assert found.interval == why and math.isnan(found.low)
    assert found.known == bool(values)


def test_two_sequences_still_have_an_interval() -> None:
    frame = frame_of({"edges": {"s0_0": 1.0, "s1_0": 2.0}})
    found = statistics.mean(frame, "edges", "psnr_truth")
    assert found.low <= 1.5 <= found.high and found.interval in ("BCa", "percentile")


def outcome(values: dict[str, dict[str, float]], name: str, metric: str = "psnr_truth") -> claims.Outcome:
    return next(o for o in claims.check(frame_of(values, metric)) if o.claim.id == name)


def test_claims_have_verdicts() -> None:
    graded = sequences(12, 2, spread=3.0)
    noise = np.random.default_rng(1)

    def plus(gain: float) -> dict[str, float]:
        return {clip: value + gain + noise.normal(0, 0.2) for clip, value in graded.items()}

    values = {"colour_transfer": graded, "realmaster": plus(1.6), "edges": plus(1.2), "depth": plus(1.2)}
    assert outcome(values, "gain_over_grading").verdict == "holds"
    values["realmaster"] = plus(0.5)
    assert outcome(values, "gain_over_grading").verdict == "does not hold"
    assert outcome(values, "edges_over_depth_psnr").verdict == "undecided"
    assert outcome(values, "edges_over_multi_anchor_psnr").verdict == "not run"
    order = [method for method, _ in claims.observed_order(frame_of(values))]
    assert order[-1] == "realmaster" and len(order) == 3


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.5, "does not hold"), (0.7, "undecided"), (0.9, "holds"), (1.4, "does not hold")],
)
def test_sharpness_has_a_lower_and_an_upper_bound(factor: float, verdict: str) -> None:
    sharp = sequences(8, 2, spread=1.0)
    noise = np.random.default_rng(1)
    edges = {clip: value * (factor + noise.normal(0, 0.02)) for clip, value in sharp.items()}
    values = {"vae_ceiling": sharp, "edges": edges}
    assert outcome(values, "sharp_edges", "sharpness").verdict == verdict


def test_a_claim_that_less_is_better_holds_below_nothing() -> None:
    near = sequences(8, 2, spread=0.1)
    far = {clip: value + 1 for clip, value in near.items()}
    values = {"realmaster": near, "edges": far}
    assert outcome(values, "realmaster_over_edges_dino", "dino").verdict == "holds"
    swapped = {"realmaster": far, "edges": near}
    assert outcome(swapped, "realmaster_over_edges_dino", "dino").verdict == "does not hold"
    tied = {"realmaster": near, "edges": near}
    assert outcome(tied, "realmaster_over_edges_dino", "dino").verdict == "does not hold"


def test_claims_compare_methods_that_exist_and_have_names_of_their_own() -> None:
    checks = [claim.check for claim in claims.load() if claim.check and not claim.check.part]
    known = {method for check in checks for method in check.methods}
    assert known <= {*baselines.FIRST, *baselines.LAST[:-1]}
    assert len({claim.id for claim in claims.load()}) == len(claims.load())


OVER_EDGES = ("arcface", "dino", "gpt_rs", "gpt_rs_ref", "temporal_flickering", "motion_smoothness")


@pytest.mark.parametrize(
    ("worse", "tied", "lacking", "verdict"),
    [
        ((), (), (), "holds"),
        (("arcface",), (), ("dino",), "does not hold"),
        ((), ("temporal_flickering",), (), "undecided"),
        ((), (), ("gpt_rs", "gpt_rs_ref"), "undecided"),
        ((), (), OVER_EDGES, "not run"),
    ],
    ids=["all", "one is worse", "one is undecided", "some not run", "none run"],
)
def test_every_metric_must_be_better(worse: tuple, tied: tuple, lacking: tuple, verdict: str) -> None:
    edges, noise = sequences(8, 2, spread=0.1), np.random.default_rng(1)
    frames = [frame_of({"edges": edges, "realmaster": edges})]
    for metric in set(OVER_EDGES) - set(lacking):
        gain = -1 if (metric == "dino") != (metric in worse) else 1
        gain = 0 if metric in tied else gain
        ours = {clip: value + gain + noise.normal(0, 0.1) for clip, value in edges.items()}
        frames.append(frame_of({"edges": edges, "realmaster": ours}, metric))
    outcomes = {o.claim.id: o for o in claims.check(pd.concat(frames))}
    found = outcomes["realmaster_over_edges_everywhere"]
    assert found.verdict == verdict and len(found.parts) == len(OVER_EDGES) and not found.found.known
    assert outcomes["realmaster_over_edges_most"].verdict == "not run"


def test_a_claim_is_checked_in_one_way() -> None:
    words = {"id": "a", "section": "4.5", "statement": "b"}
    for ways in ({}, {"every": ["c"], "not_run": "d"}):
        with pytest.raises(ValueError, match="one of them"):
            claims.Claim.model_validate(words | ways)


@pytest.mark.parametrize("count", [4, 8, 12], ids=str)
def test_p_values_are_scipys(count: int) -> None:
    """With zeros and ties, where scipy itself takes seconds, and without."""
    draw = np.random.default_rng(count)
    for gains in (draw.normal(0.5, 1, count), draw.integers(-1, 4, count).astype(float)):
        base = {f"s{i}_0": 0.0 for i in range(count)}
        better = {clip: gain for clip, gain in zip(base, gains, strict=True)}
        frame = frame_of({"edges": better, "realmaster": base})
        found = statistics.p_values(frame, "psnr_truth", ["edges"])["edges"]
        assert found == pytest.approx(wilcoxon(gains).pvalue, abs=1e-12)


@pytest.mark.parametrize(
    "check",
    [
        {"metric": "dino", "difference": ["a", "b"]},
        {"metric": "dino", "least": 0},
        {"metric": "dino", "difference": ["a", "b"], "at_least": 0},
    ],
    ids=["no bound", "no methods", "misspelt"],
)
def test_a_claim_that_cannot_be_checked_is_refused(check: dict) -> None:
    with pytest.raises(ValueError, match=r"(?i)check"):
        claims.Check.model_validate(check)
