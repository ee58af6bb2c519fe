"""What imports what: rooms stand on those below them, and no modules stand on each other (pyproject.toml)."""

import subprocess
import sys
from pathlib import Path

from rmkit.paths import REPOSITORY


def test_imports_go_one_way():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "0 broken" in run.stdout
