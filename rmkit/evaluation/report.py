"""The report of a run: what came out, beside what the paper claims, with pictures (paper, 4.5 and beyond).

Reads metrics.csv (the shipped record's before there is one) and what the stages left under results/<profile>/; writes
tables/, figures/, sheets/, viewing/, report.md and the same as a page with its videos, index.html. Only metrics.csv must be
there: what is made of the rest is left out with the reason. A claim that does not hold is stated as plainly as one that
does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from rmkit import baselines, metrics
from rmkit.errors import InputError
from rmkit.evaluation import (
    account,
    claims,
    figures,
    having,
    metrics_csv,
    page,
    sheets,
    tables,
    typeset,
    verdicts,
)
from rmkit.evaluation.page import Section
from rmkit.evaluation.typeset import Table
from rmkit.kit import store
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile

SHEETS = 8  # clips shown
CAPTIONS = {
    "fidelity": "Nearness to the truth by (a) PSNR and (b) SSIM: a good method is far right. (c) Outlines of the render "
    "kept: level with the VAE ceiling is as good as the model can be. (d) Sharpness, on a logarithmic axis: at the dotted "
    "line, the truth's; far left of it is blur, far right of it a game's hard edges. Bars: 95 % intervals.",
    "temporal": "Temporal metrics: (a, b) flickering, (c, d) smoothness of motion. The render's own score is the one to "
    "compare with: repeating frames (a, c: 16 a second, as in the paper) flatters flicker and punishes smoothness; "
    "distinct frames (b, d) do neither. Bars: 95 % intervals.",
    "gain_by_clip": "PSNR gained over a colour transfer, clip by clip: grading alone is the zero line.",
    "training": "Learning curves of the LoRA experts, a row each. Left: the pairs trained on; right: pairs held out, by "
    "noise level.",
    "anchors": "Drift of the edited anchors against their renders, as edited and after the gate.",
    "similarities": "How alike the faces of render and target are in the training pairs, and the filter's threshold.",
}
VERDICTS = {
    "holds": "hold",
    "does not hold": "do not hold",
    "undecided": "are undecided",
    "not run": "were not run",
}
TABLES = {
    "table1": "Table 1",
    "table2": "Table 2",
    "differences": "Paired differences",
    "wins": "Win rates",
    "paper": "Beside the paper",
}
DEMONSTRATIONS = {
    "weather": "Weather by the prompt (section 5)",
    "carla": "Another engine (section 5)",
    "limits": "Limits (section 3.2, appendix A)",
}


def write(profile: Profile) -> Path:
    """Make tables, figures, sheets, report.md and index.html from metrics.csv; returns the path of report.md.

    Prints a line for what is left out. Raises InputError where there is no metrics.csv, nor a shipped one.
    """
    if metrics_csv.of_record(profile):
        print(f"report: {_of_record(profile)}", flush=True)
    put(sections(profile), profile.layout.root)
    return profile.layout.report


def put(parts: Sequence[Section], folder: Path) -> None:
    """Write report.md and index.html of these parts into a folder."""
    store.write_text(folder / "report.md", page.markdown(parts, folder))
    store.write_text(folder / "index.html", page.html(parts, folder))


def contents(folder: Path) -> Section:
    """What lies in the folder of a report, its last part."""
    return Section("Contents", account.contents(folder))


def sections(profile: Profile) -> list[Section]:
    """The parts of a run's report, in order, after making the tables, figures, sheets, viewing copies and pages that they show."""
    frame = metrics_csv.to_show(profile)  # damaged, it is refused before the notebooks' pages take their time
    page.notebooks(profile)
    made = {table.name: table for table in tables.build(profile)}
    tables.write(profile, list(made.values()))
    measured, not_run = verdicts.measured(made["claims"]), verdicts.not_run(made["claims"])
    return [
        Section("", _opening(profile, frame, made["claims"])),
        Section("What is claimed, and what came out", typeset.markdown(measured) + _orders(profile, frame)),
        Section("What was not run", typeset.markdown(not_run), folded=True),
        _of_run(profile, "Videos and contact sheets", _sheets, stays=True),
        *(Section(title, _table(made, name)) for name, title in TABLES.items() if name in made),
        *(Section(title, _demonstration(profile, name)) for name, title in DEMONSTRATIONS.items()),
        Section("User study", _study(profile)),
        _figures(profile),
        _of_run(profile, "What was generated", account.generated),
        Section("Settings that are ours", account.settings(profile), folded=True),
        _of_run(profile, "Notebooks and times", account.times),
        _of_run(profile, "Environment", account.environment, folded=True),
        contents(profile.layout.root),
    ]


def choose(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Clips to show: the first of every labelled subset, then others evenly, in the manifest's order."""
    firsts = {subset: clip.id for clip in reversed(clips) for subset in clip.subsets}  # the first is kept
    chosen = set(firsts.values())
    for clip in clips[:: max(1, len(clips) // count)]:
        if len(chosen) < count:
            chosen.add(clip.id)
    return [clip for clip in clips if clip.id in chosen][:count]


def _opening(profile: Profile, frame: pd.DataFrame, table: Table) -> str:
    """What was asked, what came out, the awkward included, and how sure it is."""
    clips, sequences = having.measured(frame)[["clip", "sequence"]].nunique()
    found = table.data.verdict.to_list()
    counts = ", ".join(f"{found.count(v)} {text}" for v, text in VERDICTS.items() if v in found)
    paragraphs = [
        f"# RealMaster, profile `{profile.name}`",
        *([f"**{_of_record(profile)}**"] if metrics_csv.of_record(profile) else []),
        "**What was asked.** Whether a video model, fine-tuned on pairs that an image editor and an edge-guided model have "
        "made, turns renders into photorealistic video and keeps the scene: a reproduction of *RealMaster: Lifting "
        "Rendered Scenes into Photorealistic Video* (arXiv 2603.23462).",
        f"**What came out.** Of {len(found)} statements, {counts}. Before all others:",
        "\n".join(f"- {line}" for line in verdicts.headlines(profile, frame)),
        f"**How sure it is.** Measured on {clips} validation clips of {sequences} sequences. In square brackets: 95 % "
        "intervals, resampled by sequence. A statement holds when its whole interval keeps the bound, and is undecided "
        "when the interval reaches over it; exploratory ones were added after their number had been seen. These numbers "
        "come from this profile's data and models; they are not the paper's and do not stand beside them.",
        _by_section(table.data),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _by_section(data: pd.DataFrame) -> str:
    """How many statements each section of the paper makes, and their verdicts."""
    sections = dict.fromkeys(claim.section for claim in claims.load())
    counts = pd.crosstab(data.section, data.verdict).reindex(columns=list(VERDICTS), fill_value=0)
    rows = [(name, counts.loc[name].sum(), *counts.loc[name]) for name in sections if name in counts.index]
    header = ["Section of the paper", "Statements", *(verdict.capitalize() for verdict in VERDICTS)]
    return typeset.grid(header, rows).rstrip()


def _orders(profile: Profile, frame: pd.DataFrame) -> str:
    """The order of the ablation's methods that came out, beside the paper's."""
    lines, methods = [], baselines.every(profile)
    for metric in ("psnr_truth", "ssim_truth", "dino"):
        label, order = metrics.columns()[metric].label, claims.observed_order(frame, metric)
        if order:
            names = " > ".join(f"{methods[method].label} ({value:#.3g})" for method, value in order)
            lines += [f"Order by {label}: {names}. {_against_paper([method for method, _ in order])}", ""]
        elif metric != "dino":  # the note under the table says why that is not there
            lines += [f"Order by {label}: not run (no truth).", ""]
    return "\n".join(["", *lines])


def _table(made: dict[str, Table], name: str) -> str:
    """The table with the paper's columns and, under it, the one with the others."""
    parts = [made[each] for each in (name, f"{name}_further") if each in made]
    return "\n".join(map(typeset.markdown, parts))


def _demonstration(profile: Profile, name: str) -> str:
    """The tables, figures and sheets that a demonstration's notebook has written, or those of the shipped record."""
    layout = profile.demo(name).layout
    folder = layout.root if layout.metrics.is_file() else layout.reference
    found = sorted((folder / "tables").glob("*.md"))
    if not found:
        return f"Not run: `results/{profile.name}/{name}/` holds no table; its notebook says why, or has not been run.\n"
    pictures = [*sorted((folder / "figures").glob("*.png")), *sorted((folder / "sheets").glob("*.jpg"))]
    shown = [f"![{path.stem}]({path.relative_to(folder.parent)})" for path in pictures]
    return (
        "\n".join([*(path.read_text() for path in found), *(shown if folder == layout.root else ())]) + "\n"
    )


def _study(profile: Profile) -> str:
    """The paper's Figure 5, where people have taken part."""
    table, figure = profile.layout.tables / "study.md", profile.layout.study / "preferences.png"
    if not table.is_file():
        return "Not run: nobody has taken part (`rmkit study` makes the page and counts the answers).\n"
    shown = f"\n![study](study/{figure.name})\n" if figure.is_file() else ""
    return table.read_text() + shown


def _against_paper(order: Sequence[str]) -> str:
    if len(order) < len(claims.ORDER):
        return "Not all methods of the paper's ablation were run."
    if order[:2] == ["realmaster", "edges"]:
        return "This is the paper's order (RealMaster, then Edges, then Depth and Multiple Anchors)."
    return "The paper's order (RealMaster, then Edges, then Depth and Multiple Anchors) did not come out."


def _of_record(profile: Profile) -> str:
    record = f"results/reference/{profile.name}/{metrics_csv.file(profile.layout.reference).name}"
    return f"Nothing has been measured here: these are the values of the shipped record, {record}."


def _left_out(profile: Profile, what: str, why: str) -> str:
    """Why a part is left out, by paths inside the results; printed as well, but not of the record: one line says it all."""
    text = f"left out: {why.replace(f'{profile.layout.root}/', '')}"
    if not metrics_csv.of_record(profile):
        print(f"report: {what} {text}", flush=True)
    return text


def _figures(profile: Profile) -> Section:
    left_out, parts = figures.draw(profile), []
    for name, caption in CAPTIONS.items():
        if name in left_out:
            parts.append(f"*{name}: {_left_out(profile, f'figure {name}', left_out[name])}*\n")
        else:
            parts.append(f"![{name}](figures/{name}.png)\n\n*{caption}*\n")
    return Section("Figures", "\n".join(parts))


def _of_run(profile: Profile, title: str, part: Callable[[Profile], str], **how: bool) -> Section:
    """A section made of a run's own files; where one is missing the section says so."""
    try:
        metrics_csv.require_run(profile)
        text = part(profile)
    except InputError as error:
        text = f"*{_left_out(profile, title, str(error))}*\n"
    return Section(title, text, **how)


def _sheets(profile: Profile) -> str:
    shown = choose(sampling.load(profile, "validation"), SHEETS)
    sampling.check(profile, shown)
    sheets.save(profile, shown)
    paragraphs = [
        "Side by side, in step, as a video, and the same moments of a clip from every method, ends included. Look for the light and materials of the truth on "
        "the figures, faces and props of the render. Grey: not an anchor of this clip."
    ]
    for clip in shown:
        labels = f" ({', '.join(clip.subsets)})" if clip.subsets else ""
        paragraphs += [f"### {clip.id}{labels}", clip.caption]
        paragraphs.append(f"[Video: render, RealMaster, Edges, truth](viewing/{clip.id}.mp4)")
        paragraphs.append(f"![{clip.id}](sheets/{clip.id}.png)")
    return "\n\n".join(paragraphs) + "\n"
