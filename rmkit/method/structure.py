"""Structure: what the propagation must keep of a clip, as edge and depth videos (paper, 3.1 and 4.5).

Reads `clips/` and, for the engine's depth, the source dataset; writes `structure/edges/<clip>.mp4` (black
lines on white) and `structure/depth/<clip>.mp4` (near = white). Frames that are shown twice stay equal.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, store, video, weights
from rmkit.kit.progress import track
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
    estimated = "depth" in kinds and profile.structure.depth == "depth_anything"
    model = _depth_model(profile) if estimated else None
    jobs = [(kind, clip) for kind in kinds for clip in clips]
    recipes = [_recipe(profile, kind, clip, model) for kind, clip in jobs]
    paths = [path(profile, kind, clip) for kind, clip in jobs]
    missing = [i for i in range(len(jobs)) if not store.is_done(paths[i], recipes[i])]
    if missing:
        size = profile.clips.frames * profile.clips.height * profile.clips.width
        store.require_space(profile.layout.structure, len(missing) * size / 1e9)
        estimate = None
        for i in track(missing, "structure"):
            kind, clip = jobs[i]
            if kind == "edges":
                frames = edges(video.read(sampling.path(profile, clip)), profile.structure)
            else:
                if estimated and estimate is None:
                    estimate = DepthAnything(profile)
                frames = disparity_video(_disparity(profile, clip, estimate))  # distinct frames
                count = profile.clips.frames
                frames = sampling.repeat(frames, sampling.repeats(clip, count), count)
            with store.writing(paths[i], recipes[i]) as temporary:
                video.write(temporary, frames, profile.clips.fps)
    return paths


def path(profile: Profile, kind: Kind, clip: Clip) -> Path:
    """Where a structure video is stored."""
    return profile.layout.structure / kind / f"{clip.id}.mp4"


def edges(frames: np.ndarray, settings: Structure) -> np.ndarray:
    """Black lines on white, VACE's scribble polarity: uint8 [F, H, W, 3] -> the same, by the profile's detector."""
    if settings.edges == "canny":
        lines = np.stack([255 - canny(frame, settings.canny) for frame in frames])
    else:
        lines = np.stack([255 - gradient(frame) for frame in frames])
    return lines[..., None].repeat(3, axis=-1)


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


def disparity_of(depth: np.ndarray) -> np.ndarray:
    """1/z of depth in metres, float32; the sky (no hit: zero, negative or not finite) is infinitely far."""
    hit = np.isfinite(depth) & (depth > 0)
    return np.where(hit, 1.0 / np.where(hit, depth, 1.0), 0.0).astype(np.float32)


def disparity_video(disparity: np.ndarray) -> np.ndarray:
    """Disparity [F, H, W] to grey uint8 [F, H, W, 3], nearest white, farthest black over the whole clip.

    One range a clip (ours): with VACE's own range a frame the picture flickers as things come and go.
    """
    low, high = float(disparity.min()), float(disparity.max())
    unit = (disparity - low) / (high - low) if high > low else np.zeros_like(disparity)
    return (unit * 255.0).round().astype(np.uint8)[..., None].repeat(3, axis=-1)


class DepthAnything:
    """Estimates disparity with transformers' DepthAnythingForDepthEstimation."""

    def __init__(self, profile: Profile):
        from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

        name, revision = _depth_source(profile)
        where: dict[str, Any] = {"revision": revision} if revision else {}
        self.device = models.device(profile)
        self.processor = DPTImageProcessorPil.from_pretrained(name, **where)
        # float32: depth steps of half precision show as bands, and the model is small.
        self.model = DepthAnythingForDepthEstimation.from_pretrained(name, use_safetensors=True, **where)
        self.model.eval().to(self.device)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [F, H, W, 3] to disparity, float32 [F, H, W], up to scale."""
        return np.stack([self._one(frame) for frame in frames])

    def _one(self, frame: np.ndarray) -> np.ndarray:
        import torch

        inputs = self.processor(images=frame, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            predicted = self.model(**inputs).predicted_depth  # [1, h, w]
            sized = torch.nn.functional.interpolate(
                predicted[:, None].float(), size=frame.shape[:2], mode="bicubic", align_corners=False
            )
        values = sized[0, 0].cpu().numpy()
        # Relative checkpoints predict disparity, metric ones metres.
        metric = self.model.config.depth_estimation_type == "metric"
        return disparity_of(values) if metric else values


def _recipe(profile: Profile, kind: Kind, clip: Clip, model: str | None) -> store.Recipe:
    settings = profile.structure
    inputs = {"clip": store.fingerprint(sampling.path(profile, clip))}
    if kind == "edges":
        how = {"canny": settings.canny} if settings.edges == "canny" else {"edges": settings.edges}
        return store.Recipe("structure", VERSION, how, inputs)
    slice_ = {"depth": settings.depth, "source_frames": clip.source_frames}
    if settings.depth == "engine":
        sequence = sampling.sequence_of(profile, clip)
        # Also the check, before anything is computed, that the source has depth at all.
        inputs |= sequence.depth_fingerprints(clip.source_frames)
    return store.Recipe("structure", VERSION, slice_, inputs, model=model)


def _disparity(profile: Profile, clip: Clip, estimate: DepthAnything | None) -> np.ndarray:
    """Disparity of the clip's distinct frames, float32 [D, H, W]."""
    if estimate:
        step = sampling.repeats(clip, profile.clips.frames)
        return estimate(video.read(sampling.path(profile, clip))[::step])
    depth = sampling.sequence_of(profile, clip).depth(list(clip.source_frames))
    return disparity_of(sampling.crop_to(depth, profile.clips.height, profile.clips.width))


def _depth_source(profile: Profile) -> tuple[str, str | None]:
    """(folder or hub name, commit) of the depth estimator; InputError when it is not there."""
    name = profile.structure.depth_model
    if not name:
        raise InputError(
            "structure.depth is 'depth_anything' and structure.depth_model is empty: name a folder or hub "
            "name of a Depth Anything checkpoint in transformers' format, or set depth to 'engine'."
        )
    return weights.single("structure.depth_model", name)


def _depth_model(profile: Profile) -> str:
    """What the estimator's results depend on: its commit or its files' hash."""
    name, commit = _depth_source(profile)
    return commit or store.fingerprint(Path(name))
