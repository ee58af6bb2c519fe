"""Bad inputs over the whole command line: what a case is, and the place where each is made (see `bad_cases.CASES`).

A case starts from a run of profile `smoke`, whole or as far as its command needs it, changes something, and gives a command
that must end with exit code 2 and one sentence, with no file changed, lost or written.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import yaml

from rmkit.kit import video
from rmkit.kit.store import sidecar_of
from rmkit.paths import RECORD

OWN = "bad"  # name of the profile that a case writes


@dataclass
class Place:
    """Where cases are made, one after the other."""

    kit: Path  # the repository
    results: Path  # with a run of `smoke`, which is damaged and put back
    base: Path  # a copy of that run
    folder: Path  # the user's files
    kits: dict[Path, bytes | None] = field(
        default_factory=dict
    )  # files of the kit's own that a case changed, as they were

    @property
    def run(self) -> Path:
        return self.results / "smoke"

    def profile(self, **changes: Any) -> Path:
        """The user's profile: smoke with changes."""
        return self.text("own.yaml", yaml.safe_dump({"extends": "smoke", "name": OWN, **changes}))

    def text(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def of_kit(self, name: str, content: str) -> None:
        """A file of the repository with other content, until `restore`."""
        path = self.kit / name
        self.kits.setdefault(path, path.read_bytes() if path.is_file() else None)
        path.write_text(content)

    def video(self, name: str, frames: int = 9, size: tuple[int, int] = (96, 144), fps: int = 16) -> Path:
        """A video of noise, height x width."""
        noise = np.random.default_rng(0).integers(0, 256, (frames, *size, 3), np.uint8)
        video.write(self.folder / name, noise, fps)
        return self.folder / name

    def model(self, name: str) -> Path:
        """A copy of one of the tiny checkpoints, to be damaged."""
        return Path(shutil.copytree(self.kit / "data/diorama/checkpoints" / name, self.folder / name))

    def file(self, pattern: str) -> Path:
        """The first file of the run by a pattern."""
        return min(self.run.glob(pattern))

    def contents(self) -> dict[Path, tuple[int, int]]:
        """Every file by its size and time, but the record of whose run it is, which comes before a stage is refused."""
        found = [p for root in (self.run, self.results / OWN, self.folder) for p in root.rglob("*")]
        return {p: _stamp(p) for p in found if p.is_file() and p.name != RECORD}

    def go_on(self) -> None:
        """The user's profile has a run as far as smoke's, by links, which are never written through."""
        if not (self.results / OWN).is_dir():
            shutil.copytree(self.run, self.results / OWN, copy_function=os.link)
            (self.results / OWN / RECORD).unlink(missing_ok=True)

    def is_as_before(self, path: Path) -> bool:
        """Whether a file of a run was written again as it was."""
        for run in (self.run, self.results / OWN):
            if path.is_file() and path.is_relative_to(run):
                first = self.base / path.relative_to(run)
                return first.is_file() and first.read_bytes() == path.read_bytes()
        return False

    def restore(self) -> None:
        """The run as it was, and nothing of the user's."""
        for folder in (self.folder, self.results / OWN):
            shutil.rmtree(folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for path, content in self.kits.items():
            path.unlink() if content is None else path.write_bytes(content)
        self.kits.clear()
        ours, base = (
            {p.relative_to(root): p for p in root.rglob("*") if p.is_file()} for root in (self.run, self.base)
        )
        for name in ours.keys() - base.keys():
            ours[name].unlink()
        for name, path in base.items():
            if name not in ours or _stamp(ours[name]) != _stamp(path):
                (self.run / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, self.run / name)


class Case(NamedTuple):
    """What is wrong, the command (with {own}, {folder}, {run}), how it is made, settings and environment that go with it."""

    what: str
    command: str
    make: Callable[[Place], Any] = lambda place: None
    settings: dict[str, Any] | str | bytes | None = None
    env: Mapping[str, str] = MappingProxyType({})

    def prepared(self, place: Place) -> list[str]:
        """The command's words, once the case is made."""
        self.make(place)
        known = {"folder": place.folder, "run": place.run, "own": place.folder / "own.yaml"}
        if isinstance(self.settings, dict):
            place.profile(**_filled(self.settings, known))
            place.go_on()
        elif self.settings is not None:
            place.text("own.yaml", self.settings)
        return [word.format(**known).replace("~", " ") for word in self.command.split()]


# What runs a command's words with an environment: its exit code, and what it said on standard error.
Call = Callable[[list[str], Mapping[str, str]], tuple[int, str]]


def outcome(place: Place, case: Case, call: Call) -> dict[str, Any]:
    """What came of a case: exit code, what was said, and the files that were changed or lost, or written."""
    words = case.prepared(place)
    before = place.contents()
    code, said = call(words, case.env)
    after = place.contents()
    names = {
        "lost": [str(p) for p in before if after.get(p) != before[p] and not place.is_as_before(p)],
        "written": [str(p) for p in after.keys() - before.keys() if not _is_finished(p)],
    }
    place.restore()
    return {"what": case.what, "command": case.command, "code": code, "said": said, **names}


def _is_finished(path: Path) -> bool:
    """An artefact with its sidecar, or that: finished before the refusal, such as a listing that was read, and kept."""
    return sidecar_of(path).exists() or (path.suffix == ".json" and path.with_suffix("").exists())


def sentence(said: str) -> str:
    """What is said to the user: the lines of the kit and of the command line's parser, or the last one."""
    lines = [line for line in said.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith(("rmkit: ", "Error: "))]
    return "\n".join(own) or "".join(lines[-1:])


def plain(said: str) -> str:
    """A sentence without what differs from case to case: paths, names in quotes, numbers."""
    return re.sub(r"'[^']*'|\S*/\S*|\S*\d\S*", "*", said)


def _filled(settings: Any, known: dict[str, Path]) -> Any:
    if isinstance(settings, dict):
        return {key: _filled(value, known) for key, value in settings.items()}
    return settings.format(**known) if isinstance(settings, str) and settings.startswith("{") else settings


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def damage(pattern: str, change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """A file of the run with other bytes."""
    return lambda place: rewrite(place.file(pattern), change)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def gone(*patterns: str) -> Callable[[Place], None]:
    """Files or folders of the run that are not there."""

    def make(place: Place) -> None:
        for path in [found for pattern in patterns for found in place.run.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return make


def broken_model(name: str, change: Callable[[Path], Any]) -> Callable[[Place], None]:
    """A copy of a checkpoint, damaged."""
    return lambda place: change(place.model(name))


def not_a_number(file: Path) -> None:
    """Every weight of a safetensors file not a number; its header kept."""
    _saved(file, lambda tensor: tensor * float("nan"), _facts(file))


def header(file: Path, change: Callable[[dict[str, Any]], Any] | str | None) -> None:
    """An adapter with other facts in its header, another text, or none."""
    found = _facts(file)
    if callable(change):
        facts = json.loads(found["rmkit"])
        change(facts)
        change = json.dumps(facts)
    _saved(file, lambda tensor: tensor, None if change is None else {"rmkit": change})


def _facts(file: Path) -> dict[str, str] | None:
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        return content.metadata()


def _saved(file: Path, change: Callable[[Any], Any], facts: dict[str, str] | None) -> None:
    from safetensors.torch import load_file, save_file

    save_file({key: change(tensor).clone() for key, tensor in load_file(file).items()}, file, facts)


def edited(pattern: str, change: Callable[[Any], Any]) -> Callable[[Place], None]:
    """A JSON file of the run with other content."""

    def make(place: Place) -> None:
        path = place.file(pattern)
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content))

    return make
