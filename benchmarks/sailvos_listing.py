"""Planning the paper's clips on a listing of SAIL-VOS' proportions: seconds and peak memory, at first and once more.

Makes a stand-in for the data set in a temporary folder: 204 videos with 113,490 frames in shots of the real lengths
(data/paper/sailvos_shots.json), each frame a link to a tiny picture, and 1.4 million masks in the listings, about a gigabyte.
Cuts are given, so nothing is decoded. Every step is a process of its own; `--write` stores the clips, tiny ones, too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from rmkit import profile as profiles
from rmkit.kit import store
from rmkit.method import sampling
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile
from rmkit.sources import sailvos

MASKS = 1_400_000
OUTLINE = 40  # points of a mask's outline
SIDE = 16  # pixels of a picture and of a clip that is written


def make(root: Path) -> dict[str, int]:
    """The stand-in, and `cuts.json` beside its listings; returns how much of what there is."""
    shots = json.loads((REPOSITORY / "data" / "paper" / "sailvos_shots.json").read_text())["shots"]
    each = MASKS // sum(map(sum, shots))  # masks a frame
    random, cuts = np.random.default_rng(0), {}
    for split, name in sailvos.SPLIT_FILES.items():
        # Every fifth video is held out.
        videos = [i for i in range(len(shots)) if (i % 5 == 0) == (split == "validation")]
        images = []
        for video in videos:
            folder, frames = root / f"video_{video:03d}" / "images", sum(shots[video])
            cuts[folder.parent.name] = list(accumulate(shots[video]))[:-1]
            folder.mkdir(parents=True)
            first = folder / "000000.bmp"
            Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(first)
            for frame in range(frames):
                path = folder / f"{frame:06d}.bmp"
                if frame:
                    os.link(first, path)
                file = path.relative_to(root).as_posix()
                images.append(
                    {"id": len(images), "video_id": video, "frame_id": str(frame), "file_name": file}
                )
        rest = {"videos": [{"id": i, "vid_name": f"video_{i:03d}"} for i in videos], "images": images}
        outlines = [random.uniform(0, 1280, 2 * OUTLINE).round(2).tolist() for _ in range(64)]
        tails = [
            f'"category_id": {i % 24 + 1}, "iscrowd": 0, "bbox": {outline[:4]}, "segmentation": [{outline}]}}'
            for i, outline in enumerate(outlines)
        ]
        with (root / name).open("w") as file:
            file.write(json.dumps(rest)[:-1] + ', "annotations": [')
            for i in range(each * len(images)):
                file.write(f'{"," if i else ""}\n{{"id": {i}, "image_id": {i // each}, {tails[i % 64]}')
            file.write("]}")
    store.write_json(root / "cuts.json", cuts)
    frames = sum(map(sum, shots))
    size = sum((root / name).stat().st_size for name in sailvos.SPLIT_FILES.values())
    return {"videos": len(shots), "frames": frames, "masks": each * frames, "MB of listings": size // 10**6}


def settings(root: Path) -> Profile:
    """The profile `paper` on the stand-in, its results beside it, clips as small as its pictures."""
    profiles.REPOSITORY = root.parent
    content = profiles.load("paper").model_dump()
    content["data"] |= {"root": str(root), "cuts": str(root / "cuts.json")}
    content["clips"] |= {"height": SIDE, "width": SIDE}
    return Profile.model_validate(content)


def plan(profile: Profile) -> str:
    """What 01_data_prep does before it writes the first clip."""
    chosen = sampling.choose(profile)
    left = sum(map(len, sampling.missing(profile, chosen)))
    return f"{len(chosen)} clips, {left} of them to be written"


def write(profile: Profile) -> str:
    """The whole of it."""
    return f"{len(sampling.sample(profile))} clips stored"


def measure(step: str, root: Path) -> None:
    """Print seconds by the clock and of the processor, and peak memory, of one step."""
    profile, started = settings(root), time.time()
    said = {"plan": plan, "write": write}[step](profile)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    taken = f"{time.time() - started:7.1f} s, {time.process_time():.1f} s of a core"
    print(f"{step:6} {taken}, at most {peak:.0f} MiB: {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store the clips, too, and call it again")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)  # of a process of its own
    asked = parser.parse_args()
    if asked.step:
        measure(asked.step[0], Path(asked.step[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        root, started = Path(folder) / "sailvos", time.time()
        print(", ".join(f"{count:,} {what}" for what, count in make(root).items()), end="")
        print(f"; made in {time.time() - started:.0f} s", flush=True)
        for step in ["plan", "plan"] + ["write", "write"] * asked.write:
            subprocess.run([sys.executable, __file__, "--step", step, root], check=True)


if __name__ == "__main__":
    main()
