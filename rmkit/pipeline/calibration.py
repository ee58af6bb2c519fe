"""What this machine was measured to do: `make calibrate` times a step of each stage; the plan's hours stand on it (ours).

Reads and writes results/calibration.json, of this machine alone, and runs the stages on a few clips with few steps under
results/<profile>-calibration/. A stage that cannot run here, for want of weights for instance, is named and left out.
"""

import json
import resource
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rmkit.errors import InputError
from rmkit.kit import machine, store
from rmkit.paths import REPOSITORY
from rmkit.pipeline import cards
from rmkit.pipeline.cards import Card
from rmkit.profile import Profile

FILE = REPOSITORY / "results" / "calibration.json"
# Seconds of one CPU core a megapixel, until they are measured (ours): video read and written, edges, the metrics
# that have no model, faces.
ASSUMED = {"video": 0.15, "edges": 0.05, "evaluate": 0.8, "faces": 0.3}
PROCESS = 0.6 * 2**30  # bytes of a process with torch, diffusers and the notebook's libraries in it (ours)
CLIPS, STEPS = 4, 2  # of each split, and of each denoising: the first clip of a stage is not counted


@dataclass(frozen=True)
class Timed:
    """A stage as measured: seconds an item, and the FLOP and megapixels of that item."""

    seconds: float
    flops: float
    megapixels: float


@dataclass(frozen=True)
class Calibration:
    """Measured on `device`: a time a stage, and bytes of a process before it holds a model."""

    device: str = ""
    stages: dict[str, Timed] = field(default_factory=dict)
    process: float = PROCESS

    def seconds(self, stage: str, card: Card, flops: float, megapixels: float) -> float | None:
        """Seconds of one item with this many FLOP, or megapixels where it has none; None where it was not measured."""
        timed = self.stages.get(stage) if self.device == card.name else None
        if timed is None:
            return None
        grown = flops / timed.flops if flops and timed.flops else megapixels / timed.megapixels
        return timed.seconds * grown


def load() -> Calibration:
    """What was measured here; nothing before `make calibrate`, or of a file that cannot be read."""
    try:
        known = json.loads(FILE.read_text())
        return Calibration(**known | {"stages": {k: Timed(**timed) for k, timed in known["stages"].items()}})
    except (OSError, ValueError, TypeError, KeyError):
        return Calibration()


def calibrate(profile: Profile) -> Path:
    """Run every stage on a few clips with few steps, and keep what each took; returns the file."""
    from rmkit.pipeline import plan, stages

    small = _smaller(profile)
    process = float(_peak())
    for name in (
        "data",
        "anchors",
        "structure",
        "propagate",
        "filter",
        "encode",
        "train",
        "enhance",
        "evaluate",
    ):
        if name in stages.STAGES:
            try:
                stages.STAGES[name](small)
            except InputError as error:
                print(f"calibrate: {name} is left out: {error}", flush=True)
    found = {}
    for row in plan.steps(small):
        if row.done >= plan.ENOUGH and row.seconds:
            megapixels = small.clips.raw_bytes / 3e6
            found[row.stage] = Timed(row.seconds, row.work.flops / row.count, megapixels)
    if seconds := _training(small):
        row = next(row for row in plan.steps(small) if row.stage == "train")
        found["train"] = Timed(seconds, row.work.flops / row.count, small.clips.raw_bytes / 3e6)
    device = machine.device_name(profile)
    known = load().stages if load().device == device else {}
    made = Calibration(device, known | found, max(process, PROCESS))
    store.write_json(FILE, asdict(made))
    compare(profile)
    return FILE


def compare(profile: Profile) -> None:
    """Print, side by side, what the calibration foretells and what the run's own sidecars say."""
    from rmkit.pipeline import plan

    print(f"{'stage':16}{'foretold, s an item':>22}{'measured':>12}")
    foretold = {row.stage: row.seconds for row in plan.steps(profile, own=False)}
    for row in plan.steps(profile):
        if row.done >= plan.ENOUGH and row.seconds and foretold.get(row.stage):
            print(f"{row.stage:16}{foretold[row.stage]:22.3f}{row.seconds:12.3f}")


def _smaller(profile: Profile) -> Profile:
    """The profile with a few clips and steps, and results of its own."""
    few = {"steps": STEPS}

    def changed(group: str, **values: Any) -> Any:
        return getattr(profile, group).model_copy(update=values)

    experts = {name: getattr(profile.train, name).model_copy(update={"steps": 4}) for name in ("low", "high")}
    return profile.model_copy(
        update={
            "name": f"{profile.name}-calibration",
            "data": changed("data", train_clips=CLIPS, validation_clips=CLIPS),
            "anchors": changed("anchors", **few),
            "propagation": changed("propagation", **few),
            "identity": changed("identity", fewest_pairs=1, over="mean", threshold=-1.0),
            "train": changed("train", held_out=0, warmup=1, **experts),
            "enhance": changed("enhance", **few),
        }
    )


def _training(profile: Profile) -> float | None:
    """Seconds a step, of the steps after the first: the curve's last column is the time since the start."""
    import pandas as pd

    for file in sorted(profile.layout.adapters.glob("realmaster/*/curve.csv")):
        steps = pd.read_csv(file).groupby("step")["seconds"].max()
        if len(steps) > 1:
            return float(steps.diff().median())
    return None


def _peak() -> int:
    """Bytes of this process at its highest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def basis(card: Card, is_here: bool) -> str:
    """What the hours stand on, in words."""
    if is_here and load().device == card.name:
        return "times are the run's own, else as calibrated on this machine"
    if card.memory is None:
        return f"times are the run's own, else FLOP at {cards.A_CORE / 1e9:.0f} GFLOP/s a core (ours; `make calibrate` measures)"
    if card.flops is None:
        return "this card is not in the table (--gpu names those that are); `make calibrate` measures it"
    speed = f"{card.flops / 1e12:,.0f} TFLOP/s"
    return f"times are the run's own, else FLOP at {cards.EFFICIENCY:.0%} of {speed} (ours; `make calibrate` measures)"
