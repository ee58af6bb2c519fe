"""What happens to a run in a campaign, beside kills: bad inputs, two at once, other clocks, no writing, no room (see `campaign`)."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

from bad_cases import CASES
from bad_inputs import Place, outcome, sentence
from campaign_kills import kill_once
from campaign_runs import DEMOS, STAGES, Campaign, command_of, differences, half_made

DAY = 86_400
SCRIPT = Path(__file__).resolve().with_name("campaign.py")
# Where a stage writes, to have it do its work again.
WRITES = {
    "data": "clips",
    "anchors": "anchors",
    "structure": "structure",
    "propagate": "propagated",
    "filter": "pairs/pairs.json",
    "encode": "pairs/latents",
    "train": "adapters",
    "enhance": "enhanced/realmaster",
    "evaluate": "metrics",
    "report": "report.md",
}

# The clock of a process goes back by an hour, three seconds after it began.
BACK = """
import time
began, real = time.monotonic(), time.time
time.time = lambda: real() - 3600 * (time.monotonic() - began > 3)
"""


def command(words: list[str], env: dict[str, str], kit: Path, said: Path) -> None:
    """A process: the command line in the clone, its standard error in a file; ends with the exit code."""
    os.chdir(kit)
    os.environ.update(env)
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    from rmkit import cli

    assert Path(cli.__file__).is_relative_to(kit)
    sys.exit(cli.main(words))


def bad_inputs(campaign: Campaign) -> None:
    """Every case of `bad_cases`, each from the run that was never killed, with a study."""
    shutil.rmtree(campaign.run, ignore_errors=True)
    shutil.copytree(campaign.never, campaign.run)
    campaign.whole("study")
    base = campaign.folder / "base"
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(campaign.run, base)
    place = Place(campaign.kit, campaign.run.parent, base, campaign.folder / "user")
    place.restore()

    # Processes of their own, forked from one that has the heavy imports, which would take most of the time.
    sys.path.insert(0, str(campaign.kit))
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["torch", "diffusers", "transformers", "pandas", "rmkit.cli", "rmkit.pipeline.notebooks"]
    )
    with contextlib.chdir(campaign.kit):  # from where that one imports
        forkserver.ensure_running()

    def call(words: list[str], env: Mapping[str, str]) -> tuple[int, str]:
        process = server.Process(
            target=command, args=(words, dict(env), campaign.kit, campaign.folder / "err")
        )
        process.start()
        process.join()
        return process.exitcode, sentence((campaign.folder / "err").read_text())

    for case in CASES:
        if not campaign.entries("bad input", what=case.what):
            campaign.note("bad input", **outcome(place, case, call))
    shutil.rmtree(campaign.run)


def together(campaign: Campaign) -> None:
    """Every stage, then the notebooks, by two processes at once on one folder."""
    for part in (*STAGES, "notebooks"):
        if not campaign.entries("two at once", part=part):
            both = [campaign.start(command_of(part)) for _ in range(2)]
            campaign.note("two at once", part=part, codes=[process.wait() for process in both])
    if not campaign.entries("two at once run"):
        campaign.compare("two at once run")


def clock(campaign: Campaign) -> None:
    """Every part killed once while its clock goes back an hour, then resumed when all its files are of tomorrow."""
    site = campaign.folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(BACK)
    for part in (*STAGES, *DEMOS):
        if campaign.entries("clock set back", part=part):
            continue
        kill_once(campaign, part, 0, "clock kill", str(site))
        for path in campaign.run.rglob("*"):
            stat = path.stat()
            os.utime(path, (stat.st_atime + DAY, stat.st_mtime + DAY))
        code, said = campaign.finish(command_of(part), str(site))
        campaign.note("clock set back", part=part, code=code, said=said)
    if not campaign.entries("clock set back run"):
        campaign.compare("clock set back run", negative=negative(campaign.run))


def negative(run: Path) -> list[str]:
    """Sidecars, and notebooks, that say that they took less than no time."""
    said = {str(p): json.loads(p.read_text()) for p in run.rglob("*.json")}
    said |= json.loads((run / "notebooks" / "times.json").read_text())
    return [name for name, facts in said.items() if isinstance(facts, dict) and facts.get("seconds", 0) < 0]


def read_only(campaign: Campaign) -> None:
    """Every stage with its work to do, and nothing that can be written: results/ is mounted read-only."""
    results = campaign.run.parent
    for part in (*WRITES, "notebooks"):
        if campaign.entries("read-only", part=part):
            continue
        shutil.rmtree(campaign.run, ignore_errors=True)
        shutil.copytree(campaign.never, campaign.run)
        gone = campaign.run / WRITES.get(part, "notebooks")
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        mount("--bind", results, results)
        mount("-o", "remount,ro,bind", results)
        code, said = campaign.finish(command_of(part))
        subprocess.run(["umount", results], check=True)
        campaign.note("read-only", part=part, code=code, said=said)
    shutil.rmtree(campaign.run, ignore_errors=True)


def full_disk(campaign: Campaign) -> None:
    """The run on a disk that grows by a little whenever it is full, so that it is full at one write after another."""
    chance, size = random.Random("full disk"), 64
    if campaign.entries("full disk run"):
        return
    shutil.rmtree(campaign.run, ignore_errors=True)
    campaign.run.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs", campaign.run)
    for part in (*STAGES, "notebooks"):
        code = 2
        while code:
            before = artefacts(campaign.run)
            code, said = campaign.finish(command_of(part))
            after = artefacts(campaign.run)
            # A part that ended has cleared its checkpoints away.
            lost = [path for path in before if after.get(path) != before[path]] if code else []
            left = half_made(campaign.run) if code else []
            campaign.note("full disk", part=part, size=size, code=code, said=said, lost=lost, left=left)
            if code:
                size += round(chance.uniform(4, 1500 if part in STAGES else 8000))
                mount("-o", f"remount,size={size}k", campaign.run)
    found = differences(campaign.run, campaign.never)
    subprocess.run(["umount", campaign.run], check=True)
    campaign.note("full disk run", **found)


def artefacts(run: Path) -> dict[str, bytes]:
    """What is finished, by its bytes: files that have a sidecar."""
    made = [p.with_suffix("") for p in run.rglob("*.json") if not p.name.startswith(".")]
    return {str(p): p.read_bytes() for p in made if p.is_file() and not p.name.startswith(".")}


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def with_mounts(part: str, campaign: Campaign) -> None:
    """A part in a process that may mount what nobody else sees."""
    subprocess.run(
        [
            "unshare",
            "--map-root-user",
            "--mount",
            sys.executable,
            SCRIPT,
            campaign.folder,
            "--inside",
            part,
        ],
        check=True,
    )
