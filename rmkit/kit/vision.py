"""A vision model in transformers' format that frames are shown to, whatever the metric asks of it.

Reads the model's folder or hub name; writes nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rmkit.errors import InputError

if TYPE_CHECKING:
    import torch


class VisionModel:
    """The model in float32 on its device, and frames as its preprocessor normalises them."""

    def __init__(self, cls: Any, what: str, name: str, commit: str | None, device: Any, **options: Any):
        """`cls` loads `name`, a folder or a hub name with its commit; `what` names it in errors.

        Raises InputError when it cannot be loaded or weights are missing.
        """
        import torch
        import transformers
        from transformers import ViTImageProcessorPil

        transformers.utils.logging.disable_progress_bar()
        where = {"revision": commit} if commit else {}
        try:
            self.model, loaded = cls.from_pretrained(
                name, **where, **options, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
            processor = ViTImageProcessorPil.from_pretrained(name, **where)
        except OSError as error:
            raise InputError(f"{what} {name} cannot be loaded: {error}") from None
        if loaded["missing_keys"]:
            raise InputError(f"{what} {name} lacks weights, {min(loaded['missing_keys'])} among them.")
        self.model.eval().to(device)
        self.device = torch.device(device)
        self.mean, self.std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (processor.image_mean, processor.image_std)
        )

    def pixels(self, frames: Sequence[np.ndarray]) -> "torch.Tensor":
        """Pictures uint8 [H, W, 3] of one size, normalised: float32 [N, 3, H, W]."""
        import torch

        stacked = torch.from_numpy(np.stack(frames)).to(self.device).permute(0, 3, 1, 2)
        return (stacked.float() / 255 - self.mean) / self.std


class Classifier(VisionModel):
    """One that tells classes apart; `what` names it in errors."""

    what = "the classifier"

    def __init__(self, name: str, commit: str | None, device: "torch.device | str" = "cpu"):
        """`name` is a folder, or a hub name with its commit. Raises InputError when weights are missing."""
        from transformers import AutoModelForImageClassification

        super().__init__(AutoModelForImageClassification, self.what, name, commit, device)

    def logits(self, frames: Sequence[np.ndarray]) -> "torch.Tensor":
        """Of pictures uint8 [H, W, 3] of one size: float64 [N, classes]."""
        import torch

        with torch.inference_mode():
            return self.model(self.pixels(frames)).logits.double()
