"""The plan: a row a stage from configs alone, what does not fit and what to set, and the refusal before a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from rmkit import baselines, cli, profile
from rmkit.errors import InputError
from rmkit.method import sampling
from rmkit.pipeline import calibrate, calibration, cards, configs, costs, fit, plan, plan_table
from rmkit.pipeline.calibration import Calibration, Timed

H100 = cards.named("h100")
HOUR = 3600


@pytest.fixture(scope="module")
def paper() -> profile.Profile:
    """With checkpointing, and nothing of training in CPU memory."""
    asked = profile.load("paper")
    values = {"gradient_checkpointing": True, "block_inputs": "device"}
    known = {key: value for key, value in values.items() if key in type(asked.train).model_fields}
    return asked.model_copy(update={"train": asked.train.model_copy(update=known), "name": "planned"})


def changed(asked: profile.Profile, group: str, **values: Any) -> profile.Profile:
    return asked.model_copy(update={group: getattr(asked, group).model_copy(update=values)})


def misfits(asked: profile.Profile, card: cards.Card) -> list[str]:
    return list(fit.misfits(asked, plan.steps(asked, card), card))


def test_the_rows_of_the_paper(paper: profile.Profile) -> None:
    """As counted once with the whole models: calls, PFLOP, hours of an H100."""
    rows = {row.stage: row for row in plan.steps(paper, H100)}
    edits = [rows["anchors"].work, rows["per_frame"].work]
    assert sum(work.calls for work in edits) == pytest.approx(602_240, rel=0.01)
    assert sum(work.flops for work in edits) == pytest.approx(118_000e15, rel=0.1)
    for stage, calls, flops, hours in (
        ("propagate", 335_000, 2_818_000e15, 1_760),
        ("encode", 2_432, 950e15, None),
        ("train", 2_000, 206_000e15, 129),
        ("enhance", 8_000, 193_000e15, 121),
    ):
        assert rows[stage].work.calls == pytest.approx(calls, rel=0.01)
        assert rows[stage].work.flops == pytest.approx(flops, rel=0.1)
        if hours:
            assert rows[stage].left == pytest.approx(hours * HOUR, rel=0.1)
    assert 1 * HOUR < rows["encode"].work.flops / (H100.flops * 0.45) * 2 < 3 * HOUR
    assert costs.propagate(paper, 1).flops / (H100.flops * 0.45) == pytest.approx(31.5 * 60, rel=0.1)
    assert costs.enhance(paper, 1).flops / (H100.flops * 0.45) == pytest.approx(72 * 60, rel=0.1)
    expected = {"anchors": 39, "propagate": 51, "encode": 24, "train": 159, "enhance": 45}
    for stage, gib in expected.items():
        assert rows[stage].device / 2**30 == pytest.approx(gib, rel=0.1), stage
    assert {"06_weather", "07_carla", "08_limits", "09_your_clip"} <= rows.keys()


def test_steps_and_guidance_change_the_calls(paper: profile.Profile) -> None:
    half = changed(paper, "propagation", steps=25, guidance=1.0)
    assert costs.propagate(half, 10).calls == costs.propagate(paper, 10).calls / 4
    smaller = changed(paper, "clips", height=480, width=720)
    assert costs.propagate(smaller, 1).flops < costs.propagate(paper, 1).flops / 4


def test_what_does_not_fit_comes_with_the_setting_that_does(paper: profile.Profile) -> None:
    (said,) = [s for s in misfits(paper, H100) if s.startswith("train")]
    assert "GiB of GPU memory and h100 has 79: set train.base: fp8" in said
    whole = changed(paper, "models", offload="none")
    assert any(s.startswith("enhance") and "set models.offload: model" in s for s in misfits(whole, H100))
    with pytest.raises(InputError, match="--gpu abacus is not known; known are"):
        cards.named("abacus")


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(paper, monkeypatch) -> None:
    monkeypatch.setattr(cards, "here", lambda _: H100)
    with pytest.raises(InputError, match=r"train takes 1\d\d GiB of GPU memory.*--anyway"):
        fit.require(paper, plan.steps(paper), "train")
    fit.require(paper, plan.steps(paper), "filter")


def test_mini_always_fits_a_laptop(monkeypatch) -> None:
    monkeypatch.setattr(fit.psutil, "virtual_memory", lambda: type("", (), {"total": 4 * 2**30}))
    monkeypatch.setattr(cards, "here", lambda _: cards.cpu())
    fit.require(profile.load("mini"), plan.steps(profile.load("mini")))
    assert sum(row.seconds * row.count for row in plan.steps(profile.load("mini"), own=False)) < 60 * 60


def test_times_are_measured_then_assumed(monkeypatch, tmp_path: Path) -> None:
    mini = profile.load("mini")
    monkeypatch.setattr(calibration, "FILE", tmp_path / "calibration.json")
    monkeypatch.setattr(cards, "here", lambda _: cards.cpu())
    before = {row.stage: row for row in plan.steps(mini, own=False)}
    each = before["propagate"].work.flops / before["propagate"].count
    held = before["propagate"].work.cpu_bytes(True)
    timed = {"propagate": vars(Timed(2.0, each / 2, 1.0, 5e9, held - 1e9))}
    (tmp_path / "calibration.json").write_text(json.dumps({"device": "cpu", "stages": timed}))
    after = {row.stage: row for row in plan.steps(mini, own=False)}
    assert after["propagate"].seconds == pytest.approx(4.0)
    assert after["propagate"].memory == pytest.approx(6e9)
    assert after["enhance"].seconds == before["enhance"].seconds
    (tmp_path / "calibration.json").write_text("{")
    assert calibration.load() == Calibration()


def test_calibrating_times_every_stage_and_is_shown_beside_the_run(
    tiny_profile: profile.Profile, monkeypatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setattr(calibration, "FILE", tmp_path / "calibration.json")
    monkeypatch.setattr(calibrate, "CLIPS", 2)
    monkeypatch.setattr(plan, "ENOUGH", 2)
    calibrate.calibrate(tiny_profile)
    stages = calibration.load().stages
    made = {"data", "anchors", "structure", "propagate", "encode", "train", "enhance", "evaluate"}
    assert made <= stages.keys()
    assert all(timed.seconds > 0 and timed.memory > 1e8 for timed in stages.values())
    assert not tiny_profile.layout.root.with_name("tiny-calibration").exists()
    assert "measured" not in capsys.readouterr().out
    sampling.sample(tiny_profile)
    tiny_profile.layout.notebooks.mkdir(parents=True)
    times = {"01_data_prep": {"seconds": 3.0, "peak_mib": 400, "device": "cpu"}}
    (tiny_profile.layout.notebooks / "times.json").write_text(json.dumps(times))
    plan_table.show(tiny_profile)
    shown = capsys.readouterr().out.split("calibrated beside this run")[1]
    assert "data, s an item" in shown and "01_data_prep, MiB" in shown and "propagate" not in shown


def test_a_metric_of_a_few_methods_foretells_a_run_of_all(monkeypatch, tmp_path: Path) -> None:
    """As DINO is: the first of a clip looks at render and truth, the first of all loads, and frames are looked at once."""
    mini = profile.load("mini")
    monkeypatch.setattr(profile, "REPOSITORY", tmp_path)
    repeated = ("blur", "prefilter", "colour_transfer")
    methods = {
        name: 0.6 if name in repeated else 1.0 for name, m in baselines.every(mini).items() if m.count(mini)
    }
    methods |= {"render": 1.1, "truth": 0.05}

    def seconds_of(names: list[str], clips: int) -> float:
        run = changed(mini.model_copy(update={"name": f"of-{clips}"}), "data", validation_clips=clips)
        for name in names:
            for clip in range(clips):
                folder = run.layout.root / "metrics" / "dino" / name
                folder.mkdir(parents=True, exist_ok=True)
                loading = 9.0 if (name, clip) == ("render", 0) else 0.0
                sidecar = {"seconds": methods[name] + loading}
                (folder / f"{clip}.json.json").write_text(json.dumps(sidecar))
        (row,) = [row for row in plan.steps(run) if row.stage == "dino"]
        assert row.is_own
        return row.seconds

    counts = {name: method.count(mini) for name, method in baselines.every(mini).items() if name in methods}
    each = sum(methods[name] * count for name, count in counts.items()) / sum(counts.values())
    assert seconds_of(list(methods), 24) == pytest.approx(each, rel=1e-6)
    assert seconds_of(["render", "truth", "realmaster"], calibrate.CLIPS) == pytest.approx(each, rel=0.3)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        (
            "transformer",
            {"_class_name": "LTXVideoTransformer3DModel"},
            "its transformer is a LTXVideoTransformer3DModel",
        ),
        ("vae", {"z_dim": None, "temperal_downsample": None}, "has no temperal_downsample"),
    ],
)
def test_a_model_that_cannot_be_counted_is_named(
    part, change, said, monkeypatch, paper: profile.Profile
) -> None:
    stock = configs._read

    def read(file: Path) -> configs.Config:
        content = dict(stock(file))
        if file.name == f"{part}.json" and "Wan2.2" in str(file):
            content = {key: value for key, value in (content | change).items() if value is not None}
        return configs.Config(file, content)

    monkeypatch.setattr(configs, "_read", read)
    rows = {row.stage: row for row in plan.steps(paper, H100)}
    assert said in rows["enhance"].why and rows["enhance"].seconds is None
    assert said in rows["09_your_clip"].why and not rows["propagate"].why
    monkeypatch.setattr(costs, "enhance", lambda *_: {}["a mistake"])
    with pytest.raises(KeyError):
        plan.steps(paper, H100)


def test_the_demonstrations_take_eight_clips_at_most() -> None:
    for name in ("paper", "paper-480", "paper-fast", "consumer"):
        shown = {demo.name: demo.clips for demo in costs.demonstrations(profile.load(name))}
        assert list(shown) == ["06_weather", "07_carla", "08_limits", "09_your_clip"]
        assert max(shown.values()) == 8


def test_an_unknown_hub_model_is_not_known_and_stops_nothing(monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    odd = changed(profile.load("paper"), "models", vace="no-one/no-such-model")
    odd = odd.model_copy(update={"name": "planned"})
    row = next(row for row in plan.steps(odd, H100) if row.stage == "propagate")
    assert row.seconds is None and "no-one/no-such-model" in row.why
    plan_table.show(odd, "h100")
    assert "n/a: no-one/no-such-model is not counted" in capsys.readouterr().out


def test_the_command_names_the_card(capsys) -> None:
    assert cli.main(["plan", "--profile", "mini", "--gpu", "4090"]) == 0
    out = capsys.readouterr().out
    assert "on 4090" in out and "USD at" in out
    assert cli.main(["plan", "--gpu", "none"]) == 2
