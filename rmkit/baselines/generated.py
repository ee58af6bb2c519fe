"""The render, and what the method makes of it: three propagation variants and RealMaster (paper, 3 and 4.5).

Reads the profile and looks for clips; the stages have written them.
"""

from collections.abc import Sequence
from pathlib import Path

from rmkit.baselines import Method
from rmkit.method import anchoring, propagation, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile


class Render(Method):
    """The input."""

    name, label, colour, marker = "render", "Render (input)", "#000000", "s"
    competes, fixed, ablation = False, True, True

    def path(self, profile: Profile, clip: Clip) -> Path:
        return sampling.path(profile, clip)


class Variant(Method):
    """A way to propagate the anchors (paper, 4.5)."""

    table1, ablation = False, True
    no_row = "not run: every clip has a refused anchor."

    def __init__(self, name: str, label: str, colour: str, marker: str):
        self.name, self.label, self.colour, self.marker = name, label, colour, marker

    def why_not(self, profile: Profile) -> str | None:
        if self.name not in profile.propagation.variants:
            return f"not run: propagation.variants of this profile leaves {self.name} out."
        return None

    def path(self, profile: Profile, clip: Clip) -> Path:
        return propagation.path(profile, self.name, clip)

    def having(self, profile: Profile, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Without those that have a refused anchor."""
        wanted = [] if self.why_not(profile) else clips
        indices = anchoring.indices(profile, self.name)
        return [clip for clip in wanted if not anchoring.refused(profile, clip, indices)]

    def count(self, profile: Profile) -> int:
        return 0 if self.why_not(profile) else super().count(profile)


class RealMaster(Method):
    """The in-context LoRA, on the render alone (paper, 3.3)."""

    name, label, colour, marker = "realmaster", "RealMaster", "#D55E00", "P"
    ablation = True


METHODS = (
    Render(),
    Variant("multi_anchor", "Multiple Anchors", "#CC79A7", "v"),
    Variant("depth", "Depth", "#56B4E9", "^"),
    Variant("edges", "Edges", "#0072B2", "o"),
    RealMaster(),
)
