"""Claims beyond the run's own table: parts, other kinds of numbers, what was added later; the count by section."""

import re

import pandas as pd
import pytest
from test_statistics import frame_of, sequences
from test_tables import put_metrics

from rmkit import baselines, profile
from rmkit.evaluation import claims, metrics_csv, report, statistics, verdicts

BOUND = {"metric": "m", "least": 0.5}


def shifted(by: float, count: int = 8, seed: int = 0) -> dict[str, float]:
    return {clip: value - 20 + by for clip, value in sequences(count, 2, spread=0.01, seed=seed).items()}


def checked(check: dict, run: pd.DataFrame, **parts: pd.DataFrame) -> tuple[statistics.Estimate, str]:
    made = claims.Check.model_validate(check)
    found = made.find(run, parts)
    return found, made.verdict(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"mean": "a", "ratio": ["a", "b"]},
        {"mean": "a", "part": "walks"},
        {"two_sample": "a"},
        {"difference": ["a"]},
    ],
    ids=["no kind", "two kinds", "no such part", "two samples of one", "one method"],
)
def test_a_check_has_one_kind_and_a_part_that_there_is(wrong: dict) -> None:
    with pytest.raises(ValueError):
        claims.Check.model_validate(BOUND | wrong)
    assert claims.Check.model_validate(BOUND | {"mean": "a", "part": "carla"}).methods == ("a",)


def test_a_part_reads_its_own_values_and_is_not_run_before_it_has_some() -> None:
    run, part = frame_of({"a": shifted(0)}, "m"), frame_of({"a": shifted(0.8)}, "m")
    of_part = BOUND | {"mean": "a", "part": "limits"}
    assert checked(of_part, run, limits=part)[1] == "holds"
    assert checked(of_part, run, weather=part) == (statistics.NOTHING, "not run")
    assert checked(BOUND | {"mean": "a"}, run, limits=part)[1] == "does not hold"
    assert checked(of_part | {"mean": "b"}, run, limits=part)[1] == "not run"


def test_a_mean_has_a_verdict_of_its_interval() -> None:
    frame = frame_of({"a": sequences(8, 2, spread=5.0)}, "m")
    assert checked({"metric": "m", "mean": "a", "least": 5}, frame)[1] == "holds"
    assert checked({"metric": "m", "mean": "a", "most": 5}, frame)[1] == "does not hold"
    assert checked({"metric": "m", "mean": "a", "least": 20, "most": 20.1}, frame)[1] == "undecided"


def test_two_samples_are_a_part_and_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run, part = frame_of({"a": shifted(0)}, "m"), frame_of({"a": shifted(0.8)}, "m")
    asked = []
    monkeypatch.setattr(
        statistics,
        "two_sample",
        lambda *arguments: asked.append(arguments) or statistics.Estimate(0.8, 0.7, 0.9, 16, 8, "BCa"),
        raising=False,
    )
    assert checked(BOUND | {"two_sample": "a", "part": "carla"}, run, carla=part)[1] == "holds"
    assert asked[0][0] is part and asked[0][1] is run and asked[0][2:] == ("m", "a")


def test_too_few_sequences_give_a_number_and_no_verdict() -> None:
    check = BOUND | {"mean": "a", "part": "carla", "fewest": 8}
    nothing = frame_of({"b": shifted(0)}, "m")
    found, verdict = checked(check, nothing, carla=frame_of({"a": shifted(0.8, count=7)}, "m"))
    assert found.known and verdict == "undecided"
    assert checked(check, nothing, carla=frame_of({"a": shifted(0.8, count=8)}, "m"))[1] == "holds"


def test_people_are_read_from_the_studys_table() -> None:
    columns = ["against", "question", "preferred", "low", "high", "trials", "participants"]
    study = pd.DataFrame([("editto", "realism", 0.7, 0.6, 0.8, 40, 5)], columns=columns)
    check = {"metric": "realism", "preferred": "editto", "least": 0.5}
    found, verdict = checked(check, frame_of({"b": shifted(0)}), study=study)
    assert (found.value, found.clips, found.sequences, verdict) == (0.7, 40, 5, "holds")
    assert checked(check | {"metric": "quality"}, study, study=study)[1] == "not run"
    assert checked(check, study)[1] == "not run"


def test_the_file_has_statements_of_every_section_and_says_which_came_later() -> None:
    sections = list(dict.fromkeys(claim.section for claim in claims.load()))
    assert sections == ["3.2", "4.2", "4.3", "4.4", "4.5", "5", "A", "this kit"]
    later = [claim.id for claim in claims.load() if claim.exploratory]
    assert later == [
        "keeps_identity",
        "carla_nearer_than_grading",
        "carla_nearer_than_render",
        "gain_over_blur",
        "gain_over_blur_ssim",
        "realmaster_over_edges_judge",
    ]
    # What is awkward stands in the first lines, too.
    assert set(later[3:]) < {claim.id for claim in claims.load() if claim.headline}
    assert all(c.check.fewest == 8 for c in claims.load() if c.check and c.check.part == "carla")


def test_the_report_counts_by_section_and_parts_by_their_files(tiny_profile: profile.Profile) -> None:
    put_metrics(tiny_profile, [*baselines.FIRST, *baselines.LAST[:-1]])
    frame = metrics_csv.load(tiny_profile)
    part = tiny_profile.demo("weather").layout.metrics
    part.parent.mkdir(parents=True)
    clips = {"rain": shifted(0.8), "snow": shifted(0.3), "clear": shifted(0.1)}
    rows = [frame_of({method: values}, "weather_share") for method, values in clips.items()]
    pd.concat(rows).to_csv(part, index=False)
    table = verdicts.table(tiny_profile, frame)
    by_id = dict(zip(table.data.id, table.data.verdict, strict=True))
    assert [by_id[f"{name}_comes"] for name in ("rain", "snow", "fog")] == [
        "holds",
        "does not hold",
        "not run",
    ]
    assert by_id["clear_stays_clear"] == "holds"
    note = table.notes[0]
    assert "measured nothing here: carla, limits" in note and "the user study" in note
    measured = {row[1]: row for row in table.cells}
    row = next(cells for name, cells in measured.items() if name.startswith("Rain comes"))
    assert row[2:4] == ["rain, weather_share (weather)", "≥ 0.6"]
    assert any(name.endswith("(exploratory)") for name in measured)
    text = report.write(tiny_profile).read_text().partition("## ")[0]
    counted = re.findall(r"(?m)^\| ([\w. ]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text)
    assert [name for name, *_ in counted] == list(dict.fromkeys(claim.section for claim in claims.load()))
    for name, total, *by_verdict in counted:
        mine = table.data[table.data.section == name].verdict
        assert int(total) == len(mine)
        assert [int(n) for n in by_verdict] == [int((mine == verdict).sum()) for verdict in report.VERDICTS]
    assert sum(int(total) for _, total, *_ in counted) == len(claims.load())
