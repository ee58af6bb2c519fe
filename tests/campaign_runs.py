"""The runs of a campaign: a clone of the kit, the log, and what differs between two runs (see `campaign`)."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from bad_inputs import sentence

from rmkit.paths import RECORD
from rmkit.pipeline import stages

STAGES = tuple(stages.STAGES)
# By their files: a case may put one there that is none, and every process of the campaign imports this.
BOOKS = tuple(sorted(p.stem for p in Path(__file__).parents[1].glob("notebooks/[0-9][0-9]_*.ipynb")))
DEMOS = tuple(name for name in BOOKS if name >= "06")
COMPARED = (".mp4", ".safetensors", ".npy", ".npz")  # metrics.csv by its values


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
    """What a file holds; the header of a safetensors file by its entries, whose order is drawn anew by every process."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    if path.suffix != ".safetensors":
        return content
    end = 8 + int.from_bytes(content[:8], "little")
    return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]
