"""Train the face pack of the miniature: a detector (SCRFD's shape), then a recogniser (ArcFace's shape).

Reads rendered sequences of the pretrain split (face boxes, landmarks, visibility, identities; both looks, mirrored);
writes `<out>/detector/` and `<out>/recogniser/` (state, log.csv) and, by `--stage save`, the pack `<out>/checkpoints/faces/`.

    python data/diorama/train_faces.py --rendered DIR --out DIR --stage detector
"""

from pathlib import Path

import face_data
import face_models
import loop
import numpy as np
import torch
from face_data import Face, Scene
from face_models import ANCHORS, STRIDES, ArcFace, Detector, Recogniser
from safetensors.torch import load_file
from torch.nn import functional as F

SIZE = (192, 288)  # pixels of a training picture: frames at twice their size, as det_size 288 makes them
# Faces by their longer side in pixels, smallest first: two anchors on each of three strides, as SCRFD has them.
LARGEST = (24, 48, 96, 192, 384, 10_000)
NEAR = 1.0  # cells around the middle of a face that answer for it
FOCUS = 2.0  # power of the focal loss
JITTER = 0.04  # of the detector's landmarks, in eye distances
STEPS = {"detector": 5000, "recogniser": 8000}
BATCH = {"detector": 8, "recogniser": 48}


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--stage", choices=(*STEPS, "save"), required=True)
    parser.add_argument("--steps", type=int, help="optimiser steps (default 5,000 and 8,000)")
    parser.add_argument("--sequences", type=int, help="use so many only, for a quick trial")
    arguments = parser.parse_args()
    if arguments.stage == "save":
        save(arguments.out)
        return
    torch.manual_seed(0)
    scenes = face_data.load(arguments.rendered, "pretrain", arguments.sequences)
    print(f"{len(scenes)} sequences, {len(by_identity(scenes))} identities", flush=True)
    steps = arguments.steps or STEPS[arguments.stage]
    stage = detector_stage if arguments.stage == "detector" else recogniser_stage
    modules, phase = stage(scenes, steps, arguments.device)
    loop.train(arguments.out / arguments.stage, modules, [phase])


def save(out: Path) -> None:
    """Write the pack from the last states."""
    models = {"detector": Detector(), "recogniser": Recogniser()}
    for name, model in models.items():
        model.load_state_dict(load_file(out / name / "state" / f"{name}.safetensors"))
    face_models.export(out / "checkpoints" / "faces", **models)


def detector_stage(scenes: list[Scene], steps: int, device: str) -> tuple[dict, loop.Phase]:
    """The detector's modules and its phase."""
    detector = Detector().to(device, memory_format=torch.channels_last)

    def loss(rng: np.random.Generator, generator: torch.Generator):
        made = [face_data.picture(scenes, SIZE, rng) for _ in range(BATCH["detector"])]
        x = as_input([frame for frame, _ in made], 128.0).to(device)
        outputs = [output.float() for output in detector(x)]
        return detection_loss(outputs, [faces for _, faces in made], SIZE)

    return {"detector": detector}, loop.Phase("detector", steps, 2e-3, loss)


def recogniser_stage(scenes: list[Scene], steps: int, device: str) -> tuple[dict, loop.Phase]:
    """The recogniser's modules, with the identities' directions, and its phase; every identity is as frequent."""
    people = by_identity(scenes)
    recogniser = Recogniser().to(device, memory_format=torch.channels_last)
    arcface = ArcFace(len(people)).to(device)

    def loss(rng: np.random.Generator, generator: torch.Generator):
        identities = rng.integers(len(people), size=BATCH["recogniser"])
        crops = [crop(people[number], rng) for number in identities]
        embeddings = recogniser(as_input(crops, 127.5).to(device))
        labels = torch.from_numpy(identities).to(device)
        value = arcface(embeddings, labels)
        with torch.no_grad():
            cosines = F.normalize(embeddings) @ F.normalize(arcface.directions).T
            right = (cosines.argmax(1) == labels).float().mean().item()
            own = cosines[torch.arange(len(labels)), labels].mean().item()
        return value, {"accuracy": right, "cosine": own}

    return {"recogniser": recogniser, "arcface": arcface}, loop.Phase("recogniser", steps, 2e-3, loss)


def by_identity(scenes: list[Scene]) -> list[list[tuple[Scene, int, Face]]]:
    """The faces of each identity that count, in order of identity: where they are seen."""
    people: dict[int, list[tuple[Scene, int, Face]]] = {}
    for scene in scenes:
        for number, faces in enumerate(scene.faces):
            for face in faces:
                if face.counts:
                    people.setdefault(face.identity, []).append((scene, number, face))
    return [people[identity] for identity in sorted(people)]


def crop(seen: list[tuple[Scene, int, Face]], rng: np.random.Generator) -> np.ndarray:
    """A face of one identity in either look, mirrored or not, aligned and varied: uint8 [112, 112, 3]."""
    scene, number, face = seen[int(rng.integers(len(seen)))]
    frame, faces = scene.looks[face_data.LOOKS[int(rng.integers(2))]][number], [face]
    if rng.random() < 0.5:
        frame, faces = face_data.mirrored(frame, faces)
    aligned = face_data.aligned(frame, faces[0].landmarks, rng, JITTER)
    return face_data.varied(aligned, rng, blur=5.0)


def as_input(pictures: list[np.ndarray], spread: float) -> torch.Tensor:
    """uint8 RGB pictures -> float32 [B, 3, H, W] about 0, scaled as insightface scales them."""
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    return ((x - 127.5) / spread).contiguous(memory_format=torch.channels_last)


def detection_loss(
    outputs: list[torch.Tensor], faces: list[list[Face]], size: tuple[int, int]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Focal loss of scores, GIoU of boxes and distances of landmarks, over all faces of a batch."""
    targets = [target(of_picture, size) for of_picture in faces]
    wanted, boxes, landmarks, counted = (
        torch.from_numpy(np.stack(parts)).to(outputs[0].device) for parts in zip(*targets, strict=True)
    )
    levels = len(STRIDES)
    logits = torch.cat(outputs[:levels], 1)[..., 0]  # [B, N]
    found_boxes, found_landmarks = (
        torch.cat(outputs[first : first + levels], 1) for first in (levels, 2 * levels)
    )
    positive = wanted > 0
    count = positive.sum().clamp(min=1)
    errors = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    miss = (wanted - logits.sigmoid()).abs() ** FOCUS
    score = (errors * miss * counted).sum() / count
    overlap = overlap_of_distances(found_boxes[positive], boxes[positive])
    # In units of the face, so that large faces do not rule.
    span = (boxes[positive][:, :2] + boxes[positive][:, 2:]).mean(-1, keepdim=True)
    distance = F.smooth_l1_loss(found_landmarks[positive] / span, landmarks[positive] / span, beta=0.02)
    loss = score + (1 - overlap).sum() / count + 5 * (distance if len(span) else 0.0)
    return loss, {"score": score.item(), "overlap": (overlap.sum() / count).item()}


def target(faces: list[Face], size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """What each cell and anchor is to say: score [N], distances [N, 4], landmarks [N, 10], counted [N].

    A face is asked of the cells around its middle, on the anchor for its size; those within it elsewhere are free to
    say what they like, as are those within faces that do not count.
    """
    parts = []
    for level, stride in enumerate(STRIDES):
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        centres = np.stack([columns, rows], -1).reshape(-1, 2) * float(stride)
        for anchor in range(ANCHORS):
            parts.append(_of_anchor(faces, centres, stride, ANCHORS * level + anchor))
    joined = []
    for values in zip(*parts, strict=True):
        # Anchors of a cell stand side by side: [cells, anchors, ...] of each level, then the levels one by one.
        pairs = [np.stack(values[i : i + ANCHORS], 1) for i in range(0, len(values), ANCHORS)]
        joined.append(np.concatenate([pair.reshape(-1, *pair.shape[2:]) for pair in pairs]))
    return tuple(joined)


def _of_anchor(faces: list[Face], centres: np.ndarray, stride: int, anchor: int) -> tuple[np.ndarray, ...]:
    score, counted = np.zeros(len(centres), np.float32), np.ones(len(centres), np.float32)
    boxes = np.zeros((len(centres), 4), np.float32)
    landmarks = np.zeros((len(centres), 10), np.float32)
    for face in faces:
        middle, sides = (face.box[:2] + face.box[2:]) / 2, face.box[2:] - face.box[:2]
        within = (np.abs(centres - middle) < 0.4 * sides).all(1)
        counted[within & (score == 0)] = 0
        if not face.counts or int(np.searchsorted(LARGEST, sides.max())) != anchor:
            continue
        near = (np.abs(centres - middle) <= NEAR * stride).all(1)
        near &= (centres > face.box[:2]).all(1) & (centres < face.box[2:]).all(1)
        score[near], counted[near] = 1, 1
        distances = np.concatenate([centres[near] - face.box[:2], face.box[2:] - centres[near]], 1)
        boxes[near] = distances / stride
        landmarks[near] = (face.landmarks[None] - centres[near][:, None]).reshape(-1, 10) / stride
    return score, boxes, landmarks, counted


def overlap_of_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """GIoU (Rezatofighi et al. 2019) of boxes about the same centres, given by distances to their sides [N, 4]."""
    inner, outer = torch.minimum(a, b), torch.maximum(a, b)
    areas = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (a, b, inner, outer)]
    union = areas[0] + areas[1] - areas[2]
    return areas[2] / union - (areas[3] - union) / areas[3]


if __name__ == "__main__":
    main()
