"""Graphics cards: what is known of each, and how much of it models get (ours).

Reads what torch says of this machine; writes nothing. Peaks are the makers' for dense bf16 with float32 sums; prices
an hour are assumptions of ours, about what renting one cost in November 2025: look up your own before you believe USD.
"""

import os
from dataclasses import dataclass

from rmkit.errors import InputError
from rmkit.profile import Profile

GIB = 2**30
EFFICIENCY = 0.45  # of the peak, until `make calibrate` or the run itself has measured it (ours)
SLOWER = {"float32": 0.5}  # share of the bf16 peak: convolutions in float32 run as TF32
A_CORE = 12.0e9  # FLOP a second that one laptop core gives in float32, until it is measured (ours)


@dataclass(frozen=True)
class Card:
    """One GPU, or the CPU (`memory` None: it is the machine's)."""

    name: str
    flops: float | None  # a second at its peak; None: not known
    memory: float | None  # bytes
    usd: float | None = None  # an hour
    words: tuple[str, ...] = ()  # all of which are in the name that CUDA gives it

    def seconds(self, flops: float, dtype: str) -> float | None:
        """How long so many FLOP take by the stated assumptions; None where its peak is not known."""
        if self.flops is None:
            return None
        if self.memory is None:
            return flops / self.flops
        return flops / (self.flops * EFFICIENCY * SLOWER.get(dtype, 1.0))


def _card(name: str, tera: float, gib: float, usd: float, *words: str) -> Card:
    return Card(name, tera * 1e12, gib * GIB, usd, words or (name.upper(),))


KNOWN = {
    card.name: card
    for card in (
        _card("b200", 2250, 178.0, 4.5),
        _card("h200", 989, 139.8, 3.3),
        _card("h100", 989, 79.2, 2.5),
        _card("a100", 312, 79.2, 1.6, "A100", "80GB"),
        _card("a100-40", 312, 39.4, 1.2, "A100"),
        _card("l40s", 362, 44.5, 0.9),
        _card("a6000", 155, 47.5, 0.5, "A6000"),
        _card("5090", 209, 31.4, 0.7),
        _card("4090", 165, 23.6, 0.4),
        _card("3090", 71, 23.6, 0.2),
    )
}


def named(name: str) -> Card:
    """The card of that name; InputError with the known ones."""
    if name.lower() not in KNOWN:
        raise InputError(f"--gpu {name} is not known; known are {', '.join(KNOWN)}.")
    return KNOWN[name.lower()]


def here(profile: Profile) -> Card:
    """What the profile computes on, on this machine: its GPU or its CPU."""
    if profile.models.device != "cpu":
        import torch

        if torch.cuda.is_available():
            found = torch.cuda.get_device_properties(0)
            like = (card for card in KNOWN.values() if all(word in found.name for word in card.words))
            known = next(like, Card(found.name, None, None))
            return Card(found.name, known.flops, float(found.total_memory), known.usd)
    return cpu()


def cpu() -> Card:
    """This machine's CPU."""
    return Card("cpu", (os.cpu_count() or 1) * A_CORE, None)
