"""Checkpoints of a training: all that a killed run needs to end as one never killed, in one safetensors file.

Reads and writes `adapters/<name>/<expert>.checkpoint.safetensors`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rmkit import store
from rmkit.record import Record

if TYPE_CHECKING:
    import torch


def save(
    path: Path,
    recipe: store.Recipe,
    parameters: dict[str, "torch.Tensor"],
    optimizer: "torch.optim.Optimizer",
    record: Record,
) -> None:
    """Adapter, optimiser state and record (so the step) in one file; random numbers need no state."""
    import torch
    from safetensors.torch import save_file

    tensors = record.tensors()
    for name, parameter in parameters.items():
        tensors[f"adapter.{name}"] = parameter.detach()
        for moment, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{moment}.{name}"] = torch.as_tensor(value)
    with store.writing(path, recipe, step=record.steps) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


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
    tensors = load_file(path)
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"adapter.{name}"])
    places = {name: i for i, name in enumerate(parameters)}
    state: dict[int, dict] = {i: {} for i in places.values()}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            moment, _, name = rest.partition(".")
            # A count that was a plain number is one again: bitsandbytes takes no other.
            state[places[name]][moment] = value.item() if value.dtype == torch.int64 else value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return Record.of(tensors)
