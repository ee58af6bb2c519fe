"""A stage over items: what is done is left alone, the rest is made one by one, each by rename (DESIGN, rule 3).

What an item is (a path, the recipe that decides its content, its subject) is kept apart from who makes it: `ready` is
called once, only where something is missing, and returns the function that makes one item. Reads and writes what that
function does, and the sidecars of `store`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, TypeVar

from rmkit.kit import claims, models, store, workers
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
    spread: bool = False,
) -> list[Path]:
    """Make the items that are not done, in order; returns the paths of all that are there afterwards.

    label: of the progress, '' for none, where the caller shows its own; ready: loads what making needs, a model for
    instance; item_bytes: about what one item takes on the disk; device: where it is computed, for the sidecar; spread: workers
    and shards may divide the items, as `ready` and the items can be pickled. What another living process is making is left to
    it, and waited for at the end. Raises InputError when the disk has no room, before `ready` is called, and what `ready` and
    the making raise; items finished by then are kept.
    """
    mine = [item for clip in workers.shard_of(_clips(items)) for item in clip] if spread else items
    missing = [item for item in mine if not item.is_done]
    if missing:
        store.require_space(missing[0].path.parent, len(missing) * item_bytes / 1e9)
        _make_all(label, missing, partial(_begin, label, ready, device), spread and workers.wanted())
    return [item.path for item in items if item.path.exists()]


@models.given_back()
def _make_all(
    label: str, missing: Sequence[Item[T]], begin: Callable[[], Callable[..., list[Path]]], shared: bool
) -> None:
    """Items by what `begin` loads, here or in workers; what was loaded here is let go of afterwards."""
    folder = missing[0].path.parent
    with workers.pool(begin, _name, folder) if shared else nullcontext(partial(map, begin())) as make:
        while missing:
            clips = _clips(missing) if shared else [[item] for item in missing]
            made = track(make(clips), label, len(clips)) if label else make(clips)
            taken = {path for paths in made for path in paths}
            for path in taken:
                with claims.held(path, wait=True):
                    pass
            missing = [item for item in missing if item.path in taken and not item.is_done]


def _clips(items: Iterable[Item[T]]) -> list[list[Item[T]]]:
    """The items in parts for one worker each: neighbours of one name are of one clip, and share what is decoded."""
    return [list(clip) for _, clip in groupby(items, key=lambda item: item.path.stem)]


def _name(clip: Sequence[Item[T]]) -> str:
    """A clip by the first of its items that is not done."""
    return str(next((item.path for item in clip if not item.is_done), clip[0].path))


def _begin(
    label: str, ready: Callable[[], Make[T]], device: str
) -> Callable[[Sequence[Item[T]]], list[Path]]:
    """What makes the items of a clip; it returns the paths of those that others are making."""
    make = ready()
    return lambda clip: [item.path for item in clip if not _make(label, item, make, device)]


def _make(label: str, item: Item[T], make: Make[T], device: str) -> bool:
    """One item, computed inside the atomic write, so that the sidecar's seconds are those of the computation.

    False where another process is making it.
    """
    facts: dict[str, Any] = {"device": device}
    try:
        with claims.held(item.path):
            if not item.is_done:  # by another process, since it was listed
                with store.writing(item.path, item.recipe, facts=facts) as temporary:
                    facts |= make(item, temporary) or {}
    except claims.Taken:
        return False
    except LeftOut as reason:
        store.discard(item.path)  # an earlier version, of other settings, must not be taken for this run's
        print(f"{label}: {item.path.stem} is left out: {reason}", flush=True)
    return True
