"""The shipped record of a run: its values, tables, figures and report, a few hundred kilobytes that a clone comes with.

Reads results/<profile>/ after a whole run; writes results/reference/<profile>/. What a run keeps for itself (videos, sheets,
notebooks) the record's report neither shows nor links to. tolerances.csv and profile.yaml are written by `verify --spread`.
"""

import gzip
import shutil
from pathlib import Path

from rmkit.evaluation import metrics_csv, report
from rmkit.paths import Layout
from rmkit.profile import Profile


def ship(profile: Profile) -> Path:
    """Write the record of a finished run; returns its folder. Raises InputError where nothing has been measured."""
    metrics_csv.load(profile)
    layout, folder = profile.layout, profile.layout.reference
    folder.mkdir(parents=True, exist_ok=True)
    parts = report.sections(profile)
    report.put(parts, layout.root)
    _copy(layout, folder)
    for part in sorted(path.parent for path in layout.root.glob("*/metrics.csv")):
        _copy(Layout(layout.run, part.name), folder / part.name)
    (folder / "figures").mkdir(exist_ok=True)
    for figure in layout.figures.glob("*.png"):
        shutil.copyfile(figure, folder / "figures" / figure.name)
    kept = [part for part in parts[:-1] if not part.stays]
    report.put([*kept, report.contents(folder)], folder)
    return folder


def _copy(layout: Layout, folder: Path) -> None:
    """Values and tables of a run, or of a demonstration in it."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for table in layout.tables.glob("[!.]*.*"):
        shutil.copyfile(table, folder / "tables" / table.name)
    for values in layout.root.glob("*.csv"):
        if values != layout.metrics:
            shutil.copyfile(values, folder / values.name)
    packed, values = folder / "metrics.csv.gz", layout.metrics.read_bytes()
    if not (packed.is_file() and gzip.decompress(packed.read_bytes()) == values):
        packed.write_bytes(gzip.compress(values, mtime=0))
