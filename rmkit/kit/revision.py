"""Which code ran: the commit and whether its files were changed since; of a notebook only what it computes counts (ours).

To look at a notebook is not to change it: outputs, counts and the kernel's name, which viewers write into it, are left out.
Reads git and notebooks; writes nothing.
"""

import functools
import hashlib
import json
import subprocess
from pathlib import Path

from rmkit.paths import REPOSITORY


@functools.cache
def commit() -> str:
    """Short commit of the kit, with '+' when files of it are changed, or 'unknown' outside git."""
    try:
        found = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git("diff", "--name-only", "--relative", "-z", "HEAD").split("\0")
        return found + ("+" if any(_differs(name) for name in changed if name) else "")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return "unknown"


def of_notebook(path: Path) -> str:
    """Fingerprint of what a notebook computes and says, 32 characters; raises ValueError for what is none."""
    return hashlib.sha256(_cells(path.read_text()).encode()).hexdigest()[:32]


def _cells(text: str) -> str:
    """The notebook's cells in order, each kind, tags and source, and the kit's own metadata."""
    try:
        book = json.loads(text)
        cells = [
            [cell["cell_type"], cell["metadata"].get("tags", []), "".join(cell["source"])]
            for cell in book["cells"]
        ]
        return json.dumps([cells, book["metadata"].get("rmkit")])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no notebook: {error!r}") from None


def _differs(name: str) -> bool:
    """Whether a file that git calls changed is another one than the commit's."""
    if not name.endswith(".ipynb"):
        return True
    try:
        return _cells((REPOSITORY / name).read_text()) != _cells(_git("show", f"HEAD:./{name}"))
    except (OSError, ValueError, subprocess.SubprocessError):  # deleted, added, or broken
        return True


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=True, timeout=10)
    return run.stdout.decode()
