"""What is chosen of one clip's propagation, and what VACE is given then: control video, mask and anchors (paper, 3.1; ours).

Reads `clips/`, `anchors/`, `structure/` and the truth; writes results/<profile>/lab/depth/ where the run has no such depth.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from rmkit import profile as profiles
from rmkit.baselines import truth
from rmkit.errors import InputError
from rmkit.evaluation import sheets
from rmkit.kit import depth, store, video
from rmkit.method import anchoring, propagation, sampling, structure
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Variant

VERSION = 1
DECODED = 6  # videos kept in memory: what one look at a choice reads


@dataclass(frozen=True)
class Choice:
    """A clip and how it is generated; `profile` holds the settings, validated like a file's."""

    profile: Profile
    clip: Clip
    variant: Variant
    anchors: tuple[int, ...]
    prompt: str


class Condition(NamedTuple):
    """What VACE is given: uint8 `video` [F, H, W, 3] and `mask` [F, H, W], and the anchors' pictures by frame."""

    guide: np.ndarray  # the structure alone, uint8 [F, H, W, 3]
    video: np.ndarray
    mask: np.ndarray
    anchors: dict[int, np.ndarray]


def choose(
    profile: Profile,
    clip: Clip,
    variant: Variant = "edges",
    anchors: tuple[int, ...] | None = None,
    prompt: str | None = None,
    **changes: Any,
) -> Choice:
    """The profile's own way to make a clip by a variant, but for what is named.

    anchors: frames, in order; prompt: in place of the clip's; changes: of the profile's groups, as structure={"edges": "canny"},
    and seed. Raises InputError with the profile's own sentence for a setting that cannot be.
    """
    content = profile.model_dump()
    for name, value in changes.items():
        content[name] = content[name] | value if isinstance(value, Mapping) else value
    try:
        valid = Profile.model_validate(content)
    except ValidationError as error:
        raise InputError(profiles.first_mistake(error)) from None
    # A copy of the profile given, which knows where it comes from.
    made = profile.model_copy(update={name: getattr(valid, name) for name in changes})
    at = tuple(anchoring.indices(made, variant)) if anchors is None else anchors
    return Choice(made, clip, variant, at, propagation.prompt_of(made, clip) if prompt is None else prompt)


def folder(profile: Profile) -> Path:
    """Where the lab of a run keeps what it makes."""
    return profile.layout.root / "lab"


def condition(choice: Choice) -> Condition:
    """What VACE is given; an anchor that has not been edited yet is grey. Raises InputError where something is missing."""
    profile, clip = choice.profile, choice.clip
    lines, grey = (
        guide(choice),
        np.full((profile.clips.height, profile.clips.width, 3), sheets.EMPTY, np.uint8),
    )
    files = {index: anchor_path(choice, index) for index in choice.anchors}
    pictures = {index: video.image(file) if file.is_file() else grey for index, file in files.items()}
    repeat = sampling.repeats(clip, profile.clips.frames)
    return Condition(lines, *propagation.control(lines, pictures, choice.anchors, repeat), pictures)


def guide(choice: Choice) -> np.ndarray:
    """The structure video, uint8 [F, H, W, 3]: edges as the choice draws them, or depth from its source."""
    profile, clip = choice.profile, choice.clip
    if propagation.kind_of(choice.variant) == "edges":
        return structure.edges(render(choice), profile.structure)
    target = folder(profile) / "depth" / profile.structure.depth / f"{clip.id}.mp4"
    if not target.is_file():
        own = structure.path(profile, "depth", clip)
        if (
            own.is_file()
            and store.read_sidecar(own).get("settings", {}).get("depth") == profile.structure.depth
        ):
            return read(own)
        frames, device = structure.depths(profile, clip, functools.partial(depth.estimator, profile))
        recipe = store.Recipe("lab depth", VERSION, {"depth": profile.structure.depth}, {})
        with store.writing(target, recipe, device=device) as temporary:
            video.write(temporary, frames, profile.clips.fps)
    return read(target)


def anchor_path(choice: Choice, index: int) -> Path:
    """The picture of an anchor: the run's where it has one, else the lab's, there or not."""
    own = anchoring.path(choice.profile, choice.clip, index)
    return own if own.is_file() else folder(choice.profile) / "anchors" / choice.clip.id / own.name


def render(choice: Choice) -> np.ndarray:
    """The clip, uint8 [F, H, W, 3]."""
    return read(sampling.path(choice.profile, choice.clip))


def true(profile: Profile, clip: Clip) -> np.ndarray:
    """The clip's truth, uint8 [F, H, W, 3]."""
    whole = read(truth.path(profile, clip))
    return sampling.shown(profile, clip, whole[list(clip.source_frames)])


def read(path: Path) -> np.ndarray:
    """A video, uint8 [F, H, W, 3], decoded once while it is looked at."""
    return _decoded(path, path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(DECODED)
def _decoded(path: Path, _changed: int) -> np.ndarray:
    return video.read(path)
