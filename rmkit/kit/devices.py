"""What training asks of a machine: checks before a model is loaded, and accelerate's set-up (ours).

Reads the profile and what accelerate's launcher sets in the environment. Writes nothing.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rmkit.errors import InputError
from rmkit.kit import models
from rmkit.profile import Profile

if TYPE_CHECKING:
    from accelerate import Accelerator


def require(profile: Profile) -> None:
    """Raise InputError where the settings under `train` ask for what is not here: before a model is loaded."""
    settings, on_cpu = profile.train, models.device(profile).type == "cpu"
    in_8_bit = settings.optimizer == "adamw8bit"
    if in_8_bit and (on_cpu or not importlib.util.find_spec("bitsandbytes")):
        raise InputError(
            "train.optimizer is 'adamw8bit', which needs a CUDA GPU and the package bitsandbytes "
            "(pip install bitsandbytes): install it, or set it to 'adamw'."
        )
    if settings.tensorboard and not importlib.util.find_spec("tensorboard"):
        raise InputError("train.tensorboard needs the package tensorboard: pip install tensorboard.")
    if _is_sharded():
        if on_cpu:  # accelerate would train copies there, without a word
            raise InputError("a model is sharded (FSDP) on CUDA GPUs only: launch the training without it.")
        if os.environ.get("FSDP_VERSION") != "2":
            raise InputError(
                "this FSDP is not version 2: launch with `--config_file rmkit/method/fsdp.yaml`."
            )
        if settings.base == "fp8" or in_8_bit:
            raise InputError(
                "a sharded model (FSDP) takes neither train.base 'fp8' nor train.optimizer 'adamw8bit': set them "
                "to 'full' and 'adamw', or launch with `--multi_gpu`."
            )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch % processes:
        raise InputError(
            f"train.batch is {settings.batch} and {processes} processes share it: make it a multiple of them."
        )


def accelerator(profile: Profile, folder: Path) -> "Accelerator":
    """Accelerate for one process or several, by the profile's type and device; events go to `folder`/tensorboard."""
    import torch
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # Accelerate keeps the first call's precision for the process; a notebook may go through two profiles.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Sharded weights travel in their own types and autocast does the rest, as without FSDP; accelerate's own policy
    # would round the timestep to bfloat16 on the way in.
    policy = MixedPrecisionPolicy()
    return Accelerator(
        mixed_precision="bf16" if models.dtype(profile) == torch.bfloat16 else "no",
        fsdp_plugin=FullyShardedDataParallelPlugin(mixed_precision_policy=policy) if _is_sharded() else None,
        cpu=models.device(profile).type == "cpu",
        log_with="tensorboard" if profile.train.tensorboard else None,
        project_dir=folder / "tensorboard",
    )


def _is_sharded() -> bool:
    """Whether the launcher asked for FSDP: each GPU holds a part of the frozen weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
