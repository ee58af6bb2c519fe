"""Figures of the user study: what people preferred (the paper's Figure 5), and how many people a study needs (ours).

Reads and writes nothing: figures of the tables that `panel` makes.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rmkit import baselines
from rmkit.evaluation import panel
from rmkit.evaluation.plots import BLUE, GREEN, LEGEND, SKY, VERMILION, subplots
from rmkit.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PEOPLE = (2, 3, 5, 8, 12, 20, 30, 45, 70, 100)  # ticks; 45 took part in the paper's study


def preferences(profile: Profile, data: pd.DataFrame) -> "Figure":
    """How often RealMaster was preferred, by method and question, with intervals, and chance.

    data: as `panel.preferences` gives it; with a column `simulated` it is marked all over, as it shows nobody's answers.
    """
    figure, ax = subplots(1, width=6.5, height=3.4)
    methods = baselines.every(profile)
    questions, against = data.question.unique(), data.against.unique()
    for i, (question, colour) in enumerate(zip(questions, (VERMILION, BLUE, GREEN), strict=False)):
        rows = data[data.question == question].set_index("against").reindex(against)
        spread = np.nan_to_num([rows.preferred - rows.low, rows.high - rows.preferred]).clip(min=0)
        place = np.arange(len(against)) + (i - (len(questions) - 1) / 2) * 0.25
        ax.bar(place, 100 * rows.preferred, 0.23, yerr=100 * spread, capsize=3, color=colour, label=question)
    ax.axhline(50, color="black", linewidth=0.8, linestyle=":")
    ax.set_xticks(range(len(against)), [methods[name].label if name in methods else name for name in against])
    ax.set(ylabel="RealMaster preferred (% of trials)", ylim=(0, 100))
    figure.legend(*ax.get_legend_handles_labels(), **LEGEND, ncols=len(questions), loc="outside lower center")
    if "simulated" in data:
        ax.set_title("SIMULATED: nobody was asked", color=VERMILION, fontweight="bold")
        # Over the bars too, so that a part cut out of the figure still says it.
        middle = {"ha": "center", "va": "center", "transform": ax.transAxes, "rotation": 18}
        ax.text(0.5, 0.5, "SIMULATED", fontsize=48, color="#00000040", **middle)
    return figure


def planning(
    trials: int, clips: int, width: float, preference: float, alike: panel.Clustering = panel.PLANNED
) -> "Figure":
    """How sure so many people make a study: half-width of an interval, and the power to find a preference.

    trials: of one method, a person; clips: of that method; width and preference (shares) are what is wanted.
    """
    figure, (left, right) = subplots(2, columns=2, width=8.4, height=3.1)
    people, alone = np.arange(2, PEOPLE[-1] + 1), panel.Clustering(0.0, 0.0)
    for what, colour, label in (
        (alike, BLUE, f"alike by {alike.person:g} (person), {alike.clip:g} (clip)"),
        (alone, SKY, "as if answers were independent"),
    ):
        line = {"color": colour, "label": label, "linestyle": "-" if what is alike else "--"}
        left.plot(people, [100 * panel.half_width(n, trials, clips, what) for n in people], **line)
        right.plot(people, [panel.power(preference, n, trials, clips, what) for n in people], **line)
    wanted = (
        (left, panel.people_for(trials, clips, width=width, alike=alike), 100 * width),
        (right, panel.people_for(trials, clips, preference=preference, alike=alike), panel.POWER),
    )
    for ax, found, level in wanted:
        ax.axhline(level, color="black", linewidth=0.8, linestyle=":", label="wanted")
        ax.axvline(45, color="#999999", linewidth=0.8, label="45 people, the paper's")
        if found and found <= PEOPLE[-1]:
            ax.plot(found, level, "o", color=VERMILION, label=f"{found} people")
        ax.set(xscale="log", xlabel="people")
        ax.set_xticks(PEOPLE, PEOPLE)
        ax.minorticks_off()
        ax.tick_params(labelsize=8)
        ax.legend(**LEGEND)
    left.set(ylim=(0, 50), ylabel="half-width at 50 % (points)", title="(a) width of an interval")
    right.set(ylim=(0, 1.02), ylabel="share of studies", title=f"(b) {preference:.0%} found to be above 50 %")
    return figure
