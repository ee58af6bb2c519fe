"""Anchors: key frames of a clip made photorealistic by an image editor (paper, 3.1 and B.1).

Reads `clips/`; writes `anchors/<clip>/<frame>.png` with a sidecar that says how far the edit had drifted
and whether it is accepted. Every anchor passes an alignment gate (ours), since the editor shifts pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from rmkit.errors import InputError
from rmkit.kit import models, store, video
from rmkit.kit.progress import track
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

VERSION = 1
SHARPEST = 0.5  # pixels; a smaller drift is left alone, as warping would cost more sharpness than it mends
AGREEMENT = 0.3  # edge correlation below which two pictures are not comparable, so nothing is measured
GAIN = 0.02  # edge correlation that a drift must add before it is believed
STRETCH = 0.1  # largest part of a believable drift that is not a shift; an editor does not squeeze more
REACH = 0.15  # of the diagonal: a larger displacement is a chance match, not a drift
BLUR = 5  # pixels of Gaussian support over the edges while aligning
FINEST = 48  # pixels of the shorter side at the coarsest level of the search


@dataclass(frozen=True)
class Drift:
    """How an edit lies against its render: `matrix` [2, 3] maps render pixels to edit pixels.

    `pixels` is the root mean square displacement of the corners; nothing is `measured` where the pictures
    have too few edges in common, and the drift then counts as none.
    """

    matrix: np.ndarray
    pixels: float
    agreement: float
    measured: bool


def edit(profile: Profile, clips: Sequence[Clip], frames: Literal["ends", "every"] = "ends") -> list[Path]:
    """Edit the ends of each clip, or every anchor of the multi-anchor variant (ends included).

    Returns the pictures' paths. An anchor that no seed brought into place is written and marked refused.
    Raises InputError before the model is loaded when clips, model or disk space are missing.
    """
    sampling.check(profile, clips)
    models.check(profile, "editor")
    model = models.fingerprint(profile, "editor")
    wanted = indices(profile, "edges" if frames == "ends" else "multi_anchor")
    jobs = [(clip, index) for clip in clips for index in wanted]
    recipes = [_recipe(profile, clip, index, model) for clip, index in jobs]
    paths = [path(profile, clip, index) for clip, index in jobs]
    missing = [i for i in range(len(jobs)) if not store.is_done(paths[i], recipes[i])]
    if missing:
        size = profile.clips.height * profile.clips.width * 3
        store.require_space(profile.layout.anchors, len(missing) * size / 1e9)
        pipeline = models.load_editor(profile)
        renders: dict[str, np.ndarray] = {}
        for i in track(missing, "anchors"):
            clip, index = jobs[i]
            if clip.id not in renders:
                renders = {clip.id: video.read(sampling.path(profile, clip))}
            picture, facts = _anchor(profile, pipeline, clip, index, renders[clip.id][index])
            with store.writing(paths[i], recipes[i], **facts) as temporary:
                Image.fromarray(picture).save(temporary)
    for clip in clips:
        if bad := refused(profile, clip, wanted):
            print(f"anchors: {clip.id}: refused at {_listed(bad)}; later stages leave the clip out.")
    return paths


def indices(profile: Profile, variant: str) -> list[int]:
    """Frames that are anchors: the ends, or for 'multi_anchor' one every anchor_seconds and the last."""
    last = profile.clips.frames - 1
    if variant != "multi_anchor":
        return [0, last]
    step = max(1, round(profile.propagation.anchor_seconds * profile.clips.fps))
    return [*range(0, last, step), last]


def path(profile: Profile, clip: Clip, index: int) -> Path:
    """Where the anchor of a frame is stored."""
    return profile.layout.anchors / clip.id / f"{index:06d}.png"


def load(profile: Profile, clip: Clip, indices_: Sequence[int]) -> dict[int, np.ndarray]:
    """Anchors by frame, uint8 [H, W, 3]; raises InputError when one has not been made."""
    require(profile, [clip], indices_)
    return {index: video.image(path(profile, clip, index)) for index in indices_}


def require(profile: Profile, clips: Sequence[Clip], indices_: Sequence[int]) -> None:
    """Raise InputError unless every anchor has been made, accepted or not."""
    for clip in clips:
        for index in indices_:
            file = path(profile, clip, index)
            if not (file.is_file() and store.read_sidecar(file)):
                raise InputError(f"{file} does not exist: run 02_anchoring (or `make reproduce`) first.")


def refused(profile: Profile, clip: Clip, indices_: Sequence[int]) -> list[int]:
    """Frames whose anchor the gate refused; a clip with one is left out by later stages."""
    sidecars = {index: store.read_sidecar(path(profile, clip, index)) for index in indices_}
    return [index for index, sidecar in sidecars.items() if not sidecar.get("accepted", True)]


def measure(render: np.ndarray, edited: np.ndarray) -> Drift:
    """Affine drift of `edited` against `render`, both uint8 [H, W, 3], from their edges.

    Phase correlation proposes a shift, ECC refines it and the identity to affine maps from coarse to fine,
    and the map under which the edges agree best is believed if it beats the identity.
    """
    a, b = _edges(render), _edges(edited)
    identity = np.eye(2, 3, dtype=np.float32)
    still = _agreement(a, b, identity)
    window = cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    # Copies: this version of OpenCV multiplies the window into what it is given.
    (dx, dy), _ = cv2.phaseCorrelate(a.copy(), b.copy(), window)
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    candidates = [_refine(a, b, start) for start in (identity, shift)]
    candidates = [matrix for matrix in candidates if _believable(matrix, a.shape)]
    best = max([identity, *candidates], key=lambda matrix: _agreement(a, b, matrix))
    agreement = _agreement(a, b, best)
    if max(agreement, still) < AGREEMENT:
        return Drift(identity, 0.0, max(agreement, still), measured=False)
    if agreement < still + GAIN:
        return Drift(identity, 0.0, still, measured=True)
    return Drift(best, _displacement(best, a.shape), agreement, measured=True)


def undo(edited: np.ndarray, drift: Drift) -> np.ndarray:
    """The edit warped back onto its render; the uncovered border repeats its neighbours."""
    height, width = edited.shape[:2]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(edited, drift.matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def align(render: np.ndarray, edited: np.ndarray, limit: float) -> tuple[np.ndarray, dict[str, Any]]:
    """The gate: undo a drift of up to `limit` pixels, refuse a larger one.

    Returns the picture and the facts for its sidecar (drift, residual, agreement, measured, accepted).
    """
    before = after = measure(render, edited)
    accepted = before.pixels <= limit
    if accepted and before.pixels >= SHARPEST:
        straightened = undo(edited, before)
        again = measure(render, straightened)
        if again.measured and again.pixels < before.pixels:
            edited, after = straightened, again
    facts = {
        "drift_pixels": round(before.pixels, 3),
        "residual_pixels": round(after.pixels, 3) if after.measured else None,
        "agreement": round(after.agreement, 3),
        "measured": before.measured,
        "accepted": accepted,
    }
    return edited, facts


def _recipe(profile: Profile, clip: Clip, index: int, model: str) -> store.Recipe:
    return store.Recipe(
        stage="anchors",
        version=VERSION,
        settings={**profile.anchors.model_dump(), "dtype": profile.models.dtype, "frame": index},
        inputs={"clip": store.fingerprint(sampling.path(profile, clip))},
        seed=store.seed_for(profile.seed, "anchors", f"{clip.id}/{index}"),
        model=model,
    )


def _anchor(
    profile: Profile, pipeline: Any, clip: Clip, index: int, render: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """One anchor, with further seeds while the gate refuses; the least drifted attempt is kept."""
    limit = profile.anchors.max_shift * float(np.hypot(*render.shape[:2]))
    tries: list[tuple[np.ndarray, dict[str, Any]]] = []
    for attempt in range(profile.anchors.attempts):
        name = f"{clip.id}/{index}" + (f"/{attempt}" if attempt else "")
        edited = edit_frame(profile, pipeline, render, store.seed_for(profile.seed, "anchors", name))
        picture, facts = align(render, edited, limit)
        tries.append((picture, facts))
        if facts["accepted"]:
            break
    picture, facts = min(tries, key=lambda one: (not one[1]["accepted"], one[1]["drift_pixels"]))
    drifts = [one[1]["drift_pixels"] for one in tries]
    return picture, {**facts, "attempts": len(tries), "attempted_drifts": drifts, "limit": round(limit, 3)}


def edit_frame(profile: Profile, pipeline: Any, render: np.ndarray, seed: int) -> np.ndarray:
    """One edit at the editor's own size, resized back, without the gate: uint8 [H, W, 3] -> the same."""
    settings = profile.anchors
    # Guidance needs a negative prompt, and warns of one that it does not use.
    guidance = {"negative_prompt": " "} if settings.true_cfg_scale > 1 else {}
    # Height and width are never passed: the reference would keep its own size, and the edit come out zoomed.
    with models.edit_area(pipeline, settings.edit_area):
        picture = pipeline(
            image=Image.fromarray(render),
            prompt=settings.prompt,
            true_cfg_scale=settings.true_cfg_scale,
            num_inference_steps=settings.steps,
            generator=models.generator(seed),
            **guidance,
        ).images[0]
    size = (render.shape[1], render.shape[0])
    return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def _edges(picture: np.ndarray) -> np.ndarray:
    """Gradient magnitude on a scale that light and colour change little: float32 [H, W]."""
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (3, 3), 0).astype(np.float32)
    magnitude = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.sqrt(magnitude)


def _refine(a: np.ndarray, b: np.ndarray, start: np.ndarray) -> np.ndarray:
    """ECC from coarse to fine; `start` where it does not converge."""
    matrix = start.copy()
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    for scale in (4, 2, 1):
        if min(a.shape) < FINEST * scale and scale > 1:
            continue
        size = (a.shape[1] // scale, a.shape[0] // scale)
        small_a, small_b = (cv2.resize(e, size, interpolation=cv2.INTER_AREA) for e in (a, b))
        matrix[:, 2] /= scale
        try:
            _, matrix = cv2.findTransformECC(
                small_a, small_b, matrix, cv2.MOTION_AFFINE, criteria, None, BLUR
            )
        except cv2.error:
            return start
        matrix[:, 2] *= scale
    return matrix


def _agreement(a: np.ndarray, b: np.ndarray, matrix: np.ndarray) -> float:
    """Correlation of the edges, -1 to 1, over the pixels that both pictures cover under `matrix`."""
    size = a.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(b, matrix, size, flags=flags)
    covered = cv2.warpAffine(np.ones_like(b), matrix, size, flags=flags) > 0.999
    if covered.mean() < 0.5:
        return 0.0
    x, y = cv2.GaussianBlur(a, (BLUR, BLUR), 0)[covered], cv2.GaussianBlur(moved, (BLUR, BLUR), 0)[covered]
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else 0.0


def _believable(matrix: np.ndarray, shape: tuple[int, ...]) -> bool:
    stretch = np.abs(matrix[:, :2] - np.eye(2)).max()
    return bool(stretch <= STRETCH and _displacement(matrix, shape) <= REACH * np.hypot(*shape))


def _displacement(matrix: np.ndarray, shape: tuple[int, ...]) -> float:
    height, width = shape
    corners = np.array([(x, y, 1) for x in (0, width - 1) for y in (0, height - 1)], np.float64)
    moved = corners @ matrix.astype(np.float64).T
    return float(np.sqrt(((moved - corners[:, :2]) ** 2).sum(axis=1).mean()))


def _listed(numbers: Sequence[int]) -> str:
    return ("frame " if len(numbers) == 1 else "frames ") + ", ".join(map(str, numbers))
