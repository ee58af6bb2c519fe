"""ArcFace: whether the faces of the output are those of the render (paper, 4.1).

Five frames of a clip, faces matched by place, mean cosine of their embeddings. Takes what `rmkit.method.faces` found in two
videos, so that nothing is embedded twice; writes nothing.
"""

from rmkit.kit import video
from rmkit.method import faces
from rmkit.method.faces import Faces

FRAMES = 5  # paper, 4.1


def linspace(frames: int) -> list[int]:
    """Five frames with both ends, which are anchors: it flatters methods that are made from them."""
    return video.evenly(FRAMES, frames)


def midpoints(frames: int) -> list[int]:
    """Five frames, the middles of five equal parts: no anchor of the ends among them."""
    return video.midpoints(FRAMES, frames)


def arcface(render: Faces, output: Faces, frames: int, gate: float) -> dict[str, float]:
    """Values by metric of a clip of so many frames; what has no value is absent.

    Mean over all matched faces (`arcface`: `linspace`, `arcface_mid5`: `midpoints`), -1 to 1; `arcface_min`: the least
    of the first; `arcface_coverage`: matched of the render's faces in the same frames, 0 to 1. No face in the render:
    no value; none matched: a coverage of 0 alone.
    """
    ends = faces.compare(render, output, linspace(frames), gate)
    middles = faces.compare(render, output, midpoints(frames), gate)
    values = {
        "arcface": ends.over("mean"),
        "arcface_mid5": middles.over("mean"),
        "arcface_min": ends.over("minimum"),
        "arcface_coverage": ends.coverage,
    }
    return {name: value for name, value in values.items() if value is not None}
