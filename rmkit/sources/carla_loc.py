"""CARLA-LOC (Han et al., 2024): drives in the CARLA simulator, from the folder layout of the release (paper, 5).

Reads `<data.root>/<Town>/<weather>/<dynamic|static>/stereo_l/`, pictures in the order of the first integer of their names,
and where present a `captions.json` beside that folder. Writes nothing. A town's `common_data.pkl` is a pickle, which can
run any code when it is loaded: it is never opened. Nothing is trained on these drives: all are of the validation split.
"""

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import pictures
from rmkit.paths import resolve
from rmkit.profile import Data, Profile
from rmkit.sources import Pictures, Sequence, read_captions

FPS = 20  # of the recordings
KINDS = ("dynamic", "static")  # with other traffic, and without
CAMERA = "stereo_l"
FORMATS = {".png", ".jpg", ".jpeg", ".bmp"}


@dataclass(frozen=True, kw_only=True)
class Drive(Pictures):
    """One drive through a town; all weathers of a town replay the same one."""

    town: str
    weather: str
    kind: str  # one of KINDS


def prepare(profile: Profile) -> None:
    """Look through the folder: there is nothing to unpack."""
    sequences(profile, "validation")


def sequences(profile: Profile, split: str) -> list[Sequence]:
    """The drives of `data.weather` at `data.root`, by name; there are none to train on."""
    if split == "train":
        return []
    return read(_root(profile), profile.data.weather, profile.layout.truth, profile.data.fps or FPS)


def describe(profile: Profile) -> str:
    """Where the data set is, and how much of it is read."""
    drives = sequences(profile, "validation")
    frames = sum(map(len, drives))
    found = f"{len(drives)}, with {frames} frames at {drives[0].fps} a second"
    return f"{_root(profile)}: drives in {profile.data.weather}: {found}"


def digest(data: Data) -> str:
    """From the names of all pictures and the text of all captions."""
    found = hashlib.sha256()
    for kind in sorted(resolve(data.root).glob("Town*/*/*")) if data.root else ():
        names = sorted(path.name for path in (kind / CAMERA).glob("[!.]*"))
        captions = kind / "captions.json"
        told = captions.read_text() if captions.is_file() else ""
        found.update("\n".join([*kind.parts[-3:], *names, told, ""]).encode())
    return found.hexdigest()[:32]


def read(root: Path, weather: str, truths: Path, fps: int) -> list[Drive]:
    """The drives of one weather in any folder in this layout, by name; `truths` is the folder of the truth videos.

    Raises InputError when the folder, a town, the weather in a town, or a drive's pictures are missing, when a drive has a
    gap or pictures of several sizes, and for a picture whose header cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root} does not exist: data/README.md says how to get CARLA-LOC.")
    towns = sorted(path for path in root.glob("Town*") if path.is_dir())
    if not towns:
        raise InputError(
            f"{root} has no folder Town01, Town02 and so on: it is not CARLA-LOC (data/README.md shows its layout)."
        )
    return [_drive(folder, fps, truths) for town in towns for folder in _folders(town, weather)]


def in_weather(drive: Drive, weather: str) -> Drive | None:
    """The same drive in another weather, up to 2.4 frames apart from it; None where the data set has none."""
    folder = drive.images[0].parents[3] / weather / drive.kind
    return _drive(folder, drive.fps) if folder.is_dir() else None


def _folders(town: Path, weather: str) -> list[Path]:
    """The town's drives in this weather, one or both of KINDS."""
    found = [town / weather / kind for kind in KINDS if (town / weather / kind).is_dir()]
    if not found:
        there = sorted(path.parent.relative_to(town).as_posix() for path in town.glob(f"*/*/{CAMERA}"))
        raise InputError(
            f"{town} has no {weather}/dynamic and no {weather}/static (its drives: {', '.join(there) or 'none'}): "
            "complete it, move the town away, or set data.weather to one that every town has."
        )
    return found


def _drive(folder: Path, fps: int, truths: Path | None = None) -> Drive:
    town, weather, kind = folder.parts[-3:]
    camera, name, captions = folder / CAMERA, f"{town}_{weather}_{kind}", folder / "captions.json"
    if not camera.is_dir():
        raise InputError(f"{camera} does not exist: the left camera of this drive is missing.")
    truth = truths / f"{name}.mp4" if truths else None
    return Drive(
        id=name,
        split="validation",
        fps=fps,
        captions=read_captions(captions),
        truth=truth if truth and truth.is_file() else None,
        images=_pictures(camera, camera.stat().st_mtime_ns),
        town=town,
        weather=weather,
        kind=kind,
    )


@functools.lru_cache(maxsize=256)
def _pictures(folder: Path, mtime_ns: int) -> tuple[Path, ...]:
    """A drive's pictures in order, looked through once for each version of the folder."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in FORMATS and path.name[0] != "."]
    if not files:
        raise InputError(f"{folder} holds no picture ({', '.join(sorted(FORMATS))}): the drive is empty.")
    images = tuple(sorted(files, key=_number))
    steps = np.diff([_number(path) for path in images])
    for i in np.flatnonzero(steps != np.median(steps))[:1] if len(steps) else ():
        raise InputError(
            f"{folder} has a gap: {images[i + 1].name} follows {images[i].name}, and a clip would jump there. Put back "
            "what is missing, or move what comes before or after it away."
        )
    pictures.one_size(images, "a drive")
    return images


def _number(path: Path) -> int:
    """The first integer of a name, which says where in a drive a picture belongs."""
    digits = re.search(r"\d+", path.name)
    if not digits:
        raise InputError(
            f"{path} has no number in its name, so its place in the drive is not known: move it away."
        )
    return int(digits.group())


def _root(profile: Profile) -> Path:
    if not profile.data.root:
        raise InputError(
            f"profile {profile.name}: set data.root to your copy of CARLA-LOC (data/README.md says how to get one)."
        )
    return resolve(profile.data.root)
