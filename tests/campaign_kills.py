"""The kills of a campaign: at random moments of every part, whose values are compared to those of a run never killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

from bad_inputs import sentence
from campaign_runs import STAGES, Campaign, command_of, half_made, state

IN_A_RUN = 2  # kills of one part, one after the other


def unkilled(campaign: Campaign, parts: tuple[str, ...]) -> None:
    """The run that all others are compared with; its seconds of work are the range of the moments of the kills."""
    if campaign.never.is_dir():
        return
    shutil.rmtree(campaign.run, ignore_errors=True)
    for part in [part for part in parts if part in STAGES]:
        before, begun, work = state(campaign.run), time.monotonic(), None
        process = campaign.start(part)
        while process.poll() is None:
            if work is None and state(campaign.run) != before:
                work = time.monotonic()
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{part}: {(campaign.folder / 'err').read_text()}")
        ended = time.monotonic()
        campaign.note(
            "unkilled", part=part, seconds=ended - begun, work=ended - (work or begun), writes=bool(work)
        )
    campaign.whole("notebooks")
    times = json.loads((campaign.run / "notebooks" / "times.json").read_text())
    for part in [part for part in parts if part not in STAGES]:
        campaign.note("unkilled", part=part, work=times[part]["seconds"], writes=True)
    shutil.move(campaign.run, campaign.never)


def kill_once(campaign: Campaign, part: str, number: int, kind: str = "kill", *more: str) -> bool:
    """Start a part, kill its group at a random moment of its work; False where it ended before.

    How long its work takes is known from the run that was not killed, at the pace of that hour; the pace of this one is told
    by how long a stage takes to begin.
    """
    known = campaign.entries("unkilled", part=part)[-1]
    run = len(campaign.entries(f"{kind}ed run"))
    before = sum(entry["share"] for entry in campaign.entries(kind, part=part, run=run))
    # Another moment in another run: of a part that is done in no time, one may be too late every time.
    chance = random.Random(f"{campaign.profile} {kind} {part} {number} {run}")
    share = chance.uniform(0, max(1 - before, 0.02))
    was, started = state(campaign.run), time.monotonic()
    process = campaign.start(command_of(part), *more)

    def at_work() -> bool:
        if part in STAGES:
            return not known["writes"] or state(campaign.run) != was
        return f"{part}: running" in (campaign.folder / "out").read_text()

    while process.poll() is None and not at_work():
        time.sleep(0.05)
    paces = [entry["pace"] for entry in campaign.entries(kind)]
    pace = paces[-1] if paces else 1.0
    if part in STAGES and known["writes"]:
        pace = (time.monotonic() - started) / (known["seconds"] - known["work"])
    try:
        code = process.wait(share * known["work"] * pace)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        half = len(half_made(campaign.run))
        campaign.note(kind, part=part, run=run, share=round(share, 3), pace=round(pace, 3), half=half)
        return True
    if code:
        campaign.note("failed", part=part, code=code, said=sentence((campaign.folder / "err").read_text()))
    return False


def kills(campaign: Campaign, parts: tuple[str, ...], wanted: int) -> None:
    """So many kills, as even over the parts as may be, in as many runs as that takes."""
    each = {part: wanted // len(parts) + (i < wanted % len(parts)) for i, part in enumerate(parts)}
    while len(campaign.entries("kill")) < wanted or campaign.run.is_dir():
        run = len(campaign.entries("killed run"))
        for part in parts:
            while True:
                made = len(campaign.entries("kill", part=part))
                if made >= each[part] or len(campaign.entries("kill", part=part, run=run)) >= IN_A_RUN:
                    break
                if not kill_once(campaign, part, made):
                    break
            if part in STAGES:
                campaign.whole(part)
        campaign.whole("notebooks")
        campaign.compare("killed run", run=run)
