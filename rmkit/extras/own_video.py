"""A video of the user's own made realistic, whatever its length, size and frame rate: `rmkit enhance IN OUT`.

Reads a video or a folder of them, and an adapter. Writes videos of the same frames at the same times, of the same size and
in the same colours, with the sound copied, and beside each `<name>.preview.mp4`, which shows the input on the left. No
frame is added or dropped, whatever `clips.fps` the adapter was trained at.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmkit.errors import InputError
from rmkit.extras import outputs, pace, rewrite, windows
from rmkit.kit import accelerators, encode, footage, models, stage, store, video
from rmkit.kit.footage import Footage
from rmkit.kit.progress import duration, track
from rmkit.method import enhance, lora, training, wan
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline

VERSION = 3
EVERY = 60.0  # seconds between two lines of progress inside a video


@dataclass(frozen=True)
class Job:
    """A video to enhance, the first frames of the windows it is enhanced in, the prompt, and the size to work at."""

    source: Path
    shot: Footage
    first: tuple[int, ...]
    prompt: str
    height: int
    width: int

    @property
    def is_smaller(self) -> bool:
        return (self.height, self.width) != (self.shot.height, self.shot.width)


def enhance_video(
    profile: Profile,
    source: Path,
    target: Path,
    folder: Path | None = None,
    prompt: str | None = None,
    height: int | None = None,
    force: bool = False,
) -> list[Path]:
    """Enhance a video into `target`, or all videos of a folder into a folder; returns the paths, in order.

    folder: the adapter's, with one subfolder an expert (default: the profile's own run). height: lines to work at, where
    the video has more; the output has the input's. force: files that the kit has not made are replaced. Finished videos are
    left alone. Raises InputError, before a model is loaded, when there is no video, when one cannot be read to its end,
    when its sound does not fit into the output, when something of the user's would be replaced, when the adapter is
    missing, foreign or unfit, when the prompt is too long, when the output cannot be written, and when the disk has no room.
    """
    folder = folder or profile.layout.adapters / training.NAME
    if profile.enhance.overlap >= profile.clips.frames - 1:
        raise InputError(
            f"enhance.overlap is {profile.enhance.overlap} and must be less than clips.frames - 1 "
            f"({profile.clips.frames - 1}): windows of that length would not move on."
        )
    made = outputs.places(source, target)
    shots = {place.source: footage.scan(place.source) for place in track(made, "reading", every=10.0)}
    notes = {place.source: rewrite.check(shots[place.source], place.out) for place in made}
    models.check(profile, "wan")
    adapter = enhance.check_adapter(profile, folder)
    said, items = prompt or profile.train.prompt, []
    for place in made:
        job = _job(profile, shots[place.source], said, height)
        items.append(stage.Item(place.out, _recipe(profile, job, adapter), job))
    missing = [place for place, item in zip(made, items, strict=True) if not item.is_done]
    outputs.protect(missing, force)
    for parent in {place.out.parent for place in missing}:
        store.require_writable(parent)
    for place in missing:
        if notes[place.source]:
            print(f"{place.source.name}: {notes[place.source]}", flush=True)
    # A byte a pixel: several times what H.264 takes.
    largest = max(shot.frames * shot.height * shot.width for shot in shots.values())
    todo = [item.subject for item in items if not item.is_done]
    where = {"the prompt" if prompt else "train.prompt": said}
    ready = functools.partial(_ready, profile, folder, where, todo)
    return stage.run("", items, ready, largest, str(models.device(profile)))


def _job(profile: Profile, shot: Footage, prompt: str, height: int | None) -> Job:
    first = windows.starts(_whole(shot.frames), profile.clips.frames, profile.enhance.overlap)
    if height is not None and height < 16:
        raise InputError(f"--height is {height} and must be 16 or more.")
    lines = min(height or shot.height, shot.height)
    return Job(shot.path, shot, tuple(first), prompt, lines, max(1, round(shot.width * lines / shot.height)))


def _ready(profile: Profile, folder: Path, said: Mapping[str, str], jobs: Sequence[Job]) -> stage.Make[Job]:
    enhance.check_prompts(profile, said)
    pipeline = enhance.load(profile, folder)
    embeddings = functools.cache(functools.partial(encode.text, pipeline))
    negative = enhance.negative(profile, pipeline)
    _tell(profile, pipeline, folder, jobs, embeddings(jobs[0].prompt), negative)

    def make(item: stage.Item[Job], temporary: Path) -> dict[str, Any]:
        job, out = item.subject, item.path
        text = embeddings(job.prompt)
        made = enhanced(profile, pipeline, job, text, negative, item.recipe.seed)
        rewrite.write(temporary, made, job.shot)
        pairs = zip(video.stream(job.source), video.stream(temporary), strict=True)
        preview = outputs.preview_of(out)
        with store.replacing(preview) as beside:
            rewrite.write(beside, (np.hstack(pair) for pair in pairs), job.shot, streams=False)
        print(f"{out} (beside the input: {preview.name})")
        return {"windows": len(job.first), **outputs.record(out, [temporary, preview])}

    return make


def _tell(
    profile: Profile,
    pipeline: "WanPipeline",
    folder: Path,
    jobs: Sequence[Job],
    text: "torch.Tensor",
    negative: "torch.Tensor | None",
) -> None:
    """Say what is about to be done and how long it will take here."""
    expert = wan.experts(profile)[0]
    known = lora.check(profile, folder / expert.name, expert, enhance.training_mode(enhance.mode(profile)))
    trained = {key: known.get(key, getattr(profile.clips, key)) for key in ("frames", "height", "width")}
    largest = max(jobs, key=lambda job: job.height * job.width)
    length = min(profile.clips.frames, max(_whole(job.shot.frames) for job in jobs))
    speed = pace.measure(profile, pipeline, text, negative, length, largest.height, largest.width)
    steps, times = profile.enhance.steps, []
    print("the adapter was trained on clips of {frames} frames of {width}x{height}".format(**trained))
    for job in jobs:
        count = len(job.first)
        times.append(speed.seconds(job.height, job.width, count, steps))
        at = f", worked at {job.width}x{job.height}" if job.is_smaller else ""
        print(
            f"{job.source.name}: {job.shot}{at}, {count} window{'s' * (count > 1)} x {steps} steps, about "
            f"{duration(times[-1])} here",
            flush=True,
        )
    if len(jobs) > 1:
        print(f"{len(jobs)} videos, about {duration(sum(times))} here", flush=True)
    if max(times) > 600 and largest.height > trained["height"]:
        print(
            f"--height {trained['height']} works at the size of the training and returns to the input's",
            flush=True,
        )


def enhanced(
    profile: Profile,
    pipeline: "WanPipeline",
    job: Job,
    text: "torch.Tensor",
    negative: "torch.Tensor | None",
    seed: int,
) -> Iterator[np.ndarray]:
    """Frames of the enhanced video, uint8 [H, W, 3], window by window; text and negative [1, T, D]."""
    made = _windows(profile, pipeline, job, text, negative, models.generator(seed))
    for number, frame in enumerate(windows.joined(made, job.first, profile.enhance.overlap)):
        if number < job.shot.frames:  # the rest repeats the last
            yield video.resized(frame[: job.height, : job.width], job.shot.height, job.shot.width)


def _windows(
    profile: Profile,
    pipeline: "WanPipeline",
    job: Job,
    text: "torch.Tensor",
    negative: "torch.Tensor | None",
    generator: "torch.Generator",
) -> Iterator[np.ndarray]:
    """Enhanced windows, uint8 [F, H, W, 3] each, sides padded as the model needs."""
    import torch

    experts, first, noise, passes = enhance.transformers(pipeline), job.first, None, []
    length = min(profile.clips.frames, _whole(job.shot.frames))
    calls = profile.enhance.steps * (1 if negative is None else 2) * len(first)
    ticks = track(range(calls), job.source.name, every=EVERY)
    next(ticks)
    shown = (video.resized(frame, job.height, job.width) for frame in video.stream(job.source))
    for number, frames in enumerate(_stretches(shown, first, length)):
        frames = padded(frames, models.cell(pipeline))
        after = None if number + 1 == len(first) else first[number + 1] - first[number]
        with (
            enhance.seeing(profile, pipeline, frames) as reference,
            windows.blended(experts, passes, after, lambda: next(ticks, None)) as passes,
        ):
            shape = list(reference.shape)  # [1, C, F, H, W]
            step = 0 if noise is None else (first[number] - first[number - 1]) // windows.STRIDE
            # A frame has one noise, in whichever window it is seen.
            shared = [] if noise is None else [noise[:, :, step:]]
            shape[2] = step or shape[2]
            noise = torch.cat([*shared, torch.randn(shape, generator=generator)], dim=2)
            latents = enhance.sample(
                profile, pipeline, frames.shape[:3], text, negative, latents=noise, output_type="latent"
            )
        yield encode.frames(pipeline, latents)


def padded(frames: np.ndarray, multiple: int) -> np.ndarray:
    """Frames uint8 [F, H, W, 3] with the last row and column repeated until both sides are multiples."""
    height, width = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def _stretches(frames: Iterator[np.ndarray], first: Sequence[int], length: int) -> Iterator[np.ndarray]:
    """Windows of a video, uint8 [length, H, W, 3] each, read once; its last frame is repeated as needed."""
    held: list[np.ndarray] = []
    for at, after in zip(first, [*first[1:], None], strict=True):
        while len(held) < length:
            held.append(next(frames, held[-1] if held else None))
        yield np.stack(held)
        held = held[after - at :] if after is not None else []


def _whole(frames: int) -> int:
    """The length of 4k+1 frames that so many are filled up to."""
    return frames + (1 - frames) % windows.STRIDE


def _recipe(profile: Profile, job: Job, adapter: dict[str, str]) -> store.Recipe:
    return store.Recipe(
        stage=outputs.STAGE,
        version=VERSION,
        settings={
            **profile.enhance.model_dump(),
            "frames": profile.clips.frames,
            "prompt": job.prompt,
            "mode": enhance.mode(profile),
            **models.settings(profile, "wan"),
            **accelerators.settings(profile, "wan"),
            "quality": rewrite.QUALITY,
            **({"height": job.height} if job.is_smaller else {}),
        },
        inputs={"video": store.fingerprint(job.source)} | adapter,
        seed=store.seed_for(profile.seed, "film", job.source.name),
        model=models.fingerprint(profile, "wan"),
    )
