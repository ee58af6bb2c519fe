"""The plan as a table: what is to do, what it takes, what does not fit; what was foretold beside what a run took (ours).

Reads what `plan` reads, and the notebooks' own times; writes nothing.
"""

from collections.abc import Iterator, Sequence

from rmkit import baselines
from rmkit.kit import machine
from rmkit.kit.progress import duration
from rmkit.metrics import gpt_rs
from rmkit.pipeline import calibration, cards, changes, fit, plan
from rmkit.pipeline.cards import GIB, Card
from rmkit.pipeline.plan import Step
from rmkit.profile import Profile

# The stages of a notebook, by its number; what is not named is measured in 05, or a demonstration with its own.
NOTEBOOKS = {
    "01": ("data",),
    "02": ("anchors",),
    "03": ("structure", "propagate"),
    "04": ("faces", "encode", "train", "enhance"),
}


def show(profile: Profile, gpu: str | None = None) -> None:
    """Print the plan with totals, and what does not fit. Raises InputError for an unknown card."""
    card = cards.named(gpu) if gpu else None
    rows, here = plan.steps(profile, card), card or cards.here(profile)
    print(f"profile {profile.name}: {profile.data.train_clips} training and ", end="")
    print(f"{profile.data.validation_clips} validation clips, results in {profile.layout.root}")
    print(f"on {here.name}: {calibration.basis(here, card is None)}")
    heads = ("to do", "done", "calls", "PFLOP", "about", "GPU GiB", "CPU GiB", "GB disk")
    print(f"{'stage':15}" + "".join(f"{head:>12}" for head in heads) + "  of")
    for row in rows:
        device = row.device if here.memory else 0.0
        cells = (
            *(f"{number:,}" for number in (row.count, row.done)),
            f"{row.work.calls:,.0f}" if row.work.uses else "-",
            f"{row.work.flops / 1e15:,.4g}" if row.work.uses else "-",
            duration(row.left),
            f"{device / GIB:,.1f}" if device else "-",
            f"{row.memory / GIB:,.1f}",
            f"{row.disk / 1e9:,.1f}",
        )
        print(f"{row.stage:15}" + "".join(f"{cell:>12}" for cell in cells) + f"  {row.items}")
        if row.why:
            print(f"{'':15}  n/a: {row.why}")
    _totals(profile, rows, here)
    for line in changes.lines(profile):
        print(line)
    for row in rows if profile.extended else ():
        print(f"  {row.stage:15} {row.count - row.done:,} {row.items} to make, {row.reused:,} reused")
    for sentence in fit.misfits(profile, rows, card):
        print(f"does not fit: {sentence}.")
    if card is None:
        compare(profile, rows)


def compare(profile: Profile, rows: Sequence[Step]) -> None:
    """Print what the calibration foretells beside what the run's sidecars and notebooks say; nothing before there is both."""
    if not (known := calibration.load().stages):
        return
    foretold = {row.stage: row for row in plan.steps(profile, own=False)}
    lines = [
        (f"{row.stage}, s an item", foretold[row.stage].seconds, row.seconds)
        for row in rows
        if row.is_own and row.seconds and calibration.LIKE.get(row.stage, row.stage) in known
    ]
    lines += _memories(profile, foretold, known)
    if lines:
        print(f"{'calibrated beside this run':40}{'foretold':>12}{'measured':>12}{'ratio':>8}")
    for what, before, after in lines:
        print(f"{what:40}{before:12.3g}{after:12.3g}{before / after:8.2f}")


def _memories(
    profile: Profile, foretold: dict[str, Step], known: dict[str, object]
) -> Iterator[tuple[str, float, float]]:
    """Of each notebook the largest of its stages, MiB, and its process at its highest."""
    named = {stage for stages in NOTEBOOKS.values() for stage in stages}
    for name, facts in machine.notebook_times(profile).items():
        others = [stage for stage in foretold if stage not in named and stage[0] != "0"]
        stages = NOTEBOOKS.get(name[:2]) or (others if name[:2] == "05" else [name])
        found = [
            foretold[stage].memory
            for stage in stages
            if stage in foretold and calibration.LIKE.get(stage, stage) in known
        ]
        if found:
            yield f"{name}, MiB", max(found) / 2**20, facts["peak_mib"]


def _totals(profile: Profile, rows: list[Step], here: Card) -> None:
    left = [row.left for row in rows]
    known = sum(seconds for seconds in left if seconds)
    flops, disk = sum(row.work.flops for row in rows), sum(row.disk for row in rows)
    print(
        f"all: {flops / 1e15:,.4g} PFLOP, {disk / 1e9:,.1f} GB of disk, about {duration(known)} to go", end=""
    )
    if here.usd:
        print(f", {known / 3600 * here.usd:,.0f} USD at {here.usd:.2f} an hour (assumed)", end="")
    print("; not all is known" if None in left else "")
    if any(row.count > row.done for row in rows if row.stage in changes.DEMONSTRATIONS):
        print("to that comes what the demonstrations measure and draw")
    for name, size in fit.downloads(profile, rows).items():
        print(
            f"download {name}: {size / GIB:.1f} GiB, more where it is kept in float32"
            if size
            else f"download {name}: n/a"
        )
    print(f"judge: {gpt_rs.judging(profile)}")
    for name, usd in baselines.usd(profile, profile.data.validation_clips).items():
        print(f"{name}: at most about {usd:.2f} USD")
