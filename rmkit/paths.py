"""Where things are: the repository, the models, and what each stage writes under results/<profile>/.

Design rule 1: a stage reads what earlier stages wrote here and nothing else. Reads and writes nothing.
"""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def resolve(path: str | Path) -> Path:
    """Absolute form of a path given in a profile: relative paths start at the repository."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else REPOSITORY / path


@dataclass(frozen=True)
class Layout:
    """The folders of one run, named as DESIGN's "What a run leaves" lists them."""

    root: Path

    @property
    def data(self) -> Path:
        """Source videos, unpacked into the layouts of the real datasets."""
        return self.root / "data"

    @property
    def truth(self) -> Path:
        """Ground truth of the diorama's validation clips; only metrics may read it."""
        return self.root / "truth"

    @property
    def clips(self) -> Path:
        return self.root / "clips"

    @property
    def anchors(self) -> Path:
        return self.root / "anchors"

    @property
    def structure(self) -> Path:
        return self.root / "structure"

    @property
    def propagated(self) -> Path:
        return self.root / "propagated"

    @property
    def pairs(self) -> Path:
        return self.root / "pairs"

    @property
    def faces(self) -> Path:
        """Faces found in videos, one file a method and clip: what the filter and ArcFace share."""
        return self.root / "faces"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def enhanced(self) -> Path:
        return self.root / "enhanced"

    @property
    def features(self) -> Path:
        """What the feature model found, a file a method and clip."""
        return self.root / "features"

    @property
    def scored(self) -> Path:
        """Values of clips of the user's own, a csv and a folder of parts for each folder of outputs."""
        return self.root / "scored"

    @property
    def offline_judge(self) -> Path:
        """Ratings by the offline judge, a file a method and clip."""
        return self.root / "offline_judge"

    @property
    def judge(self) -> Path:
        """Raw answers of the judge: paid for, so nothing of the kit deletes them."""
        return self.root / "judge"

    @property
    def study(self) -> Path:
        """The user study: a page for participants, and the key that they must not see."""
        return self.root / "study"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def report(self) -> Path:
        return self.root / "report.md"

    @property
    def reference(self) -> Path:
        """The shipped record of a run of the same profile: read by `verify`, copied there by hand."""
        return self.root.parent / "reference" / self.root.name
