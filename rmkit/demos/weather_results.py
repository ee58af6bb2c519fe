"""What came of 06_weather, to read and to look at: tables, the dose-response and sheets (paper, 5 and Fig. 8).

Reads results/<profile>/weather/metrics.csv and its videos; writes weather/tables, weather/figures and weather/sheets.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from rmkit import metrics
from rmkit.demos import carla, weather
from rmkit.evaluation import figures, metrics_csv, plots, sheets, statistics, tables
from rmkit.evaluation.typeset import Table, cell
from rmkit.kit import video
from rmkit.method.sampling import Clip
from rmkit.profile import WEATHERS, Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = (
    *("weather_share", "weather_motion", "persons_f1", "objects_f1", "ground_f1", "sky_f1"),
    *("arcface", "temporal_flickering"),
)
SHADES = dict(zip(WEATHERS[1:], (plots.BLUE, plots.SKY, plots.ORANGE, plots.VERMILION), strict=True))
MEANS = (
    "Mean over clips [95 % interval, resampled by sequence]. Aims (ours): a share of {:g} or more, of the clear output {:g} "
    "at most."
)
KEPT = (
    "Edge F1 is against the render, inside the masks of the engine's objects and at the render's contrast, which fog takes; "
    "ground and sky apart, since weather rightly changes them. Motion is that of places where the clear output (for truth the "
    "clear truth) is still."
)
AIM, MOST_OF_CLEAR, MOST_OF_OVERLAY = 0.6, 0.2, 0.5
AIM_OF_OUTLINES = 0.9  # of the clear output's
OF_CLEAR = "outlines of persons, of the clear output's"
WIDTH = 144  # pixels of a picture in a sheet


def build(profile: Profile) -> list[Table]:
    """The tables of what was measured, and written beside it."""
    frame = metrics_csv.read(weather.of(profile).layout.metrics)
    made = [by_weather(profile, frame), by_place(profile, frame), verdicts(profile, frame)]
    tables.write(weather.of(profile), made)
    return made


def by_weather(profile: Profile, frame: pd.DataFrame) -> Table:
    """A row a method: the weathers, the overlay over the clear output, the truth."""
    columns = [metrics.columns()[name] for name in SHOWN]
    cells, data = [], []
    for method, label in labels().items():
        of_method = frame[frame.method == method]
        row = {column.name: statistics.mean(frame, method, column.name) for column in columns}
        clips = of_method["clip"].nunique()
        absent = "n/a" if clips or method.startswith("truth") else "not run"
        cells.append([label, str(clips), *(cell(row[c.name], min(c.digits, 3), absent) for c in columns)])
        values = {name: round(found.value, 6) for name, found in row.items()}
        ends = {f"{n}_{end}": round(getattr(e, end), 6) for n, e in row.items() for end in ("low", "high")}
        data.append({"profile": profile.name, "method": method, "clips": clips, **values, **ends})
    own = frame[frame.metric.isin(["weather_share", "weather_rain"])]
    read_by = metrics.metric_of("weather_share").note(profile, own)
    notes = [MEANS.format(AIM, MOST_OF_CLEAR), KEPT, *filter(None, [read_by])]
    notes += missing(profile, frame)
    header = ["Method", "Clips", *(column.label for column in columns)]
    title = f"Weather by the prompt alone, profile {profile.name}"
    return Table("weather", title, header, cells, pd.DataFrame(data), notes)


def by_place(profile: Profile, frame: pd.DataFrame) -> Table:
    """The share by weather on the clips of each place: the adapter has seen one of them, and not the other."""
    cells, data = [], []
    for place in (weather.PLACE, carla.NAME):
        is_there = frame.subsets.map(lambda subsets, place=place: place in subsets.split(";"))
        there = frame[is_there.astype(bool)]
        found = {w: statistics.mean(there, w, "weather_share") for w in WEATHERS}
        cells.append([place, str(there["clip"].nunique()), *(cell(found[w], 3) for w in WEATHERS)])
        data += [
            {"profile": profile.name, "place": place, "weather": w, "weather_share": round(found[w].value, 6)}
            for w in WEATHERS
        ]
    title = f"Weather share by where the clips are from, profile {profile.name}"
    note = f"{weather.PLACE}: one shot of each outdoor validation sequence; carla: of each drive of 07_carla. No clip: n/a."
    return Table("weather_places", title, ["Clips of", "Clips", *WEATHERS], cells, pd.DataFrame(data), [note])


def verdicts(profile: Profile, frame: pd.DataFrame) -> Table:
    """Each aim with what was found: met or not by the mean, with the interval beside it."""
    clear, *asked = WEATHERS
    share, outlines = "weather_share", "persons_f1"
    aims = [  # what, found, at least, at most
        (f"{clear}: weather share", statistics.mean(frame, clear, share), None, MOST_OF_CLEAR),
        *((f"{w}: weather share", statistics.mean(frame, w, share), AIM, None) for w in asked),
        *(
            (f"{w}: {OF_CLEAR}", statistics.ratio(frame, outlines, w, clear), AIM_OF_OUTLINES, None)
            for w in asked
        ),
        *(
            (
                f"{w}: flat overlay's share",
                statistics.mean(frame, f"overlay_{w}", share),
                None,
                MOST_OF_OVERLAY,
            )
            for w in asked
        ),
    ]
    cells, data = [], []
    for what, found, least, most in aims:
        met = found.value >= least if most is None else found.value <= most
        verdict = ("met" if met else "not met") if found.known else "n/a"
        aim = f"at least {least:g}" if most is None else f"at most {most:g}"
        cells.append([what, aim, cell(found, 3), verdict])
        ends = {"value": found.value, "low": found.low, "high": found.high}
        ends = {name: round(value, 6) for name, value in ends.items()}
        data.append({"profile": profile.name, "what": what, "aim": aim, **ends, "verdict": verdict})
    header = ["What", "Aim", "Found", "Verdict"]
    note = "Found: mean over clips, or ratio of means [95 % interval, resampled by sequence]; the verdict is of the mean."
    return Table("weather_aims", f"Aims, profile {profile.name}", header, cells, pd.DataFrame(data), [note])


def labels() -> dict[str, str]:
    """The rows of the table, by method."""
    rows = {"render": "Render (input)", **{w: f"RealMaster, {w}" for w in WEATHERS}}
    rows |= {f"overlay_{w}": f"Overlay over clear, {w}" for w in WEATHERS[1:]}
    return rows | {f"truth_{w}": f"Truth, {w}" for w in WEATHERS}


def missing(profile: Profile, frame: pd.DataFrame) -> list[str]:
    """Why a column or a row is empty, a sentence each."""
    said = []
    if not frame.metric.eq("weather_share").any():
        why = metrics.metric_of("weather_share").why_not(profile) or "n/a: zero-shot CLIP has no rulers."
        said.append(f"Weather share: {why}")
    if not frame.metric.eq("objects_f1").any():
        said.append("Outlines by region: n/a: this data has no object maps (visible/).")
    if not frame.method.isin([f"truth_{w}" for w in WEATHERS[1:]]).any():
        said.append("Truth in other weather: n/a: this data has none.")
    return said


def dose_response(profile: Profile) -> "Figure | None":
    """Share and outlines against guidance, a line a weather, with 95 % intervals; None where it was not run."""
    demo, frame = weather.of(profile), metrics_csv.read(weather.of(profile).layout.metrics)
    doses = profile.weather.dose
    if not doses:
        return None
    # Only clips that were given every dose: the main table has more.
    methods = {w: [weather.dose(profile, w, g) for g in doses] for w in profile.weather.dose_weathers}
    given = [set(frame[frame.method == name]["clip"]) for names in methods.values() for name in names]
    if not (common := set.intersection(*given)):
        return None
    frame = frame[frame["clip"].isin(common)]
    figure, axes = plots.subplots(2, columns=2, width=8, height=3)
    for ax, name in zip(axes, ("weather_share", "objects_f1"), strict=True):
        for weather_, names in methods.items():
            found = [statistics.mean(frame, method, name) for method in names]
            known = [(dose, e) for dose, e in zip(doses, found, strict=True) if e.known]
            if known:
                x, estimates = zip(*known, strict=True)
                look = {"marker": "o", "capsize": 3, "color": SHADES[weather_], "label": weather_}
                ax.errorbar(x, [e.value for e in estimates], plots.reach(estimates), **look)
        ax.set(xlabel="guidance of both experts", ylabel=metrics.columns()[name].label)
    axes[0].axhline(AIM, color="#999999", linestyle=":", linewidth=1)
    axes[1].legend(*axes[1].get_legend_handles_labels(), **plots.LEGEND)
    figures.save(demo, "weather_dose", figure)
    return figure


def doses(profile: Profile) -> pd.DataFrame:
    """The same as numbers: a row a weather and guidance."""
    frame = metrics_csv.read(weather.of(profile).layout.metrics)
    rows = []
    for asked in profile.weather.dose_weathers:
        for guidance in profile.weather.dose:
            method = weather.dose(profile, asked, guidance)
            found = {name: cell(statistics.mean(frame, method, name), 3) for name in weather.OF_DOSE}
            rows.append({"weather": asked, "guidance": guidance, **found})
    return pd.DataFrame(rows)


def sheet(profile: Profile, clips: Sequence[Clip], methods: Sequence[str], name: str) -> Image.Image:
    """A row a clip, a column a method (its middle frame, grey where there is none); saved as sheets/<name>.jpg."""
    demo, headings = weather.of(profile), [method.replace("_", " ") for method in methods]
    rows = [(clip.id, [middle(demo, method, clip) for method in methods]) for clip in clips]
    picture = video.contact_sheet(rows, WIDTH, headings=headings)
    folder = demo.layout.root / "sheets"
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{name}.jpg", quality=90)
    return picture


def middle(demo: Profile, method: str, clip: Clip) -> np.ndarray:
    """The middle frame of a clip by a method, uint8 [H, W, 3]."""
    path = weather.path(demo, method, clip)
    if not path.is_file():
        return np.full((demo.clips.height, demo.clips.width, 3), sheets.EMPTY, np.uint8)
    return video.read(path)[demo.clips.frames // 2]


def side_by_side(clear: np.ndarray, asked: np.ndarray, name: str, columns: int = 4) -> Image.Image:
    """Two versions of a clip, uint8 [F, H, W, 3] each, one above the other at a few moments."""
    rows = [
        (label, list(frames[video.evenly(columns, len(frames))]))
        for label, frames in ((WEATHERS[0], clear), (name, asked))
    ]
    return video.contact_sheet(rows, 2 * WIDTH)
