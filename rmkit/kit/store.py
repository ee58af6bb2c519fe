"""Atomic, content-keyed artefacts: what makes every stage resumable clip by clip (DESIGN, rule 3).

An artefact is a file or folder with a sidecar `<name>.json` beside it. The key is made of the inputs'
content, the stage's settings and the stage's version; same key, nothing is computed twice.
"""

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from pydantic import BaseModel

from rmkit.errors import InputError
from rmkit.kit import claims, reuse
from rmkit.kit.revision import commit
from rmkit.paths import visible

WHOLE_FILE = 64 * 2**20  # bytes; larger model files are told apart by size and both ends


@dataclass(frozen=True)
class Recipe:
    """All that decides an artefact's content: one stage, its version and settings, its inputs."""

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int | None = None
    model: str | None = None

    @property
    def key(self) -> str:
        """Hexadecimal fingerprint; commit, device and time are recorded in the sidecar, not keyed."""
        parts = [self.stage, self.version, self.settings, self.inputs, self.seed, self.model]
        text = json.dumps(parts, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def seed_for(profile_seed: int, stage: str, clip_id: str) -> int:
    """A clip's own 31-bit seed, the same whichever clips are run and in whatever order."""
    digest = hashlib.sha256(f"{profile_seed}/{stage}/{clip_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def fingerprint(path: Path) -> str:
    """Content hash of a file, or of a folder's files but hidden ones; raises InputError when it is missing."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; run the stage that writes it first.")
    if path.is_file():
        return _file_hash(path, path.stat().st_size, path.stat().st_mtime_ns)
    digest = hashlib.sha256()
    for file in visible(path):
        digest.update(file.relative_to(path).as_posix().encode())
        digest.update(fingerprint(file).encode())
    return digest.hexdigest()[:32]


def is_done(path: Path, recipe: Recipe) -> bool:
    """Whether the artefact is there and was made by exactly this recipe; one that an extended run has is taken from there.

    A taken one keeps its sidecar, which says `taken_from` too.
    """
    if _is_made(path, recipe):
        return True
    taken = next(((run, other) for run, other in reuse.counterparts(path) if _is_made(other, recipe)), None)
    if taken is None:
        return False
    run, other = taken
    facts = read_sidecar(other) | {"taken_from": run}
    # Another process may be at it, or the other run be deleted meanwhile.
    with suppress(claims.Taken, FileNotFoundError), claims.held(path):
        with writing(path, recipe, facts=facts) as temporary:
            reuse.link(other, temporary)
    return _is_made(path, recipe)


@contextmanager
def writing(path: Path, recipe: Recipe, **record: Any) -> Iterator[Path]:
    """Yield a temporary path to write to; on success rename it into place and write the sidecar.

    `record` adds facts to the sidecar (they do not enter the key); a dict passed as `facts=` is read
    on exit, so that what is only known afterwards can be put in it. After an error nothing is left
    behind, and an earlier artefact at `path` is untouched. While another living process writes it, this
    one waits. Raises InputError when the disk is full.
    """
    with _claimed(path) as temporary:
        started = time.monotonic()
        yield temporary
        facts = {**record.pop("facts", {}), **record}
        sidecar = {
            "key": recipe.key,
            **vars(recipe),
            "seconds": round(time.monotonic() - started, 3),
            "commit": commit(),
            **facts,
        }
        # Sidecar away first, back last: a kill in between leaves an artefact that counts as undone.
        discard(path)
        temporary.rename(path)
        write_json(sidecar_of(path), sidecar)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `writing`, of a file that has no recipe, as figures: made anew whenever it is asked for."""
    with _claimed(path) as temporary:
        yield temporary
        temporary.rename(path)


@contextmanager
def _claimed(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` while its claim is held; what is left there is removed, a full disk is a sentence."""
    with claims.held(path, wait=True):
        # The suffix stays last, because writers choose a format by it.
        temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.tmp{path.suffix}")
        _clear(path)
        try:
            yield temporary
        except Exception as error:
            if _disk_is_full(error, path.parent):
                raise InputError(
                    f"the disk is full while writing {path}; free some space and run again, "
                    "finished artefacts are kept."
                ) from error
            raise
        finally:
            _remove(temporary)


def discard(path: Path) -> None:
    """Remove an artefact and its sidecar, if they are there."""
    sidecar_of(path).unlink(missing_ok=True)
    _remove(path)


def read_json(path: Path, mend: str = "delete it and make it again") -> Any:
    """What a JSON file holds; raises InputError, which says what to do (`mend`), for one that is damaged or not there."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run the stage that writes it first.") from None
    except ValueError as error:  # of the text, or of its encoding
        raise InputError(f"{path} is damaged ({error}): {mend}.") from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; raises InputError for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and make it again.") from None


def require_whole(path: Path) -> None:
    """Raise InputError for a safetensors file that is cut short, told by its length and its header."""
    from safetensors import SafetensorError, safe_open

    try:
        safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and make it again.") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON by rename, so that a reader never sees half a file."""
    write_text(path, json.dumps(value, indent=1, default=_plain) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text by rename, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def sidecar_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """The sidecar of an artefact; an unreadable one counts as empty (the artefact is made again)."""
    try:
        return json.loads(sidecar_of(path).read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def require_name(name: str) -> None:
    """Raise InputError for what cannot be the name of files in a folder of the kit's: letters, digits, - and _ can."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}", name):
        raise InputError(f"'{name}' cannot be a file's name here: use letters, digits, - and _.")


def require_writable(folder: Path) -> None:
    """Make the folder and raise InputError unless a file can be written into it, which is found out by writing one."""
    trial = folder / f".writable.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"0")
        trial.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return trial.unlink(missing_ok=True)  # it may be written to, but for the room
        raise InputError(
            f"nothing can be written to {folder} ({error.strerror}): choose another place, or make it writable."
        ) from None


def require_space(folder: Path, gigabytes: float) -> None:
    """Raise InputError when nothing can be written where results go, or less than `gigabytes` are free there."""
    require_writable(folder)
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise InputError(
            f"{folder} has {_room(free)} free and this run needs about {_room(gigabytes)}; "
            "free some space or move results/ to another disk."
        )


def _room(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{1e3 * gigabytes:.2g} MB"


@functools.lru_cache(maxsize=4096)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size > WHOLE_FILE:
            digest.update(file.read(2**20))
            file.seek(-(2**20), os.SEEK_END)
        digest.update(file.read())
    return digest.hexdigest()[:32]


def _disk_is_full(error: Exception, folder: Path) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT)
    # safetensors has the errno in its words, and may find no room for a file beside much that is left; torch hides it, so a
    # disk without room counts too.
    if getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full):
        return True
    return not isinstance(error, InputError) and shutil.disk_usage(folder).free < 2**16


def _clear(path: Path) -> None:
    """Remove what others left of an artefact whose claim is held, who therefore are dead."""
    stem, name, suffix = map(re.escape, (path.stem, path.name, path.suffix))
    # Not a claim that was moved aside: one who waits may be putting it back.
    left = re.compile(rf"\.{stem}\.[0-9a-f]+\.tmp{suffix}|\.{name}\.json\.[0-9a-f]+\.tmp")
    hidden = f".{path.stem}."
    for entry in os.listdir(path.parent):
        if entry.startswith(hidden) and left.fullmatch(entry):
            _remove(path.with_name(entry))


def _is_made(path: Path, recipe: Recipe) -> bool:
    return path.exists() and read_sidecar(path).get("key") == recipe.key


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} cannot be part of a sidecar")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
