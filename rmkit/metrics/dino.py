"""DINO: how far two pictures are apart in the features of a self-supervised ViT (paper, 4.1; Caron et al. 2021).

The paper says "l2 between DINO features" and no more, so there are three: the CLS token (primary), the patch tokens,
and the self-similarity of the last layer's keys, which ignores appearance (Tumanyan et al. 2022, Splice). Reads the
model's folder; writes nothing.
"""

import functools
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, weights
from rmkit.kit.vision import VisionModel
from rmkit.metrics import Column, Measure, Metric, Subject, options_of
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd
    import torch

TOKENS = 8192  # at a time through the model: two frames of 800x1200, about 0.3 GB in ViT-B/16
MOMENTS = 16  # of each stream are decoded before the model looks at them
REMEMBERED = 4 * 2**30  # bytes of features: render, truth and output of a clip of the paper's size take less
ROWS = 1024  # of a self-similarity at a time: at 800x1200 and patches of 8, 15,001 tokens, all take 0.9 GB


class Dino(Metric):
    """Distances of a clip's frames to the render's and the truth's in DINO's features."""

    columns = (
        Column("dino", "DINO to render", "", -1, 3, 1e-2, against="render", shown="always", paper=True),
        Column("dino_patch", "DINO (patches) to render", "", -1, digits=3, floor=1e-2, against="render"),
        Column("dino_keys", "DINO (keys) to render", "", -1, floor=1e-2, against="render"),
        Column("dino_truth", "DINO to truth", "", -1, digits=3, floor=1e-2, against="truth"),
    )
    label = "DINO"
    needs_model = True

    def check(self, profile: Profile, height: int, width: int) -> None:
        """A model of another class would load with random weights, and a patch that does not fit would cut the frame."""
        name, config = weights.single_config(self.key, self.model(profile))
        kind = config.get("model_type")
        if kind != "vit":
            raise InputError(
                f"{self.key}: {name} is a '{kind}' and must be a 'vit', as facebook/dino-vitb16 is."
            )
        if reason := self.why_not_of(profile, height, width):
            raise InputError(f"{self.key}: {reason}.")

    def why_not_of(self, profile: Profile, height: int, width: int) -> str | None:
        name, config = weights.single_config(self.key, self.model(profile))
        patch = config.get("patch_size", 16)
        if height % patch or width % patch:
            return f"{name} sees patches of {patch}x{patch} pixels, which do not divide clips of {height}x{width}"
        return None

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        """Load the model; it remembers a clip's pictures, so render and truth are looked at once for all methods."""
        model = FeatureModel(*self.place(profile), models.device(profile))

        @functools.lru_cache(maxsize=1)  # of the clip before, nothing is asked for again
        def looking(clip: str) -> Memory:
            return Memory(model)

        def measure(subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
            sides = ("output", *sorted({column.against for column in columns}))
            streams = {side: subject.frames[side]() for side in sides}
            return compare(looking(subject.clip), streams, columns)

        return measure

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        if rows.empty:
            return f"DINO: {self.why_no_row(profile)}"
        return (
            f"DINO (4.1), {options_of(rows)}: l2 between the CLS tokens, mean over all frames; `patches`: between patch "
            "tokens, mean over places; `keys`: between the cosines of the last layer's keys with one another (root mean "
            "square)."
        )


@dataclass(frozen=True, eq=False)
class Features:
    """What the model sees in a picture, float32; the tokens and keys are the last layer's."""

    cls: "torch.Tensor"  # [D]
    patches: "torch.Tensor"  # [N, D]
    keys: "torch.Tensor"  # [1 + N, D], all heads side by side, CLS first

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.nelement() * part.element_size() for part in (self.cls, self.patches, self.keys))


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
        import torch

        if not len(frames):
            return []
        patch = self.model.config.patch_size
        count = (frames[0].shape[0] // patch) * (frames[0].shape[1] // patch) + 1
        at_once, found = max(1, TOKENS // count), []
        for first in range(0, len(frames), at_once):
            with torch.inference_mode():
                x = self.pixels(frames[first : first + at_once])
                tokens = self.model(x, interpolate_pos_encoding=True).last_hidden_state  # [B, 1 + N, D]
            # Copies: a view of one picture would keep the tokens of all.
            pairs = zip(tokens, self._keys, strict=True)
            found += [Features(t[0].clone(), t[1:].clone(), k.clone()) for t, k in pairs]
        return found

    def _keep_keys(self, module: "torch.nn.Module", inputs: tuple, output: "torch.Tensor") -> None:
        self._keys = output


class Memory:
    """A model that remembers what it saw in the latest pictures, so that equal ones are looked at once."""

    def __init__(self, model: Callable[[Sequence[np.ndarray]], list[Features]], limit: int = REMEMBERED):
        """limit: bytes of features beside those that are asked for."""
        self._model, self._limit = model, limit
        self._seen: OrderedDict[bytes, Features] = OrderedDict()

    def __call__(self, frames: Sequence[np.ndarray]) -> list[Features]:
        """Features of pictures uint8 [H, W, 3] of one size: one object for equal ones."""
        keys = [hashlib.sha256(frame.tobytes()).digest() for frame in frames]
        new = {key: frame for key, frame in zip(keys, frames, strict=True) if key not in self._seen}
        self._seen |= zip(new, self._model(list(new.values())), strict=True)
        for key in keys:
            self._seen.move_to_end(key)
        found = [self._seen[key] for key in keys]
        size = sum(features.size for features in self._seen.values())
        while size > self._limit:
            size -= self._seen.popitem(last=False)[1].size
        return found


DISTANCES = {
    "dino": cls_distance,
    "dino_patch": patch_distance,
    "dino_keys": key_distance,
    "dino_truth": cls_distance,
}


def compare(
    look: Callable[[Sequence[np.ndarray]], list[Features]],
    streams: Mapping[str, Iterable[np.ndarray]],
    columns: Sequence[Column],
) -> dict[str, float]:
    """Mean over frames of each column: the distance of "output" to what the column is against.

    streams: "output" and what it is compared with, uint8 [H, W, 3], equally many of equal size; all advance together.
    """
    values: dict[str, list[float]] = {column.name: [] for column in columns}
    before: dict[str, tuple[Features, Features]] = {}
    moments = zip(*streams.values(), strict=True)
    while frames := [frame for moment in islice(moments, MOMENTS) for frame in moment]:
        found = iter(look(frames))
        frames.clear()
        for features in zip(*[found] * len(streams), strict=True):
            moment = dict(zip(streams, features, strict=True))
            for column in columns:
                pair, told = (moment["output"], moment[column.against]), values[column.name]
                # A clip raised from 8 to 16 fps shows frames twice: the same pair is as far apart.
                is_twin = before.get(column.name) == pair
                told.append(told[-1] if is_twin else DISTANCES[column.name](*pair))
                before[column.name] = pair
    return {name: float(np.mean(told)) for name, told in values.items()}


METRIC = Dino()
