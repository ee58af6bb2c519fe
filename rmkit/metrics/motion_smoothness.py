"""Motion Smoothness: how well every second frame follows from its two neighbours (paper, 4.1).

VBench's arithmetic around an interpolator. VBench's is AMT-S, a network under a non-commercial licence, which runs where
the user has exported it to ONNX and has metrics of its own name; the stand-in for everybody needs no weights (optical
flow by DIS). The interpolator's name goes into every row it produced. Reads that one file; writes nothing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from rmkit.errors import InputError

Interpolator = Callable[[np.ndarray, np.ndarray], np.ndarray]
INTERPOLATOR = "dis_flow"  # the name written beside every value
CELL = 16  # pixels that AMT's sides are multiples of


def motion_smoothness(frames: Iterable[np.ndarray], interpolate: Interpolator | None = None) -> float:
    """Score of one clip, 0..1, higher is smoother; a last odd frame without a right neighbour is left out.

    frames: uint8 [H, W, 3] RGB, three or more. interpolate(left, right): the frame half-way, float
    [H, W, 3] in 0..255; its result is truncated to uint8, as VBench does.
    """
    interpolate = interpolate or flow_midpoint
    errors: list[float] = []
    left = middle = None
    for i, frame in enumerate(frames):
        if i % 2:
            middle = frame
            continue
        if left is not None:
            predicted = np.clip(interpolate(left, frame), 0, 255).astype(np.uint8)
            errors.append(float(np.mean(cv2.absdiff(np.ascontiguousarray(middle), predicted))))
        left = frame
    if not errors:
        raise ValueError("motion smoothness needs three frames or more")
    return (255.0 - float(np.mean(errors))) / 255.0


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
                f"models.amt: {path} is damaged or no ONNX model that onnxruntime can run "
                f"({type(error).__name__}): export it again."
            ) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if (len(inputs), len(outputs)) != (2, 1):
            raise InputError(
                f"models.amt: {path} has {len(inputs)} inputs and {len(outputs)} outputs: export AMT-S so that it "
                "takes two frames and gives the middle one."
            )
        for port in (*inputs, *outputs):
            if port.type != "tensor(float)" or len(port.shape) != 4:
                raise InputError(
                    f"models.amt: '{port.name}' of {path} is a {port.type} of {port.shape} and must be float32 [1, 3, H, W]."
                )
        self._names, self._shape, self._path = [port.name for port in inputs], inputs[0].shape, path

    def require_size(self, height: int, width: int) -> None:
        """Raise InputError unless frames of this size can go through; a graph may have been exported for one only."""
        wanted = [1, 3, *(side + sum(_padding(side)) for side in (height, width))]
        if any(
            isinstance(have, int) and have != want for have, want in zip(self._shape, wanted, strict=True)
        ):
            raise InputError(
                f"models.amt: {self._path} takes {self._shape} and frames of {height}x{width} come as {wanted}: "
                "export it for that size, or for any."
            )

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The frame half-way between two uint8 [H, W, 3], float32 [H, W, 3] in 0..255."""
        height, width = left.shape[:2]
        (top, bottom), (before, after) = _padding(height), _padding(width)
        edges = ((top, bottom), (before, after), (0, 0))
        padded = [np.pad(frame, edges, mode="edge") for frame in (left, right)]
        tensors = [(frame.transpose(2, 0, 1)[None] / 255).astype(np.float32) for frame in padded]
        (middle,) = self._session.run(None, dict(zip(self._names, tensors, strict=True)))
        if middle.shape != tensors[0].shape:
            raise InputError(
                f"models.amt: {self._path} makes {list(middle.shape)} of two frames of {list(tensors[0].shape)}."
            )
        return 255 * middle[0].transpose(1, 2, 0)[top : top + height, before : before + width]


def _padding(side: int) -> tuple[int, int]:
    """Pixels before and after a side that make it a multiple of CELL."""
    more = -side % CELL
    return more // 2, more - more // 2


def flow_midpoint(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The frame half-way between two, float32 [H, W, 3]: both warped along their flow, then averaged.

    Flow to the middle is combined from both directions as in Super SloMo (Jiang et al. 2018, eq. 4).
    """
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey_left = cv2.cvtColor(np.ascontiguousarray(left), cv2.COLOR_RGB2GRAY)
    grey_right = cv2.cvtColor(np.ascontiguousarray(right), cv2.COLOR_RGB2GRAY)
    forward = dis.calc(grey_left, grey_right, None)  # [H, W, 2], pixels
    backward = dis.calc(grey_right, grey_left, None)
    to_left = 0.25 * (backward - forward)
    return 0.5 * (_warp(left, to_left) + _warp(right, -to_left))


def _warp(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Frame sampled at x + flow(x), bilinear, edges repeated."""
    h, w = frame.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(
        frame.astype(np.float32),
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
