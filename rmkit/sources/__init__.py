"""Recorded sequences of a data set: the profile's `data.source` names the file of this folder that reads it.

A source is a module with three functions, `prepare(profile)`, `sequences(profile, split)` and `describe(profile)`, and where
its files are many a fourth, `digest(data)`; they do what those below say. A new file here is a new data set. Reads and
writes what that module does.
"""

import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import pictures, store, video
from rmkit.paths import resolve, visible
from rmkit.profile import Data, Profile

NO_DEPTH = "has no depth maps: set structure.depth to an estimator."
NO_MAPS = "has no object maps."


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """One recorded video, maybe with hard cuts in it; a source has a subclass that says how to read it.

    fps: frames a second. captions: {first_frame, caption, subsets} of each shot, in order; may be empty. breaks: frames
    before which some are missing, so that a shot ends there. truth: what a camera would have seen, a video of the same
    length and rate at results/<profile>/truth/<id>.mp4, where `prepare` puts it so that metrics need nothing else of the
    data set; or None.
    """

    id: str
    split: str  # train or validation
    fps: int
    captions: tuple[dict, ...] = ()
    breaks: tuple[int, ...] = ()
    truth: Path | None = None

    def __len__(self) -> int:
        """Number of frames."""
        raise NotImplementedError

    def frames(self, indices: Iterable[int]) -> np.ndarray:
        """The pictures at `indices`, uint8 [F, H, W, 3]; raises InputError when one cannot be read."""
        raise NotImplementedError

    def fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        """Content hash of each picture, by its index, for recipes."""
        raise NotImplementedError

    def stamp(self, indices: Iterable[int]) -> str:
        """Changes whenever the pictures at `indices` do; where a source can tell without reading them, it does."""
        return _short(json.dumps(self.fingerprints(indices)))

    def check(self, indices: Iterable[int]) -> None:
        """Raise InputError for pictures at `indices` that cannot be used, as far as can be told without decoding them."""

    def stream(self) -> Iterator[np.ndarray]:
        """All pictures one by one, uint8 [H, W, 3], in constant memory."""
        return (self.frames([index])[0] for index in range(len(self)))

    def depth(self, indices: Iterable[int]) -> np.ndarray:
        """The engine's depth in metres along the camera's axis, float32 [F, H, W]; raises InputError without one."""
        raise InputError(f"{self.id} {NO_DEPTH}")

    def depth_fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        """Content hash of the depth of each picture; raises InputError where there is none."""
        raise InputError(f"{self.id} {NO_DEPTH}")

    def visible(self, indices: Iterable[int]) -> np.ndarray:
        """The engine's object-id maps, integers [F, H, W]; 0 is background. Raises InputError where there are none."""
        raise InputError(f"{self.id} {NO_MAPS}")

    def visible_fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        """Content hash of the map of each picture; raises InputError where there are none."""
        raise InputError(f"{self.id} {NO_MAPS}")


@dataclass(frozen=True, kw_only=True)
class Pictures(Sequence):
    """A sequence that is recorded as one picture file a frame."""

    images: tuple[Path, ...]  # in order

    def __len__(self) -> int:
        return len(self.images)

    def frames(self, indices: Iterable[int]) -> np.ndarray:
        return np.stack([video.image(self.images[index]) for index in indices])

    def fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        return {str(index): store.fingerprint(self.images[index]) for index in indices}

    def stamp(self, indices: Iterable[int]) -> str:
        """From the files' names, sizes and times."""
        paths = [self.images[index] for index in indices]
        return _short("\n".join(map(_stat, paths)))

    def check(self, indices: Iterable[int]) -> None:
        """Raise InputError where pictures are missing, cut short, or of several sizes."""
        pictures.one_size((self.images[index] for index in indices), self.id)


def prepare(profile: Profile) -> None:
    """Make the data readable (unpack it, where it is packed); raises InputError when it is missing or damaged."""
    _source(profile.data).prepare(profile)


def sequences(profile: Profile, split: str) -> list[Sequence]:
    """All sequences of a split ('train' or 'validation'), by name; raises InputError before `prepare` has run."""
    return _source(profile.data).sequences(profile, split)


def describe(profile: Profile) -> str:
    """One line for `doctor` on what is there; raises InputError when the data is missing or damaged."""
    return _source(profile.data).describe(profile)


def digest(data: Data) -> str:
    """Changes when the data set does, for recipes; never reads pictures. '' where there is none.

    A source with a function `digest` says it from a listing; for others it is names, sizes and times of the files at
    `data.root`.
    """
    source = _source(data)
    if hasattr(source, "digest"):
        return source.digest(data)
    if not data.root:
        return ""
    return _short("\n".join(sorted(map(_stat, visible(resolve(data.root))))))


def read_captions(path: Path) -> tuple[dict, ...]:
    """The captions of a sequence, as `Sequence.captions`; none without a file, InputError for one that holds something else."""
    if not path.is_file():
        return ()
    found = store.read_json(path, "correct it, or move it away")
    keys = {"first_frame", "caption", "subsets"}
    if not isinstance(found, list) or not all(
        isinstance(shot, dict) and shot.keys() >= keys for shot in found
    ):
        raise InputError(
            f"{path} must be a list with {', '.join(sorted(keys))} of each shot: correct it, or move it away."
        )
    return tuple(found)


def _source(data: Data) -> ModuleType:
    return importlib.import_module(f"{__name__}.{data.source}")


def _stat(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        raise InputError(f"{path} does not exist.") from None
    return f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
