"""What footage of ordinary size costs: `evaluate` on three made pairs of up to 720p, and what `enhance` says of one.

    python benchmarks/ordinary_footage.py [--profile mini]

Makes the videos in a temporary folder: 121 to 233 frames, 24 and 30 a second, one pair of two sizes. Prints wall and CPU
seconds of measuring all pairs by the metrics that need no weights, and the seconds until `enhance` has said its hours.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from rmkit import profile
from rmkit.extras import own_video, score
from rmkit.kit import video
from rmkit.method import training

PAIRS = {  # frames, render's (height, width, rate), output's
    "street": (233, (480, 640, 30), (704, 960, 24)),
    "road": (121, (720, 1280, 24), (720, 1280, 24)),
    "yard": (161, (720, 1280, 30), (720, 1280, 30)),
}


class _Said(Exception):
    """The estimate is out: what follows is not measured."""


def footage(frames: int, height: int, width: int, seed: int):
    """A textured wall under a moving camera, uint8 [H, W, 3] one by one."""
    blocks = np.random.default_rng(seed).integers(40, 200, (height // 8 + 1, width // 4, 3))
    wall = np.kron(blocks, np.ones((8, 8, 1), int)).astype(np.uint8)
    for number in range(frames):
        yield np.ascontiguousarray(wall[:height, 2 * number : 2 * number + width])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="mini")
    settings = profile.load(parser.parse_args().profile)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for seed, (name, (frames, *sides)) in enumerate(PAIRS.items()):
            for side, (height, width, rate) in zip(("renders", "outputs"), sides, strict=True):
                video.write_viewing_copy(
                    folder / side / f"{name}.mp4", footage(frames, height, width, seed), rate
                )
        wall, cpu = time.time(), time.process_time()
        scored = settings.demo(f"ordinary_{folder.name}")
        try:
            score.score(scored, folder / "renders", folder / "outputs", folder / "scores.csv")
        finally:
            shutil.rmtree(
                scored.layout.root, ignore_errors=True
            )  # what was measured would not be measured again
        print(f"evaluate, three pairs: {time.time() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU")
        if not (settings.layout.adapters / training.NAME).is_dir():
            print("enhance: not run: the profile has no adapter yet.")
            return
        own_video.enhanced = _stop
        wall, cpu = time.time(), time.process_time()
        try:
            own_video.enhance_video(settings, folder / "renders" / "road.mp4", folder / "made" / "road.mp4")
        except _Said:
            print(
                f"enhance has said its hours after {time.time() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU"
            )


def _stop(*_):
    raise _Said


if __name__ == "__main__":
    main()
