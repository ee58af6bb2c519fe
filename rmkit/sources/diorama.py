"""The diorama: the miniature world shipped with the kit, in place of SAIL-VOS (our data, not the paper's).

Reads the bundle `data/diorama/clips/` (videos, checksums); writes `data/sailvos/` in SAIL-VOS' folder layout and
`truth/<sequence>.mp4` (validation only, for metrics) under results/<profile>/.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.kit.progress import track
from rmkit.paths import resolve
from rmkit.profile import Profile
from rmkit.sources.sailvos import FPS, SPLIT_FILES

VERSION = 1
CHECKSUMS = "SHA256SUMS"
SPLITS = ("train", "validation")  # the bundle's third, road, plays CARLA-LOC and is not SAIL-VOS


def unpack(profile: Profile) -> Path:
    """Check the bundle and unpack its renders as a SAIL-VOS folder; returns that folder.

    Resumable sequence by sequence. With `data.root` set there is nothing to unpack. Raises InputError when a
    file of the bundle is missing or differs from its checksum.
    """
    if profile.data.root:
        return profile.data_root
    bundle = bundle_of(profile)
    verify(bundle)
    for split in SPLITS:
        folders = sequence_folders(bundle, split)
        for folder in track(folders, f"unpack {split}"):
            _unpack_sequence(profile, folder)
            if split == "validation":
                _unpack_truth(profile, folder)
        listing = profile.data_root / SPLIT_FILES[split]
        store.write_json(listing, _listing([read_meta(folder) for folder in folders]))
    return profile.data_root


def bundle_of(profile: Profile) -> Path:
    """Folder of the profile's bundle; raises InputError when it names none."""
    if not profile.data.bundle:
        raise InputError(f"profile {profile.name}: set data.root (a dataset folder) or data.bundle.")
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


def encode_disparity(depth: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Metres [F, H, W] to 8-bit disparity, and the scale that `decode_disparity` needs.

    Disparity spends its 255 steps near the camera, where a step in depth can be seen.
    """
    disparity = 1.0 / np.maximum(depth.astype(np.float64), 1e-3)
    low, high = float(disparity.min()), float(disparity.max())
    scaled = (disparity - low) / max(high - low, 1e-12)
    scale = {"disparity_min": low, "disparity_max": high}
    return (scaled * 255.0).round().astype(np.uint8), scale


def decode_disparity(coded: np.ndarray, scale: dict[str, float]) -> np.ndarray:
    """8-bit disparity [F, H, W] to metres, float16, to within a step of the coding."""
    low, high = scale["disparity_min"], scale["disparity_max"]
    return (1.0 / (low + coded / 255.0 * (high - low))).astype(np.float16)


def write_grey(path: Path, frames: np.ndarray, fps: int) -> None:
    """Store uint8 [F, H, W] without loss: H.264 luma at qp 0."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"qp": "0", "preset": "veryslow"})
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "gray"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


def read_grey(path: Path) -> np.ndarray:
    """Frames that `write_grey` stored, uint8 [F, H, W]."""
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


def _unpack_sequence(profile: Profile, source: Path) -> None:
    target = profile.data_root / source.name
    recipe = store.Recipe("diorama", VERSION, {}, {"sequence": store.fingerprint(source)})
    if store.is_done(target, recipe):
        return
    meta = read_meta(source)
    frames = video.read(source / "render.mp4")
    depth = decode_disparity(read_grey(source / "depth.mp4"), meta["depth_scale"])
    visible = np.load(source / "visible.npz", allow_pickle=False)["visible"]
    if not len(frames) == len(depth) == len(visible) == sum(shot["frames"] for shot in meta["shots"]):
        raise InputError(f"{source}: render, depth, visible and meta.json differ in length; rebuild it.")
    with store.writing(target, recipe) as folder:
        for kind in ("images", "visible", "depth"):
            (folder / kind).mkdir(parents=True)
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / "images" / f"{i:06d}.png", compress_level=1)
            np.save(folder / "visible" / f"{i:06d}.npy", visible[i])
            np.save(folder / "depth" / f"{i:06d}.npy", depth[i])
        captions = [
            {key: shot[key] for key in ("first_frame", "caption", "subsets")} for shot in meta["shots"]
        ]
        store.write_json(folder / "captions.json", captions)
        store.write_json(
            folder / "engine.json", {key: meta[key] for key in ("objects", "identities", "faces")}
        )


def _unpack_truth(profile: Profile, source: Path) -> None:
    target = profile.layout.truth / f"{source.name}.mp4"
    recipe = store.Recipe("truth", VERSION, {}, {"truth": store.fingerprint(source / "truth.mp4")})
    if not store.is_done(target, recipe):
        with store.writing(target, recipe) as temporary:
            shutil.copyfile(source / "truth.mp4", temporary)


def _listing(metas: list[dict[str, Any]]) -> dict[str, Any]:
    """A split file like SAIL-VOS' own: videos, images, categories (masks are in `visible/`)."""
    videos, images, classes = [], [], set()
    for number, meta in enumerate(metas):
        name = meta["sequence"]
        videos.append({"id": number, "name": name, "fps": FPS})
        classes |= {entry["class"] for entry in meta["objects"].values()}
        for frame in range(sum(shot["frames"] for shot in meta["shots"])):
            images.append(
                {
                    "id": len(images),
                    "video": number,
                    "frame_id": frame,
                    "file_name": f"{name}/images/{frame:06d}.png",
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(sorted(classes), start=1)]
    return {"videos": videos, "images": images, "annotations": [], "categories": categories}
