"""What the figures share: axes, colours, and the panels with a row a method.

Reads and writes nothing; what stands in a figure is for figures.py to say.
"""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase as LETTERS
from typing import TYPE_CHECKING

import numpy as np

from rmkit.baselines import Method
from rmkit.evaluation import statistics
from rmkit.evaluation.statistics import Estimate
from rmkit.metrics import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart under every common colour blindness.
ORANGE, SKY, BLUE, VERMILION, GREEN = "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#009E73"
LEGEND = {"frameon": False, "fontsize": 8}
BETTER = {1: "higher is better", -1: "lower is better", 0: "nearest the truth's"}


def panels(
    found: Mapping[tuple[str, str], Sequence[Estimate]],
    columns: Sequence[Column],
    methods: Mapping[Method, str],
    apart: int = 0,
    line: float | None = None,
    axis: str | None = None,
) -> "Figure":
    """A panel a metric, lettered as the caption names it: a row a method, value and interval, of estimates by method and metric.

    found: one of each, or one a run, of which the second is hollow and below. methods: from top to bottom, each with its
    label; the last `apart` of them, on fewer clips, stand below a line. Rows are at the same height in all panels, whichever
    methods a metric has. Where the truth is what to be near (`better` 0), its value is marked and the axis is logarithmic.
    line: the value that stands for no difference, drawn in every panel; None: the values are levels. axis: what is counted,
    where it is not the metric's own unit.
    """
    figure, axes = subplots(len(columns), columns=2, height=0.6 + 0.25 * len(methods))
    rows = range(len(methods) - 1, -1, -1)
    for i, (ax, column) in enumerate(zip(np.atleast_1d(axes), columns, strict=True)):
        for y, method in zip(rows, methods, strict=True):
            runs = found.get((method.name, column.name), ())
            for place, of_run in enumerate(runs):
                if of_run.known:
                    hollow = {"markerfacecolor": "white"} if place else {}
                    offset = 0.2 * (1 - 2 * place) * (len(runs) > 1)
                    how = style(method) | hollow
                    ax.errorbar(of_run.value, y + offset, xerr=reach([of_run]), capsize=3, **how)
        truth = next(iter(found.get(("truth", column.name), ())), statistics.NOTHING)
        if line is not None:
            ax.axvline(line, color="#555555", linewidth=1)
        elif column.better == 0:
            ax.set_xscale("log")
            if truth.known:
                ax.axvline(truth.value, color="#555555", linestyle=":", linewidth=1)
        if apart:
            ax.axhline(apart - 0.5, color="#999999", linewidth=0.8)
        ax.set_ylim(-0.6, len(methods) - 0.4)
        ax.set_yticks(rows, ["" if i % 2 else label for label in methods.values()])
        ax.set_title(f"({LETTERS[i % len(LETTERS)]}) {column.label}", fontsize=9, loc="left")
        ax.set_xlabel(axis or ", ".join(filter(None, [column.unit, BETTER[column.better]])), fontsize=8)
        ax.tick_params(labelsize=8)
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    return figure


def reach(found: Sequence[Estimate]) -> np.ndarray:
    """How far the intervals of N estimates go below and above their values, for error bars: [2, N], 0 without one."""
    ends = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
    # A ratio's bounds can round to a hair on the wrong side of its value.
    return np.nan_to_num(ends).clip(min=0)


def style(method: Method) -> dict[str, str]:
    """Colour, marker and label of a method, the same in every figure."""
    return {"color": method.colour, "marker": method.marker, "label": method.label}


def subplots(
    count: int, columns: int = 3, width: float = 10.0, height: float = 2.6, sharex: bool = False
) -> tuple:
    """A figure outside pyplot, so that nothing stays open: (figure, axes or the one axis)."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    if count == 1:
        return figure, figure.subplots()
    axes = figure.subplots(rows, min(count, columns), squeeze=False, sharex=sharex).ravel()
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def nothing(figure: "Figure", ax: "Axes", why: str) -> "Figure":
    """The figure with the reason why it is empty."""
    ax.text(0.5, 0.5, f"n/a: {why}", ha="center", va="center", transform=ax.transAxes)
    ax.set_axis_off()
    return figure
