"""LucyEdit: an external method, text-guided editing of videos by a model of 5 billion weights (paper, 4.1 and B.3).

The stock `LucyEditPipeline` with its authors' defaults. Reads validation clips; gives their edited frames.
Open in the paper and ours: a clip of another shape than 480x832 is shown as large as fits, on black, and cut out again;
one longer than 81 frames is edited in windows of 81, the last ending with the clip.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from rmkit.baselines import PROMPT, Edit, Made, framing
from rmkit.kit import models, video, weights
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Settings

if TYPE_CHECKING:
    from diffusers import LucyEditPipeline

KEY = "baselines.lucy_edit.model"  # in the profile


class LucyEditSettings(Settings):
    """The authors' defaults."""

    model: str = Field(description="folder or hub name of the LucyEdit pipeline")
    prompt: str = Field(PROMPT, description="paper, B.3")
    height: int = Field(480, ge=16, description="pixels it works at (authors': 480)")
    width: int = Field(832, ge=16, description="pixels it works at (authors': 832)")
    frames: int = Field(81, ge=1, description="most frames a pass (authors': 81)")
    steps: int = Field(50, ge=1, description="denoising steps (authors': 50)")
    guidance: float = Field(5.0, description="1 switches guidance off (authors': 5)")

    _length = field_validator("frames")(framing.require_whole_latents)


class LucyEdit(Made):
    """Runs where the profile has `baselines.lucy_edit`."""

    name, label, colour, marker = "lucy_edit", "LucyEdit", "#B15928", ">"
    group, on_device = LucyEditSettings, True

    def check(self, profile: Profile, count: int) -> None:
        weights.pipeline_folder(KEY, self.settings(profile).model)
        models.require_gpu(profile, "LucyEdit")

    def depends_on(self, profile: Profile) -> dict[str, Any]:
        return super().depends_on(profile) | {"dtype": profile.models.dtype}

    def fingerprint(self, profile: Profile) -> str:
        return weights.pipeline_fingerprint(KEY, self.settings(profile).model)

    def load(self, profile: Profile) -> "LucyEditPipeline":
        """The stock pipeline, where the profile computes."""
        from diffusers import LucyEditPipeline

        return models.load(profile, LucyEditPipeline, self.settings(profile).model)

    def ready(self, profile: Profile) -> Edit:
        """Raises InputError when the size it is to work at is no multiple of the model's cells."""
        settings, pipeline = self.settings(profile), self.load(profile)
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

        return edit


METHODS = (LucyEdit(),)
