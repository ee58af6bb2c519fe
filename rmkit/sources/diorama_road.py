"""The diorama's road: a driving world of another engine's look, in place of CARLA-LOC (our data, not the paper's).

Reads the road split of the bundle at `data.bundle`; writes `data/carla_loc/`, a folder in CARLA-LOC's layout that the reader
of CARLA-LOC reads, and `truth/<drive>.mp4` (for metrics), under results/<profile>/. A scene is a town, and its shots
(one, or two) stand as the town's drives: what is called static has traffic, too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from rmkit.kit import stage, store, video
from rmkit.profile import Data, Profile
from rmkit.sources import Sequence, carla_loc, diorama

VERSION = 1
FPS = 8
WEATHER = "ClearNoon"


class Shot(NamedTuple):
    """A shot of a scene in one of its two looks."""

    video: Path
    first: int  # frame
    frames: int
    caption: dict


def prepare(profile: Profile) -> None:
    """Check the bundle and unpack its road split, resumable drive by drive.

    Raises InputError when a file of the bundle is missing or differs from its checksum, before anything is written.
    """
    diorama.verify(diorama.bundle(profile))
    stage.run("unpack road", list(_items(profile)), lambda: _unpack)


def sequences(profile: Profile, split: str) -> list[Sequence]:
    """The unpacked drives, by name; there are none to train on."""
    if split == "train":
        return []
    return carla_loc.read(_root(profile), profile.data.weather, profile.layout.truth, FPS)


def describe(profile: Profile) -> str:
    """Where the bundle is, once its checksums have been found right."""
    return diorama.describe(profile)


def digest(data: Data) -> str:
    """From the bundle's content."""
    return diorama.digest(data)


def _root(profile: Profile) -> Path:
    return profile.layout.data / "carla_loc"


def _items(profile: Profile) -> Iterator[stage.Item[Shot]]:
    """A drive's folder and its truth, for every shot of every scene."""
    folders = diorama.sequence_folders(diorama.bundle(profile), "road")
    for town, folder in enumerate(folders, start=1):
        shots = diorama.read_meta(folder)["shots"]
        for kind, shot in zip(carla_loc.KINDS, shots, strict=False):
            caption = {"first_frame": 0, "caption": shot["caption"], "subsets": shot["subsets"]}
            drive = _root(profile) / f"Town{town:02d}" / WEATHER / kind
            truth = profile.layout.truth / f"Town{town:02d}_{WEATHER}_{kind}.mp4"
            for target, look in ((drive, "render"), (truth, "truth")):
                subject = Shot(folder / f"{look}.mp4", shot["first_frame"], shot["frames"], caption)
                settings = {"first": subject.first, "frames": subject.frames, "caption": caption}
                inputs = {look: store.fingerprint(subject.video)}
                yield stage.Item(target, store.Recipe("diorama_road", VERSION, settings, inputs), subject)


def _unpack(item: stage.Item[Shot], temporary: Path) -> None:
    """A truth is cut out of its video, a render taken apart into pictures with the caption beside them."""
    shot = item.subject
    frames = video.read(shot.video)[shot.first : shot.first + shot.frames]
    if item.path.suffix == ".mp4":
        video.write(temporary, frames, FPS)
        return
    (temporary / carla_loc.CAMERA).mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(temporary / carla_loc.CAMERA / f"{i:06d}.png", compress_level=1)
    store.write_json(temporary / "captions.json", [shot.caption])
