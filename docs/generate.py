"""The tables of claims, costs and paper sections in README.md and docs/claims.md (ours).

What is typed, how long it takes, what comes out, and which module is which section. Reads data/paper/claims.yaml, the modules'
docstrings and, of the shipped record, tables/claims.csv and cost.json (benchmarks/cost.py); writes docs/claims.md, and README.md
between the markers `costs` and `sections`. `make docs` calls it after the record or a docstring has changed.
"""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rmkit.baselines import EXTERNAL
from rmkit.evaluation import claims, typeset
from rmkit.kit import store
from rmkit.paths import REPOSITORY

RECORD = REPOSITORY / "results" / "reference" / "mini"
README, PAGE = REPOSITORY / "README.md", REPOSITORY / "docs" / "claims.md"
BEGIN, END = "<!-- costs: begin (written by `make docs`, never by hand) -->", "<!-- costs: end -->"
SECTIONS_BEGIN, SECTIONS_END = (
    "<!-- sections: begin (by `make docs`, from the modules' docstrings) -->",
    "<!-- sections: end -->",
)
SECTIONS = {
    "3.1": "data generation: key frames, propagation",
    "3.2": "model training, and what it frees from",
    "3.3": "implementation: clips, identity filter, IC-LoRA",
    "4.1": "metrics and baselines",
    "4.4": "user study",
    "4.5": "ablation, Tables 1 and 2",
    "5": "weather, another simulator",
    "A": "failure cases",
    "B.1": "details of the data generation",
    "B.2": "details of the training",
    "B.3": "settings of the baselines",
    "C.1": "GPT-RS",
}
RUN = ("00_", "01_", "02_", "03_", "04_", "05_")  # notebooks whose work every claim about the run stands on
GOES_ON = "`make reproduce`, which goes on"
NOT_HERE = "n/a"
SAID = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided", "not run": "not run"}


@dataclass(frozen=True)
class Road:
    """How a kind of claim is checked: what it is, what is typed, whose notebooks' time it takes, where to look."""

    title: str
    command: str
    notebooks: tuple[str, ...]  # beginnings of their names; none: it needs what is not shipped
    where: str


ROADS = {
    "run": Road(
        "the method, its ablation and baselines", "`make reproduce`", RUN, "`report.md`, Tables 1 and 2"
    ),
    "weather": Road("weather by the prompt", GOES_ON, ("06_",), "`weather/tables/weather.md`"),
    "carla": Road("another engine", GOES_ON, ("07_",), "`carla/tables/carla.md`"),
    "limits": Road("limits", GOES_ON, ("08_",), "`limits/tables/limits.md`"),
    "judge": Road(
        "ratings by GPT-4o",
        "`OPENAI_API_KEY=... make reproduce PROFILE=my.yaml`, with `judge: {enabled: true}`",
        (),
        "`report.md`, Table 1",
    ),
    "baselines": Road(
        "Runway Aleph, LucyEdit, Editto",
        "`make reproduce PROFILE=my.yaml`, with their `baselines`",
        (),
        "`report.md`, Table 1",
    ),
    "study": Road("ratings by people", "`python -m rmkit study --profile my.yaml`", (), "`tables/study.md`"),
    "none": Road("what no number can check", "none", (), "`report.md`, under the claims"),
}


def road(claim: claims.Claim) -> str:
    """Which of ROADS checks a claim; one that hangs on others goes their first way, as one that fails is enough."""
    if claim.every:
        together = {road(other) for other in claims.load() if other.id in claim.every}
        return next(name for name in ROADS if name in together)
    if not claim.check:
        return "none"
    if claim.check.preferred:
        return "study"
    if set(claim.check.methods) & set(EXTERNAL):
        return "baselines"
    return "judge" if claim.check.metric.startswith("gpt_rs") else claim.check.part or "run"


def costs() -> dict:
    """The record's cost.json."""
    return json.loads((RECORD / "cost.json").read_text())


def taken(cost: dict, beginnings: Sequence[str]) -> tuple[str, str]:
    """Minutes of these notebooks together ("+" after the run), and memory of the largest; NOT_HERE where there are none."""
    found = [row for name, row in cost["notebooks"].items() if name.startswith(tuple(beginnings))]
    if not found:
        return NOT_HERE, NOT_HERE
    minutes = max(1, round(sum(row["seconds"] for row in found) / 60))
    return (
        f"{'+' * (len(beginnings) == 1)}{minutes}",
        f"{max(row['peak_mib'] for row in found) / 1024:.1f} GiB",
    )


def expected(row: pd.Series) -> str:
    """Value with its interval, three digits, as the record has them; empty where nothing was measured."""
    if pd.isna(row.value):
        return ""
    ends = "" if pd.isna(row.value_low) else f" [{row.value_low:.3g}, {row.value_high:.3g}]"
    return f"{row.value:.3g}{ends}".replace("-", "−")


def page() -> str:
    """docs/claims.md: a row a claim."""
    cost, rows = costs(), []
    record = pd.read_csv(RECORD / "tables" / "claims.csv").set_index("id")
    for claim in claims.load():
        way = ROADS[road(claim)]
        found = record.loc[claim.id] if claim.id in record.index else None
        outcome = "not in the record yet" if found is None else found.verdict
        bound, value = ("", "") if found is None else (_text(found.bound), expected(found))
        cells = (claim.section, claim.statement, way.command, *taken(cost, way.notebooks), f"`{claim.id}`")
        rows.append((*cells, bound, value, outcome))
    header = ["Section", "Claim", "Command", "Minutes", "Memory", "Row", "Bound", "Expected", "Verdict"]
    text = (
        "# Every claim: what to type, what it takes, where to look, what to expect\n\n"
        "Written by `make docs` from `data/paper/claims.yaml` and the shipped record, `results/reference/mini/`. *Row*: the "
        "id in `results/mini/tables/claims.csv`; the tables it comes from stand in the README. *Expected*: the record's "
        "value [95 % interval]; another seed or processor stays within the tolerances of `make verify`. Minutes and memory "
        f"are those of the notebooks that the claim stands on, on {_machine(cost)}; the rows of one command share them, "
        "and + is on top of the run. n/a: needs an account, other models or people.\n\n"
    )
    return text + typeset.grid(header, rows)


def summary() -> str:
    """What stands in the README: a row a road, then what the whole takes."""
    cost, rows = costs(), []
    record = pd.read_csv(RECORD / "tables" / "claims.csv").set_index("id")
    for name, way in ROADS.items():
        mine = [claim.id for claim in claims.load() if road(claim) == name]
        counts = record.verdict.reindex(mine).fillna("not run").value_counts()
        came = ", ".join(f"{counts[verdict]} {said}" for verdict, said in SAID.items() if verdict in counts)
        rows.append((way.title, len(mine), way.command, *taken(cost, way.notebooks), way.where, came))
    header = [
        "Claims about",
        "Number",
        "Command",
        "Minutes",
        "Memory",
        "Where, in `results/mini/`",
        "Expected",
    ]
    return (
        typeset.grid(header, rows)
        + "\n"
        + typeset.grid(["What `make reproduce` takes", "`mini`"], hardware(cost))
    )


def hardware(cost: dict) -> list[tuple[str, str]]:
    """Machine, time, memory, disk and energy of a whole run."""
    minutes = sum(row["seconds"] for row in cost["notebooks"].values()) / 60
    rows = [
        ("machine", _machine(cost)),
        ("time", f"{minutes:.0f} min, measured"),
        (
            "memory",
            f"{max(row['peak_mib'] for row in cost['notebooks'].values()) / 1024:.1f} GiB, the largest process, measured",
        ),
        ("disk", f"{cost['disk_mib']} MiB of results, measured; the environment comes on top"),
    ]
    if power := cost["power"]:
        watts = power["cpu"] + power["ram"] + power["gpu"]
        energy = f"about {watts * minutes / 60:.0f} Wh, an estimate: {watts:.0f} W for the whole machine ({power['how']}) x time"
    else:
        energy = "not estimated"
    return [*rows, ("energy", energy)]


def readme(text: str) -> str:
    """README.md with the tables between its markers made anew."""
    for begin, end, table in ((BEGIN, END, summary()), (SECTIONS_BEGIN, SECTIONS_END, sections())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}{end}{rest.split(end, 1)[1]}"
    return text


def sections() -> str:
    """A row a section of the paper: the modules whose docstring's first line names it."""
    found: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for path in sorted((REPOSITORY / "rmkit").glob("*/*.py")):
        for section in named(ast.get_docstring(ast.parse(path.read_text())) or ""):
            name = path.relative_to(REPOSITORY).as_posix()
            shown = path.parent.name if path.stem == "__init__" else f"{path.parent.name}/{path.stem}"
            found.setdefault(section, []).append(f"[{shown}]({name})")
    rows = [
        (section, SECTIONS.get(section, ""), ", ".join(names))
        for section, names in sorted(found.items())
        if names
    ]
    return typeset.grid(["Section", "of the paper", "Modules in `rmkit/`"], rows)


def named(docstring: str) -> list[str]:
    """The sections of the paper in the brackets of a docstring's first line, without chapters, figures and years."""
    first = docstring.partition("\n")[0]
    within = [text for text in re.findall(r"\(([^)]*)\)", first) if re.match(r"paper,|\d|[A-C]\b", text)]
    plain = re.sub(r"(Fig\.|Figure) \d+( and \d+|, \d+)*|\d{3,}", "", " ".join(within))
    return [name for name in re.findall(r"\b(?:[34]\.\d|5|[ABC](?:\.\d)?)\b", plain)]


def _machine(cost: dict) -> str:
    return f"{cost['cores']} core{'s' * (cost['cores'] > 1)} of: {cost['machine']} (run `{cost['run']}`)"


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)


if __name__ == "__main__":
    store.write_text(PAGE, page())
    store.write_text(README, readme(README.read_text()))
