"""Checkpoints of a training: all that a killed run needs to end as one never killed, in one safetensors file.

Reads and writes `adapters/<name>/<expert>.checkpoint.safetensors`. Of a model shared out among GPUs (FSDP) it holds the
whole, so that any number of them can go on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rmkit.kit import store
from rmkit.method.record import Record

if TYPE_CHECKING:
    import torch


def tensors(
    parameters: dict[str, "torch.Tensor"], optimizer: "torch.optim.Optimizer", record: Record
) -> dict[str, "torch.Tensor"]:
    """Adapter, optimiser state and record (so the step), whole and on the CPU; every process must ask for them."""
    import torch

    found = record.tensors()
    for name, parameter in parameters.items():
        found[f"adapter.{name}"] = whole(parameter.detach())
        for moment, value in optimizer.state[parameter].items():
            found[f"optimizer.{moment}.{name}"] = whole(torch.as_tensor(value))
    return {name: tensor.cpu().contiguous() for name, tensor in found.items()}


def whole(tensor: "torch.Tensor") -> "torch.Tensor":
    """A tensor as it would be on one GPU: gathered from all of them where it is sharded."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def save(path: Path, recipe: store.Recipe, found: dict[str, "torch.Tensor"], step: int) -> None:
    """Write what `tensors` found after `step` steps; random numbers need no state."""
    from safetensors.torch import save_file

    with store.writing(path, recipe, step=step) as temporary:
        save_file(found, temporary)


def resume(
    path: Path,
    recipe: store.Recipe,
    parameters: dict[str, "torch.Tensor"],
    optimizer: "torch.optim.Optimizer",
) -> Record:
    """Put the checkpoint of the same recipe back and return the record so far, an empty one when there is none."""
    import torch
    from safetensors.torch import load_file

    if not store.is_done(path, recipe):
        return Record()
    store.require_whole(path)
    found = load_file(path)
    for name, parameter in parameters.items():
        parameter.data.copy_(_shared_out(found[f"adapter.{name}"], parameter))
    places = {name: i for i, name in enumerate(parameters)}
    state: dict[int, dict] = {i: {} for i in places.values()}
    for key, value in found.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            moment, _, name = rest.partition(".")
            # A count that was a plain number is one again: bitsandbytes takes no other.
            plain = value.item() if value.dtype == torch.int64 else _shared_out(value, parameters[name])
            state[places[name]][moment] = plain
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return Record.of(found)


def _shared_out(value: "torch.Tensor", parameter: "torch.Tensor") -> "torch.Tensor":
    """A whole tensor sharded as its parameter is, if it is one; counts are not."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or value.dim() == 0:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
