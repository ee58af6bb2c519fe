"""A stage over items: what is done is left alone, the rest is made one by one, each by rename (DESIGN, rule 3).

What an item is (a path, the recipe that decides its content, its subject) is kept apart from who makes it: `ready` is
called once, only where something is missing, and returns the function that makes one item. Reads and writes what that
function does, and the sidecars of `store`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rmkit.kit import models, store
from rmkit.kit.progress import track

T = TypeVar("T")


@dataclass(frozen=True)
class Item(Generic[T]):
    """One artefact of a stage: where it goes, all that decides its content, and what it is made of."""

    path: Path
    recipe: store.Recipe
    subject: T

    @property
    def is_done(self) -> bool:
        """Whether the artefact is there and was made by exactly this recipe."""
        return store.is_done(self.path, self.recipe)


# Computes an item and writes it to the temporary path; returns facts for the sidecar, or None.
Make = Callable[[Item[T], Path], Mapping[str, Any] | None]


class LeftOut(Exception):
    """An item that cannot be made, and why: it is named and left out, the others go on."""


def run(
    label: str,
    items: Sequence[Item[T]],
    ready: Callable[[], Make[T]],
    item_bytes: int = 0,
    device: str = "cpu",
) -> list[Path]:
    """Make the items that are not done, in order; returns the paths of all that are there afterwards.

    label: of the progress, '' for none, where the caller shows its own; ready: loads what making needs, a model for
    instance; item_bytes: about what one item takes on the disk; device: where it is computed, for the sidecar. Raises
    InputError when the disk has no room, before `ready` is called, and what `ready` and the making raise; items finished
    by then are kept.
    """
    missing = [item for item in items if not item.is_done]
    if missing:
        store.require_space(missing[0].path.parent, len(missing) * item_bytes / 1e9)
        _make_all(label, missing, ready, device)
    return [item.path for item in items if item.path.exists()]


@models.given_back()
def _make_all(label: str, items: Sequence[Item[T]], ready: Callable[[], Make[T]], device: str) -> None:
    """Items one by one, by what `ready` loads, which is let go of afterwards."""
    make = ready()
    for item in track(items, label) if label else items:
        _make(label, item, make, device)


def _make(label: str, item: Item[T], make: Make[T], device: str) -> None:
    """One item, computed inside the atomic write, so that the sidecar's seconds are those of the computation."""
    facts: dict[str, Any] = {"device": device}
    try:
        with store.writing(item.path, item.recipe, facts=facts) as temporary:
            facts |= make(item, temporary) or {}
    except LeftOut as reason:
        store.discard(item.path)  # an earlier version, of other settings, must not be taken for this run's
        print(f"{label}: {item.path.stem} is left out: {reason}", flush=True)
