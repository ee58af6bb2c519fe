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
PROCESS = 0.6 * 2**30  # bytes of a process with torch, diffusers and the notebook's libraries in it, likewise


# What is not measured itself, by the stage that runs the same model; the demonstrations run the trained one.
LIKE = {"per_frame": "anchors", "editto": "propagate", "lucy_edit": "enhance"}
LIKE |= dict.fromkeys(("06_weather", "07_carla", "08_limits", "09_your_clip"), "enhance")


@dataclass(frozen=True)
class Timed:
    """A stage as measured: seconds an item, its FLOP and megapixels; bytes of the process, and what was counted of them."""

    seconds: float
    flops: float
    megapixels: float
    memory: float
    held: float


@dataclass(frozen=True)
class Calibration:
    """Measured on `device`, a stage each."""

    device: str = ""
    stages: dict[str, Timed] = field(default_factory=dict)

    def seconds(self, stage: str, card: Card, flops: float, megapixels: float) -> float | None:
        """Seconds of one item with this many FLOP, or megapixels where it has none; None where it was not measured."""
        if (timed := self._of(stage, card)) is None:
            return None
        grown = flops / timed.flops if flops and timed.flops else megapixels / timed.megapixels
        return timed.seconds * grown

    def memory(self, stage: str, card: Card, held: float) -> float | None:
        """Bytes of the process where this many are counted; None where it was not measured."""
        timed = self._of(stage, card)
        return None if timed is None else timed.memory + held - timed.held

    def _of(self, stage: str, card: Card) -> Timed | None:
        return self.stages.get(LIKE.get(stage, stage)) if self.device == card.name else None


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
