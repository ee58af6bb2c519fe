"""Flicker where the windows of a long video join, beside that of the same frames made in one window.

Reads results/<profile>/ after `make reproduce` (training clips and the adapter); writes nothing. Clips that the model
takes whole are made again in windows of half their length, and the change from each distinct frame to the next compared.
"""

import argparse
from itertools import pairwise

import numpy as np

from rmkit import profile
from rmkit.extras import own_video, windows
from rmkit.extras.own_video import Job
from rmkit.kit import encode, footage
from rmkit.method import enhance, sampling, training
from rmkit.profile import Profile

CLIPS = 8


def measure(settings: Profile, count: int = CLIPS) -> list[tuple[str, float, float]]:
    """(clip, at the joins, elsewhere) a clip: flicker in windows over flicker in one window."""
    whole = settings.clips.frames
    length = whole // 2 - whole // 2 % windows.STRIDE + 1
    overlap = max(windows.STRIDE, length // 2 - length // 2 % windows.STRIDE)
    first = tuple(windows.starts(whole, length, overlap))
    in_windows = settings.model_copy(
        update={
            "clips": settings.clips.model_copy(update={"frames": length}),
            "enhance": settings.enhance.model_copy(update={"overlap": overlap}),
        }
    )
    pipeline = enhance.load(settings, settings.layout.adapters / training.NAME)
    prompt = settings.train.prompt
    text, negative = encode.text(pipeline, prompt), enhance.negative(settings, pipeline)
    rows = []
    for clip in sampling.load(settings, "train")[:count]:
        path, moments = sampling.path(settings, clip), range(0, whole, sampling.repeats(clip, whole))
        shot, size = footage.scan(path), (settings.clips.height, settings.clips.width)
        one, several = (
            _changes(
                list(
                    own_video.enhanced(
                        chosen, pipeline, Job(path, shot, starts, prompt, *size), text, negative, 0
                    )
                ),
                moments,
            )
            for chosen, starts in ((settings, (0,)), (in_windows, first))
        )
        shared = [(at, before + length) for before, at in pairwise(first)]
        joins = np.array([any(low <= moment <= high for low, high in shared) for moment in moments[1:]])
        ratios = (several[chosen].sum() / one[chosen].sum() for chosen in (joins, ~joins))
        rows.append((clip.id, *map(float, ratios)))
    return rows


def _changes(frames: list[np.ndarray], moments: range) -> np.ndarray:
    """Mean absolute change, in grey levels, from each of `moments` to the next."""
    shown = np.stack([frames[moment] for moment in moments]).astype(np.float32)
    return np.abs(np.diff(shown, axis=0)).mean(axis=(1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini", help="name or path of a .yaml file (default: mini)")
    rows = measure(profile.load(parser.parse_args().profile))
    print("flicker in windows over flicker in one window")
    print(f"{'clip':36}{'at joins':>10}{'elsewhere':>11}{'joins/elsewhere':>17}")
    means = tuple(np.mean([row[i] for row in rows]) for i in (1, 2))
    for name, joins, elsewhere in [*rows, ("mean", *means)]:
        print(f"{name:36}{joins:10.3f}{elsewhere:11.3f}{joins / elsewhere:17.3f}")


if __name__ == "__main__":
    main()
