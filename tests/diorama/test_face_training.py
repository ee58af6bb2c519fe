"""The face pack's training: its targets are what insightface turns back into boxes, and it ends in a pack."""

import json
import sys
from pathlib import Path

import face_card
import face_data
import face_models
import numpy as np
import pytest
import torch
import train_faces
from face_data import Face
from insightface.app import FaceAnalysis
from insightface.model_zoo.scrfd import distance2bbox, distance2kps

from rmkit.kit import video
from rmkit.paths import REPOSITORY

SIZE = (64, 96)


def face(x0: float, y0: float, side: float, counts: bool = True, identity: int = 0) -> Face:
    landmarks = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    box = np.array([x0, y0, x0 + side, y0 + side])
    return Face(box, landmarks * side + (x0, y0), identity, counts)


def centres() -> tuple[np.ndarray, np.ndarray]:
    """Places and strides of all cells and anchors, as SCRFD.forward lists them."""
    places, strides = [], []
    for stride in face_models.STRIDES:
        grid = np.stack(np.mgrid[: SIZE[0] // stride, : SIZE[1] // stride][::-1], axis=-1)
        grid = (grid * stride).reshape(-1, 2)
        places.append(np.stack([grid] * face_models.ANCHORS, axis=1).reshape(-1, 2))
        strides.append(np.full((len(places[-1]), 1), stride))
    return np.concatenate(places), np.concatenate(strides)


@pytest.mark.parametrize("side", [14, 20, 40, 60])
def test_what_is_asked_of_the_detector_is_read_back_as_the_face(side):
    known = face(18, 3, side)
    score, boxes, landmarks, counted = train_faces.target([known], SIZE)
    places, strides = centres()
    chosen = score > 0
    assert 1 <= chosen.sum() <= 9 and (counted[chosen] == 1).all()
    found = distance2bbox(places[chosen], (boxes * strides)[chosen])
    assert np.allclose(found, known.box, atol=1e-3)
    points = distance2kps(places[chosen], (landmarks * strides)[chosen]).reshape(-1, 5, 2)
    assert np.allclose(points, known.landmarks, atol=1e-3)


def test_a_larger_face_is_asked_of_a_coarser_stride():
    _, strides = centres()
    asked = [strides[train_faces.target([face(2, 2, side)], SIZE)[0] > 0].max() for side in (14, 40, 60)]
    assert asked == [8, 8, 16]


def test_a_hidden_face_is_neither_a_face_nor_none():
    score, _, _, counted = train_faces.target([face(20, 10, 30, counts=False)], SIZE)
    assert not score.any() and 0 < (counted == 0).sum() < len(counted) / 2
    assert train_faces.target([], SIZE)[3].all()


def test_the_loss_is_least_where_the_targets_are_met():
    known = face(18, 3, 40)
    score, boxes, landmarks, _ = train_faces.target([known], SIZE)
    counts = [SIZE[0] // s * (SIZE[1] // s) * face_models.ANCHORS for s in face_models.STRIDES]

    def outputs(logits: np.ndarray, distances: np.ndarray, points: np.ndarray) -> list[torch.Tensor]:
        return [
            part[None]
            for values in (logits[:, None], distances, points)
            for part in torch.from_numpy(np.ascontiguousarray(values)).float().split(counts)
        ]

    right = outputs(40 * score - 20, np.where(boxes > 0, boxes, 1), landmarks)
    best, figures = train_faces.detection_loss(right, [[known]], SIZE)
    assert best.item() < 1e-3 and figures["overlap"] == pytest.approx(1)
    for worse in (
        outputs(-40 * score + 20, np.where(boxes > 0, boxes, 1), landmarks),
        outputs(40 * score - 20, np.where(boxes > 0, boxes * 1.3, 1), landmarks),
        outputs(40 * score - 20, np.where(boxes > 0, boxes, 1), landmarks + 0.3),
    ):
        assert train_faces.detection_loss(worse, [[known]], SIZE)[0].item() > best.item() + 0.1
    nobody, _ = train_faces.detection_loss(right, [[]], SIZE)
    assert torch.isfinite(nobody)


def test_overlap_is_one_for_the_same_box_and_less_for_any_other():
    a = torch.tensor([[1.0, 1, 1, 1], [2.0, 1, 2, 1]])
    assert torch.allclose(train_faces.overlap_of_distances(a, a), torch.ones(2))
    # Boxes of 2x2 and 4x2 about one centre: 4 of 8, and the box around both is the larger one.
    assert train_faces.overlap_of_distances(a[:1], a[1:]).item() == pytest.approx(0.5)


def test_the_margin_makes_it_harder():
    torch.manual_seed(0)
    loose, strict = (face_models.ArcFace(5, 8, margin=margin) for margin in (0.0, 0.4))
    strict.directions.data = loose.directions.data
    embedding, identity = torch.randn(16, 8), torch.randint(5, (16,))
    assert strict(embedding, identity) > loose(embedding, identity) + 1
    own = loose.directions.detach()
    assert strict(own * 3, torch.arange(5)) < 0.5 * strict(embedding, identity)  # length does not count


def test_mirrored_faces_keep_left_left():
    frame = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    known = face(10, 4, 20)
    turned_frame, (turned,) = face_data.mirrored(frame, [known])
    assert turned.landmarks[0, 0] < turned.landmarks[1, 0] and turned.landmarks[3, 0] < turned.landmarks[4, 0]
    again_frame, (again,) = face_data.mirrored(turned_frame, [turned])
    assert np.array_equal(again_frame, frame) and np.allclose(again.landmarks, known.landmarks)
    # The face lies on the same pixels: half a pixel off would show in the aligned crop.
    x0, y0, x1, y1 = turned.box.astype(int)
    assert np.array_equal(turned_frame[y0:y1, x0:x1][:, ::-1], frame[4:24, 10:30])


def test_area_under_the_roc_counts_pairs_in_order():
    same, different = np.array([0.9, 0.5, 0.5]), np.array([0.1, 0.5])
    wins = np.mean([[1 if s > d else 0.5 if s == d else 0 for d in different] for s in same])
    assert face_card.area_under_roc(same, different) == pytest.approx(wins)
    assert face_card.area_under_roc(np.ones(3), np.zeros(4)) == 1


def test_a_level_accepts_the_pairs_that_reach_it():
    cosines = np.array([0.9, 0.4, 0.1, -0.2])
    assert face_card.accepted(cosines, [-1, 0.1, 0.4, 0.95]).tolist() == [1, 0.75, 0.5, 0]


def test_the_shipped_pack_tells_people_apart():
    """What a threshold of 0.4 needs to mean something: on people nobody was trained on, and after the video VAE."""
    card = json.loads((REPOSITORY / "data/diorama/checkpoints/faces/card.json").read_text())
    found = card["figures"]
    assert found["cosine_same_median"] >= 0.6 and found["cosine_different_median"] <= 0.2
    assert found["auc"] >= 0.97 and found["vae_cosine_median"] >= 0.6
    assert card["held out on"].endswith("validation split")


def write_rendered(root: Path, sequences: int = 2, frames: int = 4) -> None:
    """Sequences as render.py writes them, with a face of its own in each."""
    draw = np.random.default_rng(0)
    for number in range(sequences):
        folder = root / "pretrain" / f"s{number}"
        folder.mkdir(parents=True)
        known = face(40, 20, 30, identity=number)
        clip = draw.integers(0, 255, (frames, 96, 144, 3), dtype=np.uint8)
        for look in face_data.LOOKS:
            video.write(folder / f"{look}.mp4", clip, 8)
        entry = {
            "identity": number,
            "box": known.box.tolist(),
            "landmarks": known.landmarks.tolist(),
            "visibility": 0.9,
        }
        hidden = {**entry, "visibility": 0.0}
        meta = {"sequence": f"s{number}", "faces": [[entry, hidden]] * frames}
        (folder / "meta.json").write_text(json.dumps(meta))


def test_both_stages_end_in_a_pack_that_insightface_loads(tmp_path: Path, monkeypatch):
    rendered, out = tmp_path / "rendered", tmp_path / "out"
    write_rendered(rendered)
    scenes = face_data.load(rendered, "pretrain")
    assert [len(faces) for faces in scenes[0].faces] == [1] * 4 and len(train_faces.by_identity(scenes)) == 2
    monkeypatch.setattr(train_faces, "BATCH", {"detector": 2, "recogniser": 4})
    for stage in ("detector", "recogniser", "save"):
        arguments = ["train_faces.py", "--rendered", rendered, "--out", out, "--stage", stage, "--steps", 2]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        train_faces.main()
        if stage != "save":
            assert (out / stage / "log.csv").read_text().count("\n") == 2
    pack = out / "checkpoints" / "faces"
    analysis = FaceAnalysis(name=str(pack), allowed_modules=["detection", "recognition"])
    assert set(analysis.models) == {"detection", "recognition"}
    crop = face_data.aligned(scenes[0].looks["truth"][0], scenes[0].faces[0][0].landmarks)
    assert analysis.models["recognition"].get_feat(crop).shape == (1, 512)
    assert sum(file.stat().st_size for file in pack.iterdir()) < 4 * 2**20
