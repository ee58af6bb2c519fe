"""Tables 1 and 2 and their companions, each as csv, md and tex (paper, 4.5).

Reads metrics.csv (the shipped record's before there is one) and data/paper/*.yaml alone: no model, no video. Writes
tables/{table1,table2,differences,wins}.{csv,md,tex} with the columns that the paper's tables have, the same with
`_further` of the other metrics, claims.* and, where its values are known, paper.*. What did not run says so, and a number
of one profile never stands in another's column.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rmkit import baselines, metrics
from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.evaluation import having, metrics_csv, statistics, verdicts
from rmkit.evaluation.statistics import Estimate
from rmkit.evaluation.typeset import Table, as_columns, cell, latex, markdown
from rmkit.kit import store
from rmkit.metrics import Column
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile

PAPER = REPOSITORY / "data" / "paper" / "tables.yaml"
PAPERS_METRICS = {"motion_smoothness": "motion_smoothness_amt"}  # ours of that name has another interpolator
ARROWS = {1: "↑", -1: "↓", 0: ""}
MEANS = (
    "Mean over clips [95 % interval, resampled by sequence]; bold: better than every other method's by more than the "
    "interval of their difference (input, ceiling and truth do not compete); {} sequences."
)
APART = "On fewer, or other, clips"
DIFFERENCES = "Mean over the clips both have [95 % interval, resampled by sequence]."
WINS = (
    "Share of the common clips on which the method is better [Wilson, 95 %, of as many trials as sequences]; p of the "
    "difference by Wilcoxon's signed ranks on the means of sequences, corrected by Holm within a column."
)


class Selection(NamedTuple):
    """What a table is made of: a run's values, of some methods by some columns."""

    profile: Profile
    frame: pd.DataFrame
    names: Sequence[str]
    columns: Sequence[Column]


def write(profile: Profile, made: Sequence[Table], folder: Path | None = None) -> list[Path]:
    """Write tables in their three forms, to the run's `tables/` or to `folder`; returns the paths."""
    folder, paths = folder or profile.layout.tables, []
    folder.mkdir(parents=True, exist_ok=True)
    for table in made:
        texts = {"csv": table.data.to_csv(index=False), "md": markdown(table), "tex": latex(table)}
        for suffix, text in texts.items():
            paths.append(folder / f"{table.name}.{suffix}")
            store.write_text(paths[-1], text)
    return paths


def build(profile: Profile) -> list[Table]:
    """All tables of a run, from its metrics.csv, or of the shipped record before there is one."""
    frame, methods = metrics_csv.to_show(profile), baselines.every(profile)
    first = [name for name, method in methods.items() if method.table1]
    second = [name for name, method in methods.items() if method.ablation]
    # Compared with RealMaster clip by clip; real footage is of other clips.
    paired = [name for name in methods if name not in (statistics.REFERENCE, "real")]
    papers, others = metrics.papers_first(frame.metric)
    made = []
    for shown, ending, kind in ((papers, "", ""), (others, "_further", ", further metrics")):
        for make, name, title, names in (
            (means, "table1", "Table 1. Methods on the validation clips", first),
            (means, "table2", "Table 2. Ablation on the validation clips", second),
            (differences, "differences", "Paired differences to RealMaster", paired),
            (wins, "wins", "Win rates against RealMaster", paired),
        ):
            title = f"{title}{kind}, profile {profile.name}"
            made.append(make(Selection(profile, frame, names, shown), f"{name}{ending}", title))
    return [*made, verdicts.table(profile, frame), *beside_paper(profile, frame)]


def means(of: Selection, name: str, title: str) -> Table:
    """Means of some methods: a table of the paper with the rows it lacks (input, grading, ceiling, truth).

    Those measured on fewer clips than the others, or on other clips, come last, under a line of their own, and do not
    compete: a mean of the easier half is no better mean.
    """
    profile, frame, names, columns = of
    counts = having.measured_clips(frame, names)
    full = max((count for method, count in counts.items() if method != "real"), default=0)
    apart = [method for method in names if method == "real" or 0 < counts[method] < full]
    names = [method for method in names if method not in apart] + apart
    of = of._replace(names=names)
    cells, data = _rows(of, lambda method, column: statistics.mean(frame, method, column.name))
    for method, row in zip(names, cells, strict=True):
        row.insert(1, str(counts[method]) if counts[method] else having.missing(profile, frame, method))
    table = pd.DataFrame(data)
    table.insert(2, "clips", [counts[method] for method in names])
    notes = [*_why_empty(of), MEANS.format(having.measured(frame).sequence.nunique())]
    own = {column.name for column in columns}
    for metric in metrics.every():
        of_metric = {column.name for column in metric.columns}
        # A metric that was not run has no column here and says so once, under the paper's.
        if of_metric & own or (columns[0].paper and not of_metric & set(frame.metric)):
            notes.append(metric.note(profile, frame[frame.metric.isin(of_metric)]))
    compete = [name for name in names if baselines.every(profile)[name].competes and name not in apart]
    best = [_best(frame, column, compete) for column in columns]
    bold = {(names.index(method), place) for place, method in enumerate(best, start=2) if method}
    header = ["Method", "Clips", *map(title_of, columns)]
    if apart:
        cells.insert(len(names) - len(apart), [APART, *[""] * (len(header) - 1)])
    return Table(name, title, header, cells, table, [n for n in notes if n], frozenset(bold))


def differences(of: Selection, name: str, title: str) -> Table:
    """Paired differences of methods to RealMaster, clip by clip."""
    cells, data = _rows(of, lambda m, column: statistics.difference(of.frame, column.name, m), signed=True)
    header = ["Method − RealMaster", *map(title_of, of.columns)]
    return Table(name, title, header, cells, pd.DataFrame(data), [*_why_empty(of), DIFFERENCES])


def wins(of: Selection, name: str, title: str) -> Table:
    """How often each method beats RealMaster, and whether a difference could be chance."""
    frame, names, columns = of.frame, of.names, [column for column in of.columns if column.better]

    def won(method: str, column: Column) -> Estimate:
        return statistics.win_rate(frame, column.name, method, column.better)

    cells, data = _rows(of._replace(columns=columns), won, digits=2)
    for place, column in enumerate(columns, start=1):
        for method, p in statistics.p_values(frame, column.name, names).items():
            row = names.index(method)
            cells[row][place] += f", p {p:.3f}" if p >= 0.001 else ", p < 0.001"
            data[row][f"{column.name}_p"] = round(p, 6)
    header = ["Method against RealMaster", *map(title_of, columns)]
    return Table(name, title, header, cells, pd.DataFrame(data), [WINS])


def title_of(column: Column) -> str:
    """The head of a metric's column: its label, and which way is better."""
    return f"{column.label} {ARROWS[column.better]}".strip()


def beside_paper(profile: Profile, frame: pd.DataFrame) -> list[Table]:
    """The paper's values with ours and the difference: none while data/paper/tables.yaml is empty.

    None either on the diorama: its numbers do not stand beside the paper's. Raises InputError for a value that is no
    number, or of an unknown method or metric.
    """
    methods, columns = baselines.every(profile), metrics.columns()
    cells, data = [], []
    given = profiles.read_yaml(PAPER)
    if not isinstance(given, dict) or not all(
        isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values())
        for rows in given.values()
    ):
        raise InputError(f"{PAPER} must hold table, method and metric, each within the other.")
    values = [
        (number, method, metric, value)
        for number, rows in given.items()
        for method, row in rows.items()
        for metric, value in row.items()
        if value is not None
    ]
    for number, method, metric, value in values:
        if method not in methods or metric not in columns:
            raise InputError(f"{PAPER}: {number} has {method}, {metric}, and one of them is not known here.")
        if not isinstance(value, int | float):
            raise InputError(f"{PAPER}: {number}, {method}, {metric} is {value!r} and must be a number.")
        column = columns[PAPERS_METRICS.get(metric, metric)]
        found = statistics.mean(frame, method, column.name)
        gap = f"{found.value - value:+.4g}".replace("-", "−") if found.known else "n/a"
        ours = cell(found, column.digits, having.missing(profile, frame, method, column))
        cells.append([number, methods[method].label, column.label, f"{value:g}", ours, gap])
        ids = {"profile": profile.name, "table": number, "method": method, "metric": column.name}
        data.append({**ids, "paper": value, **as_columns({"ours": found})})
    if profile.data.source == "diorama" or not values:
        return []
    header = ["Table", "Method", "Metric", "Paper", "Ours", "Ours − paper"]
    note = "Paper: as a reader has put it into data/paper/tables.yaml. Ours: mean over clips [95 % interval]."
    title = f"The paper's values, profile {profile.name}"
    return [Table("paper", title, header, cells, pd.DataFrame(data), [note])]


def _rows(
    of: Selection,
    estimate: Callable[[str, Column], Estimate],
    digits: int | None = None,
    signed: bool = False,
) -> tuple[list[list[str]], list[dict]]:
    """Cells and rows of the csv: a row a method, a column a metric; `digits`: in place of the column's own."""
    methods, cells, data = baselines.every(of.profile), [], []
    for name in of.names:
        found = {column.name: estimate(name, column) for column in of.columns}
        cells.append([methods[name].label])
        for column in of.columns:
            shown = column.digits if digits is None else digits
            is_known = found[column.name].known
            absent = "" if is_known else having.missing(of.profile, of.frame, name, column)
            cells[-1].append(cell(found[column.name], shown, absent, signed))
        data.append({"profile": of.profile.name, "method": name, **as_columns(found)})
    return cells, data


def _best(frame: pd.DataFrame, column: Column, names: Sequence[str]) -> str | None:
    """The method that is better than every other one by more than chance, or None where there is none."""
    found = {method: statistics.mean(frame, method, column.name) for method in names}
    known = {method: column.better * mean.value for method, mean in found.items() if mean.known}
    if not column.better or len(known) < 2:
        return None
    first = max(known, key=known.get)
    gaps = (statistics.difference(frame, column.name, first, other) for other in known if other != first)
    is_clear = all(gap.low > 0 if column.better > 0 else gap.high < 0 for gap in gaps)
    return first if is_clear else None


def _why_empty(of: Selection) -> list[str]:
    """Why a row is empty, a sentence each."""
    methods, run = baselines.every(of.profile), set(of.frame.method)
    empty = (name for name in of.names if name not in run)
    return [f"{methods[name].label}: {having.why_no_row(of.profile, name)}" for name in empty]
