"""Another engine: the adapter as it was trained, on drives in a simulator that it has never seen (paper, 5 and Fig. 9).

Reads the data that the profile names as `carla`, the run's adapters, pairs and metrics.csv; writes results/<profile>/carla/:
clips, what is made of them, metrics.csv, and tables/carla.*, the drives beside the run's own validation clips. The video
model has seen roads before, as Wan has (in the diorama, the truth of other roads): only the adapter is out of its domain.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from rmkit import baselines, metrics, sources
from rmkit.evaluation import evaluate, having, metrics_csv, plots, sheets, statistics, tables
from rmkit.evaluation.statistics import Estimate
from rmkit.evaluation.typeset import Table, cell
from rmkit.kit import stage, video
from rmkit.method import enhance, sampling
from rmkit.method.sampling import Clip
from rmkit.metrics import Column
from rmkit.paths import resolve
from rmkit.profile import Profile
from rmkit.sources import carla_loc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "carla"
METHODS = ("render", "colour_transfer", "realmaster", "vae_ceiling", "truth")
# What levels of other scenes say nothing of.
GAINS = (("realmaster", "render"), ("realmaster", "colour_transfer"))
DRAWN = ("psnr_truth", "ssim_truth", "edge_f1", "temporal_flickering_distinct", "dino", "offline_judge")
IDS = ("profile", "part", "metric", "method", "less")  # columns of the csv, before those of an estimate
PARTS = {"in": "in domain", "out": "out of domain", "difference": "out − in"}
# The engine's other weathers, and the words that ask for the like.
WEATHERS = {"FoggyNoon": "in thick fog", "RainyNight": "at night in the rain"}
REACH = 4  # frames that two weathers are looked for apart; they are up to 2.4
LOOKS = 24  # moments of a drive at which outlines are compared
NOTES = (
    "In domain: the run's validation clips. Out of domain: the drives of the other engine, none of which was trained on. "
    "The video model itself has seen roads, as Wan has: only the adapter is out of its domain.",
    "Mean over clips [95 % interval, resampled by sequence; a town counts as one]. Out − in: of two samples, unpaired, each "
    "resampled by itself; bold: the interval is without 0. (In round brackets): where a sample has fewer than "
    f"{statistics.FEWEST} sequences, the lowest and the highest mean of one (in out − in, less the mean in domain): no "
    "interval and no verdict. Other scenes have other levels, so read the gains, paired clip by clip within each part.",
)


def why_not(profile: Profile) -> str | None:
    """Why this profile has no such demonstration ('not run', a colon, and the reason), or None where it has."""
    if not profile.carla:
        return "not run: this profile has no data for it: see `carla` in mini.yaml and paper.yaml."
    if profile.carla.root and not resolve(profile.carla.root).is_dir():
        return f"not run: {profile.carla.root} does not exist; data/README.md says how to get CARLA-LOC."
    return None


def describe(profile: Profile) -> str:
    """One line for `doctor` on what is there, where `why_not` has no reason; raises InputError when it is damaged."""
    return sources.describe(_demo(profile))


def prepare(profile: Profile) -> Profile:
    """Make the drives readable; returns the demonstration's profile, its clips no larger than the drives' pictures.

    Raises InputError when the data set is missing or damaged.
    """
    here = _demo(profile)
    sources.prepare(here)
    height, width = sources.sequences(here, "validation")[0].frames([0]).shape[1:3]
    size = {"height": min(profile.clips.height, height // 16 * 16)}
    return _demo(profile, clips=size | {"width": min(profile.clips.width, width // 16 * 16)})


def measure(here: Profile) -> Path:
    """Sample, enhance, make what it is compared with, and measure; returns the path of the demonstration's metrics.csv.

    Sequences of one town are alike, so the town stands as the sequence. Raises InputError as the stages do.
    """
    clips = sampling.sample(here)
    enhance.enhance(here, clips)
    made = baselines.made(here)
    baselines.make(here, clips, {name: made[name] for name in METHODS if name in made})
    subjects = [s for s in evaluate.subjects(here, clips) if s.method in METHODS]
    rows = evaluate.measure(here, [replace(s, sequence=s.sequence.partition("_")[0]) for s in subjects])
    rows.sort(key=lambda row: (METHODS.index(row["method"]), row["clip"]))
    metrics_csv.write(here.layout.metrics, rows)
    return here.layout.metrics


def compare(profile: Profile, here: Profile) -> Table:
    """In domain beside out of domain, by every metric of Table 1, from the two metrics.csv.

    Raises InputError where one of them has not been written.
    """
    inside, outside = having.measured(metrics_csv.load(profile)), metrics_csv.read(here.layout.metrics)
    present = {*inside.metric, *outside.metric}
    shown, labels = [*((name, None) for name in METHODS), *GAINS], baselines.every(profile)
    header = ["Metric", "Part", *(" − ".join(labels[name].label for name in pair if name) for pair in shown)]
    cells, data, bold = [], [], set()
    for column in (column for column in metrics.shown(present) if column.name in present):
        for part, said in PARTS.items():
            cells.append([tables.title_of(column) if part == "in" else "", said])
            whose, frame = (profile, inside) if part == "in" else (here, outside)
            for method, less in shown:
                found = _estimate(inside, outside, part, column.name, method, less)
                if part == "difference" and found.interval != "range" and (found.low > 0 or found.high < 0):
                    bold.add((len(cells) - 1, len(cells[-1])))
                signed, absent = part == "difference" or less, having.missing(whose, frame, method, column)
                cells[-1].append(_cell(found, column, absent, bool(signed)))
                ids = zip(IDS, (profile.name, part, column.name, method, less), strict=True)
                bounds = {key: round(getattr(found, key), 6) for key in ("value", "low", "high")}
                data.append(dict(ids) | vars(found) | bounds)
    sizes = [f"{frame['clip'].nunique()} clips of {frame.sequence.nunique()}" for frame in (inside, outside)]
    size = f"In domain {sizes[0]} sequences, out of domain {sizes[1]} towns."
    faceless = [] if (outside.metric == "arcface").any() else [_faceless(here)]
    title = f"Another engine, profile {profile.name}"
    return Table(NAME, title, header, cells, pd.DataFrame(data), [*NOTES, size, *faceless], frozenset(bold))


def figure(profile: Profile, table: Table) -> "Figure":
    """The table of `compare`, a panel a metric: filled in domain, hollow out of domain, with interval or range."""
    levels = table.data[table.data.less.isna() & table.data.part.isin(["in", "out"])]
    found: dict[tuple[str, str], list[Estimate]] = {}
    for row in levels.itertuples():
        estimate = Estimate(row.value, row.low, row.high, row.clips, row.sequences, row.interval)
        found.setdefault((row.method, row.metric), []).append(estimate)
    known = levels.dropna(subset="value")
    columns = [metrics.columns()[name] for name in DRAWN if name in set(known.metric)]
    every = baselines.every(profile)
    return plots.panels(
        found, columns, {m: m.label for name, m in every.items() if name in set(known.method)}
    )


def other_weathers(here: Profile, clip: Clip) -> list[str]:
    """The engine's own weathers of the clip's drive that the data set has, but for the clip's."""
    drive = sampling.sequence_of(here, clip)
    return [w for w in WEATHERS if w != drive.weather and carla_loc.in_weather(drive, w)]


def pair(a: sources.Sequence, b: sources.Sequence) -> list[tuple[int, int]]:
    """Frames of two drives that show the same moment: their indices in a and b, as long as both last.

    All weathers of a town replay one drive, some frames apart: of the whole shifts up to REACH the one under which outlines
    agree best, by the mean correlation of edge maps at LOOKS moments; of equal ones the smallest.
    """
    looks = sorted(set(video.evenly(LOOKS, len(a))))
    ours = {i: _outlines(a, i) for i in looks}
    theirs = {
        j: _outlines(b, j)
        for j in {i + s for i in looks for s in range(-REACH, REACH + 1)} & set(range(len(b)))
    }
    agreement = {
        shift: np.mean([ours[i] @ theirs[i + shift] for i in looks if i + shift in theirs])
        for shift in sorted(range(-REACH, REACH + 1), key=abs)
    }
    shift = max(agreement, key=agreement.get)
    return [(i, i + shift) for i in range(len(a)) if 0 <= i + shift < len(b)]


def in_words(here: Profile, clip: Clip, weather: str) -> list[stage.Item[enhance.Job]]:
    """RealMaster on a clip, asked in words for other weather: they come before the clip's caption; to realmaster_<weather>/."""
    prompt = f"{WEATHERS[weather]}, {enhance.prompt_of(here, clip)}"
    return enhance.items(here, [clip], prompt=lambda _: prompt, into=f"realmaster_{weather.lower()}")


def weather_sheet(here: Profile, clip: Clip, weather: str, columns: int = 4, width: int = 240) -> Image.Image:
    """The clip, the engine's own other weather at the same moments, and RealMaster asked for it in words.

    Writes enhanced/realmaster_<weather>/.
    """
    (path,) = enhance.make(here, in_words(here, clip, weather))
    drive, times = sampling.sequence_of(here, clip), sampling.repeats(clip, here.clips.frames)
    other = carla_loc.in_weather(drive, weather)
    twin = dict(pair(drive, other))
    paired = [k for k in range(here.clips.frames) if clip.source_frames[k // times] in twin]
    moments = video.spread(paired, columns)
    engine = other.frames([twin[clip.source_frames[k // times]] for k in moments])
    asked = video.read(path)
    rows = [
        (f"{drive.weather}, engine", sheets.frames(here, clip, "render", moments)),
        (f"{weather}, engine", list(sampling.crop_to(engine, here.clips.height, here.clips.width))),
        (f"RealMaster,\n{WEATHERS[weather]}", [asked[k] for k in moments]),
    ]
    return video.contact_sheet(rows, width)


def _demo(profile: Profile, **groups: dict) -> Profile:
    """No clip is propagated here: what has no adapter has no part in it."""
    return profile.demo(NAME, data=profile.carla.model_dump(), propagation={"variants": ()}, **groups)


def _estimate(
    inside: pd.DataFrame, outside: pd.DataFrame, part: str, metric: str, method: str, less: str | None
) -> Estimate:
    """Of one part of the table; of fewer than FEWEST sequences the range in place of the interval."""
    if part == "difference":
        found = statistics.two_sample(outside, inside, metric, method, less)
        if not found.known or found.sequences >= statistics.FEWEST:
            return found
        ours, theirs = (statistics.spread(frame, metric, method, less) for frame in (outside, inside))
        return replace(found, low=ours.low - theirs.value, high=ours.high - theirs.value, interval="range")
    frame = inside if part == "in" else outside
    few = statistics.spread(frame, metric, method, less)
    if few.sequences < statistics.FEWEST:
        return few
    return (
        statistics.difference(frame, metric, method, less) if less else statistics.mean(frame, method, metric)
    )


def _cell(estimate: Estimate, column: Column, missing: str, signed: bool) -> str:
    text = cell(estimate, column.digits, missing, signed)
    return text.translate(str.maketrans("[]", "()")) if estimate.interval == "range" else text


def _faceless(here: Profile) -> str:
    arcface = metrics.metric_of("arcface")
    return f"ArcFace: {arcface.why_not(here) or 'n/a out of domain: no face was found in a render of the drives.'}"


def _outlines(drive: sources.Sequence, index: int) -> np.ndarray:
    """Edge strength of a frame, of mean 0 and norm 1: float32 [N]. Its logarithm, as lamps outshine all else at night."""
    grey = cv2.cvtColor(drive.frames([index])[0], cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    small = cv2.resize(grey, (320, 320 * height // width), interpolation=cv2.INTER_AREA).astype(np.float32)
    edges = np.log1p(np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))).ravel()
    edges -= edges.mean()
    return edges / max(np.linalg.norm(edges), 1e-6)
