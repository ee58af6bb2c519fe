"""A video of the user's own made realistic, whatever its length, size and frame rate: `rmkit enhance IN OUT`.

Reads a video or a folder of them, and an adapter. Writes mp4 files of the same length, size and frame rate with the
sound copied, and beside each `<name>.preview.mp4`, which shows the input on the left. No frame is added or dropped,
whatever `clips.fps` the adapter was trained at.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmkit.errors import InputError
from rmkit.extras import windows
from rmkit.kit import accelerators, encode, models, stage, store, video
from rmkit.kit.progress import track
from rmkit.method import enhance, training
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline

VERSION = 2
ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
PREVIEW = ".preview.mp4"
QUALITY = 12  # crf of the output: no loss that a person sees


@dataclass(frozen=True)
class Job:
    """A video to enhance, the first frames of the windows it is enhanced in, and the prompt."""

    source: Path
    info: video.VideoInfo
    first: tuple[int, ...]
    prompt: str


def enhance_video(
    profile: Profile,
    source: Path,
    target: Path,
    folder: Path | None = None,
    prompt: str | None = None,
) -> list[Path]:
    """Enhance a video into `target`, or all videos of a folder into a folder; returns the paths, in order.

    folder: the adapter's, with one subfolder an expert (default: the profile's own run). Finished videos are left
    alone. Raises InputError, before a model is loaded, when there is no video, when its sound does not fit into mp4,
    when the adapter is missing, foreign or unfit, when the prompt is too long, and when the disk has no room.
    """
    folder = folder or profile.layout.adapters / training.NAME
    if profile.enhance.overlap >= profile.clips.frames - 1:
        raise InputError(
            f"enhance.overlap is {profile.enhance.overlap} and must be less than clips.frames - 1 "
            f"({profile.clips.frames - 1}): windows of that length would not move on."
        )
    files = _files(source, target)
    infos = {path: video.probe(path) for path, _ in files}
    for path, info in infos.items():
        if info.sound and info.sound not in video.MP4_SOUND:
            raise InputError(
                f"{path} has sound as {info.sound}, which mp4 does not hold: convert it first, as by "
                f"`ffmpeg -i {path.name} -c:v copy -c:a aac {path.stem}.mp4`."
            )
    models.check(profile, "wan")
    adapter, items = enhance.check_adapter(profile, folder), []
    for path, out in files:
        first = windows.starts(_whole(infos[path].frames), profile.clips.frames, profile.enhance.overlap)
        job = Job(path, infos[path], tuple(first), prompt or profile.train.prompt)
        items.append(stage.Item(out, _recipe(profile, job, adapter), job))
    # A byte a pixel: several times what H.264 takes.
    largest = max(info.frames * info.height * info.width for info in infos.values())
    said = {"the prompt" if prompt else "train.prompt": prompt or profile.train.prompt}
    ready = functools.partial(_ready, profile, folder, said)
    return stage.run("", items, ready, largest, str(models.device(profile)))


def _ready(profile: Profile, folder: Path, said: Mapping[str, str]) -> stage.Make[Job]:
    enhance.check_prompts(profile, said)
    pipeline = enhance.load(profile, folder)
    embeddings = functools.cache(functools.partial(encode.text, pipeline))
    negative = enhance.negative(profile, pipeline)

    def make(item: stage.Item[Job], temporary: Path) -> dict[str, int]:
        job, out, count = item.subject, item.path, len(item.subject.first)
        print(
            f"{job.source.name}: {job.info.frames} frames of {job.info.width}x{job.info.height} at "
            f"{float(job.info.fps):g} fps, {count} window{'s' * (count > 1)} x {profile.enhance.steps} steps"
        )
        text = embeddings(job.prompt)
        made = enhanced(profile, pipeline, job, text, negative, item.recipe.seed)
        sound = job.source if job.info.sound else None
        video.write_viewing_copy(temporary, made, job.info.fps, quality=QUALITY, sound=sound)
        pairs = zip(video.stream(job.source), video.stream(temporary), strict=True)
        preview = out.with_suffix(PREVIEW)
        video.write_viewing_copy(preview, (np.hstack(pair) for pair in pairs), job.info.fps)
        print(f"{out} (beside the input: {preview.name})")
        return {"windows": count}

    return make


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
        if number < job.info.frames:  # the rest repeats the last
            yield frame[: job.info.height, : job.info.width]


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
    length = min(profile.clips.frames, _whole(job.info.frames))
    calls = profile.enhance.steps * (1 if negative is None else 2) * len(first)
    ticks = track(range(calls), "enhance")
    next(ticks)
    for number, frames in enumerate(_stretches(video.stream(job.source), first, length)):
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


def _files(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs of input and output; raises InputError where there is nothing to read or two would be one."""
    if source.is_dir():
        if target.suffix:
            raise InputError(f"{source} is a folder, so {target} must be one too.")
        found = sorted(p for p in source.iterdir() if p.suffix.lower() in ENDINGS)
        found = [p for p in found if not p.name.startswith(".") and not p.name.endswith(PREVIEW)]
        if not found:
            raise InputError(f"{source} holds no video ({', '.join(ENDINGS)}).")
        jobs = [(path, target / f"{path.stem}.mp4") for path in found]
    else:
        jobs = [(source, target / f"{source.stem}.mp4" if target.is_dir() else target)]
    for path, out in jobs:
        if out.suffix != ".mp4":
            raise InputError(f"{out} must end in .mp4: nothing else is written.")
        if out.resolve() == path.resolve():
            raise InputError(f"{path} would be written over: give another output.")
    if len({out for _, out in jobs}) < len(jobs):
        raise InputError(f"{source} holds two videos of one name that differ in their ending: rename one.")
    return jobs


def _recipe(profile: Profile, job: Job, adapter: dict[str, str]) -> store.Recipe:
    return store.Recipe(
        stage="own video",
        version=VERSION,
        settings={
            **profile.enhance.model_dump(),
            "frames": profile.clips.frames,
            "prompt": job.prompt,
            "mode": enhance.mode(profile),
            **models.settings(profile, "wan"),
            **accelerators.settings(profile, "wan"),
            "quality": QUALITY,
        },
        inputs={"video": store.fingerprint(job.source)} | adapter,
        seed=store.seed_for(profile.seed, "film", job.source.name),
        model=models.fingerprint(profile, "wan"),
    )
