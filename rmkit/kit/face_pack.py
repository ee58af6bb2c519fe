"""An insightface pack: where it is, whether it is whole, and the faces that it finds in frames.

Reads the pack that `identity.model_pack` names; writes nothing.
"""

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, store
from rmkit.paths import resolve, visible
from rmkit.profile import Profile

if TYPE_CHECKING:
    from insightface.app import FaceAnalysis

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


def check(profile: Profile) -> None:
    """Raise InputError unless the pack is there and whole, with a detector of landmarks and a recogniser."""
    load(profile)


def fingerprint(profile: Profile) -> str:
    """Content hash of the pack's models, whatever card or licence lies beside them."""
    return "+".join(store.fingerprint(file) for file in sorted(_folder(profile).glob("*.onnx")))


def licence(profile: Profile) -> str | None:
    """What is to be known before a pack is used; None for packs that are not insightface's own."""
    return LICENCE if _folder(profile).name in NON_COMMERCIAL else None


def load(profile: Profile) -> "FaceAnalysis":
    """The pack, ready to find faces on the profile's device; says once what its licence forbids."""
    folder, identity = _folder(profile), profile.identity
    files = tuple((file.name, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.onnx")))
    on_cpu = models.device(profile).type == "cpu"
    return _load(folder, files, identity.det_size, identity.det_thresh, on_cpu)


def find(analysis: "FaceAnalysis", frames: Iterator[np.ndarray], numbers: Sequence[int]) -> Faces:
    """Faces in the frames of these numbers, ascending, of a stream uint8 [H, W, 3] RGB.

    One frame is held at a time. Raises InputError when the stream ends before the last number.
    """
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


@functools.lru_cache(maxsize=1)
def _load(
    folder: Path, files: tuple[tuple[str, int], ...], size: int, threshold: float, on_cpu: bool
) -> "FaceAnalysis":
    """The pack of `folder`; `files`, names and times, are only there so that a mended pack is loaded again."""
    from insightface.app import FaceAnalysis

    # scikit-image announces a change to a call of insightface's, once for every process.
    warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning)
    try:
        analysis = FaceAnalysis(
            name=str(folder),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"] if on_cpu else None,  # None: what onnxruntime was built for
        )
    except Exception as error:  # those of onnx, onnxruntime, protobuf and insightface share no base
        file = _unloadable(folder)
        if file is None and isinstance(error, AssertionError):  # insightface's own, for want of a detector
            raise _lacking(folder, "detector (five landmarks a face)") from None
        raise InputError(
            f"identity.model_pack: {file or folder} is damaged or no face model ({type(error).__name__}); "
            "copy it again."
        ) from None
    if not analysis.models["detection"].use_kps:
        raise _lacking(folder, "detector (five landmarks a face)")
    if "recognition" not in analysis.models:
        raise _lacking(folder, "recogniser (square input of 112 pixels or more)")
    if folder.name in NON_COMMERCIAL:
        print(f"{folder.name}: {LICENCE}.")
    analysis.prepare(ctx_id=-1 if on_cpu else 0, det_thresh=threshold, det_size=(size, size))
    return analysis


def _unloadable(folder: Path) -> Path | None:
    """The first file of a pack that insightface cannot load by itself, None where it can load each."""
    from insightface.model_zoo import get_model

    for file in sorted(folder.glob("*.onnx")):
        try:
            get_model(str(file), providers=["CPUExecutionProvider"])
        except Exception:
            return file
    return None


def _lacking(folder: Path, what: str) -> InputError:
    return InputError(
        f"identity.model_pack: {folder} has no {what} among its *.onnx files; get the whole pack."
    )


def _folder(profile: Profile) -> Path:
    name = profile.identity.model_pack
    if not name:
        raise InputError(f"{NO_PACK}; name a pack in the profile.")
    for folder in (resolve(name), Path(INSTALLED).expanduser() / name):
        if folder.is_dir():
            return _with_models(folder)
    if Path(name).name != name:
        raise InputError(
            f"identity.model_pack is {name}, and {resolve(name)} does not exist: correct the profile."
        )
    raise InputError(
        f"identity.model_pack is {name}, and neither {resolve(name)} nor {INSTALLED}/{name} exists: get it with "
        f"`insightface-cli model.download {name}` ({LICENCE}), or name the folder of a pack."
    )


def _with_models(folder: Path) -> Path:
    """The folder itself, or the one in it that holds the models: some packs unpack into a second folder of their name."""
    if any(folder.glob("*.onnx")):
        return folder
    deeper = sorted({file.parent for file in visible(folder, "*.onnx")})
    if len(deeper) > 1:
        raise InputError(
            f"identity.model_pack: {folder} holds {len(deeper)} packs, and none by itself: name one of them, as {deeper[0]}."
        )
    if not deeper:
        raise InputError(
            f"identity.model_pack: {folder} has no *.onnx files: unpack the pack there, or name the folder that has them."
        )
    return deeper[0]
