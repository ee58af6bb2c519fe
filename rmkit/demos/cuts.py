"""Clips whose end is cut off, and clips with a hard cut inside, through RealMaster (paper, 3.2; the second is ours).

The pipeline needs the first and the last frame of a shot; the trained model is said to need neither. Reads a few validation
clips, their truth and what RealMaster made of them whole; writes to results/<profile>/limits/: clips/ and enhanced/. Every
difference stands beside a ruler: what another seed changes.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmkit import baselines
from rmkit.baselines import truth
from rmkit.demos import objects
from rmkit.evaluation.statistics import REFERENCE
from rmkit.kit import stage, store, video
from rmkit.method import enhance, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

VERSION = 1
COUNT = 6  # clips (ours)
KEPT = 2 / 3  # of a clip, where its end is cut off (ours)
NEAR = 4  # frames on each side that stand beside a cut
CUT, JOINED, RESEEDED = f"{REFERENCE}_cut", f"{REFERENCE}_joined", f"{REFERENCE}_reseeded"
METHODS = (CUT, JOINED, RESEEDED)


class Trial(NamedTuple):
    """A clip, the one that is joined to it, and the three that are made of them."""

    clip: Clip
    other: Clip
    cut: Clip
    joined: Clip
    reseeded: Clip


def trials(profile: Profile) -> list[Trial]:
    """COUNT validation clips at even distances, each with the next of them; none where RealMaster has not been run."""
    there = [clip for clip in sampling.load(profile, "validation") if _whole(profile, clip).is_file()]
    chosen, found = video.spread(there, COUNT) if len(there) > 1 else [], []
    for clip, other in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        times = sampling.repeats(clip, profile.clips.frames)
        left = clip.source_frames[: sampling.distinct(kept(profile.clips.frames), times)]
        cut, joined = replace(clip, id=f"{clip.id}_cut", source_frames=left), f"{clip.id}_joined"
        found.append(Trial(clip, other, cut, replace(clip, id=joined), clip))
    return found


def make(profile: Profile) -> list[Trial]:
    """Write the cut and joined clips and enhance them, finished ones untouched; returns what there is to compare.

    A joined clip has the caption of its first half: a video with cuts in it has one prompt. Raises InputError as `enhance`.
    """
    found, layout = trials(profile), profile.demo("limits").layout
    items = [_item(profile, layout.clips, trial, each) for trial in found for each in trial[2:]]
    stage.run("cut clips", items, lambda: _write, profile.clips.raw_bytes)
    if found:
        demo = profile.demo("limits")
        short = profile.demo("limits", clips={"frames": kept(profile.clips.frames)})
        other_seed = demo.model_copy(update={"seed": profile.seed + 1})
        wanted = enhance.items(short, [trial.cut for trial in found], into="cut")
        wanted += enhance.items(demo, [trial.joined for trial in found], into="joined")
        wanted += enhance.items(other_seed, [trial.reseeded for trial in found], into="reseeded")
        enhance.make(demo, wanted)
    return found


def kept(frames: int) -> int:
    """Frames of a clip whose end is cut off: about KEPT of them, 4k+1 as the video VAE wants it."""
    return 4 * max(1, round((frames - 1) / 4 * KEPT)) + 1


def half(profile: Profile, clip: Clip) -> int:
    """First frame of the second shot in a joined clip: in the middle, where a source frame begins."""
    times = sampling.repeats(clip, profile.clips.frames)
    return times * (len(clip.source_frames) // 2)


def join(first: np.ndarray, second: np.ndarray, at: int) -> np.ndarray:
    """The first clip up to frame `at`, and the second from there on, each frame at its place: uint8 [F, H, W, 3]."""
    return np.concatenate([first[:at], second[at:]])


def bleed(joined: np.ndarray, uncut: np.ndarray, other: np.ndarray) -> float:
    """How far frames are drawn to the other shot's: 0 not at all, 1 they are it (least squares over pixels).

    joined: as made of the clip with the cut; uncut: as made of each shot alone; other: the other shot's frame beside the
    cut. All uint8 [M, H, W, 3].
    """
    way = other.astype(np.float64) - uncut
    return float((way * (joined.astype(np.float64) - uncut)).sum() / (way**2).sum())


def measured(profile: Profile) -> Iterator[tuple[Clip, str, str, float, str, str]]:
    """What has been made, measured: clip, method, metric, value, fingerprint and commit of the video."""
    folder = profile.demo("limits").layout.enhanced
    for trial in trials(profile):
        files = {
            CUT: folder / "cut" / f"{trial.cut.id}.mp4",
            JOINED: folder / "joined" / f"{trial.joined.id}.mp4",
            RESEEDED: folder / "reseeded" / f"{trial.reseeded.id}.mp4",
            REFERENCE: _whole(profile, trial.clip),
        }
        if all(file.is_file() for file in files.values()):
            made = {name: video.read(file) for name, file in files.items()}
            for method, metric, value in compare(profile, trial, made):
                file = files[method]
                commit = store.read_sidecar(file).get("commit", "unknown")
                yield trial.clip, method, metric, value, store.fingerprint(file), commit


def compare(profile: Profile, trial: Trial, made: dict[str, np.ndarray]) -> Iterator[tuple[str, str, float]]:
    """Method, metric and value of one trial; `made`: frames by method."""
    uncut, frames = made[REFERENCE], len(made[CUT])
    for method in (CUT, RESEEDED):
        change = objects.difference(made[method][:frames], uncut[:frames])
        yield method, "cut_change", float(change.mean())
        yield method, "cut_end_change", float(change[-NEAR:].mean())
    if truth.exists(profile, trial.clip):
        target = np.stack(list(islice(truth.stream(profile, trial.clip), frames)))
        for method in (CUT, RESEEDED, REFERENCE):
            yield method, "cut_error", float(objects.difference(made[method][:frames], target).mean())
    at, folder = half(profile, trial.clip), profile.demo("limits").layout.enhanced / "reseeded"
    second = video.read(_whole(profile, trial.other))
    alone = join(uncut, second, at)
    across = np.concatenate(
        [np.repeat(second[at : at + 1], at, 0), np.repeat(uncut[at - 1 : at], len(uncut) - at, 0)]
    )
    again = join(made[RESEEDED], video.read(folder / f"{trial.other.id}.mp4"), at)
    near = [i for i in range(at - NEAR, at + NEAR) if 0 <= i < len(uncut)]
    far = [i for i in range(len(uncut)) if i not in near]
    for method, shown in ((JOINED, made[JOINED]), (RESEEDED, again)):
        for suffix, chosen in (("", near), ("_far", far)):
            if chosen:
                change = objects.difference(shown[chosen], alone[chosen])
                yield method, f"join_change{suffix}", float(change.mean())
                yield method, f"join_bleed{suffix}", bleed(shown[chosen], alone[chosen], across[chosen])


def _whole(profile: Profile, clip: Clip) -> Path:
    """What RealMaster made of a whole clip."""
    return baselines.every(profile)[REFERENCE].path(profile, clip)


def _item(
    profile: Profile, folder: Path, trial: Trial, clip: Clip
) -> stage.Item[tuple[Profile, Trial, Clip]]:
    inputs = {"clip": store.fingerprint(sampling.path(profile, trial.clip))}
    how = {"frames": profile.clips.frames}
    if clip is trial.cut:
        how = {"frames": kept(profile.clips.frames)}
    if clip is trial.joined:
        inputs["other"] = store.fingerprint(sampling.path(profile, trial.other))
        how["at"] = half(profile, trial.clip)
    recipe = store.Recipe("cuts", VERSION, how, inputs)
    return stage.Item(folder / f"{clip.id}.mp4", recipe, (profile, trial, clip))


def _write(item: stage.Item[tuple[Profile, Trial, Clip]], temporary: Path) -> None:
    profile, trial, clip = item.subject
    source = sampling.path(profile, trial.clip)
    if clip is trial.reseeded:
        shutil.copyfile(source, temporary)
        return
    frames = video.read(source)
    if clip is trial.cut:
        frames = frames[: kept(len(frames))]
    else:
        frames = join(frames, video.read(sampling.path(profile, trial.other)), half(profile, trial.clip))
    video.write(temporary, frames, profile.clips.fps)


def beside(profile: Profile, trial: Trial) -> Sequence[tuple[str, list[np.ndarray]]]:
    """Rows of a sheet: the frames around the cut as given, as made with the cut, and as made of each shot alone."""
    at, demo = half(profile, trial.clip), profile.demo("limits")
    around = (at - 2 * NEAR, at - NEAR, at - 1, at, at + NEAR, at + 2 * NEAR)
    chosen = [i for i in around if 0 <= i < profile.clips.frames]
    alone = (video.read(_whole(profile, clip)) for clip in (trial.clip, trial.other))
    videos = {
        "Render": video.read(sampling.path(demo, trial.joined)),
        "RealMaster, with the cut": video.read(demo.layout.enhanced / "joined" / f"{trial.joined.id}.mp4"),
        "RealMaster, each alone": join(*alone, at),
    }
    return [(label, [frames[i] for i in chosen]) for label, frames in videos.items()]
