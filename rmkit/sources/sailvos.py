"""SAIL-VOS (Hu et al., 2019): frames, visible masks and splits from the folder layout of the release.

Reads `<root>/{train,valid}.json`, `<root>/<video>/images/*.bmp|png`, `visible/*.npy`, and where present
SAIL-VOS 3D's `depth/*.npy` and a `captions.json` beside a video's images. Writes nothing. The diorama is
unpacked into the same layout, so this one reader serves both.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import video

FPS = 8  # of the recordings (paper, 4.1)
SPLIT_FILES = {"train": "train.json", "validation": "valid.json"}


@dataclass(frozen=True)
class Sequence:
    """One recorded video: its frames in order, maybe with hard cuts in it.

    `captions` is a list of {first_frame, caption, subsets} (empty for the real dataset).
    """

    id: str
    split: str
    folder: Path
    images: tuple[Path, ...]
    captions: tuple[dict, ...]
    fps: int = FPS

    def frames(self, indices: range | list[int]) -> np.ndarray:
        """Pictures at `indices`, uint8 [F, H, W, 3]."""
        return np.stack([video.image(self.images[i]) for i in indices])

    def depth(self, indices: range | list[int]) -> np.ndarray:
        """The engine's depth in metres along the camera axis, float32 [F, H, W]."""
        return np.stack([self._array("depth", i) for i in indices]).astype(np.float32)

    def visible(self, indices: range | list[int]) -> np.ndarray:
        """Object-id maps, integers [F, H, W]; 0 is background."""
        return np.stack([self._array("visible", i) for i in indices])

    def depth_path(self, index: int) -> Path:
        """The file of a frame's depth; raises InputError where the dataset has none."""
        return self._path("depth", index)

    def _array(self, kind: str, index: int) -> np.ndarray:
        return np.load(self._path(kind, index), allow_pickle=False)

    def _path(self, kind: str, index: int) -> Path:
        path = self.folder / kind / f"{self.images[index].stem}.npy"
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: this copy of the dataset has no {kind} maps"
                + (" (SAIL-VOS 3D has); set structure.depth to an estimator." if kind == "depth" else ".")
            )
        return path


def sequences(root: Path, split: str) -> list[Sequence]:
    """All videos of a split ('train' or 'validation'), by name.

    Raises InputError when the folder, the split file or a listed frame is missing.
    """
    listing = root / SPLIT_FILES[split]
    if not listing.is_file():
        raise InputError(
            f"{listing} does not exist: {root} is not a SAIL-VOS folder (data/README.md says how to "
            "get one); for the diorama run 01_data_prep first."
        )
    try:
        content = json.loads(listing.read_text())
        names = {entry["id"]: entry.get("name") for entry in content["videos"]}
        listed: dict[str, list[tuple[int, str]]] = {}
        for entry in content["images"]:
            video_name = names.get(entry["video"]) or str(entry["video"])
            listed.setdefault(video_name, []).append((entry["frame_id"], entry["file_name"]))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{listing} is not a SAIL-VOS listing ({error!r}).") from None
    return [_sequence(root, split, name, sorted(frames)) for name, frames in sorted(listed.items())]


def _sequence(root: Path, split: str, name: str, frames: list[tuple[int, str]]) -> Sequence:
    images = tuple(root / file_name for _, file_name in frames)
    for path in (images[0], images[-1]):
        if not path.is_file():
            raise InputError(f"{path} is listed in {SPLIT_FILES[split]} but does not exist.")
    folder = images[0].parents[1]
    captions_file = folder / "captions.json"
    captions = json.loads(captions_file.read_text()) if captions_file.is_file() else []
    return Sequence(name, split, folder, images, tuple(captions))
