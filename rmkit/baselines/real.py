"""Real footage of the user's, which a judge rates beside the methods: what reality gets (ours; not in the paper).

Reads the videos of the folder `judge.real`; writes nothing.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rmkit.baselines import Method, framing
from rmkit.errors import InputError
from rmkit.kit import footage, video
from rmkit.method.sampling import Clip
from rmkit.paths import resolve
from rmkit.profile import Profile


class Real(Method):
    """Videos of other scenes than the clips: rated alone, never compared clip by clip."""

    name, label = "real", "Real footage"
    competes = False

    def having(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        return []

    def count(self, profile: Profile) -> int:
        return 0


def files(profile: Profile) -> list[Path]:
    """The videos, by name, of any ending that is read; none where the profile names no folder, or it is not there."""
    folder = resolve(profile.judge.real) if profile.judge.real else None
    if folder is None or not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in footage.ENDINGS and path.name[0] != "."
    )


def check(profile: Profile) -> None:
    """Raise InputError unless the folder, where a judge is to rate one, holds videos."""
    if profile.judge.enabled and profile.judge.real:
        if not files(profile):
            raise InputError(
                f"judge.real is {profile.judge.real}, and {resolve(profile.judge.real)} holds no .mp4 file."
            )
        for path in files(profile):
            video.probe(path)


def stream(profile: Profile, path: Path) -> Iterator[np.ndarray]:
    """Frames of a video at the clips' size, uint8 [H, W, 3], so that size is not what is rated."""
    size = profile.clips
    return (framing.filling(frame, size.height, size.width, math.inf) for frame in video.stream(path))


METHODS = (Real(),)
