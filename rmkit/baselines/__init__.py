"""The methods that are compared, one file each: ours, the simple ones and the external ones (paper, 4.1 and 4.5).

A file here that ends with `METHODS = (ItsClass(),)` is found by being there. A method without code is a folder of clips,
enhanced/<name>/, that the profile lists under `baselines.folders`. `make` reads validation clips and writes
enhanced/<name>/<clip>.mp4 of every method that the kit runs at evaluation.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.kit import models, stage, store, video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Settings

# The order of the tables. New files and the profile's folders come between the two.
FIRST = ("render", "blur", "prefilter", "colour_transfer", "per_frame", "runway_aleph", "lucy_edit", "editto")
LAST = ("multi_anchor", "depth", "edges", "realmaster", "vae_ceiling", "truth", "real")
EXTERNAL = ("runway_aleph", "lucy_edit", "editto")  # the paper's baselines (4.1, B.3)
PROMPT = "make the video look photorealistic"  # of every external method (paper, B.3)

Edit = Callable[[Clip, int], np.ndarray]


class Method:
    """A row of the tables: where its clips lie, and how it is shown."""

    name: str  # in metrics.csv and of its folder
    label: str  # in tables and figures
    colour = "#444444"
    marker = "H"
    competes = True  # False: it stands in a table for the others to be compared with
    fixed = False  # True: without randomness, so two runs differ by arithmetic alone
    table1 = True
    ablation = False  # True: it stands in Table 2
    # Where `why_not` knows no reason.
    no_row = "not run: metrics.csv has no row of it; run 05_evaluation again."

    def why_not(self, profile: Profile) -> str | None:
        """Why this profile does not ask for it ('not run', a colon, and the reason), or None where it does."""
        return None

    def path(self, profile: Profile, clip: Clip) -> Path:
        """The video of a clip."""
        return profile.layout.enhanced / self.name / f"{clip.id}.mp4"

    def stream(self, profile: Profile, clip: Clip) -> Iterator[np.ndarray]:
        """Frames of a clip, one by one, uint8 [H, W, 3]."""
        return video.stream(self.path(profile, clip))

    def having(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        """The clips that it has, or must have, a video of."""
        return clips

    def count(self, profile: Profile) -> int:
        """How many videos it has at most; a user's own are in a folder or nowhere."""
        is_there = not self.is_users(profile) or (profile.layout.enhanced / self.name).is_dir()
        return profile.data.validation_clips if is_there else 0

    def is_users(self, profile: Profile) -> bool:
        """Whether its clips are those that a user puts into enhanced/<name>/."""
        return False


class Made(Method):
    """A method that the kit runs at evaluation.

    One with settings of its own (`group`) runs where the profile has `baselines.<name>`, any other always.
    """

    version = 1
    group: type[Settings] | None = None  # validates `profile.baselines[<name>]`
    on_device = False  # True: it computes where the profile's models do, for the sidecar

    def settings(self, profile: Profile) -> Settings:
        """Its settings in the profile; raises InputError for a misspelt key or a wrong value."""
        key = f"baselines.{self.name}"
        if self.group is None:
            raise InputError(f"profile {profile.name}: '{key}': this method takes no settings.")
        try:
            return self.group.model_validate(profile.baselines[self.name])
        except ValidationError as error:
            raise InputError(f"profile {profile.name}: {profiles.first_mistake(error, key)}") from None

    def why_not(self, profile: Profile) -> str | None:
        if self.group and self.name not in profile.baselines.asked:
            return f"not run: baselines.{self.name} is null in this profile, and enhanced/{self.name}/ holds no clips."
        return None

    def wanted(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        """The clips that it is run on."""
        return clips

    def having(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        return [clip for clip in self.wanted(profile, clips) if self.path(profile, clip).is_file()]

    def is_users(self, profile: Profile) -> bool:
        return self.why_not(profile) is not None

    def usd(self, profile: Profile, count: int) -> float:
        """What so many clips cost at most; 0 on a machine of one's own."""
        return 0.0

    def check(self, profile: Profile, count: int) -> None:
        """Raise InputError when weights, key, GPU or money for so many clips are missing; loads nothing."""

    def depends_on(self, profile: Profile) -> dict[str, Any]:
        """What of the profile a result depends on, beside clip and model: its settings but for the model's name."""
        return self.settings(profile).model_dump(exclude={"model"}) if self.group else {}

    def fingerprint(self, profile: Profile) -> str | None:
        """Content hash of its model; None without one."""
        return None

    def recipes(self, profile: Profile, clips: Sequence[Clip]) -> list[store.Recipe]:
        """All that decides the result of each clip; what the clips share is asked for once."""
        settings, model = self.depends_on(profile), self.fingerprint(profile)
        return [
            store.Recipe(
                stage=self.name,
                version=self.version,
                settings=settings,
                inputs={"clip": store.fingerprint(sampling.path(profile, clip))},
                seed=store.seed_for(profile.seed, self.name, clip.id),
                model=model,
            )
            for clip in clips
        ]

    def ready(self, profile: Profile) -> Edit:
        """The method, loaded: a function of a clip and a seed to its frames, uint8 [F, H, W, 3], of the clip's size.

        That function may raise `stage.LeftOut` for a clip that cannot be made.
        """
        raise NotImplementedError


class Folder(Method):
    """A method of the user's own: a folder of clips, named as the kit's, that the profile lists."""

    def __init__(self, name: str, label: str):
        self.name, self.label = name, label
        self.no_row = f"not run: enhanced/{name}/ holds no clip of a validation clip's name; or run 05_evaluation again."

    def having(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        return [clip for clip in clips if self.path(profile, clip).is_file()]

    def is_users(self, profile: Profile) -> bool:
        return True


def every(profile: Profile) -> dict[str, Method]:
    """Every method by name, in the order of the tables; real footage only where the profile has some.

    Raises InputError when a folder of the profile has a name that the kit uses.
    """
    files = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in files]
    found = {method.name: method for module in modules for method in getattr(module, "METHODS", ())}
    folders = {name: Folder(name, label) for name, label in profile.baselines.folders.items()}
    if taken := sorted(folders.keys() & found.keys()):
        raise InputError(
            f"baselines.folders: '{taken[0]}' is a method of the kit's: name your folder otherwise."
        )
    new = {name: method for name, method in found.items() if name not in FIRST + LAST}
    last = [name for name in LAST if name != "real" or profile.judge.real]
    return {name: found[name] for name in FIRST} | new | folders | {name: found[name] for name in last}


def made(profile: Profile) -> dict[str, Made]:
    """The methods that this profile has the kit run at evaluation, in the order of the tables."""
    methods = [method for method in every(profile).values() if isinstance(method, Made)]
    return {method.name: method for method in methods if method.why_not(profile) is None}


def asked(profile: Profile) -> dict[str, Made]:
    """Those of `made` that the profile names, with settings: they may need weights, a key or money."""
    return {name: method for name, method in made(profile).items() if method.group}


def validate(profile: Profile) -> None:
    """Raise InputError unless the settings of every method, and the names of folders, are what they must be."""
    methods = every(profile)
    for name in profile.baselines.asked:
        method = methods.get(name)
        if not isinstance(method, Made):
            raise InputError(f"profile {profile.name}: 'baselines.{name}': there is no such setting.")
        method.settings(profile)


def make(profile: Profile, clips: Sequence[Clip], methods: Mapping[str, Made] | None = None) -> None:
    """Run methods (those of `made`, unless some of them are given) on the clips, finished ones untouched.

    All are checked before the first begins: raises InputError when one cannot run, or a user's own clip would be written
    over. A clip that a method refuses is named and left out.
    """
    methods = made(profile) if methods is None else methods
    sampling.check(profile, clips)
    items = {name: _items(profile, method, clips) for name, method in methods.items()}
    counts = {name: sum(not item.is_done for item in items[name]) for name in methods}
    missing = {name: count for name, count in counts.items() if count}
    for name, count in missing.items():
        methods[name].check(profile, count)
    store.require_space(profile.layout.enhanced, sum(missing.values()) * profile.clips.raw_bytes / 1e9)
    for name, count in missing.items():
        if cost := methods[name].usd(profile, count):
            print(f"{name}: {count} clips, at most about {cost:.2f} USD to come", flush=True)
    for name in missing:
        on_device, ready = methods[name].on_device, partial(_ready, profile, methods[name])
        device = str(models.device(profile)) if on_device else "cpu"
        stage.run(name, items[name], ready, profile.clips.raw_bytes, device, spread=on_device)


def usd(profile: Profile, count: int) -> dict[str, float]:
    """What so many clips cost at most, of each asked method that charges."""
    costs = {name: method.usd(profile, count) for name, method in asked(profile).items()}
    return {name: cost for name, cost in costs.items() if cost}


def videos(profile: Profile) -> int:
    """How many videos are measured at most: every method of the profile on every clip that it may have."""
    return sum(method.count(profile) for method in every(profile).values())


def _items(profile: Profile, method: Made, clips: Sequence[Clip]) -> list[stage.Item[Clip]]:
    """An item a clip; InputError when a user's own would be written over."""
    wanted, items = method.wanted(profile, clips), []
    for clip, recipe in zip(wanted, method.recipes(profile, wanted), strict=True):
        path = method.path(profile, clip)
        if path.exists() and not store.sidecar_of(path).exists():
            instead = f"set baselines.{method.name} to null to have it measured, or " if method.group else ""
            raise InputError(
                f"{path} was not made by this kit and would be written over: {instead}move it away."
            )
        items.append(stage.Item(path, recipe, clip))
    return items


def _ready(profile: Profile, method: Made) -> stage.Make[Clip]:
    edit, size = method.ready(profile), profile.clips

    def make_item(item: stage.Item[Clip], temporary: Path) -> None:
        frames = edit(item.subject, item.recipe.seed)
        if frames.shape[1:3] != (size.height, size.width):
            raise InputError(
                f"{method.name} made {frames.shape} of clip {item.subject.id}, which has another size."
            )
        video.write(temporary, frames, size.fps)

    return make_item
