"""What the kit stands: kills, bad inputs, two runs at once, read-only results, a clock set back, a full disk.

`python tests/campaign.py FOLDER [--parts NAME ...] [--csv FILE]` works in FOLDER/kit, a clone of this commit that it makes, so
that neither later commits nor your results are touched; ended, it goes on where it was. Every process's end is a line of
FOLDER/log.jsonl; the table printed is made of those alone. Linux, with `unshare` for what needs mounts. Hours.
"""

import argparse
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from bad_cases import CASES
from bad_inputs import Place, outcome, plain, sentence

from rmkit.paths import RECORD
from rmkit.pipeline import notebooks, stages

STAGES = tuple(stages.STAGES)
BOOKS = tuple(book.name for book in notebooks.series())
DEMOS = tuple(name for name in BOOKS if name >= "06")
SMOKE, MINI = 90, 10  # kills
IN_A_RUN = 2  # kills of one stage, one after the other
DAY = 86_400
COMPARED = (".mp4", ".safetensors", ".npy", ".npz")  # by their bytes; metrics.csv by its values

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


class Campaign:
    """The folder of a campaign: a clone of the kit, the runs in it, and the log."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.folder, self.profile = folder.resolve(), profile
        self.kit = self.folder / "kit"
        self.run = self.kit / "results" / profile
        self.never = self.folder / f"{profile}-never-killed"
        self.log = self.folder / "log.jsonl"
        if not self.kit.is_dir():
            root = Path(__file__).resolve().parents[1]
            subprocess.run(["git", "clone", "--quiet", "--shared", root, self.kit], check=True)

    def entries(self, kind: str, **facts: Any) -> list[dict[str, Any]]:
        """The lines of the log of a kind, of this profile and with these facts."""
        lines = self.log.read_text().splitlines() if self.log.is_file() else []
        wanted = {"kind": kind, "profile": self.profile, **facts}
        return [e for e in map(json.loads, lines) if wanted.items() <= e.items()]

    def note(self, kind: str, **facts: Any) -> None:
        entry = {"kind": kind, "profile": self.profile, **facts}
        with self.log.open("a") as file:
            print(json.dumps(entry), file=file)
        print(*(f"{key}: {value};" for key, value in entry.items()), flush=True)

    def start(self, command: str, *more: str) -> subprocess.Popen[str]:
        """A command in a group of its own; what it prints goes to FOLDER/out and FOLDER/err; more: to PYTHONPATH."""
        path = os.pathsep.join([*more, str(self.kit)])
        return subprocess.Popen(
            [sys.executable, "-m", "rmkit", command, "--profile", self.profile],
            cwd=self.kit,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "out").open("w"),
            stderr=(self.folder / "err").open("w"),
            start_new_session=True,
        )

    def finish(self, command: str, *more: str) -> tuple[int, str]:
        """Exit code and the sentence (or the end of what was said) of a command that is left to end."""
        code = self.start(command, *more).wait()
        return code, sentence((self.folder / "err").read_text())

    def whole(self, part: str) -> None:
        """A part run to its end; raises where it does not end well, as the campaign cannot go on."""
        code, said = self.finish(command_of(part))
        if code:
            self.note("failed", part=part, code=code, said=said)
            raise SystemExit(f"{part} ended with {code}: {said}")

    def compare(self, kind: str, **facts: Any) -> None:
        """Note what differs between the run and the one never killed, and clear the run away where nothing does."""
        found = differences(self.run, self.never)
        self.note(kind, **facts, **found)
        if any(found[key] for key in ("values_differ", "files_differ")):
            shutil.move(self.run, self.folder / f"{self.profile}-differs-{time.time():.0f}")
        else:
            shutil.rmtree(self.run)


def command_of(part: str) -> str:
    return part if part in (*STAGES, "study") else "notebooks"


def state(run: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file of a run, hidden ones included, but for the record of whose it is."""
    found = {}
    for root, _, names in os.walk(run):
        for name in names:
            try:
                stat = os.stat(os.path.join(root, name))
            except FileNotFoundError:
                continue
            found[os.path.join(root, name)] = (stat.st_size, stat.st_mtime_ns)
    return {path: facts for path, facts in found.items() if not path.endswith(RECORD)}


def half_made(run: Path) -> list[str]:
    """Temporary files and claims: of what is being written, or was when its process ended."""
    return [str(p) for p in run.rglob(".*") if p.is_file() and (".tmp" in p.name or ".claim" in p.name)]


def values(run: Path) -> pd.DataFrame:
    """Every row of metrics.csv of a run and its demonstrations, but for the commit."""
    frames = [
        pd.read_csv(path, dtype=str, keep_default_na=False).assign(of=str(path.relative_to(run).parent))
        for path in sorted(run.rglob("metrics.csv"))
    ]
    return pd.concat(frames, ignore_index=True).drop(columns="commit")


def differences(run: Path, other: Path) -> dict[str, Any]:
    """How many values there are, and what differs: values, videos and tensors, what is left half made."""
    ours, theirs = (Counter(values(each).itertuples(index=False, name=None)) for each in (run, other))
    files = {p.relative_to(other) for p in other.rglob("*") if p.suffix in COMPARED}
    files |= {p.relative_to(run) for p in run.rglob("*") if p.suffix in COMPARED}
    differ = [str(p) for p in sorted(files) if _bytes(run / p) != _bytes(other / p)]
    return {
        "values": theirs.total(),
        "values_differ": [" ".join(row) for row in (ours - theirs) + (theirs - ours)],
        "files": len(files),
        "files_differ": differ,
        "left": half_made(run),
    }


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


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
    """Start a part, kill its group at a random moment of its work; False where it ended before."""
    known = campaign.entries("unkilled", part=part)[-1]
    run = len(campaign.entries(f"{kind}ed run"))
    before = [entry["after"] for entry in campaign.entries(kind, part=part, run=run)]
    last = max(known["work"] - sum(before), 0.2)
    after = random.Random(f"{campaign.profile} {kind} {part} {number}").uniform(0, last)
    was = state(campaign.run)
    process = campaign.start(command_of(part), *more)

    def at_work() -> bool:
        if part in STAGES:
            return not known["writes"] or state(campaign.run) != was
        return f"{part}: running" in (campaign.folder / "out").read_text()

    while process.poll() is None and not at_work():
        time.sleep(0.05)
    try:
        code = process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        half = len(half_made(campaign.run))
        campaign.note(kind, part=part, run=run, after=round(after, 2), of=round(known["work"], 2), half=half)
        return True
    if code:
        campaign.note("failed", part=part, code=code, said=sentence((campaign.folder / "err").read_text()))
    return False


def kills(campaign: Campaign, parts: tuple[str, ...], wanted: int) -> None:
    """So many kills, as even over the parts as may be, in as many runs as that takes."""
    unkilled(campaign, parts)
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


def bad_inputs(campaign: Campaign) -> None:
    """Every case of `bad_cases`, each from the run that was never killed, with a study."""
    unkilled(campaign, (*STAGES, *DEMOS))
    shutil.rmtree(campaign.run, ignore_errors=True)
    shutil.copytree(campaign.never, campaign.run)
    campaign.whole("study")
    base = campaign.folder / "base"
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(campaign.run, base)
    place = Place(campaign.kit, campaign.run.parent, base, campaign.folder / "user")
    place.restore()

    def call(words: list[str], env: Mapping[str, str]) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "rmkit", *words],
            cwd=campaign.kit,
            env={**os.environ, "PYTHONPATH": str(campaign.kit), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return done.returncode, sentence(done.stderr)

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
            lost = [path for path in before if after.get(path) != before[path]]
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
            __file__,
            campaign.folder,
            "--inside",
            part,
        ],
        check=True,
    )


# What must come out, by the name of the entries: the exit code.
ENDS = {"bad input": 2, "two at once": 0, "clock set back": 0, "read-only": 2, "full disk": 2}


def table(*campaigns: Campaign) -> pd.DataFrame:
    """A row for each kind: how often, and what came out that should not have."""
    rows = []
    for campaign in campaigns:
        kinds = {"kill": "killed run"} | {kind: f"{kind} run" for kind in ENDS}
        for kind, run in kinds.items():
            ends, runs = campaign.entries(kind), campaign.entries(run)
            if kind == "full disk":
                ends = [e for e in ends if e["code"]]
            codes = [e.get("codes", [e.get("code")]) for e in ends]
            said = [plain(e["said"]) for e in ends if e.get("said")]
            row = {
                "what": f"{kind}, {campaign.profile}",
                "times": len(ends),
                "other exit codes": sum(set(code) != {ENDS[kind]} for code in codes) if kind in ENDS else "",
                "sentences": len(set(said)),
                "of one sentence": max(Counter(said).values(), default=0),
                "runs compared": len(runs),
                "values compared": sum(e["values"] for e in runs),
            }
            # Of runs that are compared, and of single commands.
            for name in ("values_differ", "files_differ", "lost", "written", "left"):
                row[name.replace("_", " ")] = sum(len(e.get(name, ())) for e in [*ends, *runs])
            rows.append(row)
    return pd.DataFrame([row for row in rows if row["times"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--csv", type=Path, help="write the table there too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    campaign, mini = (Campaign(given.folder, profile) for profile in ("smoke", "mini"))
    if given.inside:
        return {"read-only": read_only, "full disk": full_disk}[given.inside](campaign)
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in another order differ in their last bits
    for part in given.parts:
        PARTS[part](mini if part == "mini" else campaign)
    found = table(campaign, mini)
    print(found.to_string(index=False))
    if given.csv:
        found.to_csv(given.csv, index=False)


PARTS = {
    "kills": functools.partial(kills, parts=(*STAGES, *DEMOS), wanted=SMOKE),
    "bad-inputs": bad_inputs,
    "together": together,
    "clock": clock,
    "read-only": functools.partial(with_mounts, "read-only"),
    "full-disk": functools.partial(with_mounts, "full disk"),
    "mini": functools.partial(kills, parts=BOOKS[1:], wanted=MINI),
}

if __name__ == "__main__":
    main()
