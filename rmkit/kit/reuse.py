"""What a run takes from runs that it extends: where an artefact would lie there, and how it comes here (ours).

`run.json` in a run's folder names the runs it extends, the nearest first; they lie beside it. Files come by hard link,
which costs no room and outlives the other run's deletion, or as copies where links cannot be had. The kit writes no
artefact in place (`store`), so a link never carries a change back. Reads other runs; writes where it is told.
"""

import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rmkit.paths import RECORD, Layout


def counterparts(path: Path) -> Iterator[tuple[str, Path]]:
    """Where an artefact would lie in the runs that its own run extends: each run's name and the path, the nearest first."""
    path = Path(path).absolute()
    for run in path.parents:
        try:
            stamp = (run / RECORD).stat().st_mtime_ns
        except OSError:
            continue
        for name in _extended(run, stamp):
            yield name, run.parent / name / path.relative_to(run)
        return


def link(source: Path, target: Path) -> None:
    """Bring a file or a folder; raises OSError when it cannot be read or written."""
    shutil.copytree(source, target, copy_function=_link) if source.is_dir() else _link(source, target)


def beside(path: Path) -> None:
    """Copy a file or folder that has no recipe, as pictures beside an adapter, where an extended run has it and this one lacks it."""
    source = next((found for _, found in counterparts(path) if found.exists()), None)
    if source and not path.exists():
        # Not links: such files are written in place.
        shutil.copytree(source, path) if source.is_dir() else shutil.copy2(source, path)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


@functools.lru_cache(maxsize=64)
def _extended(run: Path, mtime_ns: int) -> tuple[str, ...]:
    names = Layout(run).noted.get("extends")
    return tuple(map(str, names)) if isinstance(names, list) else ()
