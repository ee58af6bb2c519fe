"""Depth estimated from pictures by Depth Anything, where a data set has none of its own (ours).

Reads the checkpoint at `structure.depth_model`; writes nothing.
"""

from collections.abc import Callable

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, weights
from rmkit.profile import Profile

Estimate = Callable[[np.ndarray], np.ndarray]  # frames uint8 [F, H, W, 3] to disparity float32 [F, H, W]


def estimator(profile: Profile) -> Estimate:
    """Load transformers' DepthAnythingForDepthEstimation, whose disparity is known up to its scale.

    Raises InputError when the checkpoint is not there.
    """
    import torch
    from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

    name, commit = source(profile)
    processor = DPTImageProcessorPil.from_pretrained(name, revision=commit or "main")
    # float32: depth steps of half precision show as bands, and the model is small.
    model = DepthAnythingForDepthEstimation.from_pretrained(
        name, use_safetensors=True, revision=commit or "main"
    )
    model.eval().to(models.device(profile))
    # Relative checkpoints predict disparity, metric ones metres.
    is_metric = model.config.depth_estimation_type == "metric"

    @torch.inference_mode()
    def estimate(frame: np.ndarray) -> np.ndarray:
        inputs = processor(images=frame, return_tensors="pt").to(model.device)
        predicted = model(**inputs).predicted_depth  # [1, h, w]
        sized = torch.nn.functional.interpolate(
            predicted[:, None].float(), size=frame.shape[:2], mode="bicubic", align_corners=False
        )
        values = sized[0, 0].cpu().numpy()
        return disparity_of(values) if is_metric else values

    return lambda frames: np.stack([estimate(frame) for frame in frames])


def disparity_of(depth: np.ndarray) -> np.ndarray:
    """1/z of depth in metres, float32; the sky (no hit: zero, negative or not finite) is infinitely far."""
    hit = np.isfinite(depth) & (depth > 0)
    return np.where(hit, 1.0 / np.where(hit, depth, 1.0), 0.0).astype(np.float32)


def source(profile: Profile) -> tuple[str, str | None]:
    """(folder or hub name, commit) of the depth estimator; InputError when it is not there."""
    name = profile.structure.depth_model
    if not name:
        raise InputError(
            "structure.depth is 'depth_anything' and structure.depth_model is empty: name a folder or hub "
            "name of a Depth Anything checkpoint in transformers' format, or set depth to 'engine'."
        )
    return weights.single("structure.depth_model", name)
