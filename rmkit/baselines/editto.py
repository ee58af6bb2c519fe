"""Editto: an external method, Ditto's LoRA for "simulation to real" on VACE of 14 billion weights (paper, 4.1 and B.3).

Its authors' defaults: the source clip as VACE's video, all of it to be generated (a white mask), 73 frames at 480x832.
Reads validation clips and the LoRA; gives their edited frames. Open in the paper and ours: a clip of another
shape is shown as large as fits, on black, and cut out again; one longer than 73 frames is edited in windows of 73 from
the same noise, the last ending with the clip (`frames: 81` makes one pass of the paper's clips); UniPC, as diffusers
ships VACE, in place of the authors' Euler steps.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import Field

from rmkit.baselines import PROMPT, Edit, Made
from rmkit.baselines.framing import PassSettings, by_passes
from rmkit.errors import InputError
from rmkit.kit import models, prompts, video, weights
from rmkit.profile import WAN_NEGATIVE_PROMPT, Profile
from rmkit.settings import Shift

if TYPE_CHECKING:
    import torch
    from diffusers import WanVACEPipeline

# The file names its modules as the trainer DiffSynth does; diffusers' loader would know none of them.
RENAMED = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
PREFIX = "transformer."


class EdittoSettings(PassSettings):
    """The authors' defaults."""

    model: str = Field(description="folder or hub name that holds the LoRA; its base is models.vace")
    file: str = Field("models/ditto_sim2real.safetensors", description="the LoRA in it")
    prompt: str = Field(
        PROMPT, description='paper, B.3; its authors say "Turn it into the real domain" for sim2real'
    )
    frames: int = Field(73, ge=1, le=10_001, description="most frames a pass (authors': 73)")
    shift: Shift = Field(5.0, description="flow shift (authors': 5)")


class Editto(Made):
    """Runs where the profile has `baselines.editto`."""

    name, label, colour, marker = "editto", "Editto", "#1B9E77", "p"
    group, on_device = EdittoSettings, True

    def check(self, profile: Profile, count: int) -> None:
        models.check(profile, "vace")
        _require_fit(profile)
        said = {"baselines.editto.prompt": self.settings(profile).prompt}
        said |= {"Editto's own negative prompt": WAN_NEGATIVE_PROMPT}
        prompts.check(models.vace_tokenizer(profile), said)
        models.require_gpu(profile, "Editto")

    def depends_on(self, profile: Profile) -> dict[str, Any]:
        ours = {"negative_prompt": WAN_NEGATIVE_PROMPT, **models.settings(profile, "vace")}
        return super().depends_on(profile) | ours

    def fingerprint(self, profile: Profile) -> str:
        return "+".join([_file(profile)[1], models.fingerprint(profile, "vace")])

    def ready(self, profile: Profile) -> Edit:
        """Raises InputError when the size it is to work at is no multiple of the model's cells."""
        import torch

        settings, pipeline = self.settings(profile), load(profile)
        with torch.no_grad():
            positive, negative = pipeline.encode_prompt(
                settings.prompt,
                negative_prompt=WAN_NEGATIVE_PROMPT,
                do_classifier_free_guidance=settings.guidance > 1,
                max_sequence_length=models.text_length(pipeline.tokenizer),
            )

        def one_pass(frames: np.ndarray, seed: int) -> np.ndarray:
            output = pipeline(
                video=[Image.fromarray(frame) for frame in frames],
                mask=[Image.new("RGB", frames.shape[2:0:-1], "white")] * len(frames),
                height=settings.height,
                width=settings.width,
                num_frames=len(frames),
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=models.generator(seed),
                output_type="np",
                prompt_embeds=positive,
                negative_prompt_embeds=negative,
            )
            return video.to_uint8(output.frames[0])

        return by_passes(profile, settings, one_pass)


METHOD = Editto()


def load(profile: Profile) -> "WanVACEPipeline":
    """VACE with the LoRA in it at full strength."""
    settings = METHOD.settings(profile)
    pipeline = models.load_vace(profile)
    misfit = f"baselines.editto: {settings.height}x{settings.width} does not fit models.vace"
    models.require_cells(pipeline, settings.height, settings.width, misfit)
    models.set_flow_shift(pipeline, settings.shift)
    pipeline.load_lora_weights(tensors(_file(profile)[0]), adapter_name="editto")
    return pipeline


def tensors(file: Path) -> dict[str, "torch.Tensor"]:
    """The LoRA's tensors under diffusers' names, from DiffSynth's format or diffusers' own."""
    from safetensors.torch import load_file

    return {_renamed(name): tensor for name, tensor in load_file(file).items()}


def _renamed(name: str) -> str:
    """`vace_blocks.0.self_attn.q.lora_A.default.weight` to `transformer.vace_blocks.0.attn1.to_q.lora_A.weight`."""
    if name.startswith(PREFIX):
        return name
    found = re.fullmatch(r"(vace_blocks\.\d+)\.(.+)\.(lora_[AB])(?:\.default)?\.weight", name)
    if not (found and found[2] in RENAMED):
        raise InputError(f"'{name}' is no tensor of a LoRA on VACE's control blocks")
    return f"{PREFIX}{found[1]}.{RENAMED[found[2]]}.{found[3]}.weight"


def _require_fit(profile: Profile) -> None:
    """InputError unless every tensor has its place in VACE: diffusers only warns of names that it does not know."""
    import torch
    from diffusers import WanVACETransformer3DModel
    from safetensors import SafetensorError, safe_open

    file, name = _file(profile)[0], profile.models.vace
    try:
        with safe_open(file, "pt") as content:
            shapes = {_renamed(key): content.get_slice(key).get_shape() for key in content.keys()}
    except (SafetensorError, InputError) as error:
        raise InputError(
            f"baselines.editto: {file} is not Editto's LoRA, or is truncated ({error})."
        ) from None
    root = weights.where(name, "transformer/config.json")
    config = WanVACETransformer3DModel.load_config(root / "transformer")
    with torch.device("meta"):  # without weights
        layers = dict(WanVACETransformer3DModel.from_config(config).named_modules())
    for key, shape in shapes.items():
        module, _, side = key.removesuffix(".weight").rpartition(".lora_")
        layer = layers.get(module.removeprefix(PREFIX))
        axis, size, other = (1, "in_features", "B") if side == "A" else (0, "out_features", "A")
        is_pair = f"{module}.lora_{other}.weight" in shapes
        if shape[axis] != getattr(layer, size, None) or not is_pair:
            raise InputError(
                f"baselines.editto: {file} does not fit models.vace (first: {key}): it was trained on "
                "Wan2.1-VACE-14B."
            )


def _file(profile: Profile) -> tuple[Path, str]:
    """(path, fingerprint) of the LoRA; InputError when it is out of reach."""
    settings = METHOD.settings(profile)
    return weights.lora_file("baselines.editto.model", settings.model, settings.file)


METHODS = (METHOD,)
