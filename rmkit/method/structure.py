"""Structure: what the propagation must keep of a clip, as edge and depth videos (paper, 3.1 and 4.5).

Reads `clips/` and, for the engine's depth, the data set; writes `structure/edges/<clip>.mp4` (black
lines on white) and `structure/depth/<clip>.mp4` (near = white). Frames that are shown twice stay equal.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from rmkit.kit import depth, models, stage, store, video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Structure

VERSION = 1
Kind = Literal["edges", "depth"]


def extract(profile: Profile, clips: Sequence[Clip], kinds: Sequence[Kind] | None = None) -> list[Path]:
    """Write the structure videos of each clip and return their paths, kind by kind.

    `kinds` defaults to edges, and depth where a variant of the profile wants it. Raises InputError for
    missing clips, a source without depth maps, or a missing depth model.
    """
    if kinds is None:
        kinds = ("edges", "depth") if "depth" in profile.propagation.variants else ("edges",)
    sampling.check(profile, clips)
    model = None
    if "depth" in kinds and profile.structure.depth == "depth_anything":
        name, commit = depth.source(profile)
        model = commit or store.fingerprint(Path(name))
    items = [
        stage.Item(path(profile, kind, clip), _recipe(profile, kind, clip, model), (kind, clip))
        for kind in kinds
        for clip in clips
    ]
    size = profile.clips.frames * profile.clips.height * profile.clips.width
    return stage.run("structure", items, functools.partial(_ready, profile), size, spread=True)


def path(profile: Profile, kind: Kind, clip: Clip) -> Path:
    """Where a structure video is stored."""
    return profile.layout.structure / kind / f"{clip.id}.mp4"


def edges(frames: np.ndarray, settings: Structure) -> np.ndarray:
    """Black lines on white, VACE's scribble polarity: uint8 [F, H, W, 3] -> the same, by the profile's detector."""
    detect = functools.partial(canny, thresholds=settings.canny) if settings.edges == "canny" else gradient
    lines = np.stack([255 - thicken(detect(frame), settings.thickness) for frame in frames])
    return lines[..., None].repeat(3, axis=-1)  # [F, H, W] -> [F, H, W, 3]


def thicken(lines: np.ndarray, thickness: int | None) -> np.ndarray:
    """Bright lines, uint8 [H, W], drawn with a round brush of so many pixels; None: as they are.

    VACE's scribbles are strokes of some pixels, a detector's lines have one, which a video VAE loses first (see `gradient`).
    """
    if thickness is None:
        return lines
    return cv2.dilate(lines, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thickness, thickness)))


def gradient(frame: np.ndarray) -> np.ndarray:
    """How steep brightness is, by Sobel: uint8 [H, W, 3] -> [H, W], 255 on a step of half the range.

    Soft lines say how strong an edge is and do not come and go from frame to frame. A tiny video VAE keeps them (20.7 dB
    to Canny's 13.7 on the diorama), so that VACE can read them.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return (steep / 2).clip(0, 255).astype(np.uint8)


def canny(frame: np.ndarray, thresholds: tuple[int, int]) -> np.ndarray:
    """Edge pixels of a frame, uint8 [H, W, 3] -> [H, W], 255 on an edge."""
    return cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), *thresholds)


def disparity_video(disparity: np.ndarray) -> np.ndarray:
    """Disparity [F, H, W] to grey uint8 [F, H, W, 3], nearest white, farthest black over the whole clip.

    One range a clip (ours): with VACE's own range a frame the picture flickers as things come and go.
    """
    video.require_finite(disparity)
    low, high = float(disparity.min()), float(disparity.max())
    unit = (disparity - low) / (high - low) if high > low else np.zeros_like(disparity)
    return (unit * 255.0).round().astype(np.uint8)[..., None].repeat(3, axis=-1)


def _recipe(profile: Profile, kind: Kind, clip: Clip, model: str | None) -> store.Recipe:
    settings = profile.structure
    inputs = {"clip": store.fingerprint(sampling.path(profile, clip))}
    if kind == "edges":
        how = {"canny": settings.canny} if settings.edges == "canny" else {"edges": settings.edges}
        how |= {"thickness": settings.thickness} if settings.thickness else {}
        return store.Recipe("structure", VERSION, how, inputs)
    how = {"depth": settings.depth, "source_frames": clip.source_frames}
    if settings.depth == "engine":
        # Also the check, before anything is computed, that the source has depth at all.
        inputs |= sampling.sequence_of(profile, clip).depth_fingerprints(clip.source_frames)
    return store.Recipe("structure", VERSION, how, inputs, model=model)


def _ready(profile: Profile) -> stage.Make[tuple[Kind, Clip]]:
    """What makes one structure video; the depth estimator is loaded for the first video that needs it."""
    estimator = functools.cache(functools.partial(depth.estimator, profile))

    def make(item: stage.Item[tuple[Kind, Clip]], temporary: Path) -> dict[str, str]:
        kind, clip = item.subject
        if kind == "edges":
            frames, device = edges(video.read(sampling.path(profile, clip)), profile.structure), "cpu"
        else:
            frames, device = depths(profile, clip, estimator)
        video.write(temporary, frames, profile.clips.fps)
        return {"device": device}

    return make


def depths(profile: Profile, clip: Clip, estimator: Callable[[], depth.Estimate]) -> tuple[np.ndarray, str]:
    """A clip's depth video by the profile's source, grey uint8 [F, H, W, 3], and the device that computed it."""
    disparity, device = _disparity(profile, clip, estimator)
    count = profile.clips.frames
    # [D, H, W, 3] -> [F, H, W, 3]
    return sampling.repeat(disparity_video(disparity), sampling.repeats(clip, count), count), device


def _disparity(
    profile: Profile, clip: Clip, estimator: Callable[[], depth.Estimate]
) -> tuple[np.ndarray, str]:
    """Disparity of the clip's distinct frames, float32 [D, H, W], and the device that computed it."""
    if profile.structure.depth == "engine":
        metres = sampling.sequence_of(profile, clip).depth(clip.source_frames)
        metres = sampling.crop_to(metres, profile.clips.height, profile.clips.width)
        return depth.disparity_of(metres), "cpu"
    step = sampling.repeats(clip, profile.clips.frames)
    frames = video.read(sampling.path(profile, clip))[::step]
    return estimator()(frames), str(models.device(profile))
