"""Where things are: the repository, the models, and what each stage writes under results/<profile>/.

Design rule 1: a stage reads what earlier stages wrote here and nothing else. Reads and writes nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RECORD = "run.json"  # in a run's folder: whose it is, what it extends, with which settings it was begun


def resolve(path: str | Path) -> Path:
    """Absolute form of a path given in a profile: relative paths start at the repository."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else REPOSITORY / path


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """Files anywhere under a folder, sorted, without the hidden files and folders that viewers and systems leave there."""
    found = (path for path in folder.rglob(pattern) if path.is_file())
    return sorted(p for p in found if not any(part[0] == "." for part in p.relative_to(folder).parts))


def _under(name: str) -> property:
    return property(lambda layout: layout.root / name)


@dataclass(frozen=True)
class Layout:
    """The folders and files of one run, each a path under `root`, as DESIGN's "What a run leaves" lists them.

    run: results/<profile>; demo: the folder in it of a demonstration, which has clips and results of its own and takes
    the run's adapters and pairs; '': the run itself.
    """

    run: Path
    demo: str = ""

    @property
    def root(self) -> Path:
        return self.run / self.demo

    data = _under("data")  # source videos, unpacked into the layouts of the real datasets
    truth = _under("truth")  # ground truth of the diorama's validation clips; only metrics may read it
    cuts = _under("cuts")  # hard cuts that were found, one file a sequence
    clips = _under("clips")
    anchors = _under("anchors")
    structure = _under("structure")
    propagated = _under("propagated")
    pairs = property(lambda layout: layout.run / "pairs")
    faces = _under("faces")  # found in videos, one file a method and clip: what the filter and ArcFace share
    adapters = property(lambda layout: layout.run / "adapters")
    enhanced = _under("enhanced")
    scored = _under("scored")  # values of the user's own clips: a csv and a folder for each folder of outputs
    judge = _under("judge")  # raw answers of the judge: paid for, so nothing of the kit deletes them
    study = _under("study")  # a page for participants, and the key that they must not see
    tables = _under("tables")
    figures = _under("figures")
    notebooks = _under("notebooks")
    metrics = _under("metrics.csv")
    report = _under("report.md")
    record = property(lambda layout: layout.run / RECORD)
    settings = property(lambda layout: layout.run / "profile.yaml")  # all of them, as notebooks are told

    @property
    def noted(self) -> dict[str, Any]:
        """What the record says; nothing before there is one, or of one that cannot be read."""
        try:
            found = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def owner(self) -> Path | None:
        """The profile file whose run this is; None where that is not known."""
        file = self.noted.get("profile")
        return REPOSITORY / file if isinstance(file, str) else None

    @property
    def reference(self) -> Path:
        """The shipped record of a run of the same profile, which `rmkit ship` writes and `verify` compares with."""
        return self.run.parent / "reference" / self.run.name / self.demo
