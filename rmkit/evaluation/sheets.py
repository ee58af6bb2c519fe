"""Contact sheets and viewing copies: the same frames of a clip from every method, for the eye.

Reads clips, anchors, structure, propagated, enhanced and the truth; writes sheets/<clip>.png and
viewing/<clip>.mp4 (render | RealMaster | Edges | truth, labelled, in step). The lossless clips are for metrics, and no
browser plays them; these are for people.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from rmkit import baselines
from rmkit.kit import stage, store, video
from rmkit.method import anchoring, structure
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

VERSION = 2
ROWS = ("render", "anchors", "multi_anchor", "depth", "edges", "realmaster", "truth")
BESIDE = ("render", "realmaster", "edges", "truth")
LABELS = {"anchors": "Anchors", "edge_map": "Edge map", "depth_map": "Depth map"}  # rows that are no method
EMPTY = 238  # grey of a frame that there is not
WIDEST = 480  # pixels of one clip in a viewing copy: four beside one another are no wider than a screen
QUALITY = 20  # crf of H.264: small files, no visible loss


def save(profile: Profile, clips: Sequence[Clip], columns: int = 4, width: int = 288) -> list[Path]:
    """Write a sheet and a viewing copy of each clip; returns the sheets' paths."""
    root, settings = profile.layout.root, {"columns": columns, "width": width}
    sheets = [_item(profile, clip, root / "sheets" / f"{clip.id}.png", ROWS, settings) for clip in clips]
    beside = {"beside": BESIDE, "widest": WIDEST, "strip": video.STRIP, "quality": QUALITY}
    copies = [_item(profile, clip, root / "viewing" / f"{clip.id}.mp4", BESIDE, beside) for clip in clips]
    stage.run("viewing copies", copies, partial(_copying, profile))
    return stage.run("contact sheets", sheets, partial(_drawing, profile, columns, width))


def of_clip(
    profile: Profile,
    clip: Clip,
    rows: Sequence[str] = ROWS,
    columns: int = 5,
    width: int = 144,
    moments: Sequence[int] | None = None,
) -> Image.Image:
    """One clip: a row a method (and 'anchors', 'edge_map', 'depth_map'), a column a moment, ends included.

    moments: the frames shown, each headed by its number, in place of `columns` even ones.
    """
    headings = [f"frame {moment}" for moment in moments or ()]
    moments = moments or video.evenly(columns, profile.clips.frames)
    rows = [row for row in rows if available(profile, clip, row)]
    labels = LABELS | {name: method.label for name, method in baselines.every(profile).items()}
    shown = [(labels[row], frames(profile, clip, row, moments)) for row in rows]
    return video.contact_sheet(shown, width, headings=headings)


def between(profile: Profile, most: int = 5) -> list[int]:
    """The first frame, `most` at most that are half-way between two of multi-anchor's anchors, and the last frame."""
    anchors = anchoring.indices(profile, "multi_anchor")
    middles = [(one + other) // 2 for one, other in pairwise(anchors) if other - one > 1]
    return sorted({0, *video.spread(middles, most), profile.clips.frames - 1})


def of_clips(
    profile: Profile, clips: Sequence[Clip], rows: Sequence[str], columns: int = 2, width: int = 144
) -> Image.Image:
    """Several clips: a row a clip, and for each of `rows` a group of `columns` moments."""
    moments = video.evenly(columns, profile.clips.frames)
    table = []
    for clip in clips:
        shown = [row for row in rows if available(profile, clip, row)]
        table.append((clip.id, [f for row in shown for f in frames(profile, clip, row, moments)]))
    return video.contact_sheet(table, width)


def frames(profile: Profile, clip: Clip, row: str, moments: Sequence[int]) -> list[np.ndarray]:
    """The clip's frames at `moments`, uint8 [H, W, 3]; grey where a frame has no anchor."""
    if row == "anchors":
        empty = np.full((profile.clips.height, profile.clips.width, 3), EMPTY, np.uint8)
        files = [anchoring.path(profile, clip, moment) for moment in moments]
        return [video.image(file) if file.is_file() else empty for file in files]
    return video.at(_stream(profile, clip, row), moments)


def available(profile: Profile, clip: Clip, row: str) -> bool:
    """Whether there is something to show in a row."""
    return _path(profile, clip, row).exists()


def beside(profile: Profile, clip: Clip, rows: Sequence[str] = BESIDE) -> Iterator[np.ndarray]:
    """Those of `rows` that there are, side by side under their labels, frame by frame, uint8 [H, W, 3]."""
    parts, methods = [row for row in rows if available(profile, clip, row)], baselines.every(profile)
    width = 2 * profile.clips.width if 2 * profile.clips.width <= WIDEST else min(profile.clips.width, WIDEST)
    for frames in zip(*(_stream(profile, clip, row) for row in parts), strict=True):
        shown = {methods[row].label: frame for row, frame in zip(parts, frames, strict=True)}
        yield video.side_by_side(shown, width)


def _path(profile: Profile, clip: Clip, row: str) -> Path:
    """The video of a row, or the folder of its pictures."""
    if row == "anchors":
        return anchoring.path(profile, clip, 0).parent
    if row in LABELS:
        return structure.path(profile, "edges" if row == "edge_map" else "depth", clip)
    return baselines.every(profile)[row].path(profile, clip)


def _stream(profile: Profile, clip: Clip, row: str) -> Iterator[np.ndarray]:
    if row in LABELS:
        return video.stream(_path(profile, clip, row))
    return baselines.every(profile)[row].stream(profile, clip)


def _item(profile: Profile, clip: Clip, path: Path, rows: Sequence[str], settings: dict) -> stage.Item[Clip]:
    """A picture or video of those of `rows` that are there."""
    files = {row: _path(profile, clip, row) for row in rows if available(profile, clip, row)}
    inputs = {row: store.fingerprint(file) for row, file in files.items()}
    settings = {**settings, "source_frames": clip.source_frames}
    return stage.Item(path, store.Recipe("sheets", VERSION, settings, inputs), clip)


def _drawing(profile: Profile, columns: int, width: int) -> stage.Make[Clip]:
    return lambda item, path: of_clip(profile, item.subject, ROWS, columns, width).save(path)


def _copying(profile: Profile) -> stage.Make[Clip]:
    return lambda item, path: video.write_viewing_copy(
        path, beside(profile, item.subject), profile.clips.fps, quality=QUALITY
    )
