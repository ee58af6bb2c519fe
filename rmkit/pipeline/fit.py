"""What does not fit a machine, and the setting that makes it fit; a run refuses by the same sentences (ours).

Reads the plan's rows, the machine and the hub's cache. Settings are tried one after the other, each counted like the plan
itself. Writes nothing.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from rmkit.errors import InputError
from rmkit.kit import weights
from rmkit.pipeline import cards, costs
from rmkit.pipeline.cards import GIB, Card
from rmkit.pipeline.plan import Step
from rmkit.profile import Profile

SIZES = ((480, 720), (320, 480))  # pixels, of the paper's shape
WORKS = {
    "anchors": lambda p: costs.anchors(p, 1),
    "per_frame": lambda p: costs.anchors(p, 1),
    "propagate": lambda p: costs.propagate(p, 1),
    "train": costs.train,
    "encode": lambda p: costs.encode(p, 1),
}
UNLESS = "go on all the same with --anyway (make: ANYWAY=1)"


def require(profile: Profile, rows: Sequence[Step], stage: str | None = None) -> None:
    """Raise InputError when what is left of a run, or of one stage, does not fit this machine; loads nothing.

    The sentence is the plan's: what is needed, what there is, and the setting that makes it fit.
    """
    for sentence in misfits(profile, rows, stage=stage):
        raise InputError(f"{sentence}; {UNLESS}.")


def misfits(
    profile: Profile, rows: Sequence[Step], card: Card | None = None, stage: str | None = None
) -> Iterator[str]:
    """A sentence for each stage that has work left and does not fit the card, the CPU memory, or the disk."""
    here, memory = card or cards.here(profile), psutil.virtual_memory().total
    rows = [step for step in rows if stage in (None, step.stage) and step.count > step.done]
    for step in rows:
        if here.memory and step.device > here.memory:
            how = setting(profile, step.stage, step.device, here.memory)
            yield (
                f"{step.stage} takes {step.device / GIB:.0f} GiB of GPU memory and {here.name} has "
                f"{here.memory / GIB:.0f}: {how}"
            )
        if card is None and step.memory > memory:
            yield (
                f"{step.stage} takes {step.memory / GIB:.0f} GiB of CPU memory and this machine has "
                f"{memory / GIB:.0f}: use a machine with more, or smaller models"
            )
    if card is None and stage is None:
        root = profile.layout.root
        free = shutil.disk_usage(next(f for f in (root, *root.parents) if f.exists())).free
        left = sum(step.disk * (1 - step.done / step.count) for step in rows)
        need = left + sum(downloads(profile, rows).values())
        if need > free:
            yield (
                f"the run takes {need / 1e9:.0f} GB of disk more and {free / 1e9:.0f} GB are free: make room, or "
                "lower data.train_clips"
            )


def downloads(profile: Profile, rows: Sequence[Step]) -> dict[str, float]:
    """Bytes of each model of the hub's that the rows need and the cache lacks, at two bytes a weight; 0: not known."""
    named = {profile.models.editor, profile.models.vace, profile.models.wan, *profile.metrics.values()}
    named |= {name for step in rows for name in step.work.models}
    found = {}
    for name in sorted(filter(weights.is_hub_name, named)):
        if not _is_cached(name):
            try:
                found[name] = costs.size(name, profile.models.dtype)
            except InputError:  # neither its config is here
                found[name] = 0.0
    return found


def _is_cached(name: str) -> bool:
    """Whether weights of a hub's model are here: an index alone is not a model."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{weights.repository(name).replace('/', '--')}"
    return any(folder.glob("snapshots/*/**/*.safetensors"))


def setting(profile: Profile, stage: str, needed: float, memory: float) -> str:
    """What to set, as a sentence's end, with what it then takes."""
    work = WORKS.get(stage, lambda p: costs.enhance(p, 1))
    best = needed
    for said, changed in _changes(profile, stage):
        try:
            best = work(changed).device_bytes
        except InputError:  # of another model that is not counted
            continue
        if best <= memory:
            return f"set {said}, which takes {best / GIB:.0f}"
    return f"no setting makes it fit (the least found takes {best / GIB:.0f}): take a larger card"


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
