"""Sampling: fixed-length clips from recorded sequences (paper, 3.3 and B.1).

Reads the data set (`sources`) and its shots; writes `clips/<id>.mp4` (16 fps, lossless) and `clips/clips.json`. A clip has
4k+1 frames, lies within a shot, and repeats each 8 fps frame to reach 16 fps; a faster source's are chosen from.
"""

import functools
import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmkit import sources
from rmkit.errors import InputError
from rmkit.kit import stage, store, video
from rmkit.kit.progress import track
from rmkit.method import shots
from rmkit.paths import Layout
from rmkit.profile import Data, Profile

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


class Chosen(NamedTuple):
    """A clip and the sequence it is cut from."""

    sequence: sources.Sequence
    clip: Clip


# The sequences of a split by id, as looking one up for each of thousands of clips must not read the data set each time.
_known: dict[tuple[Layout, Data, str], dict[str, sources.Sequence]] = {}


def sample(profile: Profile) -> list[Clip]:
    """Choose the profile's clips of both splits, store them, and write the manifest; returns all clips.

    Raises InputError when the data set is missing, has pictures that cannot be used, or gives fewer clips than the profile
    asks for.
    """
    chosen = choose(profile)
    left = missing(profile, chosen)
    store.require_space(profile.layout.clips, sum(map(len, left)) * profile.clips.raw_bytes / 1e9)
    # A sequence at a time, so that pictures are read for their fingerprints shortly before they are read for a clip.
    for group in track(left, "clips, by sequence") if left else ():
        stamps = [each.sequence.stamp(each.clip.source_frames) for each in group]
        items = [stage.Item(path(profile, each.clip), _recipe(profile, each), each) for each in group]
        stage.run("", items, functools.partial(_ready, profile))
        for item, stamp in zip(items, stamps, strict=True):
            if item.is_done:
                # Noted for clips that were done, too: of pictures that were copied only the times differ.
                noted = store.read_sidecar(item.path)
                store.write_json(store.sidecar_of(item.path), noted | {"stamp": stamp})
    clips = [each.clip for each in chosen]
    store.write_json(profile.layout.clips / "clips.json", [asdict(clip) for clip in clips])
    return clips


def choose(profile: Profile) -> list[Chosen]:
    """The profile's clips of both splits, training clips first; no picture is decoded where the cuts are known.

    Sequences that both splits have are left out of training, with a sentence. Raises InputError as `sample`.
    """
    _known.clear()
    train = _sequences(profile, "train") if profile.data.train_clips else {}
    held, chosen = _sequences(profile, "validation"), []
    if both := sorted(train.keys() & held.keys()):
        shown = ", ".join(both[:5]) + (f" and {len(both) - 5} more" if len(both) > 5 else "")
        print(f"left out of training, as the validation split has them too: {shown}", flush=True)
    if profile.data.train_clips:
        apart = [sequence for name, sequence in train.items() if name not in held]
        chosen = _choose(profile, "train", apart, profile.data.train_clips)
    return chosen + _choose(profile, "validation", list(held.values()), profile.data.validation_clips)


def missing(profile: Profile, chosen: list[Chosen]) -> list[list[Chosen]]:
    """Those that are not stored, by sequence; raises InputError for pictures that cannot be used, from their headers."""
    left = [each for each in chosen if not _is_stored(profile, each)]
    by_sequence = [list(group) for _, group in itertools.groupby(left, key=lambda each: each.sequence.id)]
    for group in by_sequence:
        group[0].sequence.check(sorted({index for each in group for index in each.clip.source_frames}))
    return by_sequence


def load(profile: Profile, split: str | None = None) -> list[Clip]:
    """Clips of the manifest, all or of one split; raises InputError before 01_data_prep has run."""
    manifest = profile.layout.clips / "clips.json"
    if not manifest.is_file():
        raise InputError(f"{manifest} does not exist: run 01_data_prep (or `make reproduce`) first.")
    try:
        clips = [_listed(entry) for entry in store.read_json(manifest)]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{manifest} is no listing of clips ({error!r}): delete it and run 01_data_prep again."
        ) from None
    return [clip for clip in clips if split in (None, clip.split)]


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
    found = _sequences(profile, clip.split).get(clip.sequence)
    if found:
        return found
    raise InputError(
        f"clip {clip.id} comes from {clip.sequence}, which the data set lacks: run 01_data_prep again."
    )


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


def shown(profile: Profile, clip: Clip, frames: np.ndarray) -> np.ndarray:
    """A clip's source frames as it shows them, cropped and repeated: [D, h, w, ...] -> [F, H, W, ...]."""
    size = profile.clips
    return repeat(crop_to(frames, size.height, size.width), repeats(clip, size.frames), size.frames)


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


def _sequences(profile: Profile, split: str) -> dict[str, sources.Sequence]:
    """The split's sequences by id, read once a process until clips are chosen again."""
    key = (profile.layout, profile.data, split)
    if key not in _known:
        _known[key] = {sequence.id: sequence for sequence in sources.sequences(profile, split)}
    return _known[key]


def _choose(profile: Profile, split: str, sequences: list[sources.Sequence], count: int) -> list[Chosen]:
    """`count` clips at even distances among all that the split offers (paper, 4.1), none across a cut."""
    shown = {sequence.id: offsets(profile, sequence.fps) for sequence in sequences}
    within = shots.of(profile, split, sequences)
    spare = [len(shot) - shown[name][-1] - 1 for name, found in within.items() for shot in found]
    stride = _stride(profile, split, max((each[-1] + 1 for each in shown.values()), default=1), spare, count)
    candidates = [
        (sequence, start)
        for sequence in sequences
        for shot in within[sequence.id]
        for start in range(shot.start, shot.stop - shown[sequence.id][-1], stride)
    ]
    if len(candidates) < count:
        raise InputError(
            f"data.source {profile.data.source} gives {len(candidates)} {split} clips of {profile.clips.frames} frames "
            f"and the profile asks for {count} (data.stride.{split}: {stride}): lower data.{split}_clips."
        )
    return [
        Chosen(sequence, _clip(sequence, [start + offset for offset in shown[sequence.id]]))
        for sequence, start in video.spread(candidates, count)
    ]


def _stride(profile: Profile, split: str, need: int, spare: list[int], count: int) -> int:
    """Frames from start to start: the profile's, else of training what gives `count`, of validation a clip's `need`."""
    asked = getattr(profile.data.stride, split)
    if split == "validation" and asked and asked < need:
        raise InputError(
            f"data.stride.validation is {asked} and a clip spans {need} frames of the source: benchmark clips must not "
            f"overlap; set it to {need} or more, or leave it out."
        )
    if asked:
        return asked
    return shots.largest_stride(spare, need, count) if split == "train" else need


def _recipe(profile: Profile, chosen: Chosen) -> store.Recipe:
    inputs = chosen.sequence.fingerprints(chosen.clip.source_frames)
    return store.Recipe("clips", VERSION, profile.clips.model_dump(), inputs)


def _is_stored(profile: Profile, chosen: Chosen) -> bool:
    """Whether the clip is done, told without reading its pictures where their files are as they were then."""
    target = path(profile, chosen.clip)
    noted = store.read_sidecar(target)
    if not target.exists() or noted.get("stamp") != chosen.sequence.stamp(chosen.clip.source_frames):
        return False
    return store.is_done(target, store.Recipe("clips", VERSION, profile.clips.model_dump(), noted["inputs"]))


def _listed(entry: dict) -> Clip:
    """A clip as the manifest has it, whose lists are tuples."""
    return Clip(**entry | {name: tuple(entry[name]) for name in ("source_frames", "subsets")})


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


def _ready(profile: Profile) -> stage.Make[Chosen]:
    """What cuts one clip out of its sequence."""

    def make(item: stage.Item[Chosen], temporary: Path) -> None:
        sequence, clip = item.subject
        frames = sequence.frames(clip.source_frames)  # [D, h, w, 3]
        video.write(temporary, shown(profile, clip, frames), profile.clips.fps)

    return make
