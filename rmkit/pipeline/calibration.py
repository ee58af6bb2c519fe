"""What this machine was measured to do, which the plan's hours stand on (ours).

Reads results/calibration.json, which `calibrate` makes: of this machine alone, so it is not shipped. Writes nothing.
"""

import json
from dataclasses import dataclass, field

from rmkit.paths import REPOSITORY
from rmkit.pipeline import cards
from rmkit.pipeline.cards import Card

FILE = REPOSITORY / "results" / "calibration.json"
# Seconds of one CPU core a megapixel, until they are measured (ours): video read and written, edges, the metrics
# that have no model, faces.
ASSUMED = {"video": 0.15, "edges": 0.05, "evaluate": 0.8, "faces": 0.3}
PROCESS = 0.6 * 2**30  # bytes of a process with torch, diffusers and the notebook's libraries in it (ours)


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
