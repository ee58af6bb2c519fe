"""SAIL-VOS (Hu et al., 2019): frames, visible masks and splits from the folder layout of the release.

Reads `<data.root>/{train,valid}.json`, `<video>/images/*.bmp|png`, `visible/*.npy`, and where present SAIL-VOS 3D's
`depth/*.npy` with `rage_matrices/*.npz` and a `captions.json` beside a video's images. A listing may be a gigabyte, nearly
all of it masks that nothing here needs: `sequences` writes what is left to results/<profile>/data/listings/.
"""

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.paths import resolve
from rmkit.profile import Data, Profile
from rmkit.sources import Pictures, Sequence, read_captions

VERSION = 1
FPS = 8  # of the recordings (paper, 4.1)
SPLIT_FILES = {"train": "train.json", "validation": "valid.json"}
METRES = "metres"  # what a listing's info.depth says where `depth/` is not SAIL-VOS 3D's own
SKY = 24e-5  # SAIL-VOS 3D's depth where nothing was hit


@dataclass(frozen=True, kw_only=True)
class SailVosSequence(Pictures):
    """A video's folder in this layout, and its pictures in order."""

    folder: Path
    in_metres: bool  # whether depth/ is; else it is in device coordinates, as in SAIL-VOS 3D

    def depth(self, indices: Iterable[int]) -> np.ndarray:
        coded = self._arrays("depth", indices := list(indices)).astype(np.float32)
        if self.in_metres:
            return coded
        inverses = [_load(self._matrices(index), "P_inv") for index in indices]
        return np.stack([metres(*pair) for pair in zip(coded, inverses, strict=True)])

    def visible(self, indices: Iterable[int]) -> np.ndarray:
        """Object-id maps, integers [F, H, W]; 0 is background. Raises InputError where there are none."""
        return self._arrays("visible", indices)

    def depth_fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        found = {}
        for index in indices:
            paths = [self._path("depth", index)] + ([] if self.in_metres else [self._matrices(index)])
            found[str(index)] = " ".join(map(store.fingerprint, paths))
        return found

    def visible_fingerprints(self, indices: Iterable[int]) -> dict[str, str]:
        """Content hash of each map, by its frame's index; raises InputError where there are none."""
        return {str(index): store.fingerprint(self._path("visible", index)) for index in indices}

    def _arrays(self, kind: str, indices: Iterable[int]) -> np.ndarray:
        return np.stack([_load(self._path(kind, index)) for index in indices])

    def _path(self, kind: str, index: int) -> Path:
        path = self.folder / kind / f"{self.images[index].stem}.npy"
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: this copy of the dataset has no {kind} maps"
                + (" (SAIL-VOS 3D has); set structure.depth to an estimator." if kind == "depth" else ".")
            )
        return path

    def _matrices(self, index: int) -> Path:
        path = self.folder / "rage_matrices" / f"{self.images[index].stem}.npz"
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: SAIL-VOS 3D's depth is in device coordinates, and this file turns it into metres. "
                "Get it too, or set structure.depth to an estimator."
            )
        return path


def metres(coded: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """SAIL-VOS 3D's depth [H, W] along the camera's axis in metres, float32; the sky is infinitely far.

    inverse: `P_inv` of rage_matrices, 4x4, of the projection in which a point is a row. Pixels reach from -1 to 1, the
    outermost included.
    """
    z = coded.astype(np.float64) / 6 - SKY / 6
    x, y = np.meshgrid(np.linspace(-1, 1, z.shape[1]), np.linspace(1, -1, z.shape[0]))
    along, scale = (x * inverse[0, k] + y * inverse[1, k] + z * inverse[2, k] + inverse[3, k] for k in (2, 3))
    is_sky = coded <= SKY * (1 + 1e-4)  # float32 is as exact as that
    return np.where(is_sky, np.inf, -along / np.where(is_sky, 1, scale)).astype(np.float32)


def prepare(profile: Profile) -> None:
    """Check that `data.root` is set: there is nothing to unpack."""
    _root(profile)


def sequences(profile: Profile, split: str) -> list[Sequence]:
    """The videos of a split of the data set at `data.root`, by name."""
    reduced = profile.layout.data / "listings" / SPLIT_FILES[split]
    return read(_root(profile), split, profile.layout.truth, reduced)


def describe(profile: Profile) -> str:
    """Where the data set is, and how many validation videos it has."""
    return f"{_root(profile)}: {len(sequences(profile, 'validation'))} validation sequences"


def digest(data: Data) -> str:
    """From the listings and the captions."""
    root = resolve(data.root) if data.root else None
    if not root or not root.is_dir():
        return ""
    found = hashlib.sha256()
    for path in [*(root / name for name in SPLIT_FILES.values()), *sorted(root.glob("*/captions.json"))]:
        if path.is_file():
            found.update(f"{path.parent.name}/{path.name} {path.stat().st_mtime_ns} ".encode())
            found.update(store.fingerprint(path).encode())
    return found.hexdigest()[:32]


def read(root: Path, split: str, truths: Path, reduced: Path | None = None) -> list[Sequence]:
    """The videos of a split of any folder in this layout, by name; `truths` is the folder of the truth videos.

    reduced: where what is used of the listing is kept, so that it is parsed once; None: nowhere. Raises InputError when the
    folder, the split's listing or a video's first or last frame is missing, and for a listing that cannot be used.
    """
    listing = root / SPLIT_FILES[split]
    if not listing.is_file():
        raise InputError(
            f"{listing} does not exist: {root} is not a SAIL-VOS folder (data/README.md says how to "
            "get one); for the diorama run 01_data_prep first."
        )
    stat = listing.stat()
    content = _content(listing, f"{stat.st_size} {stat.st_mtime_ns}", reduced)
    found: list[Sequence] = []
    for name, (images, breaks) in content["videos"].items():
        captions, truth = root / name / "captions.json", truths / f"{name}.mp4"
        sequence = SailVosSequence(
            id=name,
            split=split,
            fps=FPS,
            captions=read_captions(captions),
            breaks=tuple(breaks),
            truth=truth if truth.is_file() else None,
            folder=root / name,
            images=images,
            in_metres=content["in_metres"],
        )
        found.append(sequence)
    return found


def _root(profile: Profile) -> Path:
    if not profile.data.root:
        raise InputError(
            f"profile {profile.name}: set data.root to your copy of SAIL-VOS (data/README.md says how to get one), or "
            "data.source to 'diorama'."
        )
    return resolve(profile.data.root)


@functools.lru_cache(maxsize=8)
def _content(listing: Path, stamp: str, reduced: Path | None) -> dict[str, Any]:
    """What `_parse` says, with whole paths: found once a process for each version of the listing."""
    if reduced:
        recipe = store.Recipe("listing", VERSION, {}, {"listing": stamp})
        if not store.is_done(reduced, recipe):
            with store.writing(reduced, recipe) as temporary:
                temporary.write_text(json.dumps(_parse(listing)))
        content = json.loads(reduced.read_text())
    else:
        content = _parse(listing)
    videos = {}
    for name, (files, breaks) in content["videos"].items():
        images = tuple(listing.parent / file for file in files)
        for path in (images[0], images[-1]):
            if not path.is_file():
                raise InputError(f"{path} is listed in {listing.name} but does not exist.")
        videos[name] = (images, breaks)
    return content | {"videos": videos}


def _parse(listing: Path) -> dict[str, Any]:
    """Pictures in order and gaps in their numbering by video, from a listing in COCO's form; whether depth is in metres.

    A video is the first folder of `file_name`: ids are not unique, and the keys that refer to them vary.
    """
    videos: dict[str, dict[str, Any]] = {}
    try:
        content = json.loads(listing.read_text(), object_hook=_used)
        if not isinstance(content, dict):
            raise InputError(
                f"{listing} is not a SAIL-VOS listing: it has no `images`, a list with a file_name for each."
            )
        for file, frame_id in content["images"]:
            name, _, rest = file.replace("\\", "/").removeprefix("./").partition("/")
            if not rest or name in ("", "..") or ".." in rest.split("/"):
                raise InputError(
                    f"{listing} is not a SAIL-VOS listing: file_name must be <video>/images/..., not {file}."
                )
            number = int(frame_id) if str(frame_id).isdigit() else None  # some write it as text
            videos.setdefault(name, {})[f"{name}/{rest}"] = number
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{listing} is not a SAIL-VOS listing ({error!r}).") from None
    ordered = {name: _in_order(videos[name], f"{listing}: {name}") for name in sorted(videos)}
    return {"in_metres": content["depth"] == METRES, "videos": ordered}


def _used(entry: dict[str, Any]) -> Any:
    """What of an object in a listing is used: called as each is parsed, so that masks never pile up in memory."""
    if "images" in entry:
        return {"images": entry["images"], "depth": entry.get("info")}
    if "file_name" in entry:
        return entry["file_name"], entry.get("frame_id")
    return entry.get("depth")


def _in_order(files: dict[str, int | None], where: str) -> tuple[list[str], list[int]]:
    """Files by frame_id, or where these do not tell them apart by the numbers in their names; and the gaps.

    A gap is where either does not go on by the step that is usual in the video: the index of the first file after it.
    """
    ends = {file: re.search(r"(\d+)\.\w+$", file) for file in files}
    named = {file: int(end.group(1)) for file, end in ends.items()} if all(ends.values()) else {}
    numberings = [n for n in (files, named) if n and None not in n.values()]
    order = next((n for n in numberings if len(set(n.values())) == len(files)), None)
    if order is None:
        raise InputError(
            f"{where} has pictures whose order is not known: neither frame_id nor the number in the name tells them apart."
        )
    ordered = sorted(files, key=order.__getitem__)
    gaps: set[int] = set()
    for numbering in numberings if len(ordered) > 1 else ():
        steps = [numbering[b] - numbering[a] for a, b in pairwise(ordered)]
        usual = Counter(steps).most_common(1)[0][0]
        gaps |= {i for i, step in enumerate(steps, start=1) if step != usual}
    return ordered, sorted(gaps)


def _load(path: Path, key: str | None = None) -> np.ndarray:
    """An array of a file without running anything in it; `key`: its name in an npz."""
    try:
        found = np.load(path, allow_pickle=False)
        return found if key is None else found[key]
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}).") from None
