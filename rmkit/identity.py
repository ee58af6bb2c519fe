"""Identity filter: pairs of render and propagated clip that training may use (paper, 3.3 and B.1).

Reads `clips/` and `propagated/edges/`; writes `pairs/pairs.json`. Without a face model every pair passes,
and each says that the filter was not applied.
"""

import json
from collections.abc import Sequence
from typing import Any

from rmkit import anchors, clips, propagate, store
from rmkit.clips import Clip
from rmkit.errors import InputError
from rmkit.profile import Profile

VERSION = 1
NOT_APPLIED = "no face model: not applied"
REFUSED = "an anchor was refused"


def filter_pairs(profile: Profile, clips_: Sequence[Clip]) -> list[dict[str, Any]]:
    """Pair each clip with its 'edges' propagation and decide which pairs are kept.

    Returns, and writes, a list of {clip, render, target, caption, kept, reason, similarity}; the paths are
    relative to the run's folder, and `similarity` is None where none was measured. Raises InputError when
    a propagated clip is missing, or a face model is asked for.
    """
    if profile.identity.model_pack:
        raise InputError(
            "identity.model_pack is set and this version of the kit has no face filter: set it to null, "
            "and every pair is kept."
        )
    clips.check(profile, clips_)
    pairs = [_pair(profile, clip) for clip in clips_]
    kept = {pair["clip"]: pair for pair in pairs if pair["kept"]}
    if not kept:
        raise InputError("no pair is left to train on: every clip has a refused anchor.")
    recipe = store.Recipe(
        stage="identity",
        version=VERSION,
        settings=profile.identity.model_dump(),
        inputs={
            f"{name}/{side}": store.fingerprint(profile.layout.root / pair[side])
            for name, pair in kept.items()
            for side in ("render", "target")
        }
        | {f"{pair['clip']}/record": json.dumps(pair, sort_keys=True) for pair in pairs},
    )
    target = profile.layout.pairs / "pairs.json"
    if not store.is_done(target, recipe):
        with store.writing(target, recipe) as temporary:
            store.write_json(temporary, pairs)
    print(f"pairs: {len(kept)} of {len(pairs)} kept ({NOT_APPLIED}).")
    return pairs


def load(profile: Profile) -> list[dict[str, Any]]:
    """The pairs as written; raises InputError before the filter has run."""
    file = profile.layout.pairs / "pairs.json"
    if not file.is_file():
        raise InputError(f"{file} does not exist: run 03_propagation_ablations first.")
    return json.loads(file.read_text())


def _pair(profile: Profile, clip: Clip) -> dict[str, Any]:
    render, target = clips.path(profile, clip), propagate.path(profile, "edges", clip)
    refused = bool(anchors.refused(profile, clip, anchors.indices(profile, "edges")))
    if not refused and not target.is_file():
        raise InputError(f"{target} does not exist: run 03_propagation_ablations first.")
    return {
        "clip": clip.id,
        "render": render.relative_to(profile.layout.root).as_posix(),
        "target": target.relative_to(profile.layout.root).as_posix(),
        "caption": clip.caption,
        "kept": not refused,
        "reason": REFUSED if refused else NOT_APPLIED,
        "similarity": None,
    }
