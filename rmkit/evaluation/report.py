"""The report of a run: what came out, beside what the paper claims, with pictures (paper, 4.5 and beyond).

Reads metrics.csv (the shipped record's before there is one) and what the stages left under results/<profile>/; writes
tables/, figures/, sheets/, viewing/ and report.md. Only metrics.csv must be there: what is made of the rest is left out
with the reason. A claim that does not hold is stated as plainly as one that does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from rmkit import baselines, metrics
from rmkit.errors import InputError
from rmkit.evaluation import claims, figures, sheets, statistics, tables, typeset
from rmkit.evaluation.typeset import Table
from rmkit.kit import machine, store
from rmkit.method import identity, sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, ours

SHEETS = 8  # clips shown
CAPTIONS = {
    "fidelity": "Nearness to the truth, outlines of the render kept, and sharpness. A good method is far right in "
    "the upper panels and level with the VAE ceiling in the lower ones. Bars: 95 % intervals.",
    "temporal": "Temporal metrics. The render's own score is the one to compare with: repeating frames "
    "(left) flatters flicker and punishes smoothness; distinct frames (right) do neither.",
    "gain_by_clip": "PSNR gained over a colour transfer, clip by clip: grading alone is the zero line.",
    "training": "Learning curves of the two LoRA experts.",
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
    """Make tables, figures, sheets and report.md from metrics.csv; returns the report's path.

    Prints a line for what is left out. Raises InputError where there is no metrics.csv, nor a shipped one.
    """
    frame = statistics.to_show(profile)
    if statistics.of_record(profile):
        print(f"report: {_of_record(profile)}", flush=True)
    made = {table.name: table for table in tables.build(profile)}
    tables.write(profile, list(made.values()))
    parts = [
        _opening(profile, frame, made["claims"]),
        _outcome(profile, frame, made["claims"]),
        *(_section(title, typeset.markdown(made[name])) for name, title in TABLES.items() if name in made),
        *(_section(title, _demonstration(profile, name)) for name, title in DEMONSTRATIONS.items()),
        _section("User study", _study(profile)),
        _figures(profile),
        _of_run(profile, "What was generated", _generated),
        _settings(profile),
        _of_run(profile, "Times", _times),
        _of_run(profile, "Environment", _environment),
        # Last, so that the shipped record, which has no sheets, is the report up to here.
        _of_run(profile, "Contact sheets", _sheets),
    ]
    store.write_text(profile.layout.report, "\n".join(parts))
    return profile.layout.report


def choose(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Clips to show: the first of every labelled subset, then others evenly, in the manifest's order."""
    firsts = {subset: clip.id for clip in reversed(clips) for subset in clip.subsets}  # the first is kept
    chosen = set(firsts.values())
    for clip in clips[:: max(1, len(clips) // count)]:
        if len(chosen) < count:
            chosen.add(clip.id)
    return [clip for clip in clips if clip.id in chosen][:count]


def _opening(profile: Profile, frame: pd.DataFrame, table: Table) -> str:
    """What was measured, and how many statements of each section hold."""
    clips, sequences = tables.measured(frame)[["clip", "sequence"]].nunique()
    verdicts = table.data.verdict.to_list()
    found = ", ".join(f"{verdicts.count(v)} {text}" for v, text in VERDICTS.items() if v in verdicts)
    gain = statistics.difference(frame, "psnr_truth", "realmaster", "colour_transfer")
    paragraphs = [
        f"# RealMaster, profile `{profile.name}`",
        *([f"**{_of_record(profile)}**"] if statistics.of_record(profile) else []),
        "A reproduction of *RealMaster: Lifting Rendered Scenes into Photorealistic Video* (arXiv 2603.23462), "
        f"measured on {clips} validation clips of {sequences} sequences. These numbers come from this profile's data "
        "and models; they are not the paper's and do not stand beside them.",
        f"**In short:** of {len(verdicts)} statements, {found}.",
        _by_section(table.data),
    ]
    if gain.known:
        where = "nearer to" if gain.value > 0 else "further from"
        paragraphs.append(
            f"RealMaster's clips are {abs(gain.value):.2f} dB {where} the truth than a colour transfer's (mean over "
            f"{gain.clips} clips; 95 % interval of the difference {gain.low:+.2f} to {gain.high:+.2f} dB)."
        )
    return "\n\n".join(paragraphs) + "\n"


def _by_section(data: pd.DataFrame) -> str:
    """How many statements each section of the paper makes, and their verdicts."""
    counts = pd.crosstab(data.section, data.verdict).reindex(columns=list(VERDICTS), fill_value=0)
    rows = [(name, counts.loc[name].sum(), *counts.loc[name]) for name in data.section.unique()]
    header = ["Section of the paper", "Statements", *(verdict.capitalize() for verdict in VERDICTS)]
    return typeset.grid(header, rows).rstrip()


def _outcome(profile: Profile, frame: pd.DataFrame, table: Table) -> str:
    """Claims, verdicts, and the order that came out beside the paper's."""
    lines, methods = [typeset.markdown(table)], baselines.every(profile)
    for metric in ("psnr_truth", "ssim_truth", "dino"):
        label, order = metrics.columns()[metric].label, claims.observed_order(frame, metric)
        if order:
            names = " > ".join(f"{methods[method].label} ({value:#.3g})" for method, value in order)
            lines += [f"Order by {label}: {names}. {_against_paper([method for method, _ in order])}", ""]
        elif metric != "dino":  # the note under the table says why that is not there
            lines.append(f"Order by {label}: not run (no truth).")
    return _section("What is claimed, and what came out", "\n".join(lines))


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
    table, figure = profile.layout.tables / "study.md", profile.layout.figures / "study.png"
    if not table.is_file():
        return "Not run: nobody has taken part (`rmkit study` makes the page and counts the answers).\n"
    shown = f"\n![study](figures/{figure.name})\n" if figure.is_file() else ""
    return table.read_text() + shown


def _against_paper(order: Sequence[str]) -> str:
    if len(order) < len(claims.ORDER):
        return "Not all methods of the paper's ablation were run."
    if order[:2] == ["realmaster", "edges"]:
        return "This is the paper's order (RealMaster, then Edges, then Depth and Multiple Anchors)."
    return "The paper's order (RealMaster, then Edges, then Depth and Multiple Anchors) did not come out."


def _of_record(profile: Profile) -> str:
    record = f"results/reference/{profile.name}/{statistics.file(profile.layout.reference).name}"
    return f"Nothing has been measured here: these are the values of the shipped record, {record}."


def _left_out(profile: Profile, what: str, why: str) -> str:
    """Why a part is left out, by paths inside the results; printed as well, but not of the record: one line says it all."""
    text = f"left out: {why.replace(f'{profile.layout.root}/', '')}"
    if not statistics.of_record(profile):
        print(f"report: {what} {text}", flush=True)
    return text


def _figures(profile: Profile) -> str:
    left_out, parts = figures.draw(profile), []
    for name, caption in CAPTIONS.items():
        if name in left_out:
            parts.append(f"*{name}: {_left_out(profile, f'figure {name}', left_out[name])}*\n")
        else:
            parts.append(f"![{name}](figures/{name}.png)\n\n*{caption}*\n")
    return _section("Figures", "\n".join(parts))


def _of_run(profile: Profile, title: str, part: Callable[[Profile], str]) -> str:
    """A section made of a run's own files; where one is missing the section says so."""
    try:
        statistics.require_run(profile)
        text = part(profile)
    except InputError as error:
        text = f"*{_left_out(profile, title, str(error))}*\n"
    return _section(title, text)


def _sheets(profile: Profile) -> str:
    shown = choose(sampling.load(profile, "validation"), SHEETS)
    sampling.check(profile, shown)
    sheets.save(profile, shown)
    paragraphs = [
        "The same moments of a clip from every method, ends included. Look for the light and materials of the truth on "
        "the figures, faces and props of the render. Grey: not an anchor of this clip."
    ]
    for clip in shown:
        labels = f" ({', '.join(clip.subsets)})" if clip.subsets else ""
        paragraphs += [f"### {clip.id}{labels}", clip.caption, f"![{clip.id}](sheets/{clip.id}.png)"]
        paragraphs.append(f"[Video: render, RealMaster, truth](viewing/{clip.id}.mp4)")
    return "\n\n".join(paragraphs) + "\n"


def _generated(profile: Profile) -> str:
    """What the pipeline made on the way: anchors refused, pairs kept."""
    facts, pairs = figures.anchor_facts(profile), identity.load(profile)
    reasons = pd.Series([pair["reason"] for pair in pairs], dtype=str).value_counts().sort_index()
    drift = "" if facts.empty else f"; median drift {facts.drift_pixels.median():.2f} pixels as edited"
    lines = [
        f"- Anchors: {len(facts)} edited, {(~facts.accepted).sum()} refused by the alignment gate, "
        f"{(~facts.measured).sum()} with too few edges to measure a drift{drift}.",
        f"- Training pairs: {sum(pair['kept'] for pair in pairs)} of {len(pairs)} kept.",
        *(f"  - {reason}: {count}" for reason, count in reasons.items()),
        "- The face filter's statistic is the mean in the paper's appendix B.1 and the minimum in its 3.3; "
        f"`identity.over` is `{profile.identity.over}` here"
        + ("." if profile.identity.model_pack else ", without effect: there is no face model."),
    ]
    return "\n".join([*lines, ""])


def _settings(profile: Profile) -> str:
    rows = []
    for key, value, meaning in ours(profile):
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        rows.append((f"`{key}`", shown, meaning))
    text = "The paper leaves these open; each value is ours.\n\n"
    return _section("Settings that are ours", text + typeset.grid(["Setting", "Value", "Meaning"], rows))


def _times(profile: Profile) -> str:
    times = machine.notebook_times(profile)
    if not times:
        return "Not recorded: the notebooks were not run by `make reproduce`.\n"
    rows = [(name, f"{t['seconds']:.0f}", f"{t['peak_mib']:.0f}", t["device"]) for name, t in times.items()]
    total = sum(t["seconds"] for t in times.values())
    note = (
        f"\nTogether {total / 60:.1f} minutes. Of the last run of each notebook that computed something; a run that "
        "was killed and resumed counts from where it went on.\n"
    )
    return typeset.grid(["Notebook", "Seconds", "Peak memory (MiB)", "Device"], rows) + note


def _environment(profile: Profile) -> str:
    rows = machine.describe(profile, machine.recorded_device(profile)).items()
    return "Of this report; the device is the notebooks'.\n\n" + typeset.grid(["What", "Which"], rows)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"
