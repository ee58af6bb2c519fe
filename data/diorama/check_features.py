"""What the feature model of the DINO metrics knows, on clips it was not trained on: two questions, in figures.

Does it see what is shown rather than how it is lit: is a render's frame nearest to its own truth among those of other
sequences, also when it is moved? (In place even pixels find it; moved they do not.) Does its distance grow with damage:
with blur, with a shift? Reads a model folder and rendered sequences of
the validation split; prints. cards.py writes the same figures on the model's card.

    python data/diorama/check_features.py --rendered DIR --model DIR
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import dataset
import numpy as np
from dataset import Shot

from rmkit.metrics.dino import FeatureModel

FRAMES = (0, 8, 16)  # of each shot
BLURS = (0.5, 1.0, 2.0, 4.0)  # standard deviation in pixels
SHIFTS = (1, 2, 4, 8, 16)  # pixels to the right
MOVED = 16  # pixels between the render and the truth that it is to find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rendered", type=Path, required=True, help="folder that render.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder of the feature model")
    arguments = parser.parse_args()
    shots = dataset.load(arguments.rendered, "validation")
    found = figures(FeatureModel(str(arguments.model), None), shots)
    print(json.dumps({key: round(value, 4) for key, value in found.items()}, indent=1))


def figures(model: FeatureModel, shots: Sequence[Shot]) -> dict[str, float]:
    """Retrieval of the truth by the render, in features and (to compare) in pixels, and the ladders of damage."""
    renders = [shot.render[i] for shot in shots for i in FRAMES]
    truths = [shot.truth[i] for shot in shots for i in FRAMES]
    sequences = np.array([shot.sequence for shot in shots for _ in FRAMES])
    moved = [frame[:, MOVED:] for frame in renders], [frame[:, :-MOVED] for frame in truths]
    own = distances(_features(model, renders), _features(model, truths))
    found = {
        "retrieval": retrieval(own, sequences),
        "retrieval_in_pixels": retrieval(distances(_pixels(renders), _pixels(truths)), sequences),
        "retrieval_moved": retrieval(distances(*(_features(model, frames) for frames in moved)), sequences),
        "retrieval_moved_in_pixels": retrieval(distances(*map(_pixels, moved)), sequences),
        "distance_to_own_truth": np.diag(own).mean(),
        "distance_to_other_truths": own[sequences[:, None] != sequences].mean(),
    }
    whole = _features(model, truths)
    for sigma in BLURS:
        damaged = _features(model, [cv2.GaussianBlur(frame, (0, 0), sigma) for frame in truths])
        found[f"blur_{sigma:g}"] = np.linalg.norm(damaged - whole, axis=1).mean()
    # Both cut to the same size, so that the shift brings no new border.
    kept = _features(model, [frame[:, : -SHIFTS[-1]] for frame in truths])
    for shift in SHIFTS:
        width = truths[0].shape[1] - SHIFTS[-1]
        damaged = _features(model, [frame[:, shift : shift + width] for frame in truths])
        found[f"shift_{shift}"] = np.linalg.norm(damaged - kept, axis=1).mean()
    return {key: float(value) for key, value in found.items()}


def retrieval(between: np.ndarray, sequences: np.ndarray) -> float:
    """Share of renders [N] that are nearer to their own truth than to any truth of another sequence, of [N, N]."""
    others = np.where(sequences[:, None] != sequences, between, np.inf)
    return float(np.mean(np.diag(between) < others.min(axis=1)))


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """l2 between all pairs of rows, [N, D] and [M, D] to [N, M]."""
    return np.stack([np.linalg.norm(b - row, axis=1) for row in a])


def _features(model: FeatureModel, frames: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([features.cls.numpy() for features in model(frames)])


def _pixels(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Each frame without its own brightness and contrast: what a fair comparison of pixels can ignore."""
    flat = np.stack([frame.astype(np.float32).ravel() for frame in frames])
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / flat.std(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
