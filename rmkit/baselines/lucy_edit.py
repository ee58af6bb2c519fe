"""LucyEdit: an outside method, text-guided editing of videos by a model of 5 billion weights (paper, 4.1 and B.3).

The stock `LucyEditPipeline` with its authors' defaults. Reads validation clips; gives outside.py their edited frames.
Open in the paper and ours: a clip of another shape than 480x832 is shown as large as fits, on black, and cut out again;
one longer than 81 frames is edited in windows of 81, the last ending with the clip.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from PIL import Image

from rmkit.baselines import framing, outside
from rmkit.kit import models, store, video
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

NAME, LABEL = "lucy_edit", "LucyEdit"
VERSION = 1


def why_not(profile: Profile) -> str | None:
    """See `outside.Method`, as for all below."""
    return outside.why_unasked(profile, NAME)


def usd(profile: Profile, count: int) -> float:
    return 0.0


def check(profile: Profile, count: int) -> None:
    models.check(profile, NAME)
    models.require_gpu(profile, "LucyEdit")


def recipe(profile: Profile, clip: Clip) -> store.Recipe:
    return store.Recipe(
        stage=NAME,
        version=VERSION,
        settings={**profile.baselines.lucy_edit.model_dump(exclude={"model"}), "dtype": profile.models.dtype},
        inputs={"clip": store.fingerprint(sampling.path(profile, clip))},
        seed=store.seed_for(profile.seed, NAME, clip.id),
        model=models.fingerprint(profile, NAME),
    )


@contextmanager
def editing(profile: Profile) -> Iterator[outside.Edit]:
    """Raises InputError when the size it is to work at is no multiple of the model's cells."""
    pipeline = models.load_lucy_edit(profile)
    settings = profile.baselines.lucy_edit
    size = (settings.height, settings.width)
    misfit = f"baselines.lucy_edit: {size[0]}x{size[1]} does not fit this model"
    models.require_cells(pipeline, *size, misfit)

    def one_pass(frames: np.ndarray, seed: int) -> np.ndarray:
        output = pipeline(
            video=[Image.fromarray(frame) for frame in frames],
            prompt=settings.prompt,
            negative_prompt="",  # its authors'
            height=settings.height,
            width=settings.width,
            num_frames=len(frames),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            max_sequence_length=models.text_length(pipeline),
            generator=models.generator(seed),
            output_type="np",
        )
        return video.to_uint8(output.frames[0])

    def edit(clip: Clip, seed: int) -> np.ndarray:
        frames = video.read(sampling.path(profile, clip))
        return framing.edited(partial(one_pass, seed=seed), frames, size, settings.frames)

    yield edit
