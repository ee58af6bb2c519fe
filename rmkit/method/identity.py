"""Identity filter: pairs of render and propagated clip that training may use (paper, 3.3 and B.1).

Reads `clips/` and `propagated/edges/`; writes `pairs/pairs.json` and, by `rmkit.method.faces`, the faces it compared.
Without a face model every pair passes, and each says that the filter was not applied.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

from rmkit.errors import InputError
from rmkit.kit import face_pack, store, video
from rmkit.kit.progress import track
from rmkit.method import anchoring, faces, propagation, sampling
from rmkit.method.faces import Likeness
from rmkit.method.sampling import Clip
from rmkit.profile import Identity, Profile

VERSION = 2
NOT_APPLIED = "no face model: not applied"
REFUSED = "an anchor was refused"
ALIKE, UNLIKE = "faces are alike", "faces differ"
NO_FACE, NO_MATCH = "the render has no face", "no face was found again"


def filter_pairs(profile: Profile, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """Pair each clip with its 'edges' propagation and decide which pairs are kept.

    Returns, and writes, a list of {clip, render, target, caption, kept, reason, similarity, coverage}; the paths are
    relative to the run's folder, and the last two are None where nothing was measured. Raises InputError when a
    propagated clip is missing, the face model cannot be used, or too few pairs are left.
    """
    measured = bool(profile.identity.model_pack)
    if measured:
        face_pack.check(profile)
    sampling.check(profile, clips)
    pairs = [_pair(profile, clip) for clip in clips]
    if measured:
        for clip, pair in track(list(zip(clips, pairs, strict=True)), "faces"):
            if pair["kept"]:
                pair |= decide(likeness(profile, clip), profile.identity)
    kept = {pair["clip"]: pair for pair in pairs if pair["kept"]}
    _require(profile, pairs, len(kept))
    recipe = store.Recipe(
        stage="identity",
        version=VERSION,
        settings=profile.identity.model_dump(),
        inputs={
            f"{name}/{side}": store.fingerprint(profile.layout.run / pair[side])
            for name, pair in kept.items()
            for side in ("render", "target")
        }
        | {f"{pair['clip']}/record": json.dumps(pair, sort_keys=True) for pair in pairs},
        model=face_pack.fingerprint(profile) if measured else None,
    )
    file = profile.layout.pairs / "pairs.json"
    if not store.is_done(file, recipe):
        with store.writing(file, recipe, device="cpu") as temporary:
            store.write_json(temporary, pairs)
    print(f"pairs: {len(kept)} of {len(pairs)} kept ({_summary(pairs) if measured else NOT_APPLIED}).")
    return pairs


def load(profile: Profile) -> list[dict[str, Any]]:
    """The pairs as written; raises InputError before the filter has run."""
    file = profile.layout.pairs / "pairs.json"
    if not file.is_file():
        raise InputError(f"{file} does not exist: run 03_propagation_ablations first.")
    pairs, names = store.read_json(file), ("clip", "render", "target", "caption")
    if not isinstance(pairs, list) or not all(
        isinstance(pair, dict)
        and pair.keys() >= {"kept", "reason"}
        and all(isinstance(pair.get(name), str) for name in names)
        for pair in pairs
    ):
        raise InputError(f"{file} is no listing of pairs: delete it and make it again.")
    return pairs


def likeness(profile: Profile, clip: Clip) -> Likeness:
    """Faces of a training clip against those of its 'edges' propagation, on the frames the profile says."""
    length = profile.clips.frames
    wanted = faces.linspace(length) if profile.identity.frames == "sampled" else list(range(length))
    sides = {"render": sampling.path(profile, clip), "edges": propagation.path(profile, "edges", clip)}
    found = []
    for method, path in sides.items():
        kept = profile.layout.faces / method / f"{clip.id}.npz"
        frames, fingerprint = partial(video.stream, path), store.fingerprint(path)
        found.append(faces.of_video(profile, fingerprint, frames, wanted, kept, clip.source_frames))
    return faces.compare(*found, wanted, profile.identity.iou_gate)


def decide(found: Likeness, settings: Identity) -> dict[str, Any]:
    """The filter's verdict on one clip: {kept, reason, similarity, coverage}.

    B.1 keeps what exceeds the threshold, 3.3 drops what falls below it: what equals it is kept. A render whose faces
    are all gone from the output has lost them, so it is dropped; one without a face has none to lose (`faceless`).
    """
    similarity = found.over(settings.over)
    if not found.found:
        kept, reason = settings.faceless == "keep", NO_FACE
    elif similarity is None:
        kept, reason = False, NO_MATCH
    else:
        kept = similarity >= settings.threshold
        reason = ALIKE if kept else UNLIKE
    return {
        "kept": kept,
        "reason": reason,
        "similarity": None if similarity is None else round(similarity, 6),
        "coverage": None if found.coverage is None else round(found.coverage, 6),
    }


def _pair(profile: Profile, clip: Clip) -> dict[str, Any]:
    render, target = sampling.path(profile, clip), propagation.path(profile, "edges", clip)
    refused = bool(anchoring.refused(profile, clip, anchoring.indices(profile, "edges")))
    if not refused and not target.is_file():
        raise InputError(f"{target} does not exist: run 03_propagation_ablations first.")
    return {
        "clip": clip.id,
        "render": render.relative_to(profile.layout.run).as_posix(),
        "target": target.relative_to(profile.layout.run).as_posix(),
        "caption": clip.caption,
        "kept": not refused,
        "reason": REFUSED if refused else NOT_APPLIED,
        "similarity": None,
        "coverage": None,
    }


def _require(profile: Profile, pairs: list[dict[str, Any]], kept: int) -> None:
    """Raise InputError when too few pairs are left to train on."""
    measured, fewest = bool(profile.identity.model_pack), profile.identity.fewest_pairs
    if not measured and not kept:
        raise InputError("no pair is left to train on: every clip has a refused anchor.")
    if measured and kept < fewest:
        raise InputError(
            f"the face filter keeps {kept} of {len(pairs)} pairs and identity.fewest_pairs is {fewest} "
            f"({_summary(pairs)}): sample more clips (data.train_clips), improve the anchors, or lower "
            "identity.threshold or identity.fewest_pairs."
        )


def _summary(pairs: list[dict[str, Any]]) -> str:
    """'faces are alike: 30, faces differ: 5; median similarity 0.61'."""
    counts = Counter(pair["reason"] for pair in pairs)
    listed = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    measured = [pair["similarity"] for pair in pairs if pair["similarity"] is not None]
    return listed + (f"; median similarity {median(measured):.2f}" if measured else "")
