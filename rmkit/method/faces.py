"""Faces: found and embedded by an insightface pack, and matched between a render and what was made of it.

The measure of identity in the paper's 3.3, 4.1 and B.1. Reads the pack that `identity.model_pack` names and videos;
writes faces/<method>/<clip>.npz under results/<profile>/: what was found in the frames asked for, once for all uses.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, store
from rmkit.method.sampling import Clip
from rmkit.paths import resolve
from rmkit.profile import Profile

if TYPE_CHECKING:
    from insightface.app import FaceAnalysis

VERSION = 1
INSTALLED = "~/.insightface/models"  # where insightface keeps the packs it downloads
NON_COMMERCIAL = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")
LICENCE = "insightface's models are for non-commercial research only"
NO_PACK = "no face model: identity.model_pack is null"


@dataclass(frozen=True)
class Faces:
    """The faces of a video, one a row: frame number [N], box in pixels [N, 4], unit embedding [N, D]."""

    frame: np.ndarray
    box: np.ndarray
    embedding: np.ndarray

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and embeddings of one frame."""
        here = self.frame == frame
        return self.box[here], self.embedding[here]


@dataclass(frozen=True)
class Likeness:
    """Cosines of matched faces, and how many faces of the render were there to be matched."""

    cosines: tuple[float, ...]
    found: int

    @property
    def coverage(self) -> float | None:
        """Matched of found, 0 to 1; None when the render has no face."""
        return len(self.cosines) / self.found if self.found else None

    def over(self, statistic: str) -> float | None:
        """'mean' or 'minimum' of the cosines; None when no face was matched."""
        if not self.cosines:
            return None
        return float(np.mean(self.cosines) if statistic == "mean" else np.min(self.cosines))


def check(profile: Profile) -> Path:
    """Folder of the profile's pack; raises InputError unless it holds a detector with landmarks and a recogniser.

    Reads every ONNX file of it, as insightface will, and creates no session.
    """
    folder = _folder(profile)
    tasks = [_task(file) for file in sorted(folder.glob("*.onnx"))]
    for task in ("detector", "recogniser"):
        if task not in tasks:
            what = "five landmarks a face" if task == "detector" else "square input of 112 pixels or more"
            raise InputError(
                f"identity.model_pack: {folder} has no {task} ({what}) among its *.onnx files; get the whole pack."
            )
    return folder


def fingerprint(profile: Profile) -> str:
    """Content hash of the pack's models, whatever card or licence lies beside them."""
    return "+".join(store.fingerprint(file) for file in sorted(_folder(profile).glob("*.onnx")))


def licence(profile: Profile) -> str | None:
    """What is to be known before a pack is used; None for packs that say nothing of the kind."""
    return LICENCE if _folder(profile).name in NON_COMMERCIAL else None


def of_video(
    profile: Profile,
    method: str,
    clip: Clip,
    path: Path,
    frames: Callable[[], Iterator[np.ndarray]],
    wanted: Iterable[int],
) -> Faces:
    """Faces in the `wanted` frames of a method's video at `path`, from the store when they have been found before.

    frames: opens the stream, uint8 [H, W, 3] RGB, of which one is held at a time. Raises InputError when the pack
    cannot be used or the video is too short.
    """
    numbers = sorted(set(wanted))
    identity = profile.identity
    recipe = store.Recipe(
        stage="faces",
        version=VERSION,
        settings={
            "det_size": identity.det_size,
            "det_thresh": identity.det_thresh,
            "frames": numbers,
            "source_frames": clip.source_frames,
        },
        inputs={"video": store.fingerprint(path)},
        model=fingerprint(profile),
    )
    target = path_of(profile, method, clip)
    if not store.is_done(target, recipe):
        with store.writing(target, recipe, model_name=identity.model_pack) as temporary:
            found = find(load(profile), frames(), numbers)
            np.savez(temporary, frame=found.frame, box=found.box, embedding=found.embedding)
    with np.load(target, allow_pickle=False) as stored:
        return Faces(stored["frame"], stored["box"], stored["embedding"])


def path_of(profile: Profile, method: str, clip: Clip) -> Path:
    """Where the faces of a method's clip are stored."""
    return profile.layout.faces / method / f"{clip.id}.npz"


def find(analysis: "FaceAnalysis", frames: Iterator[np.ndarray], numbers: Sequence[int]) -> Faces:
    """Faces in the frames of these numbers, ascending, of a stream uint8 [H, W, 3] RGB."""
    wanted, rows = set(numbers), []
    before, here, seen = None, [], -1
    for seen, frame in enumerate(frames):
        if seen in wanted:
            # A clip raised from 8 to 16 fps shows frames twice: the same frame has the same faces.
            if before is None or not np.array_equal(before, frame):
                here = analysis.get(np.ascontiguousarray(frame[..., ::-1]))  # insightface sees BGR
            rows += [(seen, face.bbox, face.normed_embedding) for face in here]
            before = frame
        if seen == numbers[-1]:
            break
    if seen < numbers[-1]:
        raise InputError(f"a video of {seen + 1} frames has no frame {numbers[-1]}: make its clip again.")
    # An empty list has no width; whoever reads it asks for none.
    return Faces(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float32).reshape(len(rows), -1 if rows else 0),
    )


def compare(render: Faces, output: Faces, frames: Iterable[int], gate: float) -> Likeness:
    """Cosines of the faces of `render` with those of `output` in the same places, over the given frames."""
    cosines: list[float] = []
    found = 0
    for frame in frames:
        (boxes, embeddings), (other_boxes, other_embeddings) = render.at(frame), output.at(frame)
        found += len(boxes)
        for i, j in match(boxes, other_boxes, gate):
            cosines.append(cosine(embeddings[i], other_embeddings[j]))
    return Likeness(tuple(cosines), found)


def match(boxes: np.ndarray, others: np.ndarray, gate: float) -> list[tuple[int, int]]:
    """Pairs of boxes [N, 4] and [M, 4] that lie in the same place: the assignment of largest total overlap.

    Never by likeness, which is what is to be measured: of two people who changed places, neither is matched with
    himself. Pairs that overlap less than `gate` are none.
    """
    from scipy.optimize import linear_sum_assignment

    overlap = iou(boxes, others)
    # Below the gate nothing is gained, so that no good pair is given up for two bad ones.
    rows, columns = linear_sum_assignment(np.where(overlap >= gate, overlap, 0.0), maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if overlap[i, j] >= gate]


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, [N, 4] and [M, 4] -> [N, M], 0 to 1."""
    a, b = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inner = sides.clip(min=0).prod(-1)
    areas = [(c[..., 2:] - c[..., :2]).clip(min=0).prod(-1) for c in (a, b)]
    return inner / np.maximum(areas[0] + areas[1] - inner, 1e-9)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two embeddings [D], -1 to 1."""
    return float(np.dot(a, b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def load(profile: Profile) -> "FaceAnalysis":
    """The pack, ready to find faces on the profile's device; says once what its licence forbids."""
    on_cpu = models.device(profile).type == "cpu"
    return _load(
        check(profile), licence(profile), profile.identity.det_size, profile.identity.det_thresh, on_cpu
    )


@functools.lru_cache(maxsize=1)
def _load(folder: Path, terms: str | None, size: int, threshold: float, on_cpu: bool) -> "FaceAnalysis":
    from insightface.app import FaceAnalysis

    # scikit-image announces a change to a call of insightface's, once for every process.
    warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning)
    if terms:
        print(f"{folder.name}: {terms}.")
    analysis = FaceAnalysis(
        name=str(folder),
        allowed_modules=["detection", "recognition"],
        providers=["CPUExecutionProvider"] if on_cpu else None,  # None: what onnxruntime was built for
    )
    analysis.prepare(ctx_id=-1 if on_cpu else 0, det_thresh=threshold, det_size=(size, size))
    return analysis


def _folder(profile: Profile) -> Path:
    name = profile.identity.model_pack
    if not name:
        raise InputError(f"{NO_PACK}; name a pack in the profile.")
    for folder in (resolve(name), Path(INSTALLED).expanduser() / name):
        if folder.is_dir():
            return folder
    if Path(name).name != name:
        raise InputError(
            f"identity.model_pack is {name}, and {resolve(name)} does not exist: correct the profile."
        )
    raise InputError(
        f"identity.model_pack is {name}, and neither {resolve(name)} nor {INSTALLED}/{name} exists: get it with "
        f"`insightface-cli model.download {name}` ({LICENCE}), or name the folder of a pack."
    )


def _task(file: Path) -> str | None:
    """What insightface will take an ONNX file for: 'detector' or 'recogniser', None for anything else."""
    return _task_of(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _task_of(file: Path, mtime_ns: int) -> str | None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph: Any = onnx.load(str(file), load_external_data=False).graph
    except (DecodeError, OSError):
        graph = None
    if graph is None or not graph.output:
        raise InputError(f"identity.model_pack: {file} is damaged or no ONNX model; copy it again.")
    if len(graph.output) in (9, 15):
        return "detector"
    size = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim][2:]
    square = len(size) == 2 and size[0] == size[1] and size[0] >= 112 and size[0] % 16 == 0
    # 192 pixels are its landmark models'.
    return "recogniser" if len(graph.output) == 1 and square and size[0] != 192 else None
