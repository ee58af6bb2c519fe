"""Rendered sequences as arrays for training: both looks, depth, captions, face boxes.

Reads `<rendered>/<split>/<sequence>/{render,truth}.mp4, {depth,visible,surface}.npy, meta.json` as render.py wrote
them; writes nothing. Only the pretrain split is for training; validation is for the held-out figures on the cards.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from world import KEPT, clear_number

from rmkit.kit import video
from rmkit.kit.depth import disparity_of
from rmkit.method import propagation, structure
from rmkit.profile import Structure

STRUCTURE = Structure(edges="gradient")  # as in the mini profile
GREY = 128  # nearest to the 0 that VACE puts where nothing is known


WINDOW = (80, 128)  # pixels
NEAR = 128  # half of the nearest point's disparity
OTHERS = 100  # added to the numbers of another clip's objects; no clip has so many
FAR = 3000  # metres, likewise to its surfaces' points
STILLS = (0, 8, 16)  # frames of a shot, the ones that `render.py --every 8` makes
LOOKS = ("render", "truth", "depth", "edges", "objects", "surface")  # of a shot


@dataclass(frozen=True)
class Shot:
    """One clip of 17 distinct frames, each array [17, 96, 144, 3 or 1], uint8 but for the surface, and what the engine knows."""

    sequence: str
    render: np.ndarray
    truth: np.ndarray
    depth: np.ndarray  # grey, near is white
    edges: np.ndarray  # black lines on white
    objects: np.ndarray  # numbers, one channel
    surface: np.ndarray  # float32 points in metres of the part they are on (looks.py), 0 in the sky
    caption: str
    weather: str
    faces: tuple[tuple[tuple[float, float, float, float], ...], ...]  # boxes by frame
    first_frame: int = 0  # of the sequence


def load(rendered: Path, split: str, limit: int | None = None, kept: bool = False) -> list[Shot]:
    """All finished shots of a split, in order of their sequences; of those kept apart, or of all others."""
    shots: list[Shot] = []
    for folder in sorted(p for p in (rendered / split).iterdir() if (p / "meta.json").exists()):
        if (split == "pretrain" and int(folder.name.rpartition("_")[2]) in KEPT) != kept:
            continue
        meta = json.loads((folder / "meta.json").read_text())
        render, truth = (video.read(folder / f"{look}.mp4") for look in ("render", "truth"))
        metres = np.load(folder / "depth.npy", allow_pickle=False).astype(np.float32)
        objects = np.load(folder / "visible.npy", allow_pickle=False)[..., None]
        surface = np.load(folder / "surface.npy", mmap_mode="r", allow_pickle=False)
        for shot in meta["shots"]:
            frames = slice(shot["first_frame"], shot["first_frame"] + shot["frames"])
            boxes = tuple(
                tuple(tuple(face["box"]) for face in faces if face["visibility"] > 0.5)
                for faces in meta["faces"][frames]
            )
            shots.append(
                Shot(
                    meta["sequence"],
                    render[frames],
                    truth[frames],
                    structure.disparity_video(disparity_of(metres[frames])),
                    structure.edges(render[frames], STRUCTURE),
                    objects[frames],
                    surface[frames],
                    shot["caption"],
                    shot["weather"],
                    boxes,
                    shot["first_frame"],
                )
            )
        if limit and len(shots) >= limit:
            break
    return shots


def scene(shot: Shot) -> int:
    """Number of the sequence that shows the shot's scene in clear weather: the same for all of its weathers."""
    return clear_number(number(shot))[0]


def in_clear(shots: list[Shot]) -> list[int]:
    """For each shot the place in the list of the same moment in clear weather; its own where there is no other."""
    moments = [(scene(shot), shot.first_frame) for shot in shots]
    clear = {m: i for i, (shot, m) in enumerate(zip(shots, moments, strict=True)) if number(shot) == m[0]}
    return [clear.get(moment, i) for i, moment in enumerate(moments)]


def number(shot: Shot) -> int:
    """Of the shot's sequence."""
    return int(shot.sequence.rpartition("_")[2])


def mirrored(shot: Shot) -> Shot:
    """Left and right exchanged in all that is seen."""
    width = shot.truth.shape[2]
    looks = {name: np.ascontiguousarray(getattr(shot, name)[:, :, ::-1]) for name in LOOKS}
    faces = tuple(tuple((width - x1, y0, width - x0, y1) for x0, y0, x1, y1 in boxes) for boxes in shot.faces)
    return replace(shot, **looks, faces=faces)


def backwards(shot: Shot) -> Shot:
    """Last frame first."""
    return _shown(shot, np.arange(len(shot.truth))[::-1])


def stills(shot: Shot) -> list[Shot]:
    """Three of its frames, each as a shot of one."""
    return [_shown(shot, np.array([frame])) for frame in STILLS]


def slowed(shot: Shot, rng: np.random.Generator) -> Shot:
    """One to five neighbouring frames shown as long as the whole shot: a calm clip, or a still."""
    length = len(shot.truth)
    count = int(rng.choice((1, 2, 3, 5)))
    first = int(rng.integers(length - count + 1))
    return _shown(shot, first + np.arange(length) * count // length)


def varied(shot: Shot, rng: np.random.Generator) -> Shot:
    """Mirrored and backwards at random, and mostly in other colours, of which the caption no longer tells.

    The edges stay, which are the render's. All of the clip is turned in hue, or every object apart from the others and in
    brightness too: neither can then be known by heart from the edges.
    """
    if rng.random() < 0.5:
        shot = mirrored(shot)
    if rng.random() < 0.5:
        shot = backwards(shot)
    kind = rng.choice(["as it is", "turned", "by object"], p=[0.2, 0.3, 0.5])
    if kind == "as it is":
        return shot
    if kind == "turned":
        return replace(shot, truth=in_hues(shot.truth, *_colouring(rng, 0.3)), caption="")
    truth = shot.truth.copy()
    for number in np.unique(shot.objects):
        where = shot.objects[..., 0] == number
        truth[where] = in_hues(truth[where], *_colouring(rng, 0.6))
    return replace(shot, truth=truth, caption="")


def _colouring(rng: np.random.Generator, spread: float) -> tuple[float, float, float]:
    """A turn of hue, a saturation and a gamma, of a logarithm up to `spread`."""
    return rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1), np.exp(rng.uniform(-spread, spread))


def in_front_of(front: Shot, back: Shot) -> Shot:
    """What stands near in one clip before another clip: outlines and moves that were seen, never seen together."""
    near = front.depth[..., :1] > NEAR
    front = replace(front, objects=front.objects + np.uint8(OTHERS), surface=front.surface + np.float32(FAR))
    looks = {name: np.where(near, getattr(front, name), getattr(back, name)) for name in LOOKS}
    looks["edges"] = structure.edges(looks["render"], STRUCTURE)
    return replace(back, **looks, caption="", faces=((),) * len(near))


def adrift(shot: Shot, rng: np.random.Generator) -> Shot:
    """All that is seen moves across the frame in a straight line, a pixel at a time, and nothing is where it has left.

    At one end of the clip it is moved a quarter as far at most: there it can mostly be seen.
    """
    height, width = shot.truth.shape[1:3]
    ends = rng.uniform(-1, 1, (2, 2)) * (height / 2, width)
    ends[rng.integers(2)] /= 4
    path = np.rint(np.linspace(*ends, len(shot.truth))).astype(int)
    # As through a window that moves the other way, over the clip in a margin of nothing.
    margin = ((0, 0), (height, height), (width, width), (0, 0))
    amid_nothing = replace(shot, **{name: np.pad(getattr(shot, name), margin) for name in LOOKS})
    return _through(amid_nothing, (height, width) - path, (height, width))


def in_hues(frames: np.ndarray, turn: float, saturation: float, gamma: float) -> np.ndarray:
    """Hues turned by an angle in radians about grey in YIQ, and toned: uint8 [..., 3] -> the same."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    c, s = saturation * np.cos(turn), saturation * np.sin(turn)
    matrix = np.linalg.inv(to_yiq) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ to_yiq
    toned = (frames / np.float32(255)) ** np.float32(gamma)
    return np.rint((toned @ matrix.T.astype(np.float32)).clip(0, 1) * 255).astype(np.uint8)


def enlarged(shot: Shot, factor: float) -> Shot:
    """All that is seen that many times as large, for a window to move over faster."""
    height, width = shot.truth.shape[1:3]
    size = round(width * factor), round(height * factor)

    def larger(name: str) -> np.ndarray:
        how = cv2.INTER_NEAREST if name in ("objects", "surface") else cv2.INTER_CUBIC
        frames = [cv2.resize(f, size, interpolation=how) for f in getattr(shot, name)]
        return np.stack(frames).reshape(len(frames), size[1], size[0], -1)

    looks = {name: larger(name) for name in LOOKS}
    looks["edges"] = structure.edges(looks["render"], STRUCTURE)
    return replace(shot, **looks, faces=((),) * len(shot.truth))


def window(shot: Shot, rng: np.random.Generator, size: tuple[int, int] = WINDOW) -> Shot:
    """What a window of so many pixels sees that moves over the clip in a straight line, a pixel at a time."""
    corners = []
    for all_, part in zip(shot.truth.shape[1:3], size, strict=True):
        first, last = rng.integers(all_ - part + 1, size=2)
        corners.append(np.rint(np.linspace(first, last, len(shot.truth))).astype(int))
    return _through(shot, np.stack(corners, -1), size)


def _through(shot: Shot, corners: np.ndarray, size: tuple[int, int]) -> Shot:
    """What a window of so many pixels sees, whose top left is, frame by frame, in the rows of `corners`."""
    height, width = size

    def seen(frames: np.ndarray) -> np.ndarray:
        return np.stack([f[y : y + height, x : x + width] for f, (y, x) in zip(frames, corners, strict=True)])

    looks = {name: seen(getattr(shot, name)) for name in LOOKS}
    return replace(shot, **looks, faces=((),) * len(shot.truth))


def _shown(shot: Shot, frames: np.ndarray) -> Shot:
    """The frames of these numbers in all that is seen."""
    looks = {name: getattr(shot, name)[frames] for name in LOOKS}
    return replace(shot, **looks, faces=tuple(shot.faces[i] for i in frames))


def repeated(frames: np.ndarray) -> np.ndarray:
    """8 fps to 16 fps as the pipeline does it: [D, ...] -> [2D - 1, ...], the last frame once."""
    return frames.repeat(2, axis=0)[:-1]


def known_frames(kind: str, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Which of `frames` (16 fps, repeated) are anchors: bool [frames], one of a distinct frame's two, as the pipeline chooses.

    Kinds: 'ends' and 'multi' are the pipeline's; 'random' any subset of the distinct frames.
    """
    distinct = (frames + 1) // 2
    known = np.zeros(distinct, bool)
    if kind == "ends":
        known[[0, -1]] = True
    elif kind == "multi":
        known[[*range(0, distinct, 4), distinct - 1]] = True  # every half second at 8 fps
    else:
        known[rng.random(distinct) < rng.uniform(0, 0.6)] = True
    places = [propagation.place(2 * int(frame), frames, 2) for frame in np.flatnonzero(known)]
    return np.isin(np.arange(frames), places)


def crop(
    shot: Shot, kind: str, frame: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Top left of a crop; half of the time it is centred near a face, which are hard and matter."""
    height, width = size
    top = int(rng.integers(0, 96 - height + 1))
    left = int(rng.integers(0, 144 - width + 1))
    boxes = shot.faces[frame]
    if boxes and kind in ("truth", "render") and rng.random() < 0.5:
        x0, y0, x1, y1 = boxes[int(rng.integers(len(boxes)))]
        top = int(np.clip((y0 + y1) / 2 - height / 2 + rng.uniform(-8, 8), 0, 96 - height))
        left = int(np.clip((x0 + x1) / 2 - width / 2 + rng.uniform(-8, 8), 0, 144 - width))
    return top, left
