"""DINO against plain transformers, looked at once, kept, in the tables; and models that cannot serve."""

import json
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import architectures
import numpy as np
import pytest
import torch
from conftest import set_model
from test_metrics import Live, noise, put_results, put_truth, rows_of
from transformers import ViTModel

from rmkit import baselines, cli, profile
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, metrics_csv, tables
from rmkit.kit import video as videos
from rmkit.method import sampling
from rmkit.metrics import dino
from rmkit.metrics.dino import METRIC, FeatureModel, Memory, compare
from rmkit.paths import REPOSITORY
from rmkit.pipeline import doctor, plan

TO_RENDER = METRIC.columns[:3]
MEAN, STD = 0.5, 0.5  # of the tiny models' preprocessor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ViT in the format of facebook/dino-vitb16."""
    folder = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    model = architectures.features(num_hidden_layers=2, hidden_size=32, intermediate_size=64)
    architectures.save_single(folder, model)
    return folder


@pytest.fixture
def compared(tiny_profile: profile.Profile, tiny_clips: list[sampling.Clip], checkpoint: Path):
    put_results(tiny_profile)
    put_truth(tiny_profile)
    return set_model(tiny_profile, "dino", checkpoint)


def plainly(folder: Path, frame: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden state [1 + N, D] and the last layer's keys [1 + N, D] of a picture, by transformers alone."""
    model = ViTModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    x = (torch.from_numpy(frame).float() / 255 - MEAN) / STD
    with torch.no_grad():
        out = model(x.permute(2, 0, 1)[None], interpolate_pos_encoding=True, output_hidden_states=True)
        layer = model.layers[-1]
        keys = layer.attention.k_proj(layer.layernorm_before(out.hidden_states[-2]))
    return out.last_hidden_state[0], keys[0]


def test_distances_are_those_of_plain_transformers(checkpoint: Path) -> None:
    frames, others = noise(3, 32, 48, seed=1), noise(3, 32, 48, seed=2)
    streams = {"output": iter(frames), "render": iter(others)}
    found = compare(FeatureModel(str(checkpoint), None), streams, TO_RENDER)
    expected: dict[str, list[float]] = {"dino": [], "dino_patch": [], "dino_keys": []}
    for frame, other in zip(frames, others, strict=True):
        (tokens, keys), (tokens_, keys_) = plainly(checkpoint, frame), plainly(checkpoint, other)
        expected["dino"].append(torch.dist(tokens[0], tokens_[0]).item())
        expected["dino_patch"].append((tokens - tokens_)[1:].square().sum(-1).sqrt().mean().item())
        cosines = [torch.nn.functional.cosine_similarity(k[:, None], k[None], dim=-1) for k in (keys, keys_)]
        expected["dino_keys"].append((cosines[0] - cosines[1]).square().mean().sqrt().item())
    assert tokens.shape == (1 + 4 * 6, 32)
    assert found == {name: pytest.approx(np.mean(values), rel=1e-4) for name, values in expected.items()}
    assert min(found.values()) > 1e-3


def test_equal_pictures_are_looked_at_once_and_are_nowhere_apart(checkpoint: Path) -> None:
    model, looked = FeatureModel(str(checkpoint), None), []

    def counting(frames: Sequence[np.ndarray]) -> list[dino.Features]:
        looked.append(len(frames))
        return model(frames)

    render = sampling.repeat(noise(3, 32, 48), 2, 5)
    other = sampling.repeat(noise(3, 32, 48, seed=1), 2, 5)
    look = Memory(counting)
    copied = compare(look, {"output": iter(render.copy()), "render": iter(render)}, TO_RENDER)
    assert set(copied.values()) == {0.0} and sum(looked) == 3  # the copy and the twins cost nothing
    found = compare(look, {"output": iter(other), "render": iter(render)}, TO_RENDER)
    assert min(found.values()) > 0 and sum(looked) == 6  # the render is remembered
    # A twin counts as a frame: over all frames, as the paper says.
    single = compare(model, {"output": iter(other), "render": iter(render)}, TO_RENDER)
    assert single == pytest.approx(found, abs=1e-6)
    with pytest.raises(ValueError):
        compare(model, {"output": iter(render), "render": iter(render[:2])}, TO_RENDER)


def test_batches_do_not_change_what_is_seen(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = FeatureModel(str(checkpoint), None), noise(5, 32, 48)
    at_once = model(frames)
    monkeypatch.setattr(dino, "TOKENS", 60)  # two pictures
    for a, b in zip(at_once, model(frames), strict=True):
        for part in ("cls", "patches", "keys"):
            assert torch.allclose(getattr(a, part), getattr(b, part), atol=1e-5)


def test_the_length_of_a_clip_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames and features of a few moments, and the features that are remembered."""
    monkeypatch.setattr(dino, "MOMENTS", 2)
    live, held = Live(), []

    def model(frames: Sequence[np.ndarray]) -> list[dino.Features]:
        seen = [dino.Features(*(torch.rand(shape) for shape in ((8,), (4, 8), (5, 8)))) for _ in frames]
        held.extend(weakref.ref(features) for features in seen)
        assert sum(1 for reference in held if reference() is not None) <= 5 * len(streams)
        return seen

    streams = {name: live.frames(81, i) for i, name in enumerate(("output", "render", "truth"))}
    compare(Memory(model, limit=6 * 4 * (8 + 4 * 8 + 5 * 8)), streams, METRIC.columns)  # of six pictures
    assert len(held) == 3 * 81 and live.most <= 3 * len(streams)


def test_the_keys_rows_are_compared_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of the whole formula (Splice, eq. 2, by the number of tokens), whatever is left for the last block."""
    a, b = (dino.Features(torch.zeros(1), torch.zeros(1, 1), torch.randn(50, 8)) for _ in range(2))
    one, other = (torch.nn.functional.normalize(features.keys.double()) for features in (a, b))
    expected = torch.dist(one @ one.T, other @ other.T).item() / 50
    for rows in (50, 16, 1024):
        monkeypatch.setattr(dino, "ROWS", rows)
        assert dino.key_distance(a, b) == pytest.approx(expected, abs=1e-6)
        assert dino.key_distance(a, a) == 0


MEMORY = """
import threading, psutil, torch
from rmkit.metrics import dino
seen, done = [], threading.Event()
def watch():
    while not done.wait(0.01):
        seen.append(psutil.Process().memory_info().rss)
threading.Thread(target=watch, daemon=True).start()
a, b = (dino.Features(torch.zeros(1), torch.zeros(1, 1), torch.randn(15001, 16)) for _ in range(2))
dino.key_distance(a, b)
done.set()
print(max(seen))
"""


def test_a_picture_of_the_papers_size_in_patches_of_8_takes_little_memory() -> None:
    """The cosines of the keys of 800x1200 pixels would be 0.9 GB for each of two pictures; the whole process counts."""
    command = [sys.executable, "-c", MEMORY]
    run = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert 0.1e9 < int(run.stdout) < 1e9


def test_evaluated_once_and_shown(compared: profile.Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = evaluate.evaluate(compared)
    rows = [row for row in rows_of(path) if row["metric"].startswith("dino")]
    by_metric: dict[str, set[str]] = {}
    for row in rows:
        by_metric.setdefault(row["metric"], set()).add(row["method"])
    measured = {*baselines.FIRST, *baselines.LAST[:-1]} - set(baselines.EXTERNAL)
    for name in ("dino", "dino_patch", "dino_keys"):
        assert by_metric[name] == measured - {"render"}
    assert by_metric["dino_truth"] == measured - {"truth"}
    name, revision = METRIC.model(compared), METRIC.fingerprint(compared)[:12]
    assert {row["options"] for row in rows} == {f"model={name};revision={revision}"}
    value = {(r["method"], r["clip"], r["metric"]): float(r["value"]) for r in rows}
    clip = sampling.load(compared, "validation")[0]
    assert value["truth", clip.id, "dino"] == value["render", clip.id, "dino_truth"]
    assert value["realmaster", clip.id, "dino"] < value["depth", clip.id, "dino"]

    # Again: the same file, and the model is not even loaded; another method: it alone is looked at.
    before, loaded = path.read_bytes(), []
    ready = METRIC.ready
    monkeypatch.setattr(
        type(METRIC), "ready", lambda _, settings, left: loaded.append(len(left)) or ready(settings, left)
    )
    assert evaluate.evaluate(compared).read_bytes() == before and not loaded
    stamps = {
        file: file.stat().st_mtime_ns for file in (compared.layout.root / "metrics" / "dino").rglob("*.json")
    }
    videos.write(
        baselines.every(compared)["lucy_edit"].path(compared, clip),
        videos.read(sampling.path(compared, clip)),
        16,
    )
    again = {(r["method"], r["metric"]): r for r in rows_of(evaluate.evaluate(compared))}
    assert loaded == [1] and float(again["lucy_edit", "dino"]["value"]) == 0
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())

    made = {table.name: table for table in tables.build(compared)}
    assert "DINO to render ↓" in made["table2"].header
    others = {"DINO (patches) to render ↓", "DINO (keys) to render ↓", "DINO to truth ↓"}
    assert {title for title in made["table2_further"].header if "DINO" in title} == others
    assert f"model={name}" in " ".join(made["table2"].notes)
    verdicts = {row[1]: row for row in made["claims"].cells}
    assert verdicts["Edges keep structure better than Depth"][-1] == "holds"
    assert verdicts["Edges keep structure better than Depth"][3] == "< 0"
    assert verdicts["RealMaster is better than Editto in structure"][-1] == "not run"
    assert verdicts["RealMaster is better than LucyEdit in structure"][-1] != "holds"  # a copy is nearer
    assert "dino" not in made["claims"].notes[0]
    step = next(step for step in plan.steps(compared) if step.stage == "dino")
    assert step.done == len(stamps) // 2 + 1 and step.seconds is not None


def test_without_a_model_it_is_not_run_and_says_why(compared: profile.Profile) -> None:
    settings = set_model(compared, "dino", None)
    evaluate.evaluate(settings)
    made = {table.name: table for table in tables.build(settings)}
    (column,) = [i for i, name in enumerate(made["table2"].header) if "DINO" in name]  # the paper's own
    assert {row[column] for row in made["table2"].cells} == {"not run"}
    assert "DINO: not run: metrics.dino of this profile names no model." in made["table2"].notes
    assert {row[-1] for row in made["claims"].cells if "dino" in row[2]} == {"not run"}
    assert "dino" in made["claims"].notes[0]
    assert "dino" not in {step.stage for step in plan.steps(settings)}
    (finding,) = (f for f in doctor.check(settings) if f.what == "model dino")
    assert not finding.needed and "metrics.dino of this profile names no model" in finding.found
    assert "run 05_evaluation again" in " ".join(tables.build(compared)[0].notes)
    assert "dino" not in set(metrics_csv.load(settings).metric)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("folder", "metrics.dino is no/such/folder, and .* does not exist"),
        ("weights", r"no \*\.safetensors"),
        ("preprocessor", "no preprocessor_config.json"),
        ("kind", "is a 'dinov2' and must be a 'vit'"),
        ("patch", "patches of 14x14 pixels, which do not divide clips of 32x48"),
    ],
)
def test_a_model_that_cannot_serve_stops_before_anything(
    capsys, compared: profile.Profile, checkpoint: Path, tmp_path: Path, what: str, said: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint.iterdir():
        if not file.name.startswith({"weights": "model", "preprocessor": "preprocessor"}.get(what, "-")):
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"kind": {"model_type": "dinov2"}, "patch": {"patch_size": 14}}.get(what, {})
    (folder / "config.json").write_text(json.dumps(config))
    settings = set_model(compared, "dino", "no/such/folder" if what == "folder" else folder)
    with pytest.raises(InputError, match=said):
        evaluate.evaluate(settings)
    finding = next(f for f in doctor.check(settings) if f.what == "model dino")
    assert finding.needed and not finding.ok
    assert (
        not (settings.layout.root / "metrics").exists()
        and not settings.layout.enhanced.joinpath("blur").exists()
    )
    content = settings.model_dump(mode="json")
    (tmp_path / "profile.yaml").write_text(json.dumps(content))
    assert cli.main(["evaluate", "--profile", str(tmp_path / "profile.yaml")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_weights_that_are_not_all_there_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(checkpoint / "model.safetensors")
    name = next(key for key in weights if key.endswith("k_proj.weight") or key.endswith("key.weight"))
    save_file({k: v for k, v in weights.items() if k != name}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="lacks weights"):
        FeatureModel(str(tmp_path), None)
