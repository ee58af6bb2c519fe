"""Recorded sequences of a data set: the profile's `data.source` names the file of this folder that reads it.

A source is a module with three functions, `prepare(profile)`, `sequences(profile, split)` and `describe(profile)`, which
do what those below say. A new file here is a new data set. Reads and writes what that module does.
"""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from rmkit.errors import InputError
from rmkit.profile import Profile

NO_DEPTH = "has no depth maps: set structure.depth to an estimator."
NO_MAPS = "has no object maps."


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """One recorded video, maybe with hard cuts in it; a source has a subclass that says how to read it.

    fps: frames a second. captions: {first_frame, caption, subsets} of each shot, in order; may be empty. truth: what a
    camera would have seen, a video of the same length and rate at results/<profile>/truth/<id>.mp4, where `prepare`
    puts it so that metrics need nothing else of the data set; or None.
    """

    id: str
    split: str  # train or validation
    fps: int
    captions: tuple[dict, ...] = ()
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


def prepare(profile: Profile) -> None:
    """Make the data readable (unpack it, where it is packed); raises InputError when it is missing or damaged."""
    _source(profile).prepare(profile)


def sequences(profile: Profile, split: str) -> list[Sequence]:
    """All sequences of a split ('train' or 'validation'), by name; raises InputError before `prepare` has run."""
    return _source(profile).sequences(profile, split)


def describe(profile: Profile) -> str:
    """One line for `doctor` on what is there; raises InputError when the data is missing or damaged."""
    return _source(profile).describe(profile)


def _source(profile: Profile) -> ModuleType:
    return importlib.import_module(f"{__name__}.{profile.data.source}")
