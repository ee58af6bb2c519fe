"""Tables 1 and 2 and their companions, each as csv, md and tex (paper, 4.5).

Reads metrics.csv (the shipped record's before there is one) and data/paper/*.yaml alone: no model, no video. Writes
tables/{table1,table2,differences,wins,claims,paper}.{csv,md,tex}, the last where its values are known. What did not run
says so, and a number of one profile never stands in another's column.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from rmkit import baselines, metrics
from rmkit.errors import InputError
from rmkit.evaluation import claims, statistics
from rmkit.evaluation.statistics import Estimate
from rmkit.evaluation.typeset import Table, cell, latex, markdown
from rmkit.metrics import Column
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile

PAPER = REPOSITORY / "data" / "paper" / "tables.yaml"
PAPERS_METRICS = {"motion_smoothness": "motion_smoothness_amt"}  # ours of that name has another interpolator
ARROWS = {1: "↑", -1: "↓", 0: ""}


def write(profile: Profile, made: Sequence[Table]) -> list[Path]:
    """Write tables in their three forms; returns the paths."""
    folder, paths = profile.layout.tables, []
    folder.mkdir(parents=True, exist_ok=True)
    for table in made:
        texts = {"csv": table.data.to_csv(index=False), "md": markdown(table), "tex": latex(table)}
        for suffix, text in texts.items():
            path = folder / f"{table.name}.{suffix}"
            path.write_text(text)
            paths.append(path)
    return paths


def build(profile: Profile) -> list[Table]:
    """All tables of a run, from its metrics.csv, or of the shipped record before there is one."""
    frame, methods = statistics.to_show(profile), baselines.every(profile)
    return [
        _means(
            profile, frame, "table1", "Table 1. Methods", [name for name, m in methods.items() if m.table1]
        ),
        _means(
            profile, frame, "table2", "Table 2. Ablation", [name for name, m in methods.items() if m.ablation]
        ),
        differences(profile, frame),
        wins(profile, frame),
        claims_table(profile, frame),
        *beside_paper(profile, frame),
    ]


def _paired(profile: Profile) -> list[str]:
    """Methods that are compared with RealMaster clip by clip; real footage is of other clips."""
    return [name for name in baselines.every(profile) if name not in (statistics.REFERENCE, "real")]


def _means(profile: Profile, frame: pd.DataFrame, name: str, subject: str, names: Sequence[str]) -> Table:
    """Means of some methods: a table of the paper with the rows it lacks (input, grading, ceiling, truth)."""
    rows, data, columns = [], [], metrics.shown(frame.metric)
    bounds = {name for name, method in baselines.every(profile).items() if not method.competes}
    best = {metric.name: _best(frame, metric, names, bounds) for metric in columns}
    for method in names:
        label = baselines.every(profile)[method].label
        estimates = {m.name: statistics.mean(frame, method, m.name) for m in columns}
        count = max(estimate.clips for estimate in estimates.values())
        cells = [cell(estimates[m.name], m.name, _missing(profile, frame, method, m)) for m in columns]
        rows.append([label, str(count) if count else _missing(profile, frame, method), *cells])
        data.append({"profile": profile.name, "method": method, "clips": count} | _columns(estimates))
    header = ["Method", "Clips", *(f"{m.label} {ARROWS[m.better]}".strip() for m in columns)]
    notes = [
        *_reasons(profile, frame, names),
        "Mean over clips [95 % interval, resampled by sequence]; bold: better than every other method's by more than "
        "the interval of their difference (input, ceiling and truth do not compete); "
        f"{measured(frame).sequence.nunique()} sequences. Sharpness is to be near the truth's, not high.",
        *_notes(profile, frame),
    ]
    if "per_frame" in names:
        notes.append("Per-frame editing: on some of the clips only; compare by the paired differences.")
    title = f"{subject} on the validation clips, profile {profile.name}"
    bold = frozenset(
        (names.index(method), column + 2) for column, method in enumerate(best.values()) if method is not None
    )
    return Table(name, title, header, rows, pd.DataFrame(data), notes, bold)


def _best(frame: pd.DataFrame, metric: Column, names: Sequence[str], bounds: set[str]) -> str | None:
    """The method that is better than every other one by more than chance, or None where there is none.

    Input, ceiling and truth stand in a table to be compared with; they do not compete.
    """
    means = {method: statistics.mean(frame, method, metric.name) for method in names if method not in bounds}
    known = {method: found.value for method, found in means.items() if found.known}
    if not metric.better or len(known) < 2:
        return None
    first = max(known, key=lambda method: metric.better * known[method])
    for other in known.keys() - {first}:
        found = statistics.difference(frame, metric.name, first, other)
        if not (found.low > 0 if metric.better > 0 else found.high < 0):
            return None
    return first


def differences(profile: Profile, frame: pd.DataFrame) -> Table:
    """Paired differences of every method to RealMaster, clip by clip."""
    rows, data, columns = [], [], metrics.shown(frame.metric)
    names = _paired(profile)
    for method in names:
        found = {m.name: statistics.difference(frame, m.name, method) for m in columns}
        missing = {m.name: _missing(profile, frame, method, m) for m in columns}
        cells = [cell(found[name], name, missing[name], signed=True) for name in found]
        rows.append([baselines.every(profile)[method].label, *cells])
        data.append({"profile": profile.name, "method": method} | _columns(found))
    header = ["Method − RealMaster", *(f"{m.label} {ARROWS[m.better]}".strip() for m in columns)]
    notes = [
        *_reasons(profile, frame, names),
        "Mean over the clips both have [95 % interval, resampled by sequence].",
    ]
    title = f"Paired differences to RealMaster, profile {profile.name}"
    return Table("differences", title, header, rows, pd.DataFrame(data), notes)


def wins(profile: Profile, frame: pd.DataFrame) -> Table:
    """How often each method beats RealMaster, and whether a difference could be chance."""
    rows, data = [], []
    columns = [metric for metric in metrics.shown(frame.metric) if metric.better]
    names = _paired(profile)
    tested = {metric.name: statistics.p_values(frame, metric.name, names) for metric in columns}
    for method in names:
        rates = {m.name: statistics.win_rate(frame, m.name, method, m.better) for m in columns}
        cells = []
        for metric in columns:
            missing = _missing(profile, frame, method, metric)
            text = cell(rates[metric.name], metric.name, missing, ratio=True)
            p = tested[metric.name].get(method)
            cells.append(text if p is None else f"{text}, p {_p(p)}")
        rows.append([baselines.every(profile)[method].label, *cells])
        ps = {f"{name}_p": round(found[method], 6) for name, found in tested.items() if method in found}
        data.append({"profile": profile.name, "method": method} | _columns(rates) | ps)
    header = ["Method against RealMaster", *(f"{m.label} {ARROWS[m.better]}".strip() for m in columns)]
    notes = [
        "Share of the common clips on which the method is better [Wilson, 95 %, of as many trials as sequences]; p of "
        "the difference by Wilcoxon's signed ranks on the means of sequences, corrected by Holm within a column.",
    ]
    title = f"Win rates against RealMaster, profile {profile.name}"
    return Table("wins", title, header, rows, pd.DataFrame(data), notes)


def claims_table(profile: Profile, frame: pd.DataFrame) -> Table:
    """Every claim with what was found and whether it holds."""
    rows, data = [], []
    for outcome in claims.check(frame):
        claim = outcome.claim
        subject, kept, found, columns = (
            _compared_methods(outcome) if claim.check else _taken_together(outcome)
        )
        rows.append([claim.section, claim.statement, subject, kept, found, outcome.verdict])
        ids = {name: getattr(claim, name) for name in ("id", "section", "statement")}
        estimate = _columns({"value": outcome.found})
        data.append({"profile": profile.name, **ids, **columns, **estimate, "verdict": outcome.verdict})
    header = ["Section", "Claim", "Measured as", "Bound", "Found", "Verdict"]
    notes = [
        claims.not_measured(frame),
        *(f"{claim.statement}: not run: {claim.not_run}." for claim in claims.load() if claim.not_run),
    ]
    return Table("claims", f"Claims, profile {profile.name}", header, rows, pd.DataFrame(data), notes)


def _compared_methods(outcome: claims.Outcome) -> tuple[str, str, str, dict[str, str]]:
    """Of a claim with a number: measured as, bound, found, and the columns of the csv."""
    check = outcome.claim.check
    (first, second), kept = check.methods, bound(check)
    kind, sign = ("difference", "−") if check.difference else ("ratio", "/")
    found = cell(outcome.found, check.metric, "not run", signed=kind == "difference", ratio=kind == "ratio")
    names = {"metric": check.metric, "kind": kind, "method": first, "other": second, "bound": kept}
    return f"{first} {sign} {second}, {check.metric}", kept, found, names


def _taken_together(outcome: claims.Outcome) -> tuple[str, str, str, dict[str, str]]:
    """The same of a claim that hangs on others, or of one that cannot be checked."""
    names = dict.fromkeys(("metric", "method", "other", "bound"), "")
    parts = outcome.parts
    if not parts:
        return "n/a", "n/a", "not run", names | {"kind": "none"}
    held = f"{parts.count('holds')} of {len(parts)} hold"
    return f"{len(parts)} claims taken together", "all hold", held, names | {"kind": "every"}


def beside_paper(profile: Profile, frame: pd.DataFrame) -> list[Table]:
    """The paper's values with ours and the difference: none while data/paper/tables.yaml is empty.

    None either on the diorama: its numbers do not stand beside the paper's. Raises InputError for a value that is no
    number, or of an unknown method or metric.
    """
    known = [
        (number, method, metric, value)
        for number, methods in yaml.safe_load(PAPER.read_text()).items()
        for method, values in methods.items()
        for metric, value in values.items()
        if value is not None
    ]
    for number, method, metric, value in known:
        if method not in baselines.every(profile) or metric not in metrics.columns():
            raise InputError(f"{PAPER}: {number} has {method}, {metric}, and one of them is not known here.")
        if not isinstance(value, int | float):
            raise InputError(f"{PAPER}: {number}, {method}, {metric} is {value!r} and must be a number.")
    if profile.data.source == "diorama" or not known:
        return []
    rows, data = [], []
    for number, method, named, value in known:
        metric = PAPERS_METRICS.get(named, named)
        found, label = statistics.mean(frame, method, metric), metrics.columns()[metric].label
        gap = f"{found.value - value:+.4g}".replace("-", "−") if found.known else "n/a"
        ours = cell(found, metric, _missing(profile, frame, method, metrics.columns()[metric]))
        rows.append([number, baselines.every(profile)[method].label, label, f"{value:g}", ours, gap])
        ids = {"profile": profile.name, "table": number, "method": method, "metric": metric, "paper": value}
        data.append(ids | _columns({"ours": found}))
    header = ["Table", "Method", "Metric", "Paper", "Ours", "Ours − paper"]
    notes = [
        "Paper: as a reader has put it into data/paper/tables.yaml. Ours: mean over clips [95 % interval]."
    ]
    return [
        Table("paper", f"The paper's values, profile {profile.name}", header, rows, pd.DataFrame(data), notes)
    ]


def bound(check: claims.Check) -> str:
    """A check's bounds in words: '≥ 1', '> 0', '< 0', '0.7 to 1.2'."""
    if check.least is not None and check.most is not None:
        return f"{check.least:g} to {check.most:g}"
    value, strict, loose = (check.least, ">", "≥") if check.most is None else (check.most, "<", "≤")
    return f"{loose} {value:g}".replace("-", "−") if value else f"{strict} 0"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _missing(profile: Profile, frame: pd.DataFrame, method: str, metric: Column | None = None) -> str:
    """What stands in an empty cell: a metric that does not apply, or a method or metric that was not run."""
    if not frame.method.eq(method).any():
        return why_no_row(profile, method).split(":")[0]
    if metric is None or frame.metric.eq(metric.name).any():
        return "n/a"
    return metrics.metric_of(metric.name).why_no_row(profile).split(":")[0]


def why_no_row(profile: Profile, method: str) -> str:
    """Why a method has no row in metrics.csv: 'not run' or 'n/a', a colon, and the reason."""
    found = baselines.every(profile)[method]
    if method == "real":
        return metrics.metric_of("gpt_rs").why_not(profile) or found.no_row
    return found.why_not(profile) or found.no_row


def _reasons(profile: Profile, frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Why a row is empty, a sentence each."""
    empty = [method for method in names if method not in set(frame.method)]
    return [f"{baselines.every(profile)[method].label}: {why_no_row(profile, method)}" for method in empty]


def _notes(profile: Profile, frame: pd.DataFrame) -> list[str]:
    """What each metric says of its values, or why there are none."""
    notes = []
    for metric in metrics.every():
        names = [column.name for column in metric.columns]
        notes.append(metric.note(profile, measured(frame)[measured(frame).metric.isin(names)]))
    return [note for note in notes if note]


def _columns(estimates: dict[str, Estimate]) -> dict[str, float | int | str]:
    """Each estimate as columns of the csv, rounded so that two runs compare."""
    columns: dict[str, float | int | str] = {}
    for name, estimate in estimates.items():
        columns[name] = round(estimate.value, 6)
        columns[f"{name}_low"] = round(estimate.low, 6)
        columns[f"{name}_high"] = round(estimate.high, 6)
        columns[f"{name}_interval"] = estimate.interval
    return columns


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the validation clips: all but the real footage's."""
    return frame[frame.method != "real"]
