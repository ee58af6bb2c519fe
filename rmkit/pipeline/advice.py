"""The setting that makes a stage fit a card: tried one after the other, each counted like the plan itself (ours).

Reads what `costs` reads; writes nothing.
"""

from collections.abc import Iterator
from typing import Any

from rmkit.errors import InputError
from rmkit.pipeline import costs
from rmkit.profile import Profile

SIZES = ((480, 720), (320, 480))  # pixels, of the paper's shape
WORKS = {
    "anchors": lambda p: costs.anchors(p, 1),
    "per_frame": lambda p: costs.anchors(p, 1),
    "propagate": lambda p: costs.propagate(p, 1),
    "train": costs.train,
    "encode": lambda p: costs.encode(p, 1),
}


def that_fits(profile: Profile, stage: str, needed: float, memory: float) -> str:
    """What to set, as a sentence's end, with what it then takes."""
    work = WORKS.get(stage, lambda p: costs.enhance(p, 1))
    best = needed
    for said, changed in _changes(profile, stage):
        try:
            best = work(changed).device_bytes
        except InputError:
            continue
        if best <= memory:
            return f"set {said}, which takes {best / 2**30:.0f}"
    return f"no setting makes it fit (the least found takes {best / 2**30:.0f}): take a larger card"


def _changes(profile: Profile, stage: str) -> Iterator[tuple[str, Profile]]:
    """Settings that take less, in words, and the profile with them; each keeps those before it."""
    said: list[str] = []

    def changed(group: str, words: str, **values: Any) -> tuple[str, Profile]:
        nonlocal profile
        settings = getattr(profile, group).model_copy(update=values)
        profile = profile.model_copy(update={group: settings})
        said.append(words)
        return ", ".join(said), profile

    if stage == "train":
        if not profile.train.gradient_checkpointing:
            yield changed("train", "train.gradient_checkpointing: true", gradient_checkpointing=True)
        if profile.train.base == "full":
            yield changed("train", "train.base: fp8", base="fp8")
        if profile.train.block_inputs == "device":
            yield changed("train", "train.block_inputs: cpu", block_inputs="cpu")
        group = "train"
    else:
        for offload in ("model", "group"):
            if profile.models.offload in ("none", "model") and profile.models.offload != offload:
                if said:
                    said.pop()
                yield changed("models", f"models.offload: {offload}", offload=offload)
        if stage in ("anchors", "per_frame") and profile.models.editor_weights == "full":
            yield changed("models", "models.editor_weights: fp8", editor_weights="fp8")
        group = "clips"
    for height, width in SIZES:
        if height < profile.training_size.height:
            if said and said[-1].startswith(f"{group}.height"):
                said.pop()
            words = f"{group}.height: {height} and {group}.width: {width}"
            yield changed(group, words, height=height, width=width)
