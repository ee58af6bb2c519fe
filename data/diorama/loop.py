"""The training loop of the tiny checkpoints: phases of steps, logged, resumed where they were killed.

Reads and writes `<folder>/state/` (weights, optimiser, position) and `<folder>/log.csv`. Every random draw
of a step comes from the phase's and the step's number, so a resumed run draws what an unbroken one would.
"""

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

SAVE_EVERY = 300  # seconds
LOG_EVERY = 100  # steps


@dataclass(frozen=True)
class Phase:
    """A stretch of training: `loss(rng, generator)` gives the loss and the figures worth logging."""

    name: str
    steps: int
    learning_rate: float
    loss: Callable[[np.random.Generator, torch.Generator], tuple[torch.Tensor, dict[str, float]]]
    warmup: float = 0.05


def train(folder: Path, modules: Mapping[str, nn.Module], phases: list[Phase], seed: int = 0) -> list[dict]:
    """Run the phases on the modules' trainable parameters with AdamW; returns the log's rows.

    The learning rate rises linearly over the warm-up share of a phase and falls by a cosine to zero.
    """
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    position, rows = _resume(state, folder / "log.csv", modules)
    for number, phase in enumerate(phases):
        if number < position[0]:
            continue
        first = position[1] if number == position[0] else 0
        parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            parameters, lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0, fused=True
        )
        if first:
            optimiser.load_state_dict(torch.load(state / "optimiser.pt", weights_only=True))
        print(f"{folder.name}/{phase.name}: steps {first} to {phase.steps}", flush=True)
        sums: dict[str, list[float]] = {}
        started = saved = time.time()
        for step in range(first, phase.steps):
            rng = np.random.default_rng((seed, number, step))
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            for group in optimiser.param_groups:
                group["lr"] = phase.learning_rate * _one_cycle(step / phase.steps, phase.warmup)
            loss, figures = phase.loss(rng, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            for key, value in {"loss": loss.item(), **figures}.items():
                sums.setdefault(key, []).append(value)
            if (step + 1) % LOG_EVERY == 0 or step + 1 == phase.steps:
                means = {key: round(float(np.mean(values)), 5) for key, values in sums.items()}
                sums = {}
                seconds = round(time.time() - started, 1)
                rows.append({"phase": phase.name, "step": step + 1, "seconds": seconds, **means})
                print(" ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            if time.time() - saved > SAVE_EVERY:
                _save(state, folder / "log.csv", modules, optimiser, (number, step + 1), rows)
                saved = time.time()
        _save(state, folder / "log.csv", modules, optimiser, (number + 1, 0), rows)
    return rows


def _one_cycle(share: float, warmup: float) -> float:
    if share < warmup:
        return max(share / warmup, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


def _resume(state: Path, log: Path, modules: Mapping[str, nn.Module]) -> tuple[tuple[int, int], list[dict]]:
    if not (state / "position.txt").exists():
        return (0, 0), []
    for name, module in modules.items():
        module.load_state_dict(load_file(state / f"{name}.safetensors"))
    number, step = map(int, (state / "position.txt").read_text().split())
    with log.open() as file:
        rows = list(csv.DictReader(file))
    return (number, step), rows


def _save(
    state: Path,
    log: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    position: tuple[int, int],
    rows: list[dict],
) -> None:
    for name, module in modules.items():
        tensors = {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}
        save_file(tensors, state / f"{name}.tmp")
        (state / f"{name}.tmp").rename(state / f"{name}.safetensors")
    torch.save(optimiser.state_dict(), state / "optimiser.tmp")
    (state / "optimiser.tmp").rename(state / "optimiser.pt")
    (state / "position.txt").write_text(f"{position[0]} {position[1]}")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with log.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(rows)
