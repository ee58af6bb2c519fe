"""Where in a clip's frames persons, things, ground and sky are, by the engine's object maps (ours; not in the paper).

Reads the data set's `visible/` and, where the diorama wrote it, engine.json; writes `regions/<clip>.npz`, for metrics that
are measured inside of them (`edge_f1.REGIONS`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rmkit.demos import objects
from rmkit.errors import InputError
from rmkit.kit import stage, store
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.metrics import edge_f1
from rmkit.profile import Profile

VERSION = 1
# Classes of the diorama that are no things. Walls and trees are no region: weather rightly changes them, too.
CLASSES = {"person": edge_f1.PERSON, "ground": edge_f1.GROUND, "road": edge_f1.GROUND} | dict.fromkeys(
    ("wall", "window", "door", "building", "tree"), 0
)


def write(profile: Profile, clips: Sequence[tuple[Profile, Clip]]) -> None:
    """The regions of clips, each with the profile whose data set it is from; of none where that has no object maps."""
    items = [item for source, clip in clips if (item := _item(profile, source, clip))]
    stage.run("regions", items, lambda: _write)


def path(profile: Profile, clip: Clip) -> Path:
    """Where a clip's regions are: npz with `regions`, uint8 [F, H, W]."""
    return profile.layout.root / "regions" / f"{clip.id}.npz"


def stream(path: Path) -> Iterator[np.ndarray]:
    """A clip's regions frame by frame, uint8 [H, W]."""
    return iter(store.read_arrays(path)["regions"])


def _item(profile: Profile, source: Profile, clip: Clip) -> stage.Item | None:
    """What tells a clip's regions apart, or None where its sequence has no object maps."""
    sequence = sampling.sequence_of(source, clip)
    try:
        maps = sequence.visible_fingerprints(clip.source_frames)
    except InputError:
        return None
    engine = sequence.folder / "engine.json"
    inputs = maps | ({"engine": store.fingerprint(engine)} if engine.is_file() else {})
    recipe = store.Recipe("regions", VERSION, profile.clips.model_dump(), inputs)
    return stage.Item(path(profile, clip), recipe, (profile, sequence, clip))


def _write(item: stage.Item, temporary: Path) -> None:
    """Object numbers to regions. Without engine.json every object is a thing, and ground and sky are not known."""
    profile, sequence, clip = item.subject
    visible = sequence.visible(clip.source_frames)  # [D, h, w]
    kinds = objects.classes(sequence)
    if kinds is None:
        found = np.where(visible > 0, edge_f1.THING, 0)
    else:
        found = np.where(visible > 0, 0, edge_f1.SKY)
        for number, kind in kinds.items():
            found[visible == number] = CLASSES.get(kind, edge_f1.THING)
    np.savez_compressed(temporary, regions=sampling.shown(profile, clip, found.astype(np.uint8)))
