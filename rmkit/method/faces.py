"""The paper's measure of identity (3.3, 4.1, B.1): faces of a render and of an output, matched by place, compared.

Reads videos and the face pack (`kit.face_pack`); writes the faces found in a video's frames, as an npz file where the
caller says (faces/ under results/<profile>/), once for the filter of the pairs and for the metric.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmkit.kit import face_pack, models, stage, store, video
from rmkit.kit.face_pack import Faces
from rmkit.profile import Profile

VERSION = 1
FRAMES = 5  # paper, 4.1


@dataclass(frozen=True)
class Likeness:
    """Cosines of matched faces, and how many faces of the render were there to be matched."""

    cosines: tuple[float, ...]
    found: int

    @property
    def coverage(self) -> float | None:
        """Matched of found, 0 to 1; None when the render has no face."""
        return len(self.cosines) / self.found if self.found else None

    def over(self, statistic: str) -> float | None:
        """'mean' or 'minimum' of the cosines; None when no face was matched."""
        if not self.cosines:
            return None
        return float(np.mean(self.cosines) if statistic == "mean" else np.min(self.cosines))


def linspace(frames: int) -> list[int]:
    """Five frames of so many with both ends, which are anchors: it flatters methods that are made from them."""
    return video.evenly(FRAMES, frames)


def midpoints(frames: int) -> list[int]:
    """Five frames of so many, the middles of five equal parts: no anchor of the ends among them."""
    return video.midpoints(FRAMES, frames)


def of_video(
    profile: Profile,
    fingerprint: str,
    frames: Callable[[], Iterator[np.ndarray]],
    wanted: Iterable[int],
    kept: Path,
    source_frames: tuple[int, ...] = (),
) -> Faces:
    """Faces in the `wanted` frames of a video, from `kept` when they have been found before.

    fingerprint: of the video's file; frames: opens the stream, uint8 [H, W, 3] RGB; source_frames: of the clip, where the
    file holds a whole sequence. Raises InputError when the pack cannot be used or the video is too short.
    """
    numbers = sorted(set(wanted))
    recipe = store.Recipe(
        stage="faces",
        version=VERSION,
        settings=profile.identity.model_dump(include={"det_size", "det_thresh"})
        | {"frames": numbers, "source_frames": source_frames},
        inputs={"video": fingerprint},
        model=face_pack.fingerprint(profile),
    )
    ready = functools.partial(_ready, profile, numbers)
    stage.run("", [stage.Item(kept, recipe, frames)], ready, device=str(models.device(profile)))
    stored = store.read_arrays(kept)
    return Faces(stored["frame"], stored["box"], stored["embedding"])


def compare(render: Faces, output: Faces, frames: Iterable[int], gate: float) -> Likeness:
    """Cosines of the faces of `render` with those of `output` in the same places, over the given frames."""
    cosines: list[float] = []
    found = 0
    for frame in frames:
        (boxes, embeddings), (other_boxes, other_embeddings) = render.at(frame), output.at(frame)
        found += len(boxes)
        pairs = match(boxes, other_boxes, gate)
        cosines += [cosine(embeddings[i], other_embeddings[j]) for i, j in pairs]
    return Likeness(tuple(cosines), found)


def match(boxes: np.ndarray, others: np.ndarray, gate: float) -> list[tuple[int, int]]:
    """Pairs of boxes [N, 4] and [M, 4] that lie in the same place: the assignment of largest total overlap.

    Never by likeness, which is what is to be measured: of two people who changed places, neither is matched with
    himself. Pairs that overlap less than `gate` are none.
    """
    from scipy.optimize import linear_sum_assignment

    overlap = iou(boxes, others)
    # Below the gate nothing is gained, so that no good pair is given up for two bad ones.
    rows, columns = linear_sum_assignment(np.where(overlap >= gate, overlap, 0.0), maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if overlap[i, j] >= gate]


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, [N, 4] and [M, 4] -> [N, M], 0 to 1."""
    a, b = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inner = sides.clip(min=0).prod(-1)
    areas = [(c[..., 2:] - c[..., :2]).clip(min=0).prod(-1) for c in (a, b)]
    return inner / np.maximum(areas[0] + areas[1] - inner, 1e-9)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two embeddings [D], -1 to 1."""
    return float(np.dot(a, b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _ready(profile: Profile, numbers: list[int]) -> stage.Make[Callable[[], Iterator[np.ndarray]]]:
    analysis = face_pack.load(profile)

    def make(item: stage.Item[Callable[[], Iterator[np.ndarray]]], temporary: Path) -> dict[str, str]:
        found = face_pack.find(analysis, item.subject(), numbers)
        np.savez(temporary, frame=found.frame, box=found.box, embedding=found.embedding)
        return {"model_name": str(profile.identity.model_pack)}

    return make
