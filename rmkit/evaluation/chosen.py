"""A table and a plot of a choice, and their files (ours).

Pure functions of a `Choice`; `table_lab` puts menus on them. `export` writes tables/chosen/<name>.{csv,md,tex,png,pdf}, whose
captions say what was chosen.
"""

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rmkit.evaluation import figures, plots, tables
from rmkit.evaluation.choice import EVEN, Choice, Found
from rmkit.evaluation.typeset import Table, as_columns, cell
from rmkit.kit import store
from rmkit.metrics import Column
from rmkit.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def table(found: Found) -> Table:
    """The chosen table; its `data` has a row a method and run, so that a program reads the choice, too."""
    choice = found.choice
    signed, several = choice.statistic == "difference", len(found.names) > 1
    header, rows, data = ["Method", "Clips"], [], []
    for column in found.columns:
        title = column.label if choice.statistic == "win rate" else tables.title_of(column)
        header += [f"{title}, {name}" for name in found.names] if several else [title]
    for method, label in found.methods.items():
        row = [label, str(found.clips(method))]
        for column in found.columns:
            missing, digits = found.missing(method, column), _digits(choice, column)
            for place, estimate in enumerate(found.estimates[method.name, column.name]):
                row.append(cell(estimate, digits, missing, signed or place == 2))
        rows.append(row)
        for place, name in enumerate(found.names):
            of_run = {c.name: found.estimates[method.name, c.name][place] for c in found.columns}
            facts = {"run": name, "method": method.name, "subset": choice.subset or "all"}
            against = choice.other if choice.statistic in EVEN else ""
            data.append({**facts, "statistic": choice.statistic, "against": against, **as_columns(of_run)})
    if found.apart:
        rows.insert(len(rows) - found.apart, [tables.APART, *[""] * (len(header) - 1)])
    return Table("chosen", found.caption(), header, rows, pd.DataFrame(data), found.notes())


def figure(found: Found) -> "Figure":
    """The same as a plot, a panel a metric; of two runs the second is hollow."""
    choice = found.choice
    shown = {key: estimates[:2] for key, estimates in found.estimates.items()}
    axis = "share of clips won" if choice.statistic == "win rate" else None
    drawn = plots.panels(shown, found.columns, found.methods, found.apart, EVEN.get(choice.statistic), axis)
    runs = f"; filled: {found.here}, hollow: {choice.beside}" if choice.beside else ""
    drawn.suptitle(textwrap.fill(found.caption() + runs, 120), x=0.01, ha="left", fontsize=9)
    return drawn


def export(profile: Profile, choice: Choice, name: str = "chosen") -> list[Path]:
    """Write table and plot as tables/chosen/<name>.{csv,md,tex,png,pdf}; returns the paths.

    Raises InputError as `choice.Found` does, and for a name that is more than letters, digits, - and _.
    """
    store.require_name(name)
    found, folder = Found(profile, choice), profile.layout.tables / "chosen"
    made = tables.write(profile, [replace(table(found), name=name)], folder)
    return made + figures.save(profile, name, figure(found), folder)


def _digits(choice: Choice, column: Column) -> int:
    if choice.decimals is not None:
        return choice.decimals
    return 2 if choice.statistic == "win rate" else column.digits
