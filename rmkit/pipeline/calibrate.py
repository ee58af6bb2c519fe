"""`make calibrate`: each stage timed on this machine, with the profile's own models and sizes (ours).

Runs the stages on a few clips with few steps under results/<profile>-calibration/, which is removed; writes
results/calibration.json, which `plan` reads. A stage that cannot run here, for want of weights for instance, is named and left
out. Times are by the clock: what else runs on the machine meanwhile is in them.
"""

import ctypes
import gc
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from rmkit.errors import InputError
from rmkit.kit import machine, store
from rmkit.kit.progress import duration
from rmkit.pipeline import calibration, plan, plan_table, stages
from rmkit.pipeline.calibration import Calibration, Timed
from rmkit.pipeline.cards import GIB
from rmkit.profile import Profile

CLIPS = 3  # of each split: a median leaves out the first, which loads (ours)
STEPS = 2  # of each denoising (ours)
TRAINED = 4  # steps of each expert (ours)
EVERY = 0.02  # seconds between two looks at the memory
STAGES = ("data", "anchors", "structure", "propagate", "filter", "encode", "train", "enhance", "evaluate")


def calibrate(profile: Profile) -> Path:
    """Run every stage on a few clips with few steps, and keep what each took; returns the file."""
    small, device = _smaller(profile), machine.device_name(profile)  # loads torch, as every notebook does
    shutil.rmtree(small.layout.root, ignore_errors=True)
    try:
        found = _measured(small, device == "cpu", profile.layout.root / "cuts")
    finally:
        shutil.rmtree(small.layout.root, ignore_errors=True)
    known = calibration.load()
    kept = known.stages if known.device == device else {}
    store.write_json(calibration.FILE, asdict(Calibration(device, kept | found)))
    plan_table.compare(profile, plan.steps(profile))
    return calibration.FILE


def _measured(small: Profile, is_cpu: bool, cuts: Path) -> dict[str, Timed]:
    """The stages run one after the other; cuts: of the run itself, which are not looked for again."""
    if cuts.is_dir():
        small.layout.root.mkdir(parents=True)
        (small.layout.root / "cuts").symlink_to(cuts)
    peaks: dict[str, float] = {}
    verbs = stages.STAGES | {"evaluate": _evaluate}
    for stage in STAGES:
        started = time.monotonic()
        with _highest() as peak:
            try:
                verbs[stage](small)
            except InputError as error:
                print(f"calibrate: {stage} is left out: {error}", flush=True)
                continue
        peaks["faces" if stage == "filter" else stage] = peak[0]
        print(
            f"calibrate: {stage}, {duration(time.monotonic() - started)}, {peak[0] / GIB:.2f} GiB", flush=True
        )
    found, megapixels = {}, small.clips.raw_bytes / 3e6
    for row in plan.steps(small):
        if row.is_own and row.seconds:
            peak = peaks.get(row.stage) or peaks["evaluate"]  # of a metric
            flops, held = row.work.flops / row.count, row.work.cpu_bytes(is_cpu)
            found[row.stage] = Timed(row.seconds, flops, megapixels, peak, held)
    return found


def _evaluate(profile: Profile) -> None:
    """A few clips by every method that is there, which share what is decoded, by every metric that runs."""
    from rmkit.evaluation import evaluate
    from rmkit.method import sampling

    evaluate.measure(profile, evaluate.subjects(profile, sampling.load(profile, "validation")))


def _smaller(profile: Profile) -> Profile:
    """The profile with a few clips and steps, and results in a folder of its own."""
    few = {"steps": STEPS}
    low, high = (
        expert.model_copy(update={"steps": TRAINED}) for expert in (profile.train.low, profile.train.high)
    )
    changes: dict[str, dict[str, Any]] = {
        "data": {"train_clips": CLIPS, "validation_clips": CLIPS},
        "anchors": few,
        "propagation": few | {"variants": ()},  # the training clips alone
        "identity": {"fewest_pairs": 1, "over": "mean", "threshold": -1.0},
        "train": {"held_out": 0, "warmup": 1, "low": low, "high": high},
        "enhance": few,
    }
    groups = {name: getattr(profile, name).model_copy(update=values) for name, values in changes.items()}
    return profile.model_copy(update={"name": f"{profile.name}-calibration", **groups})


@contextmanager
def _highest() -> Iterator[list[float]]:
    """Bytes of this process at its highest inside, in a list of one; what earlier stages freed does not count."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps it otherwise
        trim(0)
    process, ended = psutil.Process(), threading.Event()
    found = [float(process.memory_info().rss)]

    def look() -> None:
        while not ended.wait(EVERY):
            found[0] = max(found[0], process.memory_info().rss)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
