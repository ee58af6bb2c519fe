"""What is recorded of a training: the loss of every pair it saw, and what becomes of pairs it never sees (ours).

Writes `curve.csv` and `held_out.csv` into an adapter's folder and reads them again; `samples/` beside it holds
pictures of the held-out pairs. Losses depend on the noise level far more than on anything else, so a row says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rmkit.errors import InputError
from rmkit.method import lora
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch

CURVE = ("step", "pair", "sigma", "loss", "lr", "seconds")
HELD_OUT = ("step", "pair", "quantile", "sigma", "loss")
BUCKETS = (0, 0.25, 0.5, 0.75, 0.875, 1)  # noise levels; 0.875 is where Wan2.2's experts meet


@dataclass
class Record:
    """Rows so far, one a pair and step; `pair` counts the training's pairs or, in `held_out`, the held-out ones."""

    curve: list[tuple[float, ...]] = field(default_factory=list)  # CURVE
    held_out: list[tuple[float, ...]] = field(default_factory=list)  # HELD_OUT

    @property
    def steps(self) -> int:
        """Steps done."""
        return int(self.curve[-1][0]) + 1 if self.curve else 0

    @property
    def seconds(self) -> float:
        return self.curve[-1][-1] if self.curve else 0.0

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Both tables as float64 [rows, columns], for a checkpoint; the inverse of `of`."""
        import torch

        tables = {"curve": (self.curve, CURVE), "held_out": (self.held_out, HELD_OUT)}
        return {
            name: torch.tensor(rows, dtype=torch.float64).reshape(-1, len(columns))
            for name, (rows, columns) in tables.items()
        }

    @classmethod
    def of(cls, tensors: "dict[str, torch.Tensor]") -> "Record":
        return cls(*([tuple(row) for row in tensors[name].tolist()] for name in ("curve", "held_out")))

    def tables(self, expert: str, pairs: Sequence[str], held_out: Sequence[str]) -> list[pd.DataFrame]:
        """`curve` and `held_out` with the expert's name and the pairs' ids, as `read` gives them."""
        return [
            _table(expert, CURVE, self.curve, pairs),
            _table(expert, HELD_OUT, self.held_out, held_out),
        ]


def _table(
    expert: str, columns: Sequence[str], rows: list[tuple[float, ...]], ids: Sequence[str]
) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(columns)).astype({"step": int, "pair": int})
    table["pair"] = [ids[i] for i in table.pair]
    table.insert(0, "expert", expert)
    return table


def write(folder: Path, tables: Sequence[pd.DataFrame]) -> None:
    """Write `Record.tables` into an adapter's folder."""
    for name, table in zip(("curve", "held_out"), tables, strict=True):
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")


def read(profile: Profile, name: str, table: str = "curve") -> pd.DataFrame:
    """A table ("curve" or "held_out") of all experts of the adapter `name`, first the expert, then CURVE or HELD_OUT."""
    frames = []
    for expert in lora.experts(profile):
        path = profile.layout.adapters / name / expert.name / f"{table}.csv"
        if not path.is_file():
            raise InputError(f"{path} does not exist: train the adapter first (04_iclora_training).")
        frames.append(pd.read_csv(path, dtype={"pair": str}))
    return pd.concat(frames, ignore_index=True)


def by_noise_level(curve: pd.DataFrame) -> pd.DataFrame:
    """Mean loss of a curve by noise level (BUCKETS), in the first and the second half of each expert's steps."""
    names = [f"{low:g} to {high:g}" for low, high in pairwise(BUCKETS)]
    level = pd.cut(curve.sigma, BUCKETS, labels=names, include_lowest=True).rename("noise level")
    last = curve.groupby("expert").step.transform("max") + 1
    half = (curve.step >= last / 2).map({False: "first half", True: "second half"}).rename(None)
    return curve.loss.groupby([level, half], observed=True).mean().unstack()
