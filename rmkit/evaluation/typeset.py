"""Tables as text: cells, GitHub's markdown and LaTeX, and a styled frame for notebooks.

Reads and writes nothing. What stands in a table is for tables.py to say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rmkit import metrics
from rmkit.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

LATEX = {
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
}


@dataclass(frozen=True)
class Table:
    """A table to read (`cells`, all text) and the same to compute with (`data`)."""

    name: str
    title: str
    header: Sequence[str]
    cells: Sequence[Sequence[str]]
    data: pd.DataFrame
    notes: Sequence[str]
    bold: frozenset[tuple[int, int]] = frozenset()  # row and column of cells that are clearly the best


def cell(
    estimate: Estimate, metric: str, missing: str = "n/a", signed: bool = False, ratio: bool = False
) -> str:
    """'value [low, high]', or why there is none."""
    if not estimate.known:
        return missing
    digits = 2 if ratio else metrics.columns()[metric].digits
    sign = "+" if signed else ""

    def number(value: float) -> str:
        return f"{value:{sign}.{digits}f}".replace("-", "−")

    if math.isnan(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def markdown(table: Table) -> str:
    """GitHub's form; the pipe inside a cell is escaped."""
    lines = [f"**{table.title}**", "", _row(table.header), _row(["---"] * len(table.header))]
    lines += [_row(row) for row in _emphasised(table, "**{}**")]
    return "\n".join([*lines, "", notes(table), ""])


def latex(table: Table) -> str:
    """A booktabs tabular with its caption; the notes follow as text."""
    columns = "l" * len(table.header)
    plain = replace(table, cells=[[_tex(text) for text in row] for row in table.cells])
    body = [" & ".join(row) + r" \\" for row in _emphasised(plain, r"\textbf{{{}}}")]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(_tex(text) for text in table.header) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par {_tex(note)}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def styled(table: Table) -> "Styler":
    """The table as a notebook shows it, title above and the notes left to `notes`."""
    frame = pd.DataFrame(table.cells, columns=list(table.header))
    weights = [
        ["font-weight: bold" if (i, j) in table.bold else "" for j in range(len(row))]
        for i, row in enumerate(table.cells)
    ]
    style = frame.style.set_uuid(table.name)  # else random, and an executed notebook differs from its like
    style = style.apply(lambda _: np.array(weights), axis=None).hide(axis="index").set_caption(table.title)
    return style.format(escape="html").format_index(escape="html", axis="columns")


def notes(table: Table) -> str:
    """What stands under a table, in markdown."""
    return "\n".join(f"{note}  " for note in table.notes)


def _emphasised(table: Table, form: str) -> list[list[str]]:
    return [
        [form.format(text) if (i, j) in table.bold else text for j, text in enumerate(row)]
        for i, row in enumerate(table.cells)
    ]


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", r"\|") for text in texts) + " |"


def _tex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
