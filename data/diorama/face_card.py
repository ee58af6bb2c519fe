"""Held-out figures of the face pack: what it finds, whom it tells apart, what the video VAE leaves of a face.

Reads the pack beside the other checkpoints, rendered sequences of the validation split and the mini profile's VAE;
writes `sheet_similarities.jpg` and `sheet_found.jpg` into the pack's folder (cards.py writes the card).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import dataset
import face_data
import numpy as np
from face_data import LOOKS, Scene
from matplotlib.figure import Figure
from scipy.stats import rankdata

from rmkit import profile
from rmkit.baselines import vae_ceiling
from rmkit.kit import face_pack, models, video
from rmkit.method import faces

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan
    from insightface.app import FaceAnalysis

HIT = 0.5  # overlap from which a face counts as found
SHOT = 17  # distinct frames of a clip


@dataclass(frozen=True)
class Sight:
    """A face of the engine's that was found: where, in which look, who it is, and its unit embedding."""

    sequence: str
    frame: int
    look: str
    identity: int
    embedding: np.ndarray


def figures(mini: profile.Profile, rendered: Path, folder: Path) -> dict[str, float]:
    """All figures of the pack in `folder` on people it was not trained on, and the two sheets."""
    identity = mini.identity.model_copy(update={"model_pack": str(folder)})
    settings = mini.model_copy(update={"identity": identity})
    analysis = face_pack.load(settings)
    scenes = face_data.load(rendered, "validation")
    found, sights, rows = detection(analysis, scenes)
    same, different, at_once = similarities(sights)
    _verification(same, different, identity.threshold).savefig(folder / "sheet_similarities.jpg", dpi=100)
    video.contact_sheet(rows, width=144).save(folder / "sheet_found.jpg", quality=88)
    return {
        **found,
        "identities": len({sight.identity for sight in sights}),
        "auc": area_under_roc(same, different),
        "cosine_same_median": np.median(same),
        "cosine_different_median": np.median(different),
        "cosine_same_moment_median": np.median(at_once),
        "accepted_same": np.mean(same >= identity.threshold),
        "accepted_different": np.mean(different >= identity.threshold),
        **round_trip(analysis, models.load_wan(mini).vae, scenes, identity.iou_gate),
    }


def detection(
    analysis: "FaceAnalysis", scenes: Sequence[Scene]
) -> tuple[dict[str, float], list[Sight], list[tuple[str, list[np.ndarray]]]]:
    """Recall, precision and error of landmarks over all frames of both looks; the faces found; rows of a sheet.

    Faces that do not count (small, half hidden) are neither missed nor found wrongly.
    """
    counts: dict[str, int] = defaultdict(int)
    errors: list[float] = []
    sights: list[Sight] = []
    rows: list[tuple[str, list[np.ndarray]]] = []
    for scene, look, number, frame in _frames(scenes):
        known = scene.faces[number]
        seen = analysis.get(np.ascontiguousarray(frame[..., ::-1]))
        boxes = np.array([face.bbox for face in seen], np.float32).reshape(-1, 4)
        truths = np.array([face.box for face in known], np.float32).reshape(-1, 4)
        overlap = faces.iou(truths, boxes)
        hits = {i: j for i, j in faces.match(truths, boxes, HIT) if known[i].counts}
        excused = [
            j
            for j in range(len(boxes))
            if len(known) and overlap[:, j].max() > 0.2 and not known[int(overlap[:, j].argmax())].counts
        ]
        counts["faces"] += sum(face.counts for face in known)
        counts["hits"] += len(hits)
        counts["said"] += len(set(range(len(boxes))) - (set(excused) - set(hits.values())))
        for i, j in hits.items():
            span = np.linalg.norm(known[i].landmarks[1] - known[i].landmarks[0])
            errors.append(float(np.linalg.norm(seen[j].kps - known[i].landmarks, axis=1).mean() / span))
            sights.append(Sight(scene.sequence, number, look, known[i].identity, seen[j].normed_embedding))
        if number % SHOT == SHOT // 2:
            _add(rows, f"{scene.sequence} {look}", _drawn(frame, boxes))
    figures_ = {
        "recall": counts["hits"] / max(counts["faces"], 1),
        "precision": counts["hits"] / max(counts["said"], 1),
        "landmark_error": float(np.median(errors)) if errors else float("nan"),  # of the eyes' distance
    }
    return figures_, sights, rows


def similarities(sights: Sequence[Sight]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines between faces of the render and of the truth: one person's, two persons', one person's at one moment."""
    sides = [[sight for sight in sights if sight.look == look] for look in LOOKS]
    cosines = np.stack([s.embedding for s in sides[0]]) @ np.stack([s.embedding for s in sides[1]]).T
    people = [np.array([sight.identity for sight in side]) for side in sides]
    moments = [np.array([f"{s.sequence}/{s.frame}" for s in side]) for side in sides]
    same = people[0][:, None] == people[1][None]
    at_once = same & (moments[0][:, None] == moments[1][None])
    return cosines[same], cosines[~same], cosines[at_once]


def area_under_roc(same: np.ndarray, different: np.ndarray) -> float:
    """How often a pair of one person is more alike than a pair of two: area under the ROC, 0 to 1."""
    ranks = rankdata(np.concatenate([same, different]))
    least = len(same) * (len(same) + 1) / 2
    return float((ranks[: len(same)].sum() - least) / (len(same) * len(different)))


def round_trip(
    analysis: "FaceAnalysis", vae: "AutoencoderKLWan", scenes: Sequence[Scene], gate: float
) -> dict[str, float]:
    """What encoding and decoding leaves of the faces of the truth: median cosine, and the share found again."""
    cosines: list[float] = []
    found = 0
    for scene in scenes:
        for first in range(0, len(scene.faces), SHOT):
            clip = dataset.repeated(scene.looks["truth"][first : first + SHOT])
            back, numbers = vae_ceiling.reconstruct(vae, clip), faces.linspace(len(clip))
            likeness = faces.compare(
                face_pack.find(analysis, iter(clip), numbers),
                face_pack.find(analysis, iter(back), numbers),
                numbers,
                gate,
            )
            cosines += likeness.cosines
            found += likeness.found
    return {"vae_cosine_median": np.median(cosines), "vae_coverage": len(cosines) / max(found, 1)}


def _frames(scenes: Sequence[Scene]) -> Iterator[tuple[Scene, str, int, np.ndarray]]:
    for scene in scenes:
        for look in LOOKS:
            for number, frame in enumerate(scene.looks[look]):
                yield scene, look, number, frame


def _add(rows: list[tuple[str, list[np.ndarray]]], label: str, picture: np.ndarray) -> None:
    if rows and rows[-1][0] == label:
        rows[-1][1].append(picture)
    else:
        rows.append((label, [picture]))


def _drawn(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The frame with a thin frame around every face found."""
    picture = frame.copy()
    for x0, y0, x1, y1 in boxes.round().astype(int).tolist():
        cv2.rectangle(picture, (x0, y0), (x1, y1), (255, 60, 60), 1)
    return picture


def _verification(same: np.ndarray, different: np.ndarray, threshold: float) -> Figure:
    """Left, cosines of pairs of one person and of two; right, the ROC: how many of each a threshold accepts."""
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    bins = np.linspace(-1, 1, 61).tolist()
    for values, colour, label in (
        (same, "#0072B2", "one person"),
        (different, "#D55E00", "two persons"),
    ):
        left.hist(values, bins, density=True, alpha=0.7, color=colour, label=f"{label}, {len(values)} pairs")
    left.axvline(threshold, color="black", linestyle=":", label=f"threshold, {threshold:g}")
    left.set(xlabel="cosine of a face in the render and one in the truth", ylabel="density")
    left.legend(frameon=False, fontsize=8)
    levels = np.linspace(-1, 1, 801)
    wrongly, rightly = accepted(different, levels), accepted(same, levels)
    right.plot(wrongly, rightly, color="#444444", label=f"area {area_under_roc(same, different):.4f}")
    at = accepted(different, [threshold]), accepted(same, [threshold])
    right.plot(*at, "o", color="black", label=f"threshold, {threshold:g}")
    right.set(xlabel="pairs of two persons accepted", ylabel="pairs of one person accepted")
    right.set_xscale("symlog", linthresh=1e-3)  # nearly all of it lies below a hundredth
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def accepted(cosines: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Share of the pairs whose cosine reaches each level, 0 to 1."""
    return 1 - np.searchsorted(np.sort(cosines), levels) / len(cosines)
