"""Claims: who is making an artefact, so that several drivers, on one machine or many, share one folder (ours).

A claim is the file `.<name>.claim` beside the artefact, created exclusively (which NFS keeps); it says host, process and
when that began, and a thread renews its time. A process of this machine lives as long as it is there; one of another
machine as long as its claim's time changes while it is looked at, so no two clocks are ever compared.
Should two believe that they hold one claim (a machine that slept for longer than EXPIRY), an item is made twice and
nothing is lost, since each writes to a name of its own and renames.
"""

import errno
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil

from rmkit.errors import InputError

BEAT = 5.0  # seconds between two signs of life
EXPIRY = 90.0  # seconds without one after which a process of another machine counts as dead
POLL = 1.0  # seconds between two looks of who waits

_held: set[Path] = set()
# A claim's time, and when it was first seen, by this process' own clock.
_seen: dict[Path, tuple[int, float]] = {}


class Taken(Exception):
    """An artefact that another living process is making."""


def of(path: Path) -> Path:
    """Where the claim on an artefact lies."""
    return path.with_name(f".{path.name}.claim")


@contextmanager
def held(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the claim on an artefact inside; one that this process holds already is held on.

    wait: until the living one that has it is done, after a line that says so; else Taken is raised. A claim of the dead is
    taken over. Raises InputError when the disk is full.
    """
    claim, told = of(path), False
    if claim in _held:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _create(claim, path):
        who = _read(claim)
        if who is None or (not _lives(claim, who) and _remove(claim, who)):
            continue  # given back, or cleared away: it is anybody's
        by = f"process {who['process']} on {who['host']}" if who else "another process"
        if not wait:
            raise Taken(f"{path} is being made by {by}: wait for it or end it, and run again.")
        if not told:
            print(f"{path} is being made by {by}: waiting", flush=True)
            told = True
        time.sleep(POLL)
    _held.add(claim)
    _beating()
    try:
        yield
    finally:
        _held.discard(claim)
        if _read(claim) == me():  # else it was taken over
            claim.unlink(missing_ok=True)


@functools.cache
def me() -> dict[str, str | int]:
    """What a claim of this process says."""
    # Containers of one machine may share its name, and have other processes by the same numbers.
    space = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    process = os.getpid()
    return {"host": socket.gethostname(), "space": space, "process": process, "since": _since(process)}


def _create(claim: Path, path: Path) -> bool:
    """Whether the claim is this process' now."""
    try:
        with open(claim, "x") as file:
            json.dump(me(), file)
    except FileExistsError:
        return _read(claim) == me()  # a server may have done it, and answered the second time it was asked
    except OSError as error:
        claim.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"the disk is full while writing {path}; free some space and run again, finished artefacts are kept."
            ) from error
        raise
    return True


def _read(claim: Path) -> dict | None:
    """What a claim says: None where there is none, empty where it is only half written."""
    try:
        return json.loads(claim.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return {}


def _lives(claim: Path, who: dict) -> bool:
    if all(who.get(key) == me()[key] for key in ("host", "space")):
        return _since(who["process"]) == who["since"]
    try:
        with claim.open() as file:  # opened, since a network file system looks at the server then
            stamp = os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return True
    now = time.monotonic()
    if _seen.get(claim, (None,))[0] != stamp:
        _seen[claim] = stamp, now
    return now - _seen[claim][1] < EXPIRY


def _since(process: int) -> str | None:
    """When a process of this machine began, in a count that clocks do not change; None for one that is no more."""
    try:
        if not os.path.exists("/proc/self/stat"):
            return str(psutil.Process(process).create_time())
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    except (OSError, psutil.Error):
        return None


def _remove(claim: Path, who: dict) -> bool:
    """Clear a dead one's claim away; True. Of several that find it dead, one does, and a new claim is put back."""
    aside = claim.with_name(f"{claim.name}.{uuid4().hex[:8]}")
    with suppress(FileNotFoundError):
        claim.rename(aside)
        if _read(aside) != who:
            with suppress(OSError):
                os.link(aside, claim)
        aside.unlink()
    return True


@functools.cache
def _beating() -> None:
    """Start the thread that renews what is held, once a process."""

    def beat() -> None:
        while True:
            time.sleep(BEAT)
            for claim in tuple(_held):
                with suppress(OSError):
                    os.utime(claim)

    threading.Thread(target=beat, name="claims", daemon=True).start()
