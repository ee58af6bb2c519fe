"""The offline judge: plain transformers' opinion of five frames, kept and shown beside GPT-RS and never as it."""

import json
from pathlib import Path

import architectures
import cards
import dataset
import numpy as np
import pytest
import torch
import train_judge
from conftest import set_model
from test_metrics import Live, noise, put_results, put_truth, rows_of
from test_tables import put_metrics
from transformers import ResNetForImageClassification

from rmkit import baselines, cli, metrics, profile
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, tables
from rmkit.kit import video
from rmkit.method import anchoring, propagation, sampling
from rmkit.metrics.offline_judge import METRIC, OfflineJudge, between_anchors, offline_judge
from rmkit.pipeline import doctor, plan

CALIBRATION = {"slope": 2.0, "offset": -0.5}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained judge in the format of the shipped one."""
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    small = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "frame_size": [32, 48]}
    architectures.save_single(folder, architectures.judge(**small, calibration=CALIBRATION))
    return folder


@pytest.fixture
def judged(
    tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip], checkpoint: Path
) -> profile.Profile:
    put_results(tiny_profile)
    put_truth(tiny_profile)
    return set_model(tiny_profile, "offline_judge", checkpoint)


def test_a_rating_is_the_calibrated_opinion_of_plain_transformers_of_five_frames(checkpoint: Path) -> None:
    frames = noise(9, 32, 48)
    model = ResNetForImageClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        x = torch.from_numpy(frames[[0, 2, 4, 6, 7]]).permute(0, 3, 1, 2).float() / 127.5 - 1
        logits = model(x).logits
    expected = 1 + 9 * torch.sigmoid(2.0 * (logits[:, 1] - logits[:, 0]) - 0.5)
    judge = OfflineJudge(str(checkpoint), None)
    assert offline_judge(judge, iter(frames), [0, 2, 4, 6, 7]) == pytest.approx(
        expected.mean().item(), abs=1e-4
    )
    assert ((judge(frames) > 1) & (judge(frames) < 10)).all()


@pytest.mark.parametrize(
    ("frames", "seconds", "wanted"),
    [
        (33, 0.5, [4, 11, 19, 21, 28]),
        (81, 0.5, [11, 27, 43, 59, 75]),
        (81, 5.0, [24, 32, 40, 48, 56]),  # the ends alone
        (33, 1 / 16, [3, 9, 16, 23, 29]),  # every frame is an anchor
    ],
)
def test_frames_rated_are_no_anchors_of_any_variant(tiny_profile, frames, seconds, wanted) -> None:
    made = tiny_profile.model_copy(
        update={
            "clips": tiny_profile.clips.model_copy(update={"frames": frames}),
            "propagation": tiny_profile.propagation.model_copy(update={"anchor_seconds": seconds}),
        }
    )
    assert between_anchors(made) == wanted
    assert METRIC.settings(made) == {"frames": wanted}  # rated anew where others are rated
    anchors = anchoring.indices(made, "multi_anchor")
    if len(anchors) < frames:
        shown = {propagation.place(index, frames, 2) for index in anchors}
        assert not ({*anchors, *(index + 1 for index in anchors)} | shown) & set(wanted)


def test_the_length_of_a_clip_costs_no_memory(checkpoint: Path) -> None:
    live = Live()
    offline_judge(OfflineJudge(str(checkpoint), None), live.frames(81, 0), [11, 27, 43, 59, 75])
    assert live.most <= 5 + 2


def test_rated_once_and_shown_beside_gpt_rs_but_not_as_it(
    judged: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = evaluate.evaluate(judged)
    rows = [row for row in rows_of(path) if row["metric"] == "offline_judge"]
    assert {row["method"] for row in rows} == {*baselines.FIRST, *baselines.LAST[:-1]} - set(
        baselines.EXTERNAL
    )
    assert all(1 <= float(row["value"]) <= 10 for row in rows)
    revision = METRIC.fingerprint(judged)[:12]
    # Anchors at 0, 4 and 8 leave two frames to rate.
    options = f"model={METRIC.model(judged)};revision={revision};frames=2 between anchors (2, 6)"
    assert {row["options"] for row in rows} == {options}
    clip = sampling.load(judged, "validation")[0]
    row = next(row for row in rows if (row["method"], row["clip"]) == ("realmaster", clip.id))
    judge = OfflineJudge(METRIC.model(judged), None)
    frames = video.read(baselines.every(judged)["realmaster"].path(judged, clip))
    assert float(row["value"]) == pytest.approx(offline_judge(judge, iter(frames), [2, 6]), abs=1e-5)

    # Again: the same rows, and the model is not even loaded.
    monkeypatch.setattr(type(METRIC), "ready", None)
    assert [one for one in rows_of(evaluate.evaluate(judged)) if one["metric"] == "offline_judge"] == rows
    step = next(step for step in plan.steps(judged) if step.stage == "offline_judge")
    assert step.done == len(rows) and step.seconds is not None
    assert next(f for f in doctor.check(judged) if f.what == "model offline_judge").ok

    made = {table.name: table for table in tables.build(judged)}
    assert "Offline judge, 1-10 (ours) ↑" in made["table1_further"].header
    column = made["table1"].header.index("GPT-RS no-ref ↑")
    assert {row[column] for row in made["table1"].cells} == {"not run"}
    assert "Offline judge (ours, not GPT-RS" in " ".join(made["table1_further"].notes)
    assert "GPT-RS: not run: the environment has no" in " ".join(made["table1"].notes)
    asked = [row for row in made["claims"].cells if "gpt_rs" in row[2]]
    assert asked and {row[-1] for row in asked} == {"not run"}
    # It decides nothing of the paper's: the one statement that rests on it is ours, and exploratory.
    (row,) = [row for row in made["claims"].cells if "offline" in row[2]]
    assert row[0] == "this kit" and row[1].endswith("(exploratory)")


def test_without_a_model_there_is_no_column_but_a_reason(
    tiny_profile: profile.Profile, checkpoint: Path
) -> None:
    settings, judged = (set_model(tiny_profile, "offline_judge", folder) for folder in (None, checkpoint))
    put_metrics(settings, ["render", "realmaster"])
    assert METRIC.why_not(settings, ()) and METRIC.why_not(judged, ()) is None
    table = tables.build(settings)[0]
    assert not [name for name in table.header if "judge" in name]
    assert "Offline judge: not run: metrics.offline_judge of this profile names no model." in table.notes
    assert "offline_judge" not in {step.stage for step in plan.steps(settings)}
    (finding,) = (f for f in doctor.check(settings) if f.what == "model offline_judge")
    assert not finding.needed and "metrics.offline_judge of this profile names no model" in finding.found
    assert "run 05_evaluation again" in " ".join(tables.build(judged)[0].notes)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("folder", "metrics.offline_judge is no/such/folder, and .* does not exist"),
        ("weights", "missing or truncated"),
        ("preprocessor", "no preprocessor_config.json"),
        ("json", "is not valid JSON"),
        ("labels", "must name the classes render and truth"),
        ("calibration", "must name the classes render and truth and hold a calibration"),
        ("size", r"calibrated for frames of \[96, 144\] pixels and the profile's clips have \[32, 48\]"),
    ],
)
def test_a_model_that_cannot_serve_stops_before_anything(
    capsys, judged: profile.Profile, checkpoint: Path, tmp_path: Path, what: str, said: str
) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    if what == "labels":
        config["id2label"] = {"0": "cat", "1": "dog"}
    elif what == "calibration":
        del config["calibration"]
    elif what == "size":
        config["frame_size"] = [96, 144]
    (folder / "config.json").write_text(json.dumps(config)[: -9 if what == "json" else None])
    if what == "weights":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    elif what == "preprocessor":
        (folder / "preprocessor_config.json").unlink()
    settings = set_model(judged, "offline_judge", "no/such/folder" if what == "folder" else folder)
    with pytest.raises(InputError, match=said):
        evaluate.evaluate(settings)
    finding = next(f for f in doctor.check(settings) if f.what == "model offline_judge")
    assert finding.needed and not finding.ok
    assert not (settings.layout.root / "metrics").exists()
    content = settings.model_dump(mode="json")
    (tmp_path / "profile.yaml").write_text(json.dumps(content))
    assert cli.main(["evaluate", "--profile", str(tmp_path / "profile.yaml")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_weights_that_are_not_all_there_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(checkpoint, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.1.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match="lacks weights"):
        OfflineJudge(str(folder), None)


def test_what_is_rated_anew_is_for_the_model_to_say_and_not_for_its_card(
    judged: profile.Profile, checkpoint: Path, tmp_path: Path
) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    settings = set_model(judged, "offline_judge", folder)
    before = METRIC.fingerprint(settings)
    (folder / "card.json").write_text("{}")
    assert METRIC.fingerprint(settings) == before == METRIC.fingerprint(judged)
    config = json.loads((folder / "config.json").read_text())
    config["calibration"]["slope"] = 3.0
    (folder / "config.json").write_text(json.dumps(config))
    assert METRIC.fingerprint(settings) != before


def test_the_shipped_judge_tells_the_shipped_truth_from_the_render() -> None:
    mini = profile.load("mini")
    METRIC.check(mini, mini.clips.height, mini.clips.width)
    judge = OfflineJudge(*METRIC.place(mini))
    folder = next(iter(sorted((cards.FOLDER.parent / "clips" / "validation").iterdir())))
    render, truth = (judge(video.read(folder / f"{look}.mp4")[::4]) for look in ("render", "truth"))
    assert render.mean() < cards.MIDDLE < truth.mean()


def test_training_and_calibration_share_no_sequence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shots = [shot(f"s{number // 2:02d}", level=number) for number in range(40)]
    training, held = train_judge.split(shots)
    names = [{one.sequence for one in part} for part in (training, held)]
    assert not names[0] & names[1] and len(names[1]) == 20 // train_judge.HELD_EVERY
    assert len(training) + len(held) == len(shots)

    # Nor does what goes through the VAE, or is drawn: of these shots every level of grey is one shot's.
    monkeypatch.setattr(train_judge.vae_ceiling, "reconstruct", lambda vae, frames: frames)
    for part in (training, held):
        made = train_judge.material(part, None, tmp_path)
        levels = {int(one.render[0, 0, 0, 0]) for one in part}
        assert {int(pair.looks[0][0, 0, 0, 0]) for pair in made.plain} == levels
        assert made.decoded and {int(pair.looks[0][0, 0, 0, 0]) for pair in made.decoded} <= levels
    again = train_judge.material(held, None, tmp_path)  # from the folder
    assert np.array_equal(again.decoded[0].looks[0], made.decoded[0].looks[0])


def shot(sequence: str, level: int) -> dataset.Shot:
    render = np.full((17, 96, 144, 3), level, np.uint8)
    return dataset.Shot(sequence, render, render + 100, *[render] * 4, "", "clear", ((),) * 17)


def test_both_looks_are_spoilt_and_a_step_learns_from_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    render = np.kron(rng.integers(40, 200, (17, 12, 18, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    pair = train_judge.Pair((render, render // 2), np.eye(3, 4))
    source = train_judge.Material([pair], [])
    drawn = [train_judge.draw(source, rng) for _ in range(20)]
    assert all(one.shape == (96, 144, 3) and one.dtype == np.uint8 for frames in drawn for one in frames)
    for look in (train_judge.RENDER, train_judge.TRUTH):
        assert len({one[look].tobytes() for one in drawn}) > 10
    grey = np.full((8, 8, 3), 100, np.uint8)
    darker = np.hstack([np.eye(3), np.full((3, 1), -40.0)])
    assert (train_judge.graded(grey, darker, 0.5) == 80).all()

    # Filtered edges are among what is drawn of both looks, further gone in the render, whatever colours it is in.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_judge, "PREFILTERED", {0: 1.0, 1: 1.0})
        patch.setattr(train_judge, "spoilt", lambda frame, softest, rng: frame)
        asked = {"render": [], "truth": []}  # sigmas
        patch.setattr(
            train_judge.prefilter,
            "filtered",
            lambda frame, sigma, radius, amount: (
                asked["render" if frame.mean() > 100 else "truth"].append(sigma) or frame
            ),
        )
        bright = train_judge.Pair((np.full_like(render, 200), np.full_like(render, 20)), np.eye(3, 4))
        for _ in range(60):
            train_judge.draw(train_judge.Material([bright], []), rng)
    assert (
        1.4 < max(asked["render"]) < 0.7 * 2.5
        and max(asked["truth"]) < 0.7
        and min(map(len, asked.values())) == 60
    )

    model = torch.nn.ModuleDict({"blocks": architectures.judge(hidden_sizes=[8, 16], depths=[1, 1])})
    loss = train_judge.objective(model, source, 2, "cpu")
    value, figures = loss(rng, torch.Generator())
    value.backward()
    assert value.item() > 0 and 0 <= figures["accuracy"] <= 1
    assert all(p.grad is not None for p in model.parameters())


def test_calibration_finds_the_odds_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, 20_000)
    truth = (rng.random(len(scores)) < 1 / (1 + np.exp(-(0.6 * scores + 0.4)))).astype(int)
    found = train_judge.calibrate(scores, truth)
    assert found["slope"] == pytest.approx(0.6, abs=0.03) and found["offset"] == pytest.approx(0.4, abs=0.05)
    # Labels that a score tells without fail leave the slope finite.
    assert train_judge.calibrate(scores, (scores > 0).astype(int))["slope"] < 100


def test_the_column_is_named_as_what_it_is() -> None:
    (column,) = METRIC.columns
    assert (column.name, column.better) == ("offline_judge", 1) and "ours" in column.label
    assert metrics.shown(["gpt_rs", "offline_judge"])[-1] is column


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target
