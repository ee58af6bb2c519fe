"""The outside methods: the paper's baselines that others have made, each run where the profile asks (4.1, B.3).

Reads validation clips; writes enhanced/<name>/<clip>.mp4. A method of your own is a module beside this one, named as the
method, that holds a LABEL and what `Method` says; or a folder of clips, enhanced/<name>/, that the profile lists under
`baselines.folders`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

import numpy as np

from rmkit import baselines
from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.kit.progress import track
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

PAPERS = ("runway_aleph", "lucy_edit", "editto")  # in the order of its Table 1
Edit = Callable[[Clip, int], np.ndarray]


class LeftOut(Exception):
    """A clip that the method has refused for good, and why; the others go on."""


class Method(Protocol):
    """What the module of a method holds."""

    LABEL: str  # its name in tables and figures

    def why_not(self, profile: Profile) -> str | None:
        """Why it does not run ('not run', a colon, and the reason), or None where it is asked for."""

    def usd(self, profile: Profile, count: int) -> float:
        """What so many clips cost at most; 0 on a machine of one's own."""

    def check(self, profile: Profile, count: int) -> None:
        """Raise InputError when weights, key, GPU or money for so many clips are missing; loads nothing."""

    def recipe(self, profile: Profile, clip: Clip) -> store.Recipe:
        """All that decides the result of a clip."""

    def editing(self, profile: Profile) -> AbstractContextManager[Edit]:
        """The method, ready: a function of a clip and a seed to its frames, uint8 [F, H, W, 3], of the clip's size."""


def labels() -> dict[str, str]:
    """Every method's name and label: the paper's, then those of other modules here that have a LABEL."""
    names = [module.name for module in pkgutil.iter_modules(baselines.__path__) if module.name not in PAPERS]
    found = {name: getattr(method(name), "LABEL", None) for name in (*PAPERS, *names)}
    return {name: label for name, label in found.items() if label}


def make(profile: Profile, clips: Sequence[Clip]) -> None:
    """Run every method that is asked for on the clips, finished ones untouched.

    All are checked before the first begins: raises InputError when one cannot run. A clip that a method refuses is
    named and left out.
    """
    asked_ = asked(profile)
    if not asked_:
        return
    sampling.check(profile, clips)
    missing = {name: _missing(profile, name, clips) for name in asked_}
    for name in asked_:
        if missing[name]:
            method(name).check(profile, len(missing[name]))
    size = profile.clips.frames * profile.clips.height * profile.clips.width * 3
    store.require_space(profile.layout.enhanced, sum(map(len, missing.values())) * size / 1e9)
    for name, todo in missing.items():
        if cost := method(name).usd(profile, len(todo)):
            print(f"{name}: {len(todo)} clips, at most about {cost:.2f} USD to come", flush=True)
    for name, todo in missing.items():
        if todo:
            _run(profile, name, todo)


def asked(profile: Profile) -> list[str]:
    """The methods that this profile asks for, in the order of the tables."""
    return [name for name in labels() if why_not(profile, name) is None]


def why_not(profile: Profile, name: str) -> str | None:
    """Why a method does not run ('not run', a colon, and the reason), or None where it is asked for."""
    return method(name).why_not(profile)


def why_unasked(profile: Profile, name: str) -> str | None:
    """`Method.why_not` of a method whose settings are `baselines.<name>`: it runs unless they are null."""
    if getattr(profile.baselines, name) is None:
        return f"not run: baselines.{name} is null in this profile, and enhanced/{name}/ holds no clips."
    return None


def usd(profile: Profile, count: int) -> dict[str, float]:
    """What so many clips cost at most, of each asked method that charges."""
    costs = {name: method(name).usd(profile, count) for name in asked(profile)}
    return {name: cost for name, cost in costs.items() if cost}


def method(name: str) -> Method:
    """The module of a method."""
    return cast(Method, importlib.import_module(f"{__package__}.{name}"))


def _missing(profile: Profile, name: str, clips: Sequence[Clip]) -> list[tuple[Clip, store.Recipe]]:
    """The clips that are not made yet; InputError when a user's own would be written over."""
    left = []
    for clip in clips:
        target, recipe = profile.layout.enhanced / name / f"{clip.id}.mp4", method(name).recipe(profile, clip)
        if target.exists() and not store.sidecar_of(target).exists():
            raise InputError(
                f"{target} was not made by this kit and would be written over: set baselines.{name} to null to have "
                "it measured, or move it away."
            )
        if not store.is_done(target, recipe):
            left.append((clip, recipe))
    return left


def _run(profile: Profile, name: str, todo: Sequence[tuple[Clip, store.Recipe]]) -> None:
    with method(name).editing(profile) as edit:
        for clip, recipe in track(todo, name):
            target = profile.layout.enhanced / name / f"{clip.id}.mp4"
            try:
                with store.writing(target, recipe) as temporary:
                    frames = edit(clip, recipe.seed)
                    if frames.shape[1:3] != (profile.clips.height, profile.clips.width):
                        raise InputError(
                            f"{name} made {frames.shape} of clip {clip.id}, which has another size."
                        )
                    video.write(temporary, frames, profile.clips.fps)
            except LeftOut as reason:
                # An earlier version, of other settings, must not be taken for this run's.
                store.sidecar_of(target).unlink(missing_ok=True)
                target.unlink(missing_ok=True)
                print(f"{name}: {clip.id} is left out: {reason}", flush=True)
