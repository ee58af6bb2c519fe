"""Temporal Flickering beside VBench's arithmetic: seconds and peak memory on one clip of the paper's size.

Prints a table (`make bench`) and writes nothing that stays. Both read the same lossless file of 81 frames of 800x1200,
each in a process of its own; the score is the same to the last bit. VBench's side is written from its definition:
all frames in memory, each pair in float32 (vbench/temporal_flickering.py).
"""

import argparse
import itertools
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from rmkit.kit import machine, video
from rmkit.metrics.temporal_flickering import temporal_flickering

TURNS = 3  # of which the fastest counts: whatever else the machine does only slows one down
SIZE = (81, 800, 1200)
OURS, VBENCH = "ours", "VBench"


def compute(which: str, path: Path) -> tuple[float, float]:
    """(score, seconds of the arithmetic alone) of a video, decoded as each side does."""
    if which == VBENCH:
        frames = decoded(path)
        started = time.perf_counter()
        return vbench(frames), time.perf_counter() - started
    waited = 0.0

    def waiting() -> Iterable[np.ndarray]:
        nonlocal waited
        frames = video.stream(path)
        while True:
            asked = time.perf_counter()
            frame = next(frames, None)
            waited += time.perf_counter() - asked
            if frame is None:
                return
            yield frame

    started = time.perf_counter()
    score = temporal_flickering(waiting())
    return score, time.perf_counter() - started - waited


def decoded(path: Path) -> list[np.ndarray]:
    """All frames by OpenCV, uint8 [H, W, 3] BGR."""
    frames, capture = [], cv2.VideoCapture(str(path))
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame)
    capture.release()
    return frames


def vbench(frames: list[np.ndarray]) -> float:
    """VBench's arithmetic."""
    errors = []
    for pair in itertools.pairwise(frames):
        one, other = (np.array(frame, dtype=np.float32) for frame in pair)
        errors.append(np.mean(cv2.absdiff(one, other)))
    return (255.0 - np.mean(np.array(errors)).item()) / 255.0


def write(path: Path, frames: int, height: int, width: int) -> None:
    """A textured picture that drifts by some pixels a frame."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    clip = np.stack([np.roll(picture, (2 * i, 3 * i), axis=(0, 1)) for i in range(frames)])
    video.write(path, clip, 16)


def measured(which: str, path: Path, turns: int) -> tuple[float, float, float, float]:
    """(score, seconds, seconds of the arithmetic, MiB at the peak) of one side, in this process."""
    whole, arithmetic = [], []
    for _ in range(turns):
        started = time.perf_counter()
        score, alone = compute(which, path)
        whole.append(time.perf_counter() - started)
        arithmetic.append(alone)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return score, min(whole), min(arithmetic), peak


def apart(work, *arguments):
    """Call in a fresh process, whose peak memory is nobody else's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, nargs=3, default=SIZE, metavar=("F", "H", "W"))
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    frames, height, width = arguments.size
    print(f"Temporal Flickering of {frames} frames of {height}x{width}, {machine.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        apart(write, path, frames, height, width)
        found = {which: apart(measured, which, path, arguments.turns) for which in (OURS, VBENCH)}
    print(f"{'':8}{'score':>12}{'seconds':>10}{'arithmetic':>11}{'MiB':>7}")
    for which, (score, seconds, alone, peak) in found.items():
        print(f"{which:8}{score:12.9f}{seconds:10.2f}{alone:11.2f}{peak:7.0f}")
    own, other = found[OURS], found[VBENCH]
    ratios = [b / a for a, b in zip(own[1:], other[1:], strict=True)]
    print(
        "VBench takes {:.2f} times as long, {:.2f} without decoding, and {:.1f} times the memory".format(
            *ratios
        )
    )
    print(f"the scores differ by {abs(own[0] - other[0]):.1g}")


if __name__ == "__main__":
    main()
