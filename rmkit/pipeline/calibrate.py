"""`make calibrate`: a step of each stage timed on this machine, with the profile's own models and sizes (ours).

Runs the stages on a few clips with few steps under results/<profile>-calibration/; writes results/calibration.json, which
`plan` reads. A stage that cannot run here, for want of weights for instance, is named and left out.
"""

import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmkit.errors import InputError
from rmkit.kit import machine, store
from rmkit.pipeline import calibration, plan, stages
from rmkit.pipeline.calibration import PROCESS, Calibration, Timed
from rmkit.profile import Profile

CLIPS, STEPS = 4, 2  # of each split, and of each denoising (ours)


def calibrate(profile: Profile) -> Path:
    """Run every stage on a few clips with few steps, and keep what each took; returns the file."""
    small = _smaller(profile)
    process = float(_peak())
    for name in (
        "data",
        "anchors",
        "structure",
        "propagate",
        "filter",
        "encode",
        "train",
        "enhance",
        "evaluate",
    ):
        if name in stages.STAGES:
            try:
                stages.STAGES[name](small)
            except InputError as error:
                print(f"calibrate: {name} is left out: {error}", flush=True)
    found = {}
    for row in plan.steps(small):
        if row.done >= plan.ENOUGH and row.seconds:
            megapixels = small.clips.raw_bytes / 3e6
            found[row.stage] = Timed(row.seconds, row.work.flops / row.count, megapixels)
    if seconds := _training(small):
        row = next(row for row in plan.steps(small) if row.stage == "train")
        found["train"] = Timed(seconds, row.work.flops / row.count, small.clips.raw_bytes / 3e6)
    device = machine.device_name(profile)
    known = calibration.load().stages if calibration.load().device == device else {}
    made = Calibration(device, known | found, max(process, PROCESS))
    store.write_json(calibration.FILE, asdict(made))
    compare(profile)
    return calibration.FILE


def compare(profile: Profile) -> None:
    """Print, side by side, what the calibration foretells and what the run's own sidecars say."""
    print(f"{'stage':16}{'foretold, s an item':>22}{'measured':>12}")
    foretold = {row.stage: row.seconds for row in plan.steps(profile, own=False)}
    for row in plan.steps(profile):
        if row.done >= plan.ENOUGH and row.seconds and foretold.get(row.stage):
            print(f"{row.stage:16}{foretold[row.stage]:22.3f}{row.seconds:12.3f}")


def _smaller(profile: Profile) -> Profile:
    """The profile with a few clips and steps, and results of its own."""
    few = {"steps": STEPS}

    def changed(group: str, **values: Any) -> Any:
        return getattr(profile, group).model_copy(update=values)

    experts = {name: getattr(profile.train, name).model_copy(update={"steps": 4}) for name in ("low", "high")}
    return profile.model_copy(
        update={
            "name": f"{profile.name}-calibration",
            "data": changed("data", train_clips=CLIPS, validation_clips=CLIPS),
            "anchors": changed("anchors", **few),
            "propagation": changed("propagation", **few),
            "identity": changed("identity", fewest_pairs=1, over="mean", threshold=-1.0),
            "train": changed("train", held_out=0, warmup=1, **experts),
            "enhance": changed("enhance", **few),
        }
    )


def _training(profile: Profile) -> float | None:
    """Seconds a step, of the steps after the first: the curve's last column is the time since the start."""
    import pandas as pd

    for file in sorted(profile.layout.adapters.glob("realmaster/*/curve.csv")):
        steps = pd.read_csv(file).groupby("step")["seconds"].max()
        if len(steps) > 1:
            return float(steps.diff().median())
    return None


def _peak() -> int:
    """Bytes of this process at its highest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
