"""DINO: how far two pictures are apart in the features of a self-supervised ViT (paper, 4.1; Caron et al. 2021).

The paper says "l2 between DINO features" and no more, so there are three: the CLS token (primary), the patch tokens,
and the self-similarity of the last layer's keys, which ignores appearance (Tumanyan et al. 2022, Splice). Reads the
model's folder; writes nothing.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rmkit.metrics import Column, Metric, options_of
from rmkit.metrics.vision import VisionModel
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd
    import torch

TOKENS = 8192  # at a time through the model: two frames of 800x1200, about 0.3 GB in ViT-B/16
ROWS = (
    1024  # of a self-similarity at a time: at 800x1200 and patches of 8, 15,001 tokens, all rows take 0.9 GB
)


class Dino(Metric):
    """Distances of a clip's frames to the render's and the truth's in DINO's features."""

    columns = (
        Column("dino", "DINO to render", "", -1, digits=3, floor=1e-2, against="render", shown="always"),
        Column("dino_patch", "DINO (patches) to render", "", -1, digits=3, floor=1e-2, against="render"),
        Column("dino_keys", "DINO (keys) to render", "", -1, floor=1e-2, against="render"),
        Column("dino_truth", "DINO to truth", "", -1, digits=3, floor=1e-2, against="truth"),
    )
    needs_model = True

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        """Which model's features are compared and how."""
        if rows.empty:
            return f"DINO: {self.why_no_row(profile)}"
        return (
            f"DINO (4.1), {options_of(rows)}: l2 between the CLS tokens, mean over all frames; `patches`: between patch "
            "tokens, mean over places; `keys`: between the cosines of the last layer's keys with one another (root mean "
            "square)."
        )


@dataclass(frozen=True)
class Features:
    """What the model sees in a picture, float32; the tokens and keys are the last layer's."""

    cls: "torch.Tensor"  # [D]
    patches: "torch.Tensor"  # [N, D]
    keys: "torch.Tensor"  # [1 + N, D], all heads side by side, CLS first


def cls_distance(a: Features, b: Features) -> float:
    """l2 norm of the difference of the CLS tokens, 0 or more; lower is nearer."""
    return (a.cls - b.cls).norm().item()


def patch_distance(a: Features, b: Features) -> float:
    """l2 norm of the difference of patch tokens in one place, mean over places."""
    return (a.patches - b.patches).norm(dim=-1).mean().item()


def key_distance(a: Features, b: Features) -> float:
    """Root mean square of the difference of the keys' cosines with one another, 0 to 2 (Splice, eq. 2).

    Splice takes the Frobenius norm; divided by the number of tokens it does not grow with the picture.
    """
    one, other = (keys / keys.norm(dim=-1, keepdim=True) for keys in (a.keys, b.keys))
    squared = 0.0
    for some, others in zip(one.split(ROWS), other.split(ROWS), strict=True):
        difference = some @ one.T
        difference -= others @ other.T  # [ROWS, 1 + N], so that memory does not grow with the square of N
        squared += difference.square_().sum().item()
    return math.sqrt(squared) / len(one)


class FeatureModel(VisionModel):
    """A ViT in transformers' format, at the frames' own size (positions interpolated)."""

    def __init__(self, name: str, commit: str | None, device: "torch.device | str" = "cpu"):
        """`name` is a folder, or a hub name with its commit. Raises InputError when weights are missing."""
        from transformers import ViTModel

        super().__init__(ViTModel, "the feature model", name, commit, device, add_pooling_layer=False)
        self.model.layers[-1].attention.k_proj.register_forward_hook(self._keep_keys)

    def __call__(self, frames: Sequence[np.ndarray]) -> list[Features]:
        """Features of pictures uint8 [H, W, 3] of one size, a few at a time."""
        if not len(frames):
            return []
        patch = self.model.config.patch_size
        tokens = (frames[0].shape[0] // patch) * (frames[0].shape[1] // patch) + 1
        at_once = max(1, TOKENS // tokens)
        return [
            features
            for first in range(0, len(frames), at_once)
            for features in self._few(frames[first : first + at_once])
        ]

    def _few(self, frames: Sequence[np.ndarray]) -> list[Features]:
        import torch

        with torch.inference_mode():
            x = self.pixels(frames)
            tokens = self.model(x, interpolate_pos_encoding=True).last_hidden_state  # [B, 1 + N, D]
        # Copies: a view of one picture would keep the tokens of all.
        return [
            Features(t[0].clone(), t[1:].clone(), k.clone()) for t, k in zip(tokens, self._keys, strict=True)
        ]

    def _keep_keys(self, module: "torch.nn.Module", inputs: tuple, output: "torch.Tensor") -> None:
        self._keys = output


def compare(
    model: Callable[[Sequence[np.ndarray]], list[Features]],
    streams: Mapping[str, Iterator[np.ndarray]],
    wanted: Mapping[str, Sequence[Any]],
) -> dict[str, dict[str, float]]:
    """Mean over frames of every wanted metric, by stream and metric.

    streams: frames by name, equally many of equal size; wanted: metrics of some of them, each against another. All
    streams advance together, so a picture that several need, or that is shown twice in a row, is looked at once, and
    memory holds the features of two moments however long the clips are.
    """
    features: dict[bytes, Features] = {}
    distances: dict[tuple[str, bytes, bytes], float] = {}
    values = {name: {metric.name: [] for metric in metrics} for name, metrics in wanted.items()}
    for frames in zip(*streams.values(), strict=True):
        keys = {name: hashlib.sha256(f.tobytes()).digest() for name, f in zip(streams, frames, strict=True)}
        pictures = dict(zip(keys.values(), frames, strict=True))
        new = [key for key in pictures if key not in features]
        seen = dict(zip(new, model([pictures[key] for key in new]), strict=True))
        features = {key: seen[key] if key in seen else features[key] for key in pictures}
        pairs = {
            (metric.name, keys[name], keys[metric.against]): metric
            for name, metrics in wanted.items()
            for metric in metrics
        }
        distances = {
            pair: distances[pair]
            if pair in distances
            else metric.compute(features[pair[1]], features[pair[2]])
            for pair, metric in pairs.items()
        }
        for name, metrics in wanted.items():
            for metric in metrics:
                values[name][metric.name].append(distances[metric.name, keys[name], keys[metric.against]])
    return {name: {key: float(np.mean(v)) for key, v in found.items()} for name, found in values.items()}


METRIC = Dino()
