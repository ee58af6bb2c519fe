"""Blur: the render out of focus, to show what smoothness metrics reward (ours; not in the paper).

Reads validation clips; writes enhanced/blur/<clip>.mp4.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rmkit.kit import store, video
from rmkit.kit.progress import track
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

NAME = "blur"
VERSION = 1
SIGMA = 1 / 64  # of the frame's height


def blur(profile: Profile, clips: Sequence[Clip]) -> Path:
    """Soften every frame of the clips; returns the folder of results."""
    folder = profile.layout.enhanced / NAME
    for clip in track(clips, "blur"):
        source, target = sampling.path(profile, clip), folder / f"{clip.id}.mp4"
        recipe = store.Recipe(NAME, VERSION, {"sigma": SIGMA}, {"clip": store.fingerprint(source)})
        if not store.is_done(target, recipe):
            with store.writing(target, recipe) as temporary:
                frames = [soften(frame) for frame in video.stream(source)]
                video.write(temporary, np.stack(frames), profile.clips.fps)
    return folder


def soften(frame: np.ndarray) -> np.ndarray:
    """Gaussian blur by a share of the height: uint8 [H, W, 3] to the same."""
    return cv2.GaussianBlur(frame, (0, 0), SIGMA * len(frame))
