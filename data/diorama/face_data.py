"""Faces for training: frames with what the engine knows of the faces in them, and how they are varied.

Reads `<rendered>/<split>/<sequence>/{render,truth}.mp4, meta.json` as render.py wrote them; writes nothing. Coordinates
are pixels of the frame, counted from its corner, as the engine projects them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from face_models import CROP
from insightface.utils.face_align import norm_crop

from rmkit.kit import video

LOOKS = ("render", "truth")
VISIBLE = 0.5  # share of a face that must be seen for it to count as one
SMALLEST = 12  # pixels of a face's height; smaller ones count neither as faces nor as none
MIRROR = (1, 0, 2, 4, 3)  # landmarks after left and right have been exchanged


@dataclass(frozen=True)
class Face:
    """One face: box [x0, y0, x1, y1], landmarks [5, 2] (eyes, nose, corners of the mouth), who it is, and whether
    it is plain enough to be found (what is not is neither a face nor none)."""

    box: np.ndarray
    landmarks: np.ndarray
    identity: int
    counts: bool


@dataclass(frozen=True)
class Scene:
    """Frames of one sequence in both looks, uint8 [F, H, W, 3] RGB, and the faces of each frame."""

    sequence: str
    looks: dict[str, np.ndarray]
    faces: tuple[tuple[Face, ...], ...]


def load(rendered: Path, split: str, limit: int | None = None) -> list[Scene]:
    """All finished sequences of a split, in order."""
    scenes = []
    for file in sorted((rendered / split).glob("*/meta.json"))[:limit]:
        meta = json.loads(file.read_text())
        looks = {look: video.read(file.parent / f"{look}.mp4") for look in LOOKS}
        height, width = looks["render"].shape[1:3]
        faces = tuple(
            tuple(_face(entry) for entry in entries if _inside(entry, height, width))
            for entries in meta["faces"]
        )
        scenes.append(Scene(meta["sequence"], looks, faces))
    return scenes


def picture(
    scenes: list[Scene], size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, list[Face]]:
    """A random frame enlarged about twice, shifted and varied: uint8 [*size, 3] RGB and its faces in it."""
    scene = scenes[int(rng.integers(len(scenes)))]
    look = LOOKS[int(rng.integers(2))]
    number = int(rng.integers(len(scene.faces)))
    frame, faces = scene.looks[look][number], list(scene.faces[number])
    if rng.random() < 0.5:
        frame, faces = mirrored(frame, faces)
    scale = 2.0 * float(np.exp(rng.uniform(-0.4, 0.4)))
    frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    # Shifted so that it covers the canvas if it can, or lies within it if it cannot.
    shift = np.array([rng.uniform(*sorted((0.0, size[1 - i] - frame.shape[1 - i]))) for i in (0, 1)]).round()
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    canvas = cv2.warpAffine(frame, matrix, size[::-1])
    placed = [
        Face(face.box * scale + np.tile(shift, 2), face.landmarks * scale + shift, face.identity, face.counts)
        for face in faces
    ]
    middles = [(face.box[:2] + face.box[2:]) / 2 for face in placed]
    seen = [f for f, m in zip(placed, middles, strict=True) if (m > 0).all() and (m < size[::-1]).all()]
    return varied(canvas, rng, blur=2.0), seen


def aligned(
    frame: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator | None = None, jitter: float = 0.0
) -> np.ndarray:
    """The face as insightface cuts it out, uint8 [112, 112, 3]; `jitter`: the detector's error, of the eyes' distance."""
    if jitter:
        distance = float(np.linalg.norm(landmarks[1] - landmarks[0]))
        landmarks = landmarks + rng.normal(0, jitter * distance, landmarks.shape)
    return norm_crop(frame, landmarks.astype(np.float32), CROP)


def mirrored(frame: np.ndarray, faces: list[Face]) -> tuple[np.ndarray, list[Face]]:
    """Left and right exchanged; a mirrored face is the same person's."""
    width = frame.shape[1]
    turned = []
    for face in faces:
        x0, y0, x1, y1 = face.box
        landmarks = face.landmarks[list(MIRROR)] * (-1, 1) + (width, 0)
        turned.append(Face(np.array([width - x1, y0, width - x0, y1]), landmarks, face.identity, face.counts))
    return np.ascontiguousarray(frame[:, ::-1]), turned


def varied(picture_: np.ndarray, rng: np.random.Generator, blur: float) -> np.ndarray:
    """Other light, softness and noise, for looks that neither render nor truth has: uint8 to the same."""
    if rng.random() < 0.4:
        sigma = float(rng.uniform(0.3, blur))
        picture_ = cv2.GaussianBlur(picture_, (0, 0), sigma)
    x = picture_.astype(np.float32)
    mean = x.mean((0, 1))
    contrast, gain = rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3)
    x = (mean + (x - mean) * contrast) * gain.astype(np.float32)
    if rng.random() < 0.3:
        x += rng.normal(0, rng.uniform(0, 8), x.shape).astype(np.float32)
    return np.clip(x, 0, 255).astype(np.uint8)


def _face(entry: dict) -> Face:
    box = np.array(entry["box"], np.float64)
    counts = entry["visibility"] > VISIBLE and box[3] - box[1] >= SMALLEST
    return Face(box, np.array(entry["landmarks"], np.float64), entry["identity"], bool(counts))


def _inside(entry: dict, height: int, width: int) -> bool:
    """Whether anything of a face can be seen: behind others or out of the picture it is no face at all."""
    x0, y0, x1, y1 = entry["box"]
    return entry["visibility"] > 0.1 and x1 > 0 and y1 > 0 and x0 < width and y0 < height
