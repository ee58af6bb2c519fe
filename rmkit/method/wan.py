"""The experts of the profile's Wan model: which there are, and what each is trained on (paper, 3.3 and B.2).

Reads the model's `model_index.json` and the profile. Writes nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from rmkit.errors import InputError
from rmkit.kit import store, weights
from rmkit.profile import Profile


@dataclass(frozen=True)
class Expert:
    """One transformer of the pipeline: what we call it, where it sits, and how it is trained on which noise levels."""

    name: str
    part: str
    sigma: tuple[float, float]
    steps: int
    learning_rate: float

    @property
    def is_second(self) -> bool:
        return self.part == "transformer_2"

    @property
    def other_part(self) -> str:
        """Where the other expert sits, if the model has two."""
        return "transformer" if self.is_second else "transformer_2"


def experts(profile: Profile) -> list[Expert]:
    """The experts of the profile's Wan model, with their share of the training.

    Wan2.2's `transformer` takes sigma from boundary_ratio up, its `transformer_2` the rest. Wan2.1 has
    one transformer for all sigmas; it takes the steps of both, at the low one's rate. Raises InputError
    when a range of the profile reaches into the other expert's.
    """
    index = json.loads((_root(profile) / "model_index.json").read_text())
    low, high = profile.train.low, profile.train.high
    if not (index.get("transformer_2") or [None])[0]:
        both = (low.sigma[0], high.sigma[1])
        return [Expert("single", "transformer", both, low.steps + high.steps, low.learning_rate)]
    boundary = index["boundary_ratio"]
    if low.sigma[1] > boundary or high.sigma[0] < boundary:
        raise InputError(
            f"train.low.sigma {list(low.sigma)} and train.high.sigma {list(high.sigma)} must lie below and "
            f"above {boundary}, where {profile.models.wan} hands over between its experts."
        )
    return [
        Expert("high", "transformer", high.sigma, high.steps, high.learning_rate),
        Expert("low", "transformer_2", low.sigma, low.steps, low.learning_rate),
    ]


def fingerprint(profile: Profile, part: str) -> str:
    """Fingerprint of one part of the profile's Wan model: content of its folder, or the hub's commit."""
    if weights.is_hub_name(profile.models.wan):
        return f"{profile.models.wan}@{_root(profile).name}/{part}"
    return store.fingerprint(_root(profile) / part)


def _root(profile: Profile) -> Path:
    return weights.where(profile.models.wan, "model_index.json")
