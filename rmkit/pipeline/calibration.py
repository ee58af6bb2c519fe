"""What this machine was measured to do, and how long calls take by it (ours).

Reads and writes results/calibration.json, which `calibrate` makes: of this machine alone, so it is not shipped.
"""

import functools
import json
from dataclasses import dataclass, field
from statistics import median

from rmkit.kit import store
from rmkit.paths import REPOSITORY
from rmkit.pipeline import cards
from rmkit.pipeline.cards import Card
from rmkit.pipeline.costs import Use

FILE = REPOSITORY / "results" / "calibration.json"
# Seconds of one CPU core a megapixel, until they are measured (ours): video read and written, edges, the metrics
# that have no model, faces.
ASSUMED = {"video": 0.15, "edges": 0.05, "evaluate": 0.8, "faces": 0.3}
PROCESS = 0.6 * 2**30  # bytes of a process with torch, diffusers and the notebook's libraries in it (ours)


@dataclass(frozen=True)
class Calibration:
    """Measured on `device`: seconds a call by its key, the FLOP a second of these by type, seconds a megapixel."""

    device: str = ""
    calls: dict[str, float] = field(default_factory=dict)
    speeds: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    process: float = PROCESS

    def rate(self, what: str) -> float:
        """Seconds of the CPU a megapixel."""
        return self.rates.get(what, ASSUMED[what])

    def seconds(self, use: Use, card: Card) -> float | None:
        """How long all calls of a part take: as measured, else at the speed measured of its like, else as assumed."""
        if self.device == card.name:
            if (measured := self.calls.get(key(use))) is not None:
                return measured * use.calls
            if speeds := self.speeds.get(use.dtype):
                return use.flops / median(speeds)
        return card.seconds(use.flops, use.dtype)


NONE = Calibration()


def load() -> Calibration:
    """What was measured here; nothing before `make calibrate`, or of a file that cannot be read."""
    return _load(FILE.stat().st_mtime_ns) if FILE.is_file() else NONE


@functools.cache
def _load(_: int) -> Calibration:
    try:
        return Calibration(**json.loads(FILE.read_text()))
    except (OSError, ValueError, TypeError):
        return NONE


def save(found: Calibration) -> None:
    """Write what was measured."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    store.write_json(FILE, vars(found))


def key(use: Use) -> str:
    """A call by what it computes: two parts that compute the same take as long."""
    return f"{use.part.rstrip(' 01')} {use.cost.flops:.8g} {use.dtype}"


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
