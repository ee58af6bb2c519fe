"""Contact sheets and viewing copies: the same frames of a clip from every method, for the eye.

Reads clips, anchors, structure, propagated, enhanced and the truth; writes sheets/<clip>.png and
viewing/<clip>.mp4 (render | RealMaster | truth). The lossless clips are for metrics; these are for people.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rmkit import baselines
from rmkit.kit import store, video
from rmkit.kit.progress import track
from rmkit.method import anchoring, structure
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

VERSION = 1
ROWS = ("render", "anchors", "multi_anchor", "depth", "edges", "realmaster", "truth")
LABELS = {"anchors": "Anchors", "edge_map": "Edge map", "depth_map": "Depth map"}  # rows that are no method
EMPTY = 238  # grey of a frame that has no anchor


def save(profile: Profile, clips_: Sequence[Clip], columns: int = 4, width: int = 288) -> list[Path]:
    """Write a sheet and a viewing copy of each clip; returns the sheets' paths."""
    paths = []
    for clip in track(clips_, "contact sheets"):
        rows = [row for row in ROWS if available(profile, clip, row)]
        sheet = profile.layout.root / "sheets" / f"{clip.id}.png"
        recipe = _recipe(profile, clip, rows, {"columns": columns, "width": width})
        if not store.is_done(sheet, recipe):
            with store.writing(sheet, recipe) as temporary:
                of_clip(profile, clip, rows, columns, width).save(temporary)
        copy = viewing_copy(profile, clip)
        recipe = _recipe(profile, clip, [row for row in rows if row in BESIDE], {"beside": BESIDE})
        if not store.is_done(copy, recipe):
            with store.writing(copy, recipe) as temporary:
                scale = 2 if profile.clips.width <= 480 else 1
                video.write_viewing_copy(temporary, beside(profile, clip), profile.clips.fps, scale)
        paths.append(sheet)
    return paths


BESIDE = ("render", "realmaster", "truth")


def of_clip(
    profile: Profile, clip: Clip, rows: Sequence[str] = ROWS, columns: int = 5, width: int = 144
) -> Image.Image:
    """One clip: a row a method (and 'anchors', 'edge_map', 'depth_map'), a column a moment, ends included."""
    moments = video.evenly(columns, profile.clips.frames)
    rows = [row for row in rows if available(profile, clip, row)]
    labels = LABELS | {name: method.label for name, method in baselines.every(profile).items()}
    return video.contact_sheet([(labels[row], frames(profile, clip, row, moments)) for row in rows], width)


def of_clips(
    profile: Profile, clips_: Sequence[Clip], rows: Sequence[str], columns: int = 2, width: int = 144
) -> Image.Image:
    """Several clips: a row a clip, and for each of `rows` a group of `columns` moments."""
    moments = video.evenly(columns, profile.clips.frames)
    table = []
    for clip in clips_:
        shown = [row for row in rows if available(profile, clip, row)]
        table.append((clip.id, [f for row in shown for f in frames(profile, clip, row, moments)]))
    return video.contact_sheet(table, width)


def frames(profile: Profile, clip: Clip, row: str, moments: Sequence[int]) -> list[np.ndarray]:
    """The clip's frames at `moments`, uint8 [H, W, 3]; grey where a frame has no anchor."""
    if row == "anchors":
        empty = np.full((profile.clips.height, profile.clips.width, 3), EMPTY, np.uint8)
        files = [anchoring.path(profile, clip, moment) for moment in moments]
        return [video.image(file) if file.is_file() else empty for file in files]
    wanted = dict.fromkeys(moments)
    for i, frame in enumerate(_stream(profile, clip, row)):
        if i in wanted:
            wanted[i] = frame
    return [wanted[moment] for moment in moments]


def available(profile: Profile, clip: Clip, row: str) -> bool:
    """Whether there is something to show in a row."""
    if row == "anchors":
        return anchoring.path(profile, clip, 0).is_file()
    return _path(profile, clip, row).is_file()


def viewing_copy(profile: Profile, clip: Clip) -> Path:
    """Where the side by side copy of a clip is."""
    return profile.layout.root / "viewing" / f"{clip.id}.mp4"


def beside(profile: Profile, clip: Clip) -> np.ndarray:
    """Render, RealMaster and truth side by side, uint8 [F, H, 3W, 3] (without a truth, 2W)."""
    parts = [row for row in BESIDE if available(profile, clip, row)]
    return np.concatenate([np.stack(list(_stream(profile, clip, row))) for row in parts], axis=2)


def _path(profile: Profile, clip: Clip, row: str) -> Path:
    if row in ("edge_map", "depth_map"):
        return structure.path(profile, "edges" if row == "edge_map" else "depth", clip)
    return baselines.every(profile)[row].path(profile, clip)


def _stream(profile: Profile, clip: Clip, row: str):
    methods = baselines.every(profile)
    return methods[row].stream(profile, clip) if row in methods else video.stream(_path(profile, clip, row))


def _recipe(profile: Profile, clip: Clip, rows: Sequence[str], settings: dict) -> store.Recipe:
    inputs = {row: store.fingerprint(_path(profile, clip, row)) for row in rows if row != "anchors"}
    if "anchors" in rows:
        inputs["anchors"] = store.fingerprint(anchoring.path(profile, clip, 0).parent)
    return store.Recipe("sheets", VERSION, {**settings, "source_frames": clip.source_frames}, inputs)
