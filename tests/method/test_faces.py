"""Faces: found once by a pack in insightface's format, matched by place and never by likeness."""

import shutil
from functools import partial
from pathlib import Path

import face_models
import numpy as np
import pytest
import torch
from conftest import set_identity
from insightface.app import FaceAnalysis

from rmkit import cli, profile
from rmkit.errors import InputError
from rmkit.kit import face_pack as packs
from rmkit.kit import store, video
from rmkit.kit.face_pack import Faces
from rmkit.method import faces, sampling
from rmkit.method.faces import Likeness
from rmkit.metrics import arcface
from rmkit.pipeline import doctor


def made(rows: list[tuple[int, tuple[float, ...], tuple[float, ...]]]) -> Faces:
    frame, box, embedding = (np.array([row[i] for row in rows]) for i in range(3))
    return Faces(
        frame, box.reshape(-1, 4).astype(np.float32), embedding.reshape(len(rows), -1 if rows else 0)
    )


LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)
ANN, BOB = (1.0, 0.0), (0.0, 1.0)


def test_overlap_is_intersection_over_union():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    overlap = faces.iou(boxes, boxes)
    assert np.allclose(np.diag(overlap), 1)
    assert overlap[0, 1] == pytest.approx(50 / 150) and overlap[0, 2] == 0
    assert faces.iou(boxes, boxes[:0]).shape == (3, 0)


def test_faces_that_changed_places_are_matched_by_place():
    render = made([(0, LEFT, ANN), (0, RIGHT, BOB)])
    output = made([(0, RIGHT, ANN), (0, LEFT, BOB)])
    found = faces.compare(render, output, [0], 0.3)
    assert found == Likeness((0.0, 0.0), 2)  # by likeness it would be 1 and 1


def test_the_whole_assignment_counts_not_the_best_pair():
    # The first box overlaps both others; taking its best partner would leave the second without one.
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10]], np.float32)
    others = np.array([[2, 0, 12, 10], [-3, 0, 7, 10]], np.float32)
    overlap = faces.iou(boxes, others)
    assert overlap[0].argmax() == 0 and overlap[1, 1] < 0.3
    assert faces.match(boxes, others, 0.3) == [(0, 1), (1, 0)]


def test_the_gate_leaves_a_face_alone():
    far = np.array([[7, 0, 17, 10]], np.float32)
    near = np.array([LEFT], np.float32)
    assert faces.match(near, far, 0.3) == [] and faces.match(near, far, 0.1) == [(0, 0)]
    assert faces.match(near, far[:0], 0.3) == []


def test_likeness_counts_what_was_there_to_be_matched():
    render = made([(0, LEFT, ANN), (0, RIGHT, BOB), (4, LEFT, ANN), (8, LEFT, ANN)])
    output = made([(0, LEFT, ANN), (4, LEFT, (0.6, 0.8)), (4, RIGHT, BOB)])
    found = faces.compare(render, output, [0, 4], 0.3)
    assert found.cosines == pytest.approx((1.0, 0.6)) and found.found == 3
    assert found.over("mean") == pytest.approx(0.8) and found.over("minimum") == pytest.approx(0.6)
    assert found.coverage == pytest.approx(2 / 3)
    nobody = faces.compare(made([]), output, [0, 4], 0.3)
    assert nobody.coverage is None and nobody.over("mean") is None


def test_cosine_is_of_directions():
    assert faces.cosine(np.array([2.0, 0]), np.array([5.0, 0])) == pytest.approx(1)
    assert faces.cosine(np.array([1.0, 1]), np.array([0.0, 3])) == pytest.approx(0.5**0.5)
    assert faces.cosine(np.zeros(2), np.ones(2)) == 0


def test_five_frames_with_the_ends_and_without():
    assert faces.linspace(81) == [0, 20, 40, 60, 80]
    assert faces.midpoints(81) == [8, 24, 40, 56, 72]


def test_a_metric_has_no_value_where_there_is_no_face():
    render = made([(0, LEFT, ANN), (4, LEFT, ANN)])
    values = arcface.arcface(render, made([(0, LEFT, ANN), (4, LEFT, BOB)]), 9, 0.3)
    # linspace over 9 frames: 0, 2, 4, 6, 8; midpoints: 0, 2, 4, 6, 8 truncated the same way.
    assert values["arcface"] == pytest.approx(0.5) and values["arcface_min"] == pytest.approx(0)
    assert values["arcface_coverage"] == 1
    assert arcface.arcface(render, made([]), 9, 0.3) == {"arcface_coverage": 0.0}
    assert arcface.arcface(made([]), render, 9, 0.3) == {}


def test_a_pack_of_the_real_architecture_is_loaded_by_insightface(tmp_path: Path):
    torch.manual_seed(0)
    detector, recogniser = face_models.Detector(), face_models.Recogniser()
    torch.nn.init.constant_(detector.score.bias, 0.2)  # untrained, it finds faces everywhere
    face_models.export(tmp_path, detector, recogniser)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 4 * 2**20
    analysis = FaceAnalysis(name=str(tmp_path), allowed_modules=["detection", "recognition"])
    analysis.prepare(ctx_id=-1, det_size=(96, 96))
    assert (analysis.det_model.use_kps, analysis.det_model._num_anchors) == (True, 2)
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    face = analysis.get(frame, max_num=1)[0]
    assert face.kps.shape == (5, 2) and face.embedding.shape == (512,)
    # What onnxruntime computes is what torch computes, at another size than it was exported at.
    x = np.random.default_rng(1).normal(size=(1, 3, 64, 128)).astype(np.float32)
    outputs = analysis.det_model.session.run(None, {"input": x})
    with torch.no_grad():
        wanted = detector(torch.from_numpy(x))
    assert [output.shape for output in outputs[:4]] == [(256, 1), (64, 1), (16, 1), (256, 4)]
    for output, tensor in zip(outputs, wanted, strict=True):
        assert np.allclose(output, tensor[0].numpy(), atol=1e-4)


def test_faces_are_found_once_and_survive_a_kill(with_faces, tiny_clips, tmp_path: Path, capsys):
    clip = tiny_clips[0]
    path = sampling.path(with_faces, clip)
    opened: list[int] = []
    kept = tmp_path / "faces.npz"

    def frames():
        opened.append(1)
        return video.stream(path)

    find = partial(faces.of_video, with_faces, store.fingerprint(path), kept=kept)
    found = find(frames, [0, 1, 4, 8])
    # The square holds two whole cells, one above the other, wherever it stands.
    assert np.bincount(found.frame).tolist() == [2, 2, 0, 0, 2, 0, 0, 0, 2]
    boxes, embeddings = found.at(0)
    assert np.allclose(sorted(boxes.tolist()), [[8, 8, 16, 16], [8, 16, 16, 24]], atol=0.01)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert np.array_equal(found.at(1)[0], boxes)  # the same source frame
    assert np.array_equal(find(frames, [8, 4, 1, 0, 0]).box, found.box) and len(opened) == 1
    find(frames, [0])
    assert len(opened) == 2  # other frames are another question
    # A kill between artefact and sidecar leaves something that counts as not done.
    store.sidecar_of(kept).unlink()
    find(frames, [0])
    assert len(opened) == 3
    find = partial(
        faces.of_video, set_identity(with_faces, det_thresh=0.6), store.fingerprint(path), kept=kept
    )
    find(frames, [0])
    assert len(opened) == 4
    assert capsys.readouterr() == ("", "")  # one video is no stage: no line of progress for it


def test_a_video_without_faces_gives_none(with_faces, tiny_clips, tmp_path: Path):
    path = tmp_path / "dark.mp4"
    video.write(path, np.zeros((9, 32, 48, 3), np.uint8), 16)
    find = partial(
        faces.of_video,
        with_faces,
        store.fingerprint(path),
        partial(video.stream, path),
        kept=tmp_path / "faces.npz",
    )
    found = find([0, 8])
    assert len(found.frame) == 0 and found.box.shape == (0, 4)
    with pytest.raises(InputError, match="of 9 frames has no frame 9"):
        find([9])


def test_frames_are_held_one_at_a_time(with_faces, tiny_clips, tmp_path: Path):
    path, alive = sampling.path(with_faces, tiny_clips[0]), []

    class Frame(np.ndarray):
        def __del__(self):
            if alive:
                alive.pop()

    def frames():
        for i in range(40):
            frame = np.full((32, 48, 3), i, np.uint8).view(Frame)
            alive.append(1)
            assert len(alive) <= 4, "the stream is being collected"
            yield frame

    faces.of_video(with_faces, store.fingerprint(path), frames, [0, 20, 39], tmp_path / "faces.npz")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_pack", "insightface-cli model.download no_such_pack"),
        ("some/folder", "some/folder does not exist"),
    ],
)
def test_a_missing_pack_is_one_sentence_and_exit_code_2(tiny_profile, tmp_path, capsys, name, sentence):
    settings = set_identity(tiny_profile, model_pack=name)
    with pytest.raises(InputError, match=sentence):
        packs.check(settings)
    file = tmp_path / "tiny.yaml"
    file.write_text(settings.model_dump_json())
    for command in ("filter", "evaluate"):
        clips_made = tiny_profile.layout.clips
        clips_made.mkdir(parents=True, exist_ok=True)
        (clips_made / "clips.json").write_text("[]")
        assert cli.main([command, "--profile", str(file)]) == 2
        out = capsys.readouterr()
        assert sentence in out.err and out.err.count("\n") == 1 and not out.out
    findings = {finding.what: finding for finding in doctor.check(settings)}
    assert not findings["face model"].ok and findings["face model"].needed


def test_a_pack_that_lacks_a_model_or_is_damaged(tiny_profile, face_pack: Path, tmp_path: Path):
    settings = set_identity(tiny_profile, model_pack=str(tmp_path))
    with pytest.raises(InputError, match=r"has no \*\.onnx files"):
        packs.check(settings)
    whole = (face_pack / face_models.DETECTOR).read_bytes()
    (tmp_path / face_models.DETECTOR).write_bytes(whole)
    with pytest.raises(InputError, match="no recogniser"):
        packs.check(settings)
    (tmp_path / face_models.RECOGNISER).write_bytes((face_pack / face_models.RECOGNISER).read_bytes()[:-40])
    with pytest.raises(InputError, match=f"{tmp_path / face_models.RECOGNISER} is damaged"):
        packs.check(settings)
    # Mended, it is read again.
    (tmp_path / face_models.RECOGNISER).write_bytes((face_pack / face_models.RECOGNISER).read_bytes())
    packs.check(settings)


class Several(torch.nn.Module):
    """An ONNX model that knows nothing of faces: so many means of its input."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(x.mean(-1) + i for i in range(self.outputs))


def foreign(file: Path, outputs: int, *shape: int) -> None:
    torch.onnx.export(Several(outputs), (torch.zeros(shape),), str(file), dynamo=False)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write_text("no model"),
        lambda file: file.write_bytes(b""),
        lambda file: foreign(file, 1, 1, 8),  # takes no pictures
        lambda file: foreign(file, 2, 1, 3, 112, 112),  # takes pictures of a recogniser's size
    ],
    ids=["text", "empty", "vectors", "two outputs"],
)
def test_a_foreign_file_in_a_whole_pack_is_named(tiny_profile, face_pack: Path, tmp_path: Path, write):
    for name in (face_models.DETECTOR, face_models.RECOGNISER):
        (tmp_path / name).write_bytes((face_pack / name).read_bytes())
    file = tmp_path / "another.onnx"
    write(file)
    with pytest.raises(InputError, match=f"{file} is damaged or no face model") as raised:
        packs.check(set_identity(tiny_profile, model_pack=str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_a_detector_without_landmarks_is_no_detector_here(tiny_profile, face_pack: Path, tmp_path: Path):
    foreign(tmp_path / face_models.DETECTOR, 6, 1, 3, 64, 64)  # scores and boxes at three strides
    recogniser = (face_pack / face_models.RECOGNISER).read_bytes()
    (tmp_path / face_models.RECOGNISER).write_bytes(recogniser)
    with pytest.raises(InputError, match="no detector"):
        packs.check(set_identity(tiny_profile, model_pack=str(tmp_path)))


def test_a_model_of_another_task_beside_them_is_left_alone(tiny_profile, face_pack: Path, tmp_path: Path):
    for name in (face_models.DETECTOR, face_models.RECOGNISER):
        (tmp_path / name).write_bytes((face_pack / name).read_bytes())
    foreign(tmp_path / "another.onnx", 1, 1, 3, 64, 64)
    packs.check(set_identity(tiny_profile, model_pack=str(tmp_path)))


def test_a_pack_one_folder_too_deep_is_found(tiny_profile, face_pack: Path, tmp_path: Path):
    outer = tmp_path / "pack"
    shutil.copytree(face_pack, outer / "pack")
    (outer / "__MACOSX").mkdir()
    settings = set_identity(tiny_profile, model_pack=str(outer), det_size=96)
    packs.check(settings)
    assert packs.fingerprint(settings) == packs.fingerprint(set_identity(settings, model_pack=str(face_pack)))
    # The folder of several is told, with one of them, and so is one without any.
    shutil.copytree(face_pack, outer / "other")
    with pytest.raises(
        InputError, match=rf"holds 2 packs, and none by itself: name one of them, as {outer / 'other'}"
    ):
        packs.check(settings)
    shutil.rmtree(outer / "other")
    shutil.rmtree(outer / "pack")
    with pytest.raises(InputError, match=r"pack has no \*\.onnx files: unpack the pack there"):
        packs.check(settings)


def test_the_licence_is_said_of_insightfaces_own_packs(tiny_profile, face_pack, tmp_path, tiny_clips, capsys):
    assert packs.licence(set_identity(tiny_profile, model_pack=str(face_pack))) is None
    named = tmp_path / "buffalo_l"
    named.symlink_to(face_pack)
    settings = set_identity(tiny_profile, model_pack=str(named), det_size=96)
    for _ in range(2):
        packs.load(settings)
    assert capsys.readouterr().out.count("non-commercial") == 1
    found = {finding.what: finding.found for finding in doctor.check(settings)}["face model"]
    assert "non-commercial" in found


def test_settings_that_no_detector_can_have_are_refused(tiny_profile):
    with pytest.raises(ValueError, match="multiple of 32"):
        set_identity(tiny_profile, det_size=100)
    real = profile.load("paper").identity
    assert (real.model_pack, real.det_size, real.det_thresh) == ("buffalo_l", 640, 0.5)
