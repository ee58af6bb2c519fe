"""What a report says of the run itself: what was generated, settings, times, environment, and what lies where.

Reads the run's pairs, anchors' sidecars and times; writes nothing. Each part is a piece of Markdown.
"""

from pathlib import Path

import pandas as pd

from rmkit.evaluation import figures, typeset
from rmkit.kit import machine
from rmkit.method import identity
from rmkit.profile import Profile, ours

CONTENTS = {
    "metrics.csv": "every value: a row a clip, method and metric, with what it was measured on",
    "metrics.csv.gz": "every value: a row a clip, method and metric, with what it was measured on",
    "tolerances.csv": "what `make verify` allows two runs to differ by",
    "profile.yaml": "the settings",
    "tables": "tables as csv, Markdown and LaTeX",
    "figures": "figures as png and pdf",
    "sheets": "contact sheets",
    "viewing": "videos for the eye, side by side",
    "notebooks": "the notebooks as they were run",
    "clips": "the renders, lossless",
    "truth": "what a camera would have shown",
    "anchors": "edited frames",
    "structure": "edge and depth maps",
    "propagated": "VACE's clips by variant, lossless",
    "pairs": "which pairs were trained on, and why",
    "adapters": "the trained LoRA, in diffusers' format, and what its attention was measured to read",
    "enhanced": "clips by method, lossless",
    "weather": "the demonstration of 06_weather",
    "carla": "the demonstration of 07_carla",
    "limits": "the demonstration of 08_limits",
    "study": "the user study: a page for participants, its key, and a panel that was simulated",
    "your_clip": "videos of 09_your_clip",
    "lab": "clips, pins, pictures and profiles of 03's ablation lab",
}


def generated(profile: Profile) -> str:
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


def settings(profile: Profile) -> str:
    """Every setting that the paper leaves open, with its value."""
    rows = []
    for key, value, meaning in ours(profile):
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        rows.append((f"`{key}`", shown, meaning))
    text = "The paper leaves these open; each value is ours.\n\n"
    return text + typeset.grid(["Setting", "Value", "Meaning"], rows)


def times(profile: Profile) -> str:
    """Each notebook as it was run, as a page, with its time and memory."""
    times, folder = machine.notebook_times(profile), profile.layout.notebooks
    names = sorted({path.stem for path in folder.glob("[0-9][0-9]_*.html")} | times.keys())
    if not names:
        return "Not recorded: the notebooks were not run by `make reproduce`.\n"
    rows = []
    for name in names:
        known = ["n/a"] * 3
        if facts := times.get(name):
            known = [f"{facts['seconds']:.0f}", f"{facts['peak_mib']:.0f}", facts["device"]]
        rows.append((f"[{name}](notebooks/{name}.html)", *known))
    total = sum(facts["seconds"] for facts in times.values())
    note = (
        f"\nTogether {total / 60:.1f} minutes. Of the last run of each notebook that computed something; a run that "
        "was killed and resumed counts from where it went on.\n"
    )
    return typeset.grid(["Notebook", "Seconds", "Peak memory (MiB)", "Device"], rows) + note


def environment(profile: Profile) -> str:
    """Machine and packages."""
    rows = machine.describe(profile, machine.recorded_device(profile)).items()
    return "Of this report; the device is the notebooks'.\n\n" + typeset.grid(["What", "Which"], rows)


def contents(folder: Path) -> str:
    """What lies in the folder of a report."""
    found = [f"- [{name}]({name}): {what}" for name, what in CONTENTS.items() if (folder / name).exists()]
    return "\n".join([*found, ""])
