"""A made CARLA-LOC: the release's folders and names, two towns whose drives are replayed in three weathers.

Writes `<root>/<Town>/<weather>/<dynamic|static>/{stereo_l,stereo_r}/` (1280x720, divided) and the town's `common_data.pkl`,
a pickle that ends the process of whoever loads it.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from rmkit.sources.carla_loc import KINDS

TOWNS = ("Town01", "Town10HD")
WEATHERS = {"ClearNoon": 1.0, "FoggyNoon": 0.5, "RainyNight": 0.25}  # and its light
FRAMES = 32  # of a drive, at 20 a second
SIZE = (720, 1280)  # pixels of a picture of the release
ABORT = b"cos\nabort\n(tR."  # the pickle of a call of os.abort


def write(root: Path, divided: float) -> None:
    """Write the tree, sides of pictures divided."""
    height, width = (round(side / divided) for side in SIZE)
    for number, town in enumerate(TOWNS):
        for k, kind in enumerate(KINDS):
            noise = np.random.default_rng([number, k])
            street = noise.integers(40, 256, (height // 4 + 1, width // 4 + FRAMES, 3))
            street = np.kron(street, np.ones((4, 4, 1)))
            for late, (weather, light) in enumerate(WEATHERS.items()):
                for side, camera in enumerate(("stereo_l", "stereo_r")):
                    folder = root / town / weather / kind / camera
                    folder.mkdir(parents=True)
                    for i in range(FRAMES):
                        # Weathers are recorded a frame or two apart, and a name is a number that is not padded.
                        first = 2 * (i + late) + side
                        picture = (street[:height, first : first + width] * light).astype(np.uint8)
                        Image.fromarray(picture).save(folder / f"{90 + i}.png")
        (root / town / "common_data.pkl").write_bytes(ABORT)
