"""Progress for people: a bar on a terminal, one line a milestone under papermill, make or CI.

Every loop over clips or steps that may take more than two seconds goes through `track`. Reads and writes
nothing but standard output and error.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
MILESTONES = 5  # lines a loop prints where there is no terminal
QUIET = 2.0  # seconds: a loop that is done by then prints none


def duration(seconds: float | None) -> str:
    """A length of time as people say it; None: not known."""
    if seconds is None:
        return "not known"
    if seconds < 90:
        return f"{max(1, round(seconds)) if seconds else 0} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def track(
    items: Iterable[T], label: str, total: int | None = None, every: float | None = None
) -> Iterator[T]:
    """Yield the items while showing how many are done and how long the rest will take.

    every: seconds between two lines, where there is no terminal, in place of milestones; what takes less shows nothing.
    """
    total = len(items) if total is None and isinstance(items, Sized) else total
    if sys.stderr.isatty():
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=label, total=total, delay=every or 0, leave=every is None)
        return
    started = said = time.monotonic()
    passed = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        before, passed = passed, done * MILESTONES // total if total else 0
        due = now - said >= every if every else passed > before and now - started >= QUIET
        if total and due:
            said, elapsed = now, now - started
            left = elapsed / done * (total - done)
            print(f"{label}: {done} of {total}, {elapsed:.0f} s, {left:.0f} s to go", flush=True)
