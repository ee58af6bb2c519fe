"""Curves of the limits: what is covered by size, what flickers by speed, newcomers, over-editing, cuts (paper, Fig. 7, 14).

Reads results/<profile>/limits/*.csv (the shipped record's before there are any); `draw` writes limits/figures/*.{png,pdf}.
Each is a plain function of the profile, for a notebook to show and a widget to call again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rmkit import baselines
from rmkit.demos import cuts, limits, objects
from rmkit.demos.limits_clip import ANCHORS
from rmkit.evaluation import figures, statistics
from rmkit.evaluation.plots import LEGEND, nothing, reach, subplots
from rmkit.profile import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Edges of the curve's bins, shares of the picture.
SIZE_CURVE = (0.0, 0.001, 0.0025, 0.005, 0.015, 0.05, 0.15, 1.0)
# The editor, what it teaches, the model, and its VAE alone.
INHERITED = (ANCHORS, "edges", "realmaster", "vae_ceiling")
MOVING = ("render", "edges", "realmaster", "vae_ceiling", "truth")
OF_SIZE = {
    "covered": "way from render to truth covered",
    "changed": "change of the render, beside the truth's",
}
OF_SPEED = {
    "flicker": "change that motion does not explain\n(grey levels)",
    "error": "error to the truth (grey levels)",
}
STYLES = {  # of what is no method of the tables
    ANCHORS: (limits.LABELS[ANCHORS], "#CC79A7", "D"),
    cuts.CUT: ("RealMaster, end cut off", "#D55E00", "o"),
    cuts.JOINED: ("RealMaster, cut inside", "#D55E00", "s"),
    cuts.RESEEDED: ("RealMaster, another seed", "#999999", "^"),
}


def draw(profile: Profile) -> None:
    """Draw and save every curve to results/<profile>/limits/figures/."""
    made = {f"{value}_by_size": by_size(profile, value) for value in OF_SIZE}
    made |= {f"{value}_by_speed": by_speed(profile, value) for value in OF_SPEED}
    for figure in (newcomers, over_editing, without_the_end, hard_cut):
        made[figure.__name__] = figure(profile)
    for name, figure in made.items():
        figures.save(profile.demo("limits"), name, figure)


def by_size(profile: Profile, value: str = "covered") -> "Figure":
    """What is covered (or changed) of objects by their size, of each of INHERITED; means and 95 % intervals."""
    points, figure, ax = limits.load(profile, "objects"), *subplots(1, width=7.0, height=3.6)
    points = points.dropna(subset=value)
    if points.empty:
        return nothing(figure, ax, "no object was measured against a truth")
    area = float((points.pixels / points["size"]).median())
    for i, (method, rows) in enumerate(_of_methods(points, INHERITED)):
        bins = pd.cut(rows["size"], SIZE_CURVE, right=False)
        curve = [
            (float(np.exp(np.log(of_bin["size"]).mean())) * area, _mean(of_bin[value], of_bin.sequence))
            for _, of_bin in rows.groupby(bins, observed=True)
        ]
        _draw(ax, profile, method, curve, 1 + 0.03 * (i - 1.5))
    ax.axhline(float(value == "changed"), color="#999999", linewidth=0.8)
    for edge in {objects.SIZES["small"][1], objects.SIZES["large"][0]}:
        ax.axvline(edge * area, color="#999999", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlabel="mean size of the object (pixels)", ylabel=OF_SIZE[value])
    ax.legend(**LEGEND)
    return figure


def by_speed(profile: Profile, value: str = "flicker") -> "Figure":
    """Flicker (or error) by the speed of pixels in the render, of each of MOVING; means and 95 % intervals."""
    points, figure, ax = (
        limits.load(profile, "motion").dropna(subset=value),
        *subplots(1, width=7.0, height=3.6),
    )
    if points.empty:
        return nothing(figure, ax, "no truth, so no error to it")
    width = profile.clips.width
    shown = MOVING if value == "flicker" else MOVING[:-1]  # the truth has no error
    for i, (method, rows) in enumerate(_of_methods(points, shown)):
        curve = [
            (speed * width, _mean(of_bin[value], of_bin.sequence, of_bin.pixels))
            for speed, of_bin in rows.groupby("speed")
        ]
        _draw(ax, profile, method, curve, 1 + 0.03 * (i - 2))
    for edge in (objects.SPEEDS["slow"][1], objects.SPEEDS["fast"][0]):
        ax.axvline(edge * width, color="#999999", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlabel="speed (pixels from one source frame to the next)", ylabel=OF_SPEED[value])
    ax.legend(**LEGEND)
    return figure


def newcomers(profile: Profile) -> "Figure":
    """Error on the pixels of objects that come in after the first frame, and of those that no end of the clip shows."""
    panels = {"newcomer_error": "absent from the first frame", "unseen_error": "absent from both ends"}
    return _rows(
        profile, panels, ("render", "edges", "realmaster", "vae_ceiling"), "error to the truth (grey levels)"
    )


def over_editing(profile: Profile) -> "Figure":
    """How much of the first and last frame is changed, beside what the truth changes (the line)."""
    methods = ("colour_transfer", ANCHORS, "edges", "realmaster", "vae_ceiling")
    figure = _rows(profile, {"anchor_change_ratio": ""}, methods, "change of the render, beside the truth's")
    figure.axes[0].axvline(1, color="#999999", linewidth=0.8)
    return figure


def without_the_end(profile: Profile) -> "Figure":
    """What a cut-off end changes in what is left, beside what another seed changes there."""
    panels = {"cut_change": "all that is left", "cut_end_change": f"its last {cuts.NEAR} frames"}
    return _rows(profile, panels, (cuts.CUT, cuts.RESEEDED), "change to the uncut run (grey levels)")


def hard_cut(profile: Profile) -> "Figure":
    """How far frames are drawn to the other shot, beside a hard cut and away from it."""
    panels = {"join_bleed": f"{cuts.NEAR} frames on each side", "join_bleed_far": "all other frames"}
    return _rows(profile, panels, (cuts.JOINED, cuts.RESEEDED), "share of the way to the other shot")


def _rows(profile: Profile, panels: dict[str, str], methods: Sequence[str], xlabel: str) -> "Figure":
    """One panel a metric: a row a method, mean and interval."""
    frame, count = limits.load(profile), len(panels)
    width = 7.0 if count == 1 else 9.5
    figure, axes = subplots(count, columns=count, width=width, height=2.0, sharex=True)
    shown = [method for method in reversed(methods) if frame.method.eq(method).any()]
    for i, (ax, (metric, title)) in enumerate(zip(np.atleast_1d(axes), panels.items(), strict=True)):
        for y, method in enumerate(shown):
            _draw(ax, profile, method, [(y, statistics.mean(frame, method, metric))], sideways=True)
        labels = [style(profile, method)["label"] for method in shown]
        ax.set_yticks(range(len(shown)), labels if i == 0 else [""] * len(shown))
        ax.set_ylim(-0.5, max(len(shown), 1) - 0.5)
        rows = frame[(frame.metric == metric) & frame.value.notna()]
        clips, sequences = rows[["clip", "sequence"]].nunique()
        ax.set_title(f"{title} ({clips} clips of {sequences} sequences)".strip(), fontsize=9)
        ax.set_xlabel(xlabel, fontsize=8)
        if rows.empty:
            nothing(figure, ax, "not measured on this data")
    return figure


def _draw(
    ax: "Axes",
    profile: Profile,
    method: str,
    curve: Sequence[tuple[float, statistics.Estimate]],
    aside: float = 1.0,
    sideways: bool = False,
) -> None:
    """Points with their intervals, set a little aside from those of other methods; sideways: the mean runs along x."""
    known = [(place * aside, found) for place, found in curve if found.known]
    if not known:
        return
    places, estimates = zip(*known, strict=True)
    means, spread = [found.value for found in estimates], reach(estimates)
    look = {**style(profile, method), "capsize": 2, "markersize": 5, "linewidth": 1.2}
    if sideways:
        ax.errorbar(means, places, xerr=spread, linestyle="none", **look)
    else:
        ax.errorbar(places, means, yerr=spread, **look)


def _of_methods(points: pd.DataFrame, methods: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    return [(method, points[points.method == method]) for method in methods if points.method.eq(method).any()]


def _mean(values: pd.Series, sequences: pd.Series, weights: pd.Series | None = None) -> statistics.Estimate:
    """Mean with its interval by sequence; weights: pixels."""
    share = np.ones(len(values)) if weights is None else weights.to_numpy(float)
    return statistics.ratio_of_sums(values.to_numpy(float) * share, share, sequences.to_numpy())


def style(profile: Profile, method: str) -> dict[str, str]:
    """Label, colour and marker of a method, the editor or a trial of `cuts`."""
    if method in STYLES:
        return dict(zip(("label", "color", "marker"), STYLES[method], strict=True))
    known = baselines.every(profile)[method]
    return {"label": known.label, "color": known.colour, "marker": known.marker}
