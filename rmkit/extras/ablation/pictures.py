"""Pictures of a choice: columns under headings, differences, a wipe, anchors marked, a table of metrics; and their export.

Reads what `choice` does; writes results/<profile>/lab/exported/ when asked. Frames are uint8 [F, H, W, 3].
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from rmkit.baselines import truth
from rmkit.evaluation import sheets
from rmkit.extras.ablation import choice as choices
from rmkit.extras.ablation import results
from rmkit.extras.ablation.choice import Choice, Condition
from rmkit.kit import store, video
from rmkit.profile import Profile

ANCHOR = (213, 94, 0)  # the line around an anchor's frame
GAIN = 4  # of differences, which are small
WIDEST = 640  # pixels of a picture sent to a browser

Columns = dict[str, np.ndarray]  # frames by heading


def columns(
    profile: Profile,
    choice: Choice,
    given: Condition,
    result: np.ndarray | None,
    own: np.ndarray | None = None,
) -> Columns:
    """All that there is to see of a choice; result: None where it has not been generated; own: the profile's, to compare."""
    render = choices.render(choice)
    blank = np.full_like(render, sheets.EMPTY)
    found = {
        "Render": render,
        "Control video": given.video,
        "Mask": given.mask[..., None].repeat(3, axis=-1),
        "Nearest anchor": _nearest(given, len(render)),
        "Result": blank if result is None else result,
    }
    if own is not None:
        found["Profile's own"] = own
    if truth.exists(profile, choice.clip):
        found["Truth"] = choices.true(profile, choice.clip)
    for name in ("render", "truth"):
        if (other := found.get(name.title())) is not None:
            found[f"Difference to {name}"] = blank if result is None else difference(result, other)
    return found


def difference(frames: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean absolute difference over the channels, GAIN times, black where there is none: uint8 grey, [F, H, W, 3]."""
    apart = np.abs(frames.astype(np.int16) - other).mean(axis=-1) * GAIN
    return apart.clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)


def marked(frame: np.ndarray) -> np.ndarray:
    """A frame with a line around it, as that of an anchor."""
    made, line = frame.copy(), max(2, frame.shape[0] // 48)
    made[:line], made[-line:], made[:, :line], made[:, -line:] = ANCHOR, ANCHOR, ANCHOR, ANCHOR
    return made


def wipe(left: np.ndarray, right: np.ndarray, at: float) -> np.ndarray:
    """One frame up to `at` of the width, 0 to 1, the other beyond, and a line between."""
    x = round(at * left.shape[1])
    made = np.concatenate([left[:, :x], right[:, x:]], axis=1)
    made[:, max(0, x - 1) : x] = ANCHOR
    return made


def time_line(choice: Choice, frame: int) -> np.ndarray:
    """A cell a frame, uint8 [1, F, 3]: anchors' in their colour, the one that is shown black."""
    cells = np.full((1, choice.profile.clips.frames, 3), 221, np.uint8)
    cells[0, list(choice.anchors)] = ANCHOR
    cells[0, frame] = 0
    return cells


def png(frame: np.ndarray) -> bytes:
    """A picture as a browser takes it, no wider than WIDEST."""
    picture, file = Image.fromarray(frame), io.BytesIO()
    if picture.width > WIDEST:
        picture.thumbnail((WIDEST, picture.height))
    picture.save(file, "png", compress_level=1)
    return file.getvalue()


def sheet(profile: Profile, choice: Choice, width: int = 288) -> Image.Image:
    """What VACE is given for a choice and what is there of its result: a row a column of the lab, frames across."""
    given = choices.condition(choice)
    path = results.find(profile, choice, given)
    shown = columns(profile, choice, given, None if path is None else choices.read(path))
    moments = sheets.between(profile, 3)
    rows = [(heading, [frames[i] for i in moments]) for heading, frames in shown.items()]
    headings = [f"frame {i}{' (anchor)' if i in choice.anchors else ''}" for i in moments]
    return video.contact_sheet(rows, width, headings=headings)


def export(
    profile: Profile, name: str, shown: Columns, frame: int, table: pd.DataFrame, width: int = 288
) -> list[Path]:
    """Write columns as <name>.mp4, one frame of them as <name>.png, and the table as <name>.csv; returns the paths.

    Raises InputError for a name that no file can have.
    """
    store.require_name(name)
    folder = choices.folder(profile) / "exported"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "mp4", "csv")]
    every = [dict(zip(shown, moment, strict=True)) for moment in zip(*shown.values(), strict=True)]
    Image.fromarray(video.side_by_side(every[frame], width)).save(paths[0])
    video.write_viewing_copy(
        paths[1], (video.side_by_side(moment, width) for moment in every), profile.clips.fps
    )
    store.write_text(paths[2], table.to_csv(index_label="metric", lineterminator="\n"))
    return paths


def _nearest(given: Condition, count: int) -> np.ndarray:
    """For each frame the picture of the anchor that is nearest in time; grey without any."""
    if not given.anchors:
        return np.full_like(given.video, sheets.EMPTY)
    return np.stack([given.anchors[min(given.anchors, key=lambda at: abs(at - i))] for i in range(count)])
