"""ArcFace in metrics.csv and in the tables: with a face model, without one, and of clips without a face."""

import numpy as np
import pytest
from test_metrics import put_results, rows_of

from rehearsal.faces import KNOWN, OTHER
from rmkit import baselines
from rmkit.evaluation import claims, evaluate, metrics_csv, tables
from rmkit.kit import face_pack, store, video
from rmkit.method import sampling
from rmkit.metrics.arcface import METRIC

NAMES = [column.name for column in METRIC.columns]


@pytest.fixture
def measured(with_faces, tiny_clips):
    """Results of which RealMaster keeps the faces, depth paints them in other colours, and edges lose them."""
    put_results(with_faces)
    for clip in sampling.load(with_faces, "validation"):
        render = video.read(sampling.path(with_faces, clip))
        square = (render == KNOWN).all(-1)[..., None]
        for method, colour in (("realmaster", KNOWN), ("depth", OTHER), ("edges", 0)):
            target = baselines.every(with_faces)[method].path(with_faces, clip)
            video.write(target, np.where(square, colour, render).astype(np.uint8), 16)
    return with_faces


def test_rows_of_every_method_and_clip(measured, monkeypatch):
    rows = rows_of(evaluate.evaluate(measured))
    held = sampling.load(measured, "validation")
    value = {(row["method"], row["clip"], row["metric"]): float(row["value"]) for row in rows}
    for clip in held:
        assert [value["render", clip.id, name] for name in NAMES] == pytest.approx([1] * 4, abs=1e-5)
        assert [value["realmaster", clip.id, name] for name in NAMES] == pytest.approx([1] * 4, abs=1e-4)
        assert value["depth", clip.id, "arcface"] == pytest.approx(0.35, abs=0.02)
        assert value["depth", clip.id, "arcface_min"] <= value["depth", clip.id, "arcface"]
        assert value["edges", clip.id, "arcface_coverage"] == 0
        assert ("edges", clip.id, "arcface") not in value
    options = {row["metric"]: row["options"] for row in rows}
    assert options["arcface"] == "pack=squares;frames=5 linspace"
    assert options["arcface_mid5"] == "pack=squares;frames=5 midpoints"

    # Again: from the store; after a kill: the same bytes, and only what is missing is looked for.
    path = measured.layout.metrics
    before = path.read_bytes()
    find, looked = face_pack.find, []
    monkeypatch.setattr(face_pack, "find", lambda *arguments: looked.append(1) or find(*arguments))
    evaluate.evaluate(measured)
    assert not looked and path.read_bytes() == before
    for method in ("depth", "edges"):
        store.discard(measured.layout.root / "metrics" / "arcface" / method / f"{held[0].id}.json")
    store.sidecar_of(measured.layout.faces / "depth" / f"{held[0].id}.npz").unlink()
    path.unlink()
    assert evaluate.evaluate(measured).read_bytes() == before and len(looked) == 1


def test_a_clip_whose_render_has_no_face_has_no_row(measured):
    clip = sampling.load(measured, "validation")[0]
    render = video.read(sampling.path(measured, clip)).copy()
    render[(render == KNOWN).all(-1)] = 0
    video.write(sampling.path(measured, clip), render, 16)
    rows = rows_of(evaluate.evaluate(measured))
    assert clip.id not in {row["clip"] for row in rows if row["metric"].startswith("arcface")}
    assert clip.id in {row["clip"] for row in rows if row["metric"] == "sharpness"}
    table = {made.name: made for made in tables.build(measured)}["table2"]
    assert "on the 1 of 2 clips whose render has a face" in " ".join(table.notes)


def test_the_tables_have_a_column_where_it_was_measured(measured):
    evaluate.evaluate(measured)
    table = {made.name: made for made in tables.build(measured)}["table2"]
    column = [title.startswith("ArcFace ↑") for title in table.header].index(True)
    cells = {row[0]: row[column] for row in table.cells}
    assert cells["Render (input)"].startswith("1.000") and cells["Depth"].startswith("0.3")
    assert cells["Edges"] == "n/a"  # no face of it could be matched
    frame = metrics_csv.load(measured)
    assert "dino" in claims.not_measured(frame) and "arcface" not in claims.not_measured(frame)
    verdicts = {outcome.claim.id: outcome.verdict for outcome in claims.check(frame)}
    assert verdicts["edges_over_depth_arcface"] == "not run"  # no face of Edges could be matched


def test_without_a_face_model_there_is_no_row_and_a_reason(tiny_profile, tiny_clips):
    put_results(tiny_profile)
    rows = rows_of(evaluate.evaluate(tiny_profile))
    assert not [row for row in rows if "arcface" in row["metric"]]
    assert not tiny_profile.layout.faces.exists()
    table = tables.build(tiny_profile)[0]
    assert "ArcFace: not run: no face model: identity.model_pack is null." in table.notes
    assert [title for title in table.header if "ArcFace" in title] == ["ArcFace ↑"]
    assert {row[table.header.index("ArcFace ↑")] for row in table.cells if row[1] == "2"} == {"not run"}
    assert "arcface" in claims.not_measured(metrics_csv.load(tiny_profile))
