"""The training loop of the tiny checkpoints: phases of steps, logged, resumed where they were killed.

`train` reads and writes `<folder>/state/` (weights, optimiser, position) and `<folder>/log.csv`. Every random draw
of a step comes from the phase's and the step's number, so a resumed run draws what an unbroken one would.
"""

import argparse
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
MUON_RANK = 16  # kernels with fewer rows or columns are left to AdamW
MUON_RATE = 8  # times AdamW's learning rate


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every training script has, under the first line of its description."""
    found = argparse.ArgumentParser(description=description.split("\n")[0])
    found.add_argument("--rendered", type=Path, required=True, help="folder that render.py wrote")
    found.add_argument("--out", type=Path, required=True, help="where states and results go")
    found.add_argument("--device", default="cpu")
    return found


@dataclass(frozen=True)
class Phase:
    """A stretch of training: `loss(rng, generator)` gives the loss and the figures worth logging."""

    name: str
    steps: int
    learning_rate: float
    loss: Callable[[np.random.Generator, torch.Generator], tuple[torch.Tensor, dict[str, float]]]
    warmup: float = 0.05
    frozen: tuple[str, ...] = ()  # names of modules that stay as they are


def train(folder: Path, modules: Mapping[str, nn.Module], phases: list[Phase], seed: int = 0) -> list[dict]:
    """Run the phases on the modules' trainable parameters; returns the log's rows.

    Matrices and kernels of the blocks are trained by Muon, the rest by AdamW: half the steps, for the VAE and for
    the transformers. Learning rates rise linearly over the warm-up share of a phase and fall by a cosine to zero.
    """
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    position, rows = _resume(state, folder / "log.csv", modules)
    for number, phase in enumerate(phases):
        if number < position[0]:
            continue
        first = position[1] if number == position[0] else 0
        for name in phase.frozen:
            modules[name].requires_grad_(False)
        optimisers = Optimisers(modules)
        if first:
            optimisers.load_state_dict(torch.load(state / "optimiser.pt", weights_only=True))
        print(f"{folder.name}/{phase.name}: steps {first} to {phase.steps}", flush=True)
        sums: dict[str, list[float]] = {}
        started = saved = time.time()
        for step in range(first, phase.steps):
            rng = np.random.default_rng((seed, number, step))
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            loss, figures = phase.loss(rng, generator)
            loss.backward()
            optimisers.step(phase.learning_rate * _one_cycle(step / phase.steps, phase.warmup))
            for key, value in {"loss": loss.item(), **figures}.items():
                sums.setdefault(key, []).append(value)
            if (step + 1) % LOG_EVERY == 0 or step + 1 == phase.steps:
                means = {key: round(float(np.mean(values)), 5) for key, values in sums.items()}
                sums = {}
                seconds = round(time.time() - started, 1)
                rows.append({"phase": phase.name, "step": step + 1, "seconds": seconds, **means})
                print(" ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            if time.time() - saved > SAVE_EVERY:
                _save(state, folder / "log.csv", modules, optimisers, (number, step + 1), rows)
                saved = time.time()
        _save(state, folder / "log.csv", modules, optimisers, (number + 1, 0), rows)
    return rows


class Optimisers:
    """Muon for what the blocks multiply by, AdamW for all else, as one."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        named = [(n, p) for m in modules.values() for n, p in m.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.kernels = [p for n, p in named if "block" in n and min(len(p), p.numel() // len(p)) >= MUON_RANK]
        known = {id(p) for p in self.kernels}
        rest = [p for p in self.parameters if id(p) not in known]
        self.adamw = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0, fused=True)
        # torch's Muon takes matrices only: it gets views of the kernels.
        self.views = [nn.Parameter(_matrix(p.detach())) for p in self.kernels]
        if any(v.data_ptr() != p.data_ptr() for v, p in zip(self.views, self.kernels, strict=True)):
            raise ValueError("kernels must lie with their channels last, or Muon would train copies of them")
        self.muon = torch.optim.Muon(self.views, weight_decay=0, adjust_lr_fn="match_rms_adamw")
        if not computes_in_bfloat16(self.views[0].device):  # for all of the process: it has no setting
            torch.optim._muon._zeropower_via_newtonschulz = orthogonal

    def step(self, rate: float) -> None:
        """One update from the gradients at AdamW's learning rate, which are then forgotten."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for kernel, view in zip(self.kernels, self.views, strict=True):
            view.grad = None if kernel.grad is None else _matrix(kernel.grad)
        for optimiser, factor in ((self.adamw, 1), (self.muon, MUON_RATE)):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict:
        """Of both."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Of both."""
        self.adamw.load_state_dict(state["adamw"])
        self.muon.load_state_dict(state["muon"])


def computes_in_bfloat16(device: str | torch.device) -> bool:
    """False for a CPU without instructions for it, which takes 15 times as long as in float32, or refuses."""
    able = torch.cpu.get_capabilities()
    return torch.device(device).type != "cpu" or any(able.get(k) for k in ("amx_bf16", "avx512_bf16", "bf16"))


def autocast(device: str | torch.device) -> torch.autocast:
    """bfloat16 for the block, where the device computes in it."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=computes_in_bfloat16(device))


def orthogonal(
    gradient: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """A matrix with its singular values brought near one, float32, as torch's Muon does it, which insists on bfloat16.

    By Newton-Schulz steps: x becomes a x + b (x x') x + c (x x')(x x') x. Where bfloat16 is emulated, Muon's way takes most of
    a step of VACE (7 of 10 seconds), and this one less than a second.
    """
    a, b, c = coefficients
    upright = gradient.size(0) > gradient.size(1)
    x = gradient.T if upright else gradient
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if upright else x


def _matrix(kernel: torch.Tensor) -> torch.Tensor:
    """[out, in, ...] -> [out, ... * in]: a view of matrices and of kernels with their channels last."""
    return kernel.movedim(1, -1).flatten(1)


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
    optimisers: Optimisers,
    position: tuple[int, int],
    rows: list[dict],
) -> None:
    for name, module in modules.items():
        tensors = {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}
        save_file(tensors, state / f"{name}.tmp")
        (state / f"{name}.tmp").rename(state / f"{name}.safetensors")
    torch.save(optimisers.state_dict(), state / "optimiser.tmp")
    (state / "optimiser.tmp").rename(state / "optimiser.pt")
    (state / "position.txt").write_text(f"{position[0]} {position[1]}")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with log.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(rows)
