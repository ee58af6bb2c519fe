"""What Qwen-Image-Edit, the image editor of the anchors, asks for beside its stock pipeline (ours).

Its working size, its processor where torchvision is absent, weights in 4 bit. Serves `models.load_editor`; reads the model's
folder, writes nothing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.errors import InputError

if TYPE_CHECKING:
    import diffusers
    import torch

DEFAULT_AREA = 1024 * 1024  # pixels at which QwenImageEditPipeline works


@contextmanager
def at_area(pipeline: "diffusers.QwenImageEditPipeline", area: int) -> Iterator[None]:
    """Have the editor work at about `area` pixels instead of one megapixel, inside the block only."""
    module = sys.modules[type(pipeline).__module__]
    original = module.calculate_dimensions

    def calculate_dimensions(target_area: int, ratio: float) -> tuple:
        # The Plus form also asks for a smaller picture for its text encoder: never larger than the edit.
        return original(area if target_area == DEFAULT_AREA else min(target_area, area), ratio)

    module.calculate_dimensions = calculate_dimensions
    try:
        yield
    finally:
        module.calculate_dimensions = original


def nf4(dtype: "torch.dtype") -> Any:
    """How its two large parts are loaded in 4 bit, by bitsandbytes; dtype: what they compute in."""
    from diffusers import PipelineQuantizationConfig

    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    parts = ["transformer", "text_encoder"]
    return PipelineQuantizationConfig("bitsandbytes_4bit", quant_kwargs=options, components_to_quantize=parts)


def processor(root: Path) -> Any:
    """Qwen2VLProcessor without its video part, which needs torchvision; on the folder's settings where it has some."""
    from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen2VLProcessor

    class ImageProcessor(Qwen2VLProcessor):
        # The stock class takes the names of its parts from this signature.
        def __init__(self, image_processor: Any, tokenizer: Any):
            super().__init__(image_processor, tokenizer)

    folder = root / "processor"
    images = (
        Qwen2VLImageProcessorPil.from_pretrained(folder) if folder.is_dir() else Qwen2VLImageProcessorPil()
    )
    return ImageProcessor(images, AutoTokenizer.from_pretrained(root / "tokenizer"))


def check_template(pipeline: Any) -> None:
    """Raise InputError where the pipeline would cut into a prompt: it drops as many tokens ahead of it as Qwen's own makes."""
    dropped = pipeline.prompt_template_encode_start_idx
    system = pipeline.prompt_template_encode.split("<|vision_start|>")[0].split("{}")[0]
    count = len(pipeline.tokenizer(system)["input_ids"])
    if count < dropped:
        raise InputError(
            f"the editor's tokenizer makes {count} tokens of the system prompt and the pipeline drops the "
            f"first {dropped}, which would cut into the prompt: use a tokenizer with a smaller vocabulary."
        )
