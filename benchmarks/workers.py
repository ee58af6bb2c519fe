"""Clips per second of propagation in one process and by one, two, ... of Ray's workers, on one machine's cores or GPUs.

Reads a finished run's clips, anchors and structure; what it makes goes to a temporary folder. Each time is from the first
clip that is finished to the last, so that loading does not count; the whole stage's stands beside it.
"""

import argparse
import tempfile
import time
from pathlib import Path

from rmkit import profile as profiles
from rmkit.kit import store, workers
from rmkit.method import propagation, sampling


def rate(run: profiles.Profile, clips: list[sampling.Clip], count: int | None) -> tuple[float, float]:
    """Clips a second between the first and the last, and seconds in all; count: of workers, None for this process."""
    started = time.time()
    with workers.asked(count):
        workers.start()
        ready = time.time()
        paths = propagation.propagate(run, clips, "edges")
        seconds = time.time() - ready
    ends = sorted(store.sidecar_of(path).stat().st_mtime for path in paths)
    print(
        f"{'this process' if not count else f'{count} workers':>14}: cluster {ready - started:.0f} s",
        flush=True,
    )
    return (len(ends) - 1) / (ends[-1] - ends[0]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    profile = profiles.load(arguments.profile)
    clips = sampling.load(profile, "validation")[: arguments.clips]
    rows = {}
    for count in [None, *arguments.workers]:
        with tempfile.TemporaryDirectory() as folder:
            run = profile.model_copy(update={"name": folder})  # an absolute name leaves results/
            for part in ("clips", "anchors", "structure"):
                (Path(folder) / part).symlink_to(profile.layout.root / part)
            rows[count] = rate(run, clips, count)
    print(f"{'':>14}{'clips/s':>10}{'ratio':>8}{'stage, s':>10}")
    for count, (speed, seconds) in rows.items():
        name = f"{count} workers" if count else "this process"
        print(f"{name:>14}{speed:10.3f}{speed / rows[None][0]:8.2f}{seconds:10.1f}")


if __name__ == "__main__":
    main()
