"""The diorama: the miniature world shipped with the kit, in place of SAIL-VOS (our data, not the paper's).

Reads the bundle at `data.bundle` (videos, checksums); writes `data/sailvos/`, a folder in SAIL-VOS' layout that the reader
of SAIL-VOS reads, and `truth/<sequence>.mp4` (validation only, for metrics) under results/<profile>/.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from rmkit.errors import InputError
from rmkit.kit import stage, store, video
from rmkit.paths import resolve
from rmkit.profile import Data, Profile
from rmkit.sources import Sequence, sailvos

VERSION = 1
CHECKSUMS = "SHA256SUMS"
SPLITS = ("train", "validation")  # the bundle's third, road, plays CARLA-LOC: see diorama_road


def prepare(profile: Profile) -> None:
    """Check the bundle and unpack it, resumable sequence by sequence.

    Raises InputError when a file of the bundle is missing or differs from its checksum, before anything is written.
    """
    folder, root = bundle(profile), _root(profile)
    verify(folder)
    for split in SPLITS:
        folders = sequence_folders(folder, split)
        items = [_item("diorama", root / folder.name, "sequence", folder) for folder in folders]
        if split == "validation":
            videos = [folder / "truth.mp4" for folder in folders]
            target = profile.layout.truth
            items += [_item("truth", target / f"{path.parent.name}.mp4", "truth", path) for path in videos]
        stage.run(f"unpack {split}", items, lambda: _unpack)
        store.write_json(root / sailvos.SPLIT_FILES[split], _listing(map(read_meta, folders)))


def sequences(profile: Profile, split: str) -> list[Sequence]:
    """The unpacked sequences of a split, by name."""
    return sailvos.read(_root(profile), split, profile.layout.truth)


def describe(profile: Profile) -> str:
    """Where the bundle is, once its checksums have been found right."""
    verify(bundle(profile))
    return f"{profile.data.bundle}, checksums right"


def digest(data: Data) -> str:
    """From the bundle's content: it is small."""
    folder = resolve(data.bundle) if data.bundle else None
    return store.fingerprint(folder) if folder and folder.exists() else ""


def bundle(profile: Profile) -> Path:
    """The folder `data.bundle`; InputError where the profile names none, or a data set of its own beside it."""
    if profile.data.root:
        raise InputError(
            f"profile {profile.name}: data.root is a folder of your own, and data.source {profile.data.source} reads none: "
            "set data.source to 'sailvos' or 'carla_loc', or leave data.root out."
        )
    if not profile.data.bundle:
        raise InputError(
            f"profile {profile.name}: set data.bundle to the diorama's folder, data/diorama/clips."
        )
    return resolve(profile.data.bundle)


def verify(bundle: Path) -> None:
    """Compare every file of the bundle with SHA256SUMS; raises InputError naming the first that differs."""
    listing = bundle / CHECKSUMS
    if not listing.is_file():
        raise InputError(
            f"{listing} does not exist: {bundle} is not a diorama bundle; restore it (`git checkout`) "
            "or make it with data/diorama/bundle.py."
        )
    for line in listing.read_text().splitlines():
        digest, _, name = line.partition("  ")
        path = bundle / name
        if not path.is_file():
            raise InputError(f"{path} is missing; restore the bundle with `git checkout -- {bundle.name}`.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise InputError(f"{path} differs from its checksum: it is damaged; restore it with git.")


def sequence_folders(bundle: Path, split: str) -> list[Path]:
    """Folders of the split's sequences ('train', 'validation' or 'road'), by name."""
    return sorted(path.parent for path in (bundle / split).glob("*/meta.json"))


def read_meta(folder: Path) -> dict[str, Any]:
    """What the engine knows of a sequence: shots, captions, objects, identities, faces."""
    try:
        return json.loads((folder / "meta.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{folder / 'meta.json'} cannot be read ({error}).") from None


def decode_disparity(coded: np.ndarray, scale: dict[str, float]) -> np.ndarray:
    """8-bit disparity [F, H, W] to metres, float16, to within a step of the coding."""
    low, high = scale["disparity_min"], scale["disparity_max"]
    return (1.0 / (low + coded / 255.0 * (high - low))).astype(np.float16)


def read_grey(path: Path) -> np.ndarray:
    """Frames that data/diorama/bundle.py stored without loss, uint8 [F, H, W]."""
    frames = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                plane = frame.planes[0]  # luma as coded: no colour conversion, no range change
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                frames.append(rows[:, : plane.width].copy())
    except av.FFmpegError as error:
        raise InputError(f"{path} cannot be decoded ({error.strerror}); restore it with git.") from None
    return np.stack(frames)


def _root(profile: Profile) -> Path:
    return profile.layout.data / "sailvos"


def _item(name: str, target: Path, kind: str, source: Path) -> stage.Item[Path]:
    return stage.Item(target, store.Recipe(name, VERSION, {}, {kind: store.fingerprint(source)}), source)


def _unpack(item: stage.Item[Path], temporary: Path) -> None:
    """A truth video is copied, a sequence's folder taken apart into pictures, object ids and depth."""
    source = item.subject
    if source.is_file():
        shutil.copyfile(source, temporary)
        return
    meta = read_meta(source)
    frames = video.read(source / "render.mp4")
    depth = decode_disparity(read_grey(source / "depth.mp4"), meta["depth_scale"])
    visible = np.load(source / "visible.npz", allow_pickle=False)["visible"]
    if not len(frames) == len(depth) == len(visible) == sum(shot["frames"] for shot in meta["shots"]):
        raise InputError(f"{source}: render, depth, visible and meta.json differ in length; rebuild it.")
    for kind in ("images", "visible", "depth"):
        (temporary / kind).mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(temporary / "images" / f"{i:06d}.png", compress_level=1)
        np.save(temporary / "visible" / f"{i:06d}.npy", visible[i])
        np.save(temporary / "depth" / f"{i:06d}.npy", depth[i])
    captions = [{key: shot[key] for key in ("first_frame", "caption", "subsets")} for shot in meta["shots"]]
    store.write_json(temporary / "captions.json", captions)
    engine = {key: meta[key] for key in ("objects", "identities", "faces")}
    store.write_json(temporary / "engine.json", engine)


def _listing(metas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A split file like SAIL-VOS' own: videos, images, categories (masks are in `visible/`); it says that depth is metres."""
    videos, images, classes = [], [], set()
    for number, meta in enumerate(metas):
        name = meta["sequence"]
        videos.append({"id": number, "name": name, "fps": sailvos.FPS})
        classes |= {entry["class"] for entry in meta["objects"].values()}
        for frame in range(sum(shot["frames"] for shot in meta["shots"])):
            file = f"{name}/images/{frame:06d}.png"
            images.append({"id": len(images), "video": number, "frame_id": frame, "file_name": file})
    categories = [{"id": i, "name": name} for i, name in enumerate(sorted(classes), start=1)]
    return {
        "info": {"depth": sailvos.METRES},
        "videos": videos,
        "images": images,
        "annotations": [],
        "categories": categories,
    }
