"""The methods that are compared: their names, where each one's clips lie, and why one has none (paper, 4.1 and 4.5).

Reads the profile and looks for clips; writes nothing.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rmkit.baselines import outside, per_frame, truth
from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.method import anchoring, sampling
from rmkit.method.incontext import MODES
from rmkit.method.sampling import Clip
from rmkit.metrics import gpt_rs
from rmkit.profile import Profile

OUTSIDE = outside.labels()  # the paper's baselines, and those of your own modules
LABELS = {
    "render": "Render (input)",
    "blur": "Blur",
    "colour_transfer": "Colour transfer",
    "per_frame": "Per-frame editing",
    **OUTSIDE,
    "multi_anchor": "Multiple Anchors",
    "depth": "Depth",
    "edges": "Edges",
    "realmaster": "RealMaster",
    "vae_ceiling": "VAE ceiling",
    "truth": "Truth",
}
VARIANTS = ("multi_anchor", "depth", "edges")
NO_ROW = "not run: metrics.csv has no row of it; run 05_evaluation again."


def labels(profile: Profile) -> dict[str, str]:
    """Every method's name and label in the order of the tables: LABELS, the profile's own folders with the outside ones.

    Last comes the judge's real footage where the profile has some. Raises InputError when a folder has a name that the
    kit uses.
    """
    own, known = profile.baselines.folders, list(LABELS.items())
    if taken := sorted(own.keys() & {*LABELS, gpt_rs.REAL}):
        raise InputError(
            f"baselines.folders: '{taken[0]}' is a method of the kit's: name your folder otherwise."
        )
    first = list(LABELS).index(VARIANTS[0])
    real = {gpt_rs.REAL: "Real footage"} if profile.judge.real else {}
    return dict(known[:first]) | own | dict(known[first:]) | real


def unlisted(profile: Profile) -> list[str]:
    """Folders under enhanced/ that hold clips and are no method's, nor of a mode that `make compare-modes` compares."""
    found = {clip.parent.name for clip in profile.layout.enhanced.glob("*/*.mp4")}
    return sorted(found - labels(profile).keys() - set(MODES))


def why_not(profile: Profile, method: str) -> str:
    """Why a method has no row in metrics.csv: 'not run' or 'n/a', a colon, and the reason."""
    if method in profile.baselines.folders:
        return f"not run: enhanced/{method}/ holds no clip of a validation clip's name; or run 05_evaluation again."
    if method in VARIANTS and method not in profile.propagation.variants:
        return f"not run: propagation.variants of this profile leaves {method} out."
    if method in VARIANTS:
        return "not run: every clip has a refused anchor."
    if method in OUTSIDE and (reason := outside.why_not(profile, method)):
        return reason
    if method in ("vae_ceiling", "truth"):
        return "n/a: this data has no truth."
    if method == gpt_rs.REAL:
        return gpt_rs.why_not(profile, most(profile)) or NO_ROW
    return NO_ROW


def path_of(profile: Profile, method: str, clip: Clip) -> Path:
    """The video of a method for a clip (for `truth`: of the whole sequence)."""
    if method == "render":
        return sampling.path(profile, clip)
    if method == "truth":
        return truth.path(profile, clip)
    root = profile.layout.propagated if method in VARIANTS else profile.layout.enhanced
    return root / method / f"{clip.id}.mp4"


def stream(profile: Profile, method: str, clip: Clip) -> Iterator[np.ndarray]:
    """Frames of a method for a clip, one by one, uint8 [H, W, 3]."""
    if method == "truth":
        return truth.stream(profile, clip)
    return video.stream(path_of(profile, method, clip))


def users_own(profile: Profile) -> list[str]:
    """Methods that have clips only where a user has put them into enhanced/."""
    asked = outside.asked(profile)
    return [method for method in (*OUTSIDE, *profile.baselines.folders) if method not in asked]


def videos(profile: Profile) -> int:
    """How many videos are measured at most: every method of the profile on every clip that it may have."""
    held, variants = profile.data.validation_clips, profile.propagation.variants
    left_out = (
        {gpt_rs.REAL}
        | {method for method in VARIANTS if method not in variants}
        | {method for method in users_own(profile) if not (profile.layout.enhanced / method).is_dir()}
    )
    counts = {method: held for method in labels(profile) if method not in left_out}
    counts[per_frame.NAME] = len(per_frame.chosen(range(held)))
    return sum(counts.values())


def most(profile: Profile) -> gpt_rs.Cost:
    """What it costs at most to have all videos judged."""
    return gpt_rs.forecast(profile, videos(profile))


def having(profile: Profile, method: str, clips: Sequence[Clip]) -> Sequence[Clip]:
    """The clips a method has a video of; variants leave those with a refused anchor out.

    The paper's baselines are measured where they have run, or a user has put their clips, named as ours; so are the
    profile's own folders.
    """
    if method in OUTSIDE or method in profile.baselines.folders:
        return [clip for clip in clips if path_of(profile, method, clip).is_file()]
    if method == gpt_rs.REAL:
        return []  # rated only
    if method == per_frame.NAME:
        return per_frame.chosen(clips)
    if method in VARIANTS:
        wanted = clips if method in profile.propagation.variants else []
        indices = anchoring.indices(profile, method)
        return [clip for clip in wanted if not anchoring.refused(profile, clip, indices)]
    if method in ("vae_ceiling", "truth"):
        return [clip for clip in clips if truth.exists(profile, clip)]
    return clips
