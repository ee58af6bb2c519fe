"""Motion Smoothness by AMT-S, VBench's own interpolator and so the paper's (4.1).

Runs where the profile's `metrics.motion_smoothness_amt` names AMT-S exported to ONNX: two frames, float32 [1, 3, H, W] in
0..1, in, the middle one out. Its values have columns of their own. Reads that file; writes nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, store
from rmkit.metrics import Column, Measure, Metric, Subject, motion_smoothness
from rmkit.paths import resolve
from rmkit.profile import Profile

if TYPE_CHECKING:
    import pandas as pd

KEY = "metrics.motion_smoothness_amt"
CELL = 16  # pixels that AMT's sides are multiples of
_NAME = "Motion Smoothness (AMT-S)"
_AMT = {"floor": 2e-5, "options": {"interpolator": "amt_s"}}


class MotionSmoothnessAmt(Metric):
    """Motion Smoothness by AMT-S."""

    columns = (
        Column("motion_smoothness_amt", _NAME, "", 1, **_AMT, paper=True),
        Column("motion_smoothness_amt_distinct", f"{_NAME}, distinct frames", "", 1, distinct=True, **_AMT),
    )
    uses = (motion_smoothness,)
    needs_model = True

    def check(self, profile: Profile, height: int, width: int) -> None:
        """Raise InputError unless the file is a network of two frames to one that takes this size; it is loaded."""
        self._load(profile).require_size(height, width)

    def fingerprint(self, profile: Profile) -> str:
        """Content hash of the file and of the weights beside it."""
        file = self._file(profile)
        # Where torch's exporter puts weights, unless told otherwise.
        data = file.with_name(f"{file.name}.data")
        return "+".join(store.fingerprint(part) for part in (file, data) if part.is_file())

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        return motion_smoothness.by(self._load(profile))

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        return "" if len(rows) else f"{self.label}, the paper's: {self.why_no_row(profile)}"

    def _load(self, profile: Profile) -> "Amt":
        return Amt(self._file(profile), models.device(profile).type == "cpu")

    def _file(self, profile: Profile) -> Path:
        file = resolve(self.model(profile))
        if not file.is_file():
            raise InputError(
                f"{KEY} is {self.model(profile)}, and {file} is no file: export AMT-S to ONNX, or leave it out."
            )
        return file


class Amt:
    """AMT-S out of an ONNX file: two frames in, the one half-way out.

    The graph: two inputs and one output, float32 [1, 3, H, W] of RGB in 0..1. Sides are padded to multiples of 16 by
    repeating the edge, as much before as after, as VBench does (its `motion_smoothness.py` and AMT's `InputPadder`; it
    scales frames down only where a GPU's memory is short, which is not done here).
    """

    def __init__(self, path: Path, on_cpu: bool = True):
        """Raises InputError when the file cannot be run or takes or gives something else."""
        import onnxruntime

        providers = ["CPUExecutionProvider"] if on_cpu else onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(path, providers=providers)
        except Exception as error:  # onnxruntime's own share no base
            raise InputError(
                f"{KEY}: {path} is damaged or no ONNX model that onnxruntime can run "
                f"({type(error).__name__}): export it again."
            ) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if (len(inputs), len(outputs)) != (2, 1):
            raise InputError(
                f"{KEY}: {path} has {len(inputs)} inputs and {len(outputs)} outputs: export AMT-S so that it "
                "takes two frames and gives the middle one."
            )
        for port in (*inputs, *outputs):
            if port.type != "tensor(float)" or len(port.shape) != 4:
                raise InputError(
                    f"{KEY}: '{port.name}' of {path} is a {port.type} of {port.shape} and must be float32 [1, 3, H, W]."
                )
        self._names, self._shape, self._path = [port.name for port in inputs], inputs[0].shape, path

    def require_size(self, height: int, width: int) -> None:
        """Raise InputError unless frames of this size can go through; a graph may have been exported for one only."""
        wanted = [1, 3, *(side + sum(_padding(side)) for side in (height, width))]
        fixed = zip(self._shape, wanted, strict=True)
        if any(isinstance(have, int) and have != want for have, want in fixed):
            raise InputError(
                f"{KEY}: {self._path} takes {self._shape} and frames of {height}x{width} come as {wanted}: "
                "export it for that size, or for any."
            )

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The frame half-way between two uint8 [H, W, 3], float32 [H, W, 3] in 0..255."""
        height, width = left.shape[:2]
        edges = _padding(height), _padding(width), (0, 0)
        padded = [np.pad(frame, edges, mode="edge") for frame in (left, right)]
        tensors = [(frame.transpose(2, 0, 1)[None] / 255).astype(np.float32) for frame in padded]
        (middle,) = self._session.run(None, dict(zip(self._names, tensors, strict=True)))
        if middle.shape != tensors[0].shape:
            raise InputError(
                f"{KEY}: {self._path} makes {list(middle.shape)} of two frames of {list(tensors[0].shape)}."
            )
        (top, _), (before, _), _ = edges
        return 255 * middle[0].transpose(1, 2, 0)[top : top + height, before : before + width]


def _padding(side: int) -> tuple[int, int]:
    """Pixels before and after a side that make it a multiple of CELL."""
    more = -side % CELL
    return more // 2, more - more // 2


METRIC = MotionSmoothnessAmt()
