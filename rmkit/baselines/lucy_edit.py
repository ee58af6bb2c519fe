"""LucyEdit: an external method, text-guided editing of videos by a model of 5 billion weights (paper, 4.1 and B.3).

The stock `LucyEditPipeline` with its authors' defaults. Reads validation clips; gives their edited frames.
Open in the paper and ours: a clip of another shape than 480x832 is shown as large as fits, on black, and cut out again;
one longer than 81 frames is edited in windows of 81, the last ending with the clip.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import Field

from rmkit.baselines import Edit, Made
from rmkit.baselines.framing import PassSettings, by_passes
from rmkit.kit import models, prompts, video, weights
from rmkit.profile import Profile

if TYPE_CHECKING:
    from diffusers import LucyEditPipeline

KEY = "baselines.lucy_edit.model"  # in the profile


class LucyEditSettings(PassSettings):
    """The authors' defaults."""

    model: str = Field(description="folder or hub name of the LucyEdit pipeline")


class LucyEdit(Made):
    """Runs where the profile has `baselines.lucy_edit`."""

    name, label, colour, marker = "lucy_edit", "LucyEdit", "#B15928", ">"
    group, on_device = LucyEditSettings, True

    def check(self, profile: Profile, count: int) -> None:
        settings = self.settings(profile)
        weights.pipeline_folder(KEY, settings.model)
        prompts.check(settings.model, {"baselines.lucy_edit.prompt": settings.prompt})
        models.require_gpu(profile, "LucyEdit")

    def depends_on(self, profile: Profile) -> dict[str, Any]:
        return super().depends_on(profile) | models.settings(profile, "wan")

    def fingerprint(self, profile: Profile) -> str:
        return weights.pipeline_fingerprint(KEY, self.settings(profile).model)

    def load(self, profile: Profile) -> "LucyEditPipeline":
        """The stock pipeline, where the profile computes."""
        from diffusers import LucyEditPipeline

        return models.load(profile, LucyEditPipeline, self.settings(profile).model)

    def ready(self, profile: Profile) -> Edit:
        """Raises InputError when the size it is to work at is no multiple of the model's cells."""
        settings, pipeline = self.settings(profile), self.load(profile)
        misfit = f"baselines.lucy_edit: {settings.height}x{settings.width} does not fit this model"
        models.require_cells(pipeline, settings.height, settings.width, misfit)

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
                max_sequence_length=models.text_length(pipeline.tokenizer),
                generator=models.generator(seed),
                output_type="np",
            )
            return video.to_uint8(output.frames[0])

        return by_passes(profile, settings, one_pass)


METHODS = (LucyEdit(),)
