"""Colour transfer: one affine colour map for all clips, what mere grading achieves (ours; not in the paper).

Fitted on the training pairs (render to generated target), so it has seen no truth. Reads pairs/pairs.json,
pairs and validation clips; writes enhanced/colour_transfer/map.json and gives the clips' mapped frames.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rmkit.baselines import Edit, Made
from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.method import identity, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile


class ColourTransfer(Made):
    """The render through the colour map of the training pairs."""

    name, label, colour, marker = "colour_transfer", "Colour transfer", "#E69F00", "D"
    ablation = True

    def depends_on(self, profile: Profile) -> dict[str, str]:
        return {"map": _fit_recipe(_pairs(profile)).key}

    def ready(self, profile: Profile) -> Edit:
        colour_map = load_map(fit(profile))

        def edit(clip: Clip, seed: int) -> np.ndarray:
            return apply(colour_map, video.read(sampling.path(profile, clip)))

        return edit


def fit(profile: Profile) -> Path:
    """Fit the map on all kept training pairs and store it; returns its path."""
    pairs = _pairs(profile)
    path, recipe = profile.layout.enhanced / "colour_transfer" / "map.json", _fit_recipe(pairs)
    if not store.is_done(path, recipe):
        colour_map = least_squares((video.stream(render), video.stream(target)) for render, target in pairs)
        with store.writing(path, recipe) as temporary:
            # Rounded, so that the last digits of a machine's linear algebra move no pixel.
            temporary.write_text(json.dumps({"map": colour_map.round(6).tolist()}, indent=1) + "\n")
    return path


def load_map(path: Path) -> np.ndarray:
    """The stored map, float64 [3, 4]."""
    return np.array(store.read_json(path)["map"])


def least_squares(pairs: Iterable[tuple[Iterable[np.ndarray], Iterable[np.ndarray]]]) -> np.ndarray:
    """Affine map [3, 4] with the smallest squared error over all pixels: target = M[:, :3] x + M[:, 3].

    pairs: (source frames, target frames), uint8 [H, W, 3]. From normal equations, in constant memory.
    """
    left, right = np.zeros((4, 4)), np.zeros((4, 3))
    for sources, targets in pairs:
        for source, target in zip(sources, targets, strict=True):
            x = np.ones((source.shape[0] * source.shape[1], 4))
            x[:, :3] = source.reshape(-1, 3)
            left += x.T @ x
            right += x.T @ target.reshape(-1, 3).astype(np.float64)
    # lstsq rather than solve: pictures of one colour leave the map underdetermined.
    return np.linalg.lstsq(left, right, rcond=None)[0].T


def apply(colour_map: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Mapped frames, uint8 [..., 3]; values beyond 0..255 are clipped."""
    mapped = frames.astype(np.float64) @ colour_map[:, :3].T + colour_map[:, 3]
    return np.clip(mapped.round(), 0, 255).astype(np.uint8)


def _pairs(profile: Profile) -> list[tuple[Path, Path]]:
    """Render and target of every kept training pair."""
    kept = [entry for entry in identity.load(profile) if entry["kept"]]
    if not kept:
        raise InputError(f"{profile.layout.pairs} keeps no pair, so there is nothing to fit a colour map on.")
    root = profile.layout.run
    return [(root / entry["render"], root / entry["target"]) for entry in kept]


def _fit_recipe(pairs: Sequence[tuple[Path, Path]]) -> store.Recipe:
    """All that decides the map."""
    inputs = {
        f"{i:05d}/{side}": store.fingerprint(file)
        for i, pair in enumerate(pairs)
        for side, file in zip(("render", "target"), pair, strict=True)
    }
    return store.Recipe("colour_transfer.fit", ColourTransfer.version, {}, inputs)


METHODS = (ColourTransfer(),)
