"""ArcFace: whether the faces of the output are those of the render (paper, 4.1).

Five frames of a clip, faces matched by place, mean cosine of their embeddings. Needs the face pack of the identity filter;
what `method.faces` found is kept as faces/<method>/<clip>.npz, where the filter keeps it too, so nothing is embedded twice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rmkit.kit import face_pack, weights
from rmkit.kit.face_pack import Faces
from rmkit.method import faces
from rmkit.metrics import Column, Measure, Metric, Subject
from rmkit.paths import resolve
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd

_ENDS, _MIDDLES = {"frames": "5 linspace"}, {"frames": "5 midpoints"}
# A face that nobody matched has no cosine; `arcface_coverage`, which every clip with a face has, counts it.
_OF_FACES = {"digits": 3, "floor": 1e-3, "against": "render", "with_itself": True}
_COSINE = {**_OF_FACES, "optional": True}


class ArcFace(Metric):
    """Likeness of the faces of a clip with the render's."""

    columns = (
        Column("arcface", "ArcFace", "cosine", 1, **_COSINE, options=_ENDS, shown="always", paper=True),
        Column("arcface_mid5", "ArcFace, midpoints", "cosine", 1, **_COSINE, options=_MIDDLES),
        Column("arcface_min", "ArcFace, minimum", "cosine", 1, **_COSINE, options=_ENDS),
        Column("arcface_coverage", "Faces matched", "share", 1, **_OF_FACES, options=_ENDS),
    )
    uses = (faces,)

    def why_not(self, profile: Profile, missing: Sequence[Subject] | None = None) -> str | None:
        return None if profile.identity.model_pack else f"not run: {face_pack.NO_PACK}."

    def why_no_row(self, profile: Profile) -> str:
        """Where it ran, no render may have a face."""
        nothing = "n/a: no face was found in any render, or 05_evaluation has not run since the face model was named."
        return self.why_not(profile) or nothing

    def check(self, profile: Profile, height: int, width: int) -> None:
        """Raise InputError unless the pack is whole; it takes frames of any size."""
        face_pack.check(profile)

    def knows(self, profile: Profile) -> str:
        return weights.knows(resolve(profile.identity.model_pack)) if profile.identity.model_pack else ""

    def fingerprint(self, profile: Profile) -> str:
        return face_pack.fingerprint(profile)

    def settings(self, profile: Profile) -> dict[str, float]:
        return {key: getattr(profile.identity, key) for key in ("det_size", "det_thresh", "iou_gate")}

    def options(self, profile: Profile) -> dict[str, str]:
        return {"pack": Path(profile.identity.model_pack).name}

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        """The pack is loaded only where faces have not been found before."""

        def measure(subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
            wanted, found = faces.linspace(subject.count) + faces.midpoints(subject.count), []
            for side, method in (("render", "render"), ("output", subject.method)):
                kept = subject.folder / "faces" / method / f"{subject.clip}.npz"
                clip = subject.inputs[side], subject.frames[side]
                found.append(faces.of_video(profile, *clip, wanted, kept, subject.source_frames))
            return arcface(*found, subject.count, profile.identity.iou_gate)

        return measure

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        asked = rows[rows.metric == "arcface_coverage"]
        if asked.empty:
            return f"{self.label}: {self.why_no_row(profile)}"
        identity, clips, of = profile.identity, asked["clip"].nunique(), profile.data.validation_clips
        return (
            f"ArcFace by {asked.options.iloc[0].replace(';', ', ')}, against the render, on the {clips} of {of} clips "
            f"whose render has a face; faces matched by overlap (IoU of {identity.iou_gate:g} or more), detector at "
            f"{identity.det_size} pixels. `midpoints`: five frames without the ends, which are anchors. Of an unmatched "
            "face nothing is known but that it lowers `Faces matched`: read the two together."
        )


def arcface(render: Faces, output: Faces, frames: int, gate: float) -> dict[str, float]:
    """Values by metric of a clip of so many frames; what has no value is absent.

    Mean over all matched faces (`arcface`: `faces.linspace`, `arcface_mid5`: `midpoints`), -1 to 1; `arcface_min`: the least
    of the first; `arcface_coverage`: matched of the render's faces in the same frames, 0 to 1. No face in the render:
    no value; none matched: a coverage of 0 alone.
    """
    ends = faces.compare(render, output, faces.linspace(frames), gate)
    middles = faces.compare(render, output, faces.midpoints(frames), gate)
    values = {
        "arcface": ends.over("mean"),
        "arcface_mid5": middles.over("mean"),
        "arcface_min": ends.over("minimum"),
        "arcface_coverage": ends.coverage,
    }
    return {name: value for name, value in values.items() if value is not None}


METRIC = ArcFace()
