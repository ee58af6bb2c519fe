"""The truth of a clip: the same scene path traced, which only the diorama has.

Reads results/<profile>/truth/<sequence>.mp4 (all frames of the sequence at the source's rate). Used by metrics,
the VAE's ceiling and the report's sheets, never by a stage of the method.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rmkit.baselines import Method
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile


class Truth(Method):
    """What a perfect method would give."""

    name, label, colour, marker = "truth", "Truth", "#999999", "X"
    competes, fixed, ablation = False, True, True
    no_row = "n/a: this data has no truth."

    def path(self, profile: Profile, clip: Clip) -> Path:
        return path(profile, clip)

    def stream(self, profile: Profile, clip: Clip) -> Iterator[np.ndarray]:
        return stream(profile, clip)

    def having(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        return [clip for clip in clips if exists(profile, clip)]


def path(profile: Profile, clip: Clip) -> Path:
    """Where the truth of the clip's sequence would be."""
    return profile.layout.truth / f"{clip.sequence}.mp4"


def exists(profile: Profile, clip: Clip) -> bool:
    """Whether there is a truth for this clip (real recordings have none)."""
    return path(profile, clip).is_file()


def stream(profile: Profile, clip: Clip) -> Iterator[np.ndarray]:
    """The truth cut, cropped and repeated as the clip was: uint8 [H, W, 3], profile.clips.frames of them."""
    wanted, sent = set(clip.source_frames), 0
    times = sampling.repeats(clip, profile.clips.frames)
    for i, frame in enumerate(video.stream(path(profile, clip))):
        if i not in wanted:
            continue
        frame = sampling.crop_to(frame[None], profile.clips.height, profile.clips.width)[0]
        for _ in range(min(times, profile.clips.frames - sent)):
            sent += 1
            yield frame
        if sent == profile.clips.frames:
            return
    raise InputError(
        f"{path(profile, clip)} ends before frame {clip.source_frames[-1]}, which clip {clip.id} needs; "
        "run 01_data_prep again."
    )


METHODS = (Truth(),)
