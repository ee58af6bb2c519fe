"""Joint against one-way attention, trained alike on a finished run's pairs: quality to the truth, seconds a clip.

Reads results/<profile>/ after `make reproduce`; trains and enhances the mode that the run lacks, writes `tables/modes.*`
(`make compare-modes`). One-way cached is one-way with the render's keys and values kept; its clips are the same.
"""

import argparse
import time

import pandas as pd

from rmkit import metrics, profile
from rmkit.attention.one_way import CACHED
from rmkit.baselines import truth
from rmkit.errors import InputError
from rmkit.evaluation import statistics, tables
from rmkit.evaluation.typeset import Table, cell
from rmkit.kit import encode, video
from rmkit.kit.progress import track
from rmkit.method import dataset, enhance, sampling, training
from rmkit.method.incontext import MODES, training_mode
from rmkit.metrics.psnr import psnr
from rmkit.metrics.ssim import ssim
from rmkit.profile import Profile

METRICS = {"psnr_truth": psnr, "ssim_truth": ssim}
TURNS = 3  # of which the fastest counts: whatever else the machine does only slows a clip down


def compare(settings: Profile) -> Table:
    """Train, enhance and measure each mode; the table has a row a mode."""
    chosen = [clip for clip in sampling.load(settings, "validation") if truth.exists(settings, clip)]
    if not chosen:
        raise InputError("no validation clip has a truth to be compared with.")
    rows = []
    for mode in MODES:
        here = in_mode(settings, mode)
        dataset.encode(here)
        training.train(here, name(settings, mode))
        paths = enhance.enhance(here, chosen, name(settings, mode))
        for clip, path in zip(track(chosen, f"{mode}: metrics"), paths, strict=True):
            row = {"method": mode, "clip": clip.id, "sequence": clip.sequence}
            for metric, compute in METRICS.items():
                value = compute(video.stream(path), truth.stream(settings, clip))
                rows.append(row | {"metric": metric, "value": value})
    frame = pd.DataFrame(rows).assign(options="")
    seconds = timed(settings, chosen[0])
    cells, data, columns = [], [], metrics.columns()
    for mode in seconds:
        trained = training_mode(mode)
        means = {metric: statistics.mean(frame, trained, metric) for metric in METRICS}
        apart = statistics.difference(frame, "psnr_truth", trained, MODES[0])
        over = "" if trained == MODES[0] else cell(apart, columns["psnr_truth"].digits, signed=True)
        measured = [cell(means[metric], columns[metric].digits) for metric in METRICS]
        cells.append([mode, *measured, over, f"{seconds[mode]:.2f}"])
        data.append(
            {"mode": mode, "seconds": round(seconds[mode], 3)}
            | {metric: round(estimate.value, 4) for metric, estimate in means.items()}
        )
    frames, height, width = settings.clips.frames, settings.clips.height, settings.clips.width
    return Table(
        "modes",
        "Modes of the in-context attention, trained alike",
        ["mode", "PSNR to the truth ↑", "SSIM to the truth ↑", "PSNR over joint", "seconds a clip ↓"],
        cells,
        pd.DataFrame(data),
        [
            f"Profile {settings.name}, {len(chosen)} clips, 95 % intervals by sequence. Seconds: {frames} frames of "
            f"{width}x{height}, {settings.enhance.steps} steps, with coding; the fastest of {TURNS} turns, side by side. "
            "At the paper's size attention weighs more: see `make bench`."
        ],
    )


def timed(settings: Profile, clip: sampling.Clip) -> dict[str, float]:
    """Seconds of one clip in each mode, in turn on the same machine."""
    frames = video.read(sampling.path(settings, clip))
    pipelines = {
        mode: enhance.load(settings, settings.layout.adapters / name(settings, mode)) for mode in MODES
    }
    text = encode.text(pipelines[MODES[0]], settings.train.prompt)
    negative = enhance.negative(settings, pipelines[MODES[0]])
    best = dict.fromkeys((*MODES, CACHED), float("inf"))
    for _ in range(TURNS):
        for mode in best:
            here, pipeline = in_mode(settings, training_mode(mode), mode), pipelines[training_mode(mode)]
            started = time.perf_counter()
            enhance.run(here, pipeline, frames, text, negative, 0)
            best[mode] = min(best[mode], time.perf_counter() - started)
    return best


def in_mode(settings: Profile, mode: str, shown: str | None = None) -> Profile:
    """The profile with another mode of training, and of enhancing where it differs."""
    return settings.model_copy(
        update={
            "train": settings.train.model_copy(update={"mode": mode}),
            "enhance": settings.enhance.model_copy(update={"mode": shown}),
        }
    )


def name(settings: Profile, mode: str) -> str:
    """Folder of a mode's adapter and clips; the run's own mode is there already."""
    return training.NAME if mode == settings.train.mode else mode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini", help="name or path of a .yaml file (default: mini)")
    chosen_profile = profile.load(parser.parse_args().profile)
    table = compare(chosen_profile)
    print(*tables.write(chosen_profile, [table]), sep="\n")
    print(table.data.to_string(index=False))
