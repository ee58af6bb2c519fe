"""Sampling: fixed-length clips from recorded sequences (paper, 3.3 and B.1).

Reads the data set (`sources`); writes `clips/<id>.mp4` (16 fps, lossless) and `clips/clips.json`. A clip has 4k+1
frames, never crosses a hard cut, and repeats each 8 fps frame to reach 16 fps; a faster source's are chosen from.
"""

import functools
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from rmkit import sources
from rmkit.errors import InputError
from rmkit.kit import stage, store, video
from rmkit.kit.progress import track
from rmkit.profile import Profile

VERSION = 2


@dataclass(frozen=True)
class Clip:
    """One clip and where it came from; the video itself is at `path(profile, clip)`."""

    id: str
    split: str  # train or validation
    sequence: str
    source_frames: tuple[int, ...]  # distinct frames of the sequence, in order
    caption: str
    subsets: tuple[str, ...] = ()


def sample(profile: Profile) -> list[Clip]:
    """Choose the profile's clips of both splits, store them, and write the manifest; returns all clips.

    Raises InputError when the data set is missing or gives fewer clips than the profile asks for.
    """
    counts = {"train": profile.data.train_clips, "validation": profile.data.validation_clips}
    chosen = [pair for split, count in counts.items() if count for pair in _choose(profile, split, count)]
    items = []
    for sequence, clip in chosen:
        inputs = sequence.fingerprints(clip.source_frames)
        recipe = store.Recipe("clips", VERSION, profile.clips.model_dump(), inputs)
        items.append(stage.Item(path(profile, clip), recipe, (sequence, clip)))
    stage.run("clips", items, functools.partial(_ready, profile), profile.clips.raw_bytes)
    clips = [clip for _, clip in chosen]
    store.write_json(profile.layout.clips / "clips.json", [asdict(clip) for clip in clips])
    return clips


def load(profile: Profile, split: str | None = None) -> list[Clip]:
    """Clips of the manifest, all or of one split; raises InputError before 01_data_prep has run."""
    manifest = profile.layout.clips / "clips.json"
    if not manifest.is_file():
        raise InputError(f"{manifest} does not exist: run 01_data_prep (or `make reproduce`) first.")
    entries = json.loads(manifest.read_text())
    for entry in entries:
        entry["source_frames"] = tuple(entry["source_frames"])
        entry["subsets"] = tuple(entry["subsets"])
    return [Clip(**entry) for entry in entries if split in (None, entry["split"])]


def path(profile: Profile, clip: Clip) -> Path:
    """Where the sampled clip is stored."""
    return profile.layout.clips / f"{clip.id}.mp4"


def check(profile: Profile, clips: Iterable[Clip]) -> None:
    """Raise InputError unless every clip is stored with the size, length and rate of the profile."""
    wanted = profile.clips
    for clip in clips:
        info = video.probe(path(profile, clip))
        found = (info.frames, info.height, info.width, info.fps)
        if found != (wanted.frames, wanted.height, wanted.width, wanted.fps):
            raise InputError(
                f"{path(profile, clip)} has {info.frames} frames of {info.height}x{info.width} at "
                f"{float(info.fps):g} a second and the profile says {wanted.frames} of "
                f"{wanted.height}x{wanted.width} at {wanted.fps}: run 01_data_prep again."
            )


def sequence_of(profile: Profile, clip: Clip) -> sources.Sequence:
    """The recorded sequence that a clip was cut from; raises InputError when the data set has it no more."""
    for sequence in sources.sequences(profile, clip.split):
        if sequence.id == clip.sequence:
            return sequence
    raise InputError(
        f"clip {clip.id} comes from {clip.sequence}, which the data set lacks: run 01_data_prep again."
    )


def find_cuts(frames: Iterable[np.ndarray], ratio: float, fps: int) -> list[int]:
    """Indices of first frames after a hard cut, by PySceneDetect's adaptive detector.

    A cut changes `ratio` times as much as the two frames before it and after it do: shadows that jump and
    cameras that move fast change every frame and are no cuts. A cut with fewer frames around it is not seen.
    """
    detector = AdaptiveDetector(adaptive_threshold=ratio, min_scene_len=2, window_width=2)
    cuts: list[int] = []
    for i, frame in enumerate(frames):
        found = detector.process_frame(FrameTimecode(i, Fraction(fps)), frame[..., ::-1])
        cuts += [cut.frame_num for cut in found]
    return cuts


def repeat(frames: np.ndarray, times: int, count: int) -> np.ndarray:
    """Each frame `times` times, then cut to `count`: [D, ...] -> [count, ...] (paper, 3.3)."""
    return frames.repeat(times, axis=0)[:count]


def distinct(count: int, times: int) -> int:
    """How many source frames a clip of `count` frames needs when each is shown `times` times."""
    return -(-count // times)


def repeats(clip: Clip, count: int) -> int:
    """How many times each source frame of a clip of `count` frames is shown."""
    return next(n for n in range(1, count + 1) if distinct(count, n) <= len(clip.source_frames))


def crop_to(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Centre crop, never a stretch: [F, H, W, 3] -> [F, height, width, 3] (ours: 1280 to 1200)."""
    h, w = frames.shape[1:3]
    if h < height or w < width:
        raise InputError(
            f"source frames are {h}x{w} and the profile asks for {height}x{width} (height x width); "
            "choose a smaller clip size."
        )
    top, left = (h - height) // 2, (w - width) // 2
    return frames[:, top : top + height, left : left + width]


def offsets(profile: Profile, source_fps: int) -> list[int]:
    """Source frames of a clip, counted from its first: what is on screen when each is due, so time is not stretched.

    A slower source's are shown several times (paper, 3.3), of a faster one's some are left out (ours): at 20 frames a second
    every fifth, for clips of 16. Raises InputError for a slower source whose rate does not divide the clips'.
    """
    fps = profile.clips.fps
    if source_fps < fps and fps % source_fps:
        raise InputError(
            f"clips.fps is {fps} and the source has {source_fps} frames a second: a slower source's frames "
            "are repeated a whole number of times, so clips.fps must be a multiple of the source's."
        )
    times = max(fps // source_fps, 1)
    return [k * times * source_fps // fps for k in range(distinct(profile.clips.frames, times))]


def _choose(profile: Profile, split: str, count: int) -> list[tuple[sources.Sequence, Clip]]:
    """`count` clips at even distances among all that the split offers (paper, 4.1), none across a cut."""
    candidates = []
    for sequence in track(sources.sequences(profile, split), f"cuts of {split}"):
        shown = offsets(profile, sequence.fps)
        need = shown[-1] + 1
        cuts = find_cuts(sequence.stream(), profile.data.cut_ratio, sequence.fps)
        for first, end in itertools.pairwise([0, *cuts, len(sequence)]):
            for start in range(first, end - need + 1, need):
                candidates.append((sequence, _clip(sequence, [start + offset for offset in shown])))
    if len(candidates) < count:
        raise InputError(
            f"data.source {profile.data.source} gives {len(candidates)} {split} clips of {profile.clips.frames} frames "
            f"and the profile asks for {count}: lower data.{split}_clips."
        )
    return [candidates[i] for i in video.evenly(count, len(candidates))]


def _clip(sequence: sources.Sequence, frames: list[int]) -> Clip:
    caption, subsets = "", ()
    for entry in sequence.captions:
        if entry["first_frame"] <= frames[0]:
            caption, subsets = entry["caption"], tuple(entry["subsets"])
    return Clip(
        id=f"{sequence.id}_{frames[0]:06d}",
        split=sequence.split,
        sequence=sequence.id,
        source_frames=tuple(frames),
        caption=caption,
        subsets=subsets,
    )


def _ready(profile: Profile) -> stage.Make[tuple[sources.Sequence, Clip]]:
    """What cuts one clip out of its sequence."""

    def make(item: stage.Item[tuple[sources.Sequence, Clip]], temporary: Path) -> None:
        sequence, clip = item.subject
        frames = sequence.frames(clip.source_frames)  # [D, h, w, 3]
        frames = crop_to(frames, profile.clips.height, profile.clips.width)
        frames = repeat(frames, repeats(clip, profile.clips.frames), profile.clips.frames)  # [F, H, W, 3]
        video.write(temporary, frames, profile.clips.fps)

    return make
