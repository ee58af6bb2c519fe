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
from rmkit.kit import store
from rmkit.method import wan
from rmkit.profile import Profile

if TYPE_CHECKING:
    import torch

TABLES = {
    "curve": ("step", "pair", "sigma", "loss", "lr", "seconds"),
    "held_out": ("step", "pair", "quantile", "sigma", "loss"),
}
BUCKETS = (0, 0.25, 0.5, 0.75, 0.875, 1)  # noise levels; 0.875 is where Wan2.2's experts meet


@dataclass
class Record:
    """Rows of TABLES so far, one a pair and step; `pair` counts the pairs trained on or, in `held_out`, the held-out ones."""

    curve: list[tuple[float, ...]] = field(default_factory=list)
    held_out: list[tuple[float, ...]] = field(default_factory=list)

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

        return {
            name: torch.tensor(getattr(self, name), dtype=torch.float64).reshape(-1, len(columns))
            for name, columns in TABLES.items()
        }

    @classmethod
    def of(cls, tensors: "dict[str, torch.Tensor]") -> "Record":
        return cls(*([tuple(row) for row in tensors[name].tolist()] for name in TABLES))

    def tables(self, expert: str, pairs: Sequence[str], held_out: Sequence[str]) -> list[pd.DataFrame]:
        """`curve` and `held_out` with the expert's name and the pairs' ids, as `read` gives them."""
        tables = []
        for (name, columns), ids in zip(TABLES.items(), (pairs, held_out), strict=True):
            table = pd.DataFrame(getattr(self, name), columns=list(columns)).astype({"step": int})
            table["pair"] = [ids[int(i)] for i in table.pair]
            table.insert(0, "expert", expert)
            tables.append(table)
        return tables


def write(folder: Path, tables: Sequence[pd.DataFrame]) -> None:
    """Write `Record.tables` into an adapter's folder, or a log's, which somebody may read meanwhile."""
    for name, table in zip(TABLES, tables, strict=True):
        store.write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))


def log_of(folder: Path, expert: str) -> Path:
    """The folder of an expert's tables while it is in training; it goes when the adapter is there."""
    return folder / f"{expert}.log"


def so_far(profile: Profile, name: str) -> list[pd.DataFrame]:
    """`curve` and `held_out` of every expert, from the log where it is still in training, maybe by another process.

    Raises InputError before the first steps.
    """
    folder, found = profile.layout.adapters / name, {table: [] for table in TABLES}
    for expert in wan.experts(profile):
        done = folder / expert.name
        own = done if (done / "curve.csv").is_file() else log_of(folder, expert.name)
        for table, frames in found.items():
            if (own / f"{table}.csv").is_file():
                frames.append(pd.read_csv(own / f"{table}.csv", dtype={"pair": str}))
    if not all(found.values()):
        raise InputError(f"{folder} has no log of a training yet: it begins with the first steps.")
    return [pd.concat(frames, ignore_index=True) for frames in found.values()]


def read(profile: Profile, name: str, table: str = "curve") -> pd.DataFrame:
    """A table of all experts of the adapter `name`: the expert, then the columns of TABLES; `pair` is the pair's id."""
    frames = []
    for expert in wan.experts(profile):
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
