"""Makes the bundle the repository ships from rendered sequences: good video, few bytes, checksums.

Reads `<rendered>/<split>/<sequence>/{render.mp4,truth.mp4,depth.npy,visible.npy,meta.json}` (render.py); writes
`<out>/<split>/<split>_<sequence>/` and SHA256SUMS, which rmkit/sources/diorama.py unpacks. Truth only where metrics use it.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import numpy as np
from world import SHOT_FRAMES

from rmkit.errors import InputError
from rmkit.kit import video
from rmkit.paths import REPOSITORY
from rmkit.sources import diorama, sailvos

HERE = Path(__file__).resolve().parent
COUNTS = {"train": 20, "validation": 12, "road": 8}
WITHOUT_DEPTH = ("road",)  # as CARLA-LOC is
# Splits of which one shot a scene is shipped: scenes, not shots, are what a statistic counts.
FIRST_SHOT = ("road",)
# Validation sequences whose truth is shipped in other weather as well.
WEATHER = ("street_00002", "street_00004")
WEATHER_CRF = 20
WITH_TRUTH = ("validation", "road")  # the truth of train is never shipped: nothing may learn from it
CRFS = range(6, 26, 2)  # x264's quality scale; 6 cannot be told from lossless
LIMIT_MIB = 8.4


def main() -> None:
    """Read the arguments, build the bundle, say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rendered", type=Path, default=HERE / "work" / "rendered")
    parser.add_argument("--out", type=Path, default=HERE / "clips")
    parser.add_argument("--limit-mib", type=float, default=LIMIT_MIB)
    parser.add_argument("--keep", nargs="*", default=(), metavar="SPLIT", help="take these as OUT has them")
    for split, count in COUNTS.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"sequences (default {count})")
    arguments = parser.parse_args()
    counts = {split: getattr(arguments, split) for split in COUNTS if split not in arguments.keep}
    try:
        crf = build(arguments.rendered, arguments.out, counts, arguments.limit_mib, arguments.keep)
    except InputError as error:
        sys.exit(f"bundle: {error}")
    total = size(arguments.out) / 2**20
    shown = arguments.out.resolve()
    shown = shown.relative_to(REPOSITORY) if shown.is_relative_to(REPOSITORY) else shown
    print(f"{shown}: {sum(counts.values())} sequences, {total:.2f} MiB, crf {crf}")


def build(
    rendered: Path,
    out: Path,
    counts: dict[str, int],
    limit_mib: float = LIMIT_MIB,
    keep: Sequence[str] = (),
) -> int:
    """Write the bundle at the best quality that stays under the limit; returns the crf chosen.

    keep: splits that are taken as `out` has them; no other is. Raises InputError when sequences are missing, splits share a
    seed or a person, or nothing fits.
    """
    chosen = {split: choose(rendered, split, count) for split, count in counts.items()}
    kept = {split: diorama.sequence_folders(out, split) for split in keep}
    check_disjoint({s: [diorama.read_meta(f) for f in folders] for s, folders in (chosen | kept).items()})
    work = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    for split in keep:
        shutil.copytree(out / split, work / split)
    for split, folders in chosen.items():
        for folder in folders:
            _pack_lossless(folder, work / split / f"{split}_{folder.name}", _frames(split))
    for path in sorted((rendered / "weather").glob("*/validation/*/truth.mp4")):
        if path.parent.name in WEATHER:
            (work / "weather").mkdir(parents=True, exist_ok=True)
            target = work / "weather" / f"validation_{path.parent.name}_{path.parents[2].name}.mp4"
            write_high_quality(target, video.read(path), WEATHER_CRF)
    for crf in CRFS:
        for split, folders in chosen.items():
            for folder in folders:
                for look in ("render", "truth") if split in WITH_TRUTH else ("render",):
                    target = work / split / f"{split}_{folder.name}" / f"{look}.mp4"
                    write_high_quality(target, video.read(folder / f"{look}.mp4")[: _frames(split)], crf)
        _write_checksums(work)
        if size(work) <= limit_mib * 2**20:
            shutil.rmtree(out, ignore_errors=True)
            work.rename(out)
            return crf
    shutil.rmtree(work)
    raise InputError(f"the sequences do not fit into {limit_mib} MiB even at crf {CRFS[-1]}; take fewer.")


def choose(rendered: Path, split: str, count: int) -> list[Path]:
    """The first `count` finished sequences of a split, by seed."""
    folders = [path.parent for path in (rendered / split).glob("*/meta.json")]
    folders.sort(key=lambda folder: diorama.read_meta(folder)["seed"])
    if len(folders) < count:
        raise InputError(
            f"{rendered / split} holds {len(folders)} rendered sequences and {count} are asked for; "
            "render more with data/diorama/render.py."
        )
    return folders[:count]


def check_disjoint(metas: dict[str, list[dict[str, Any]]]) -> None:
    """Raise InputError when two splits share a scene seed or a person."""
    for first, second in combinations(metas, 2):
        for what, of in (("scene seed", _seeds), ("identity", _people)):
            shared = of(metas[first]) & of(metas[second])
            if shared:
                raise InputError(f"{first} and {second} share the {what} {min(shared)}; they must not.")


def write_high_quality(path: Path, frames: np.ndarray, crf: int) -> None:
    """uint8 [F, H, W, 3] as H.264 in RGB: no chroma subsampling, no colour conversion to differ by machine."""
    with av.open(str(path), "w", format="mp4") as container:
        # x264's lookahead reads memory nobody wrote (seen: 1 file in 50 differs); without it bytes repeat.
        # tune psnr: close to the render's values, which is what counts here, not what flatters an eye.
        options = {"crf": str(crf), "preset": "veryslow", "tune": "psnr"}
        options["x264-params"] = "rc-lookahead=0:mbtree=0"
        stream = container.add_stream("libx264rgb", rate=sailvos.FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def encode_disparity(depth: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Metres [F, H, W] to 8-bit disparity, and the scale that the kit's `decode_disparity` needs.

    Disparity spends its 255 steps near the camera, where a step in depth can be seen.
    """
    disparity = 1.0 / np.maximum(depth.astype(np.float64), 1e-3)
    low, high = float(disparity.min()), float(disparity.max())
    scaled = (disparity - low) / max(high - low, 1e-12)
    scale = {"disparity_min": low, "disparity_max": high}
    return (scaled * 255.0).round().astype(np.uint8), scale


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


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _frames(split: str) -> int | None:
    """How many of a sequence's frames are shipped; None: all."""
    return SHOT_FRAMES if split in FIRST_SHOT else None


def _pack_lossless(source: Path, target: Path, frames: int | None) -> None:
    """Depth (not of the road), object ids and meta.json, which the quality setting does not touch; the first `frames`, or all."""
    target.mkdir(parents=True)
    scale = None
    if target.parent.name not in WITHOUT_DEPTH:
        disparity, scale = encode_disparity(np.load(source / "depth.npy", allow_pickle=False)[:frames])
        write_grey(target / "depth.mp4", disparity, sailvos.FPS)
    visible = np.load(source / "visible.npy", allow_pickle=False)[:frames]
    np.savez_compressed(target / "visible.npz", visible=visible)
    # Names count the worlds of one split; with the split in front they are unique in the kit.
    meta = diorama.read_meta(source) | {"sequence": target.name, "depth_scale": scale}
    meta["shots"] = [shot for shot in meta["shots"] if shot["first_frame"] < len(visible)]
    meta["faces"] = meta["faces"][:frames]
    (target / "meta.json").write_text(json.dumps(_rounded(meta), separators=(",", ":")) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def _write_checksums(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != diorama.CHECKSUMS)
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}" for p in files
    ]
    (folder / diorama.CHECKSUMS).write_text("\n".join(lines) + "\n")


def _seeds(metas: list[dict[str, Any]]) -> set[int]:
    return {meta["seed"] for meta in metas}


def _people(metas: list[dict[str, Any]]) -> set[int]:
    return {
        person["id"] if isinstance(person, dict) else person
        for meta in metas
        for person in meta["identities"]
    }


if __name__ == "__main__":
    main()
