"""Table 2 and its companions, each as csv, md and tex (paper, 4.5).

Reads metrics.csv alone (no model, no video); writes tables/{table1,table2,differences,claims}.{csv,md,tex}. What did
not run says so, and a number of one profile never stands in another's column.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rmkit import claims, evaluate, metrics, statistics
from rmkit.metrics import Metric
from rmkit.profile import Profile
from rmkit.statistics import Estimate

TABLE1 = (
    *("render", "blur", "colour_transfer", "per_frame"),
    *evaluate.OUTSIDE,
    *("realmaster", "vae_ceiling", "truth"),
)
TABLE2 = ("render", "colour_transfer", *evaluate.VARIANTS, "realmaster", "vae_ceiling", "truth")
DIGITS = {"psnr_truth": 2, "sharpness": 0, "ssim_truth": 3, "gpt_rs": 2, "gpt_rs_ref": 2}  # else 4
DIGITS |= {metric.name: 3 for metric in metrics.FACES}
ARROWS = {1: "↑", -1: "↓", 0: ""}
LATEX = {
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "−": "$-$",
    "≥": r"$\geq$",
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
    """All tables of a run, from its metrics.csv."""
    frame = statistics.load(profile)
    return [
        _means(profile, frame, "table1", "Table 1. Methods", TABLE1),
        _means(profile, frame, "table2", "Table 2. Ablation", TABLE2),
        differences(profile, frame),
        claims_table(profile, frame),
    ]


def _means(profile: Profile, frame: pd.DataFrame, name: str, subject: str, methods: Sequence[str]) -> Table:
    """Means of some methods: a table of the paper with the rows it lacks (input, grading, ceiling, truth)."""
    rows, data, columns = [], [], metrics.shown(frame.metric)
    for method in methods:
        label = evaluate.METHODS[method]
        estimates = {m.name: statistics.mean(frame, method, m.name) for m in columns}
        missing = _missing(profile, frame, method)
        count = max(estimate.clips for estimate in estimates.values())
        cells = [cell(estimates[m.name], m, missing) for m in columns]
        rows.append([label, str(count) if count else missing, *cells])
        data.append({"profile": profile.name, "method": method, "clips": count} | _columns(estimates))
    header = ["Method", "Clips", *(f"{m.label} {ARROWS[m.better]}".strip() for m in columns)]
    notes = [
        *_reasons(profile, frame, methods),
        "Mean over clips [95 % interval, resampled by sequence]; "
        f"{_sequences(frame)} sequences. Sharpness is to be near the truth's, not high.",
        "Motion Smoothness (flow): VBench's arithmetic with an optical-flow interpolator (DIS) in place of AMT-S; "
        "not comparable with VBench's own numbers. `distinct`: on the source's frames, without the repetition "
        "from 8 to 16 fps; the others at 16 fps, as in the paper.",
        _judged(profile, frame),
        _recognised(profile, frame),
        "DINO (the paper's other column): not run, this version has no model for it.",
    ]
    if "per_frame" in methods:
        notes.append("Per-frame editing: on some of the clips only; compare by the paired differences.")
    title = f"{subject} on the validation clips, profile {profile.name}"
    return Table(name, title, header, rows, pd.DataFrame(data), notes)


def differences(profile: Profile, frame: pd.DataFrame) -> Table:
    """Paired differences of every method to RealMaster, clip by clip."""
    rows, data, columns = [], [], metrics.shown(frame.metric)
    for method, label in evaluate.METHODS.items():
        if method == statistics.REFERENCE:
            continue
        found = {m.name: statistics.difference(frame, m.name, method) for m in columns}
        missing = _missing(profile, frame, method)
        cells = [cell(found[m.name], m, missing, signed=True) for m in columns]
        rows.append([label, *cells])
        data.append({"profile": profile.name, "method": method} | _columns(found))
    header = ["Method − RealMaster", *(f"{m.label} {ARROWS[m.better]}".strip() for m in columns)]
    notes = [
        *_reasons(profile, frame, list(evaluate.METHODS)),
        "Mean over the clips both have [95 % interval, resampled by sequence].",
    ]
    title = f"Paired differences to RealMaster, profile {profile.name}"
    return Table("differences", title, header, rows, pd.DataFrame(data), notes)


def claims_table(profile: Profile, frame: pd.DataFrame) -> Table:
    """Every claim with what was found and whether it holds."""
    rows, data = [], []
    for outcome in claims.check(frame):
        claim, metric = outcome.claim, metrics.BY_NAME[outcome.claim.metric]
        what = f"{claim.method} {'/' if claim.kind == 'ratio' else '−'} {claim.other}"
        found = cell(
            outcome.found, metric, "not run", signed=claim.kind == "difference", ratio=claim.kind == "ratio"
        )
        rows.append(
            [claim.source, claim.statement, f"{what}, {claim.metric}", bound(claim), found, outcome.verdict]
        )
        data.append(
            {
                "profile": profile.name,
                "id": claim.id,
                "source": claim.source,
                "statement": claim.statement,
                "metric": claim.metric,
                "method": claim.method,
                "other": claim.other,
                "kind": claim.kind,
                "bound": bound(claim),
                **_columns({"value": outcome.found}),
                "verdict": outcome.verdict,
            }
        )
    header = ["Source", "Claim", "Measured as", "Bound", "Found", "Verdict"]
    notes = [claims.not_measured(frame)]
    return Table("claims", f"Claims, profile {profile.name}", header, rows, pd.DataFrame(data), notes)


def bound(claim: claims.Claim) -> str:
    """A claim's bound in words: '≥ 1', '> 0', '0.7 to 1.2'."""
    if claim.most is not None:
        return f"{claim.least:g} to {claim.most:g}"
    return f"≥ {claim.least:g}" if claim.least else "> 0"


def cell(
    estimate: Estimate, metric: Metric, missing: str = "n/a", signed: bool = False, ratio: bool = False
) -> str:
    """'value [low, high]', or why there is none."""
    if not estimate.known:
        return missing
    digits = 2 if ratio else DIGITS.get(metric.name, 4)
    sign = "+" if signed else ""

    def number(value: float) -> str:
        return f"{value:{sign}.{digits}f}".replace("-", "−")

    if math.isnan(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def markdown(table: Table) -> str:
    """GitHub's form; the pipe inside a cell is escaped."""
    lines = [f"**{table.title}**", "", _row(table.header), _row(["---"] * len(table.header))]
    lines += [_row(row) for row in table.cells]
    return "\n".join([*lines, "", *(f"{note}  " for note in table.notes), ""])


def latex(table: Table) -> str:
    """A booktabs tabular with its caption; the notes follow as text."""
    columns = "l" * len(table.header)
    body = [" & ".join(_tex(text) for text in row) + r" \\" for row in table.cells]
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


def _missing(profile: Profile, frame: pd.DataFrame, method: str) -> str:
    """What stands in a method's empty cells: a metric that does not apply, or a method that was not run."""
    return "n/a" if method in set(frame.method) else evaluate.why_not(profile, method).split(":")[0]


def _reasons(profile: Profile, frame: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """Why a row is empty, a sentence each."""
    empty = [method for method in methods if method not in set(frame.method)]
    return [f"{evaluate.METHODS[method]}: {evaluate.why_not(profile, method)}" for method in empty]


def _recognised(profile: Profile, frame: pd.DataFrame) -> str:
    """What ArcFace was measured with and on how many clips, or why it was not."""
    asked = frame[frame.metric == "arcface_coverage"]
    if asked.empty:
        nothing = "n/a: no face was found in any render, or 05_evaluation has not run since the face model was named."
        return f"ArcFace: {evaluate.why_no_faces(profile) or nothing}"
    identity = profile.identity
    count, of = asked["clip"].nunique(), frame["clip"].nunique()
    return (
        f"ArcFace by {asked.options.iloc[0].replace(';', ', ')}, against the render, on the {count} of {of} clips whose "
        f"render has a face; faces matched by overlap (IoU of {identity.iou_gate:g} or more), detector at "
        f"{identity.det_size} pixels. `midpoints`: five frames without the ends, which are anchors. Of an unmatched "
        "face nothing is known but that it lowers `Faces matched`: read the two together."
    )


def _judged(profile: Profile, frame: pd.DataFrame) -> str:
    """Who gave the ratings and how far repeats differ, or why there are none."""
    asked = frame[frame.metric.isin([metric.name for metric in metrics.JUDGED])]
    if asked.empty:
        rerun = "not run: metrics.csv has no row of it; run 05_evaluation again."
        return f"GPT-RS: {evaluate.why_no_ratings(profile) or rerun}"
    parts = [f"GPT-RS, 1 to 10 (C.1): {text.replace(';', ', ')}" for text in asked.options.unique()]
    for metric in metrics.SPREADS:
        values = frame[frame.metric == metric.name].value
        if len(values):
            parts.append(
                f"{metric.label}: repeats of a clip differ by {values.mean():.2f} (standard deviation)"
            )
    return "; ".join(parts) + "."


def _columns(estimates: dict[str, Estimate]) -> dict[str, float | int | str]:
    """Each estimate as columns of the csv, rounded so that two runs compare."""
    columns: dict[str, float | int | str] = {}
    for name, estimate in estimates.items():
        columns[name] = round(estimate.value, 6)
        columns[f"{name}_low"] = round(estimate.low, 6)
        columns[f"{name}_high"] = round(estimate.high, 6)
        columns[f"{name}_interval"] = estimate.interval
    return columns


def _sequences(frame: pd.DataFrame) -> int:
    return frame.sequence.nunique()


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", r"\|") for text in texts) + " |"


def _tex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
