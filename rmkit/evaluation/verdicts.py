"""The table of claims: what is said, how it was measured, what was found, and whether it holds.

Of claims.py's outcomes; reads and writes nothing itself (tables.py writes the table).
"""

import dataclasses

import pandas as pd

from rmkit import metrics
from rmkit.evaluation import claims
from rmkit.evaluation.typeset import Table, as_columns, cell
from rmkit.profile import Profile

NOT_RUN = "not run"
CLAIMS = (
    "In brackets after what is measured: the demonstration that measured it. Exploratory: added after its number had been "
    "seen; the bounds of all others were committed before."
)


def table(profile: Profile, frame: pd.DataFrame) -> Table:
    """Every claim with what was found and whether it holds: those that were measured first, then those that were not run."""
    rows, data, beside = [], [], claims.measured_beside(profile)
    for outcome in sorted(claims.check(frame, beside), key=lambda outcome: outcome.verdict == NOT_RUN):
        claim = outcome.claim
        measured_as, kept, found, names = _checked(outcome) if claim.check else _taken_together(outcome)
        said = f"{claim.statement} (exploratory)" if claim.exploratory else claim.statement
        rows.append([claim.section, said, measured_as, kept, found, outcome.verdict])
        ids = {"id": claim.id, "section": claim.section, "statement": claim.statement}
        ids["exploratory"] = str(claim.exploratory).lower()
        estimate = as_columns({"value": outcome.found})
        data.append({"profile": profile.name, **ids, **names, **estimate, "verdict": outcome.verdict})
    header = ["Section", "Claim", "Measured as", "Bound", "Found", "Verdict"]
    not_run = [f"{claim.statement}: not run: {claim.not_run}." for claim in claims.load() if claim.not_run]
    notes = [claims.not_measured(frame, beside), *not_run, CLAIMS]
    return Table("claims", f"Claims, profile {profile.name}", header, rows, pd.DataFrame(data), notes)


def measured(table: Table) -> Table:
    """The claims that were measured, verdict and number beside what is claimed."""
    header, *cells = (
        [*row[:2], *reversed(row[2:])] for row in [table.header, *table.cells] if row[-1] != NOT_RUN
    )
    said = {"name": "claims_measured", "title": "Claims that were measured"}
    return dataclasses.replace(table, **said, header=header, cells=cells, notes=[CLAIMS])


def not_run(table: Table) -> Table:
    """The claims that were not run, with the reasons under them."""
    cells = [row[:4] for row in table.cells if row[-1] == NOT_RUN]
    why = [note for note in table.notes if note != CLAIMS]
    said = {"name": "claims_not_run", "title": "Claims that were not run"}
    return dataclasses.replace(table, **said, header=table.header[:4], cells=cells, notes=why)


def headlines(profile: Profile, frame: pd.DataFrame) -> list[str]:
    """The claims that stand in the first lines of a report, each with its verdict and number: the awkward ones too."""
    lines = []
    for outcome in claims.check(frame, claims.measured_beside(profile)):
        if outcome.claim.headline:
            _, _, found, _ = _checked(outcome) if outcome.claim.check else _taken_together(outcome)
            said = f"{outcome.claim.statement}{' (exploratory)' if outcome.claim.exploratory else ''}"
            lines.append(f"{said}: **{outcome.verdict}**" + ("" if found == NOT_RUN else f", {found}"))
    return lines


def _checked(outcome: claims.Outcome) -> tuple[str, str, str, dict[str, str]]:
    """Of a claim with a number: measured as, bound, found, and the columns of the csv."""
    check = outcome.claim.check
    first, *second = check.methods
    shown = {
        "difference": f"{first} − {second[0] if second else ''}",
        "ratio": f"{first} / {second[0] if second else ''}",
        "mean": first,
        "two_sample": f"{first} here − {first} on validation clips",
        "preferred": f"realmaster over {first}",
    }[check.kind]
    known = metrics.columns().get(check.metric)
    digits = known.digits if known and check.kind != "ratio" else 2
    value, strict, loose = (check.least, ">", "≥") if check.most is None else (check.most, "<", "≤")
    kept = f"{loose} {value:g}".replace("-", "−") if value else f"{strict} 0"  # 0 itself is a tie
    if None not in (check.least, check.most):
        kept = f"{check.least:g} to {check.most:g}"
    found = cell(outcome.found, digits, "not run", signed=check.kind in ("difference", "two_sample"))
    if outcome.found.known and outcome.found.sequences < check.fewest:
        found += f" ({outcome.found.sequences} sequences of {check.fewest})"
    names = {"part": check.part or "", "metric": check.metric, "kind": check.kind, "method": first}
    names |= {"other": "".join(second), "bound": kept}
    where = f" ({check.part})" if check.part else ""
    return f"{shown}, {check.metric}{where}", kept, found, names


def _taken_together(outcome: claims.Outcome) -> tuple[str, str, str, dict[str, str]]:
    """The same of a claim that hangs on others, or of one that cannot be checked."""
    names = dict.fromkeys(("part", "metric", "method", "other", "bound"), "")
    parts = outcome.parts
    if not parts:
        return "n/a", "n/a", "not run", names | {"kind": "none"}
    held = f"{parts.count('holds')} of {len(parts)} hold"
    return f"{len(parts)} claims taken together", "all hold", held, names | {"kind": "every"}
