"""Tables as text: cells, GitHub's markdown and LaTeX, and a styled frame for notebooks.

Reads and writes nothing. What stands in a table is for tables.py to say.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rmkit.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

# What LaTeX takes for a command, and signs that its usual fonts lack.
ESCAPED = str.maketrans(
    {letter: rf"\{letter}" for letter in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "≥": r"$\geq$", "≤": r"$\leq$"}
    | {"−": "$-$", "<": "$<$", ">": "$>$"}
)
# Of a table in a notebook, which scrolls sideways in its output.
STAYS = [
    {
        "selector": "th.col0, td.col0",
        "props": "position: sticky; left: 0; text-align: left; background: inherit",
    },
    {"selector": "tr", "props": "background: var(--jp-layout-color0, white)"},
    {"selector": "th, td", "props": "padding: 3px 8px; text-align: right; vertical-align: top"},
    {"selector": "td", "props": "white-space: nowrap"},
    {"selector": "caption", "props": "text-align: left"},  # in view, however wide the table is
]
LONG = 30  # characters of a cell that may take two lines


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


def cell(estimate: Estimate, digits: int, missing: str = "n/a", signed: bool = False) -> str:
    """'value [low, high]' with so many decimals, or why there is none."""
    if not estimate.known:
        return missing
    ends = () if math.isnan(estimate.low) else (estimate.low, estimate.high)
    value, *bounds = (
        f"{number:{'+' if signed else ''}.{digits}f}".replace("-", "−") for number in (estimate.value, *ends)
    )
    return f"{value} [{', '.join(bounds)}]" if bounds else value


def as_columns(estimates: dict[str, Estimate]) -> dict[str, float | str]:
    """Each estimate as columns of the csv, rounded so that two runs compare."""
    row: dict[str, float | str] = {}
    for name, found in estimates.items():
        bounds = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        row |= {key: round(value, 6) for key, value in bounds.items()}
        row[f"{name}_interval"] = found.interval
    return row


def markdown(table: Table) -> str:
    """GitHub's form, with the title above and the notes below; the pipe inside a cell is escaped."""
    body = [
        [f"**{text}**" if (i, j) in table.bold else text for j, text in enumerate(row)]
        for i, row in enumerate(table.cells)
    ]
    return "\n".join([f"**{table.title}**", "", grid(table.header, body), notes(table), ""])


def grid(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under a header in GitHub's form."""
    lines = [header, ["---"] * len(header), *rows]
    texts = ["| " + " | ".join(str(part).replace("|", r"\|") for part in line) + " |" for line in lines]
    return "\n".join([*texts, ""])


def latex(table: Table) -> str:
    """A booktabs tabular with its caption; the notes follow as text."""
    style = _styler(table).format(_tex).format_index(_tex, axis="columns")
    body = style.to_latex(column_format="l" * len(table.header), hrules=True, convert_css=True)
    caption = rf"\caption{{{_tex(table.title)}}}"
    lines = [r"\begin{table}", caption, body.strip(), *(rf"\par {_tex(note)}" for note in table.notes)]
    return "\n".join([*lines, r"\end{table}", ""])


def styled(table: Table) -> "Styler":
    """The table as a notebook shows it, title above and the notes left to `notes`; the first column stays in view."""
    # Two lines of a heading at most, in bold letters, which are wider than a digit.
    wide = [
        {"selector": f"th.col{i}", "props": f"min-width: {1.15 * min_width(text) + 1:.0f}ch"}
        for i, text in enumerate(table.header)
    ]
    for i, texts in enumerate(zip(*table.cells, strict=True)):
        said = [text[:1].isalpha() for text in texts if text not in ("", "n/a", "not run")]
        if sum(said) > len(said) / 2:  # words, and no numbers
            wide.append({"selector": f"th.col{i}, td.col{i}", "props": "text-align: left"})
        if max(map(len, texts)) > LONG:
            props = f"white-space: normal; min-width: {max(map(min_width, texts)) + 1}ch"
            wide.append({"selector": f"td.col{i}", "props": props})
    style = _styler(table).set_caption(table.title).set_table_styles(STAYS + wide)
    return style.format(html_cell).format_index(escape="html", axis="columns")


def for_widget(table: Table) -> str:
    """The same with its notes, for a widget, whose own line height is for one line of text."""
    lines, notes = "line-height: normal", "<br>".join(map(html.escape, table.notes))
    shown = styled(table).to_html()
    return f'<div style="overflow-x: auto; {lines}">{shown}</div><div style="{lines}">{notes}</div>'


def html_cell(text: str) -> str:
    """A cell as a page shows it: what is in square brackets below the value, and no cell in three lines."""
    value, bracket, interval = text.partition(" [")
    if bracket and value:
        return f"{html.escape(value)}<br><small>[{html.escape(interval)}</small>"
    return html.escape(text)


def min_width(text: str) -> int:
    """How many characters wide a cell must be for its text to take two lines at most."""
    words = text.split()
    wide = max(len(text), 1)
    for end in range(1, len(words)):
        first = len(" ".join(words[:end]))
        wide = min(wide, max(first, len(text) - first - 1))
    return wide


def notes(table: Table) -> str:
    """What stands under a table, in markdown."""
    return "\n".join(f"{note}  " for note in table.notes)


def _styler(table: Table) -> "Styler":
    """The cells without an index, the best in bold."""
    frame = pd.DataFrame(table.cells, columns=list(table.header))
    weights = np.full(frame.shape, "", dtype=object)
    for place in table.bold:
        weights[place] = "font-weight: bold"
    style = frame.style.set_uuid(table.name)  # else random, and an executed notebook differs from its like
    return style.apply(lambda _: weights, axis=None).hide(axis="index")


def _tex(text: str) -> str:
    """Text that LaTeX shows as it is; at the start of a row, [ and * would belong to the line break before."""
    return ("{}" if text.startswith(("[", "*")) else "") + text.translate(ESCAPED)
