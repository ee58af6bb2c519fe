"""SAIL-VOS (Hu et al., 2019): frames, visible masks and splits from the folder layout of the release.

Reads `<data.root>/{train,valid}.json`, `<video>/images/*.bmp|png`, `visible/*.npy`, and where present SAIL-VOS 3D's
`depth/*.npy` and a `captions.json` beside a video's images. Writes nothing.
"""

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.paths import resolve
from rmkit.profile import Profile
from rmkit.sources import Sequence

FPS = 8  # of the recordings (paper, 4.1)
SPLIT_FILES = {"train": "train.json", "validation": "valid.json"}


@dataclass(frozen=True, kw_only=True)
class SailVosSequence(Sequence):
    """A video's folder in this layout, and its pictures in order."""

    folder: Path
    images: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)

    def frames(self, indices: Iterable[int]) -> np.ndarray:
        return np.stack([video.image(self.images[index]) for index in indices])

    def depth(self, indices: Iterable[int]) -> np.ndarray:
        return self._arrays("depth", indices).astype(np.float32)

    def visible(self, indices: Iterable[int]) -> np.ndarray:
        """Object-id maps, integers [F, H, W]; 0 is background. Raises InputError where there are none."""
        return self._arrays("visible", indices)

    def fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        return {str(index): store.fingerprint(self.images[index]) for index in indices}

    def depth_fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        return {str(index): store.fingerprint(self._path("depth", index)) for index in indices}

    def visible_fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        """Content hash of each map, by its frame's index; raises InputError where there are none."""
        return {str(index): store.fingerprint(self._path("visible", index)) for index in indices}

    def _arrays(self, kind: str, indices: Iterable[int]) -> np.ndarray:
        return np.stack([np.load(self._path(kind, index), allow_pickle=False) for index in indices])

    def _path(self, kind: str, index: int) -> Path:
        path = self.folder / kind / f"{self.images[index].stem}.npy"
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: this copy of the dataset has no {kind} maps"
                + (" (SAIL-VOS 3D has); set structure.depth to an estimator." if kind == "depth" else ".")
            )
        return path


def prepare(profile: Profile) -> None:
    """Check that `data.root` is set: there is nothing to unpack."""
    _root(profile)


def sequences(profile: Profile, split: str) -> list[Sequence]:
    """The videos of a split of the data set at `data.root`, by name."""
    return read(_root(profile), split, profile.layout.truth)


def describe(profile: Profile) -> str:
    """Where the data set is, and how many validation videos it has."""
    return f"{_root(profile)}: {len(sequences(profile, 'validation'))} validation sequences"


def read(root: Path, split: str, truths: Path) -> list[Sequence]:
    """The videos of a split of any folder in this layout, by name; `truths` is the folder of the truth videos.

    Raises InputError when the folder, the split's listing or a listed frame is missing.
    """
    listing = root / SPLIT_FILES[split]
    if not listing.is_file():
        raise InputError(
            f"{listing} does not exist: {root} is not a SAIL-VOS folder (data/README.md says how to "
            "get one); for the diorama run 01_data_prep first."
        )
    found: list[Sequence] = []
    for name, images in _images(listing, listing.stat().st_mtime_ns).items():
        for path in (images[0], images[-1]):
            if not path.is_file():
                raise InputError(f"{path} is listed in {listing.name} but does not exist.")
        folder, truth = images[0].parents[1], truths / f"{name}.mp4"
        captions = folder / "captions.json"
        sequence = SailVosSequence(
            id=name,
            split=split,
            fps=FPS,
            captions=tuple(json.loads(captions.read_text())) if captions.is_file() else (),
            truth=truth if truth.is_file() else None,
            folder=folder,
            images=images,
        )
        found.append(sequence)
    return found


def _root(profile: Profile) -> Path:
    if not profile.data.root:
        raise InputError(
            f"profile {profile.name}: set data.root to your copy of SAIL-VOS (data/README.md says how to get one), or "
            "data.source to 'diorama'."
        )
    return resolve(profile.data.root)


@functools.lru_cache(maxsize=8)
def _images(listing: Path, mtime_ns: int) -> dict[str, tuple[Path, ...]]:
    """Pictures in order by video, from a listing in COCO's form, parsed once for each version of the file."""
    try:
        content = json.loads(listing.read_text())
        names = {entry["id"]: entry.get("name") for entry in content["videos"]}
        listed: dict[str, list[tuple[int, str]]] = {}
        for entry in content["images"]:
            video_name = names.get(entry["video"]) or str(entry["video"])
            listed.setdefault(video_name, []).append((entry["frame_id"], entry["file_name"]))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{listing} is not a SAIL-VOS listing ({error!r}).") from None
    return {
        name: tuple(listing.parent / file for _, file in sorted(frames))
        for name, frames in sorted(listed.items())
    }
