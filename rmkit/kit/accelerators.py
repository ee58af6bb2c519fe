"""Accelerators: step-distilled LoRAs by which a model generates in a few steps, without guidance (ours, not the paper's).

Serves the editor, VACE and the Wan pipeline where `models.accelerators` names one. Reads its files; writes nothing. The noise
levels of the steps are part of a distillation, so they are set with it. Also the one way in which LoRA files are put on a
model: diffusers only warns of names that it does not know, so what came in is counted.
"""

import functools
import math
import warnings
from pathlib import Path
from typing import Any, Literal

from rmkit.errors import InputError
from rmkit.kit import weights
from rmkit.profile import Accelerator, Profile

Role = Literal["wan", "vace", "editor"]
NAME = "accelerator"  # of the adapter, among a model's


def of(profile: Profile, role: Role) -> Accelerator | None:
    """What the profile accelerates a role's model by, if it does."""
    return getattr(profile.models.accelerators, role)


def settings(profile: Profile, role: Role) -> dict[str, Any]:
    """What of it decides a result, for a recipe; nothing where there is none. InputError when a file is out of reach."""
    if not (asked := of(profile, role)):
        return {}
    prints = [fingerprint for _, fingerprint in _files(asked, role).values()]
    return {"accelerator": {**asked.model_dump(exclude={"model"}), "files": prints}}


def put_on(profile: Profile, pipeline: Any, role: Role) -> None:
    """Load the profile's accelerator into a pipeline and have it sample at its noise levels; nothing where there is none.

    Raises InputError when a file is missing, broken, or made for another model.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if not (asked := of(profile, role)):
        return
    for part, (file, _) in _files(asked, role).items():
        if getattr(pipeline, part) is None:
            raise InputError(
                f"models.accelerators.{role}.file_2 is for a second expert, and models.{role} has one."
            )
        put_lora_on(pipeline, part, file, NAME)
    if getattr(pipeline, "transformer_2", None) is not None and asked.file_2 is None:
        raise InputError(
            f"models.{role} has two experts: name the second one's in models.accelerators.{role}.file_2."
        )
    if role == "editor":
        # Its pipeline shifts by the picture's size, between two shifts, and is given the levels (anchoring).
        ends = dict.fromkeys(("base_shift", "max_shift"), math.log(asked.shift))
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
            pipeline.scheduler.config, use_dynamic_shifting=True, shift_terminal=None, **ends
        )
    else:
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=asked.shift)
        at_levels = functools.partial(pipeline.scheduler.set_timesteps, sigmas=list(asked.sigmas))
        pipeline.scheduler.set_timesteps = at_levels  # the pipeline asks for a number of steps only


def put_lora_on(pipeline: Any, part: str, file: Path, name: str) -> int:
    """Load a LoRA file into a part of a pipeline, beside those it has, all active; returns the number of adapted modules.

    Any format that diffusers reads. Raises InputError when file and model do not agree on every tensor.
    """
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError

    options = {"weight_name": file.name, "use_safetensors": True}
    second = {"load_into_transformer_2": True} if part == "transformer_2" else {}
    model = getattr(pipeline, part)
    try:
        found = pipeline.lora_state_dict(file.parent, **options)  # under diffusers' names
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two are meant
            pipeline.load_lora_weights(file.parent, adapter_name=name, **options, **second)
        loaded = get_peft_model_state_dict(model, adapter_name=name).keys()
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, AttributeError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{file} does not fit {part}, or is no LoRA that diffusers reads: {said}") from None
    wanted = {key.removeprefix("transformer.") for key in found}
    if loaded != wanted:
        strange = sorted(loaded ^ wanted)
        raise InputError(
            f"{file} does not fit {part}: {len(strange)} of its {len(wanted)} tensors "
            f"find no place or are missing (first: {strange[0]}); it was made for another model."
        )
    if len(model.peft_config) > 1:  # loading activates the new one alone
        model.set_adapters(list(model.peft_config))
    return len({key.rpartition(".lora_")[0] for key in wanted})


def _files(asked: Accelerator, role: Role) -> dict[str, tuple[Path, str]]:
    """(path, fingerprint) of each file, by the part of the pipeline it is for."""
    files = {"transformer": asked.file, "transformer_2": asked.file_2}
    key = f"models.accelerators.{role}"
    return {part: weights.lora_file(key, asked.model, file) for part, file in files.items() if file}
