"""The Makefile finds the environment that is activated, wherever it lies."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rmkit.paths import REPOSITORY

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
@pytest.mark.parametrize("name", ["env", "my env (new)"])
def test_an_activated_environment_may_lie_in_any_folder(tmp_path: Path, variable: str, name: str) -> None:
    python = tmp_path / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "fake: $@"\n')
    python.chmod(0o755)
    others = {k: v for k, v in os.environ.items() if not k.startswith(("CONDA", "VIRTUAL_ENV", "MAKE"))}
    environment = others | {variable: str(tmp_path / name), "CONDA_DEFAULT_ENV": "kit"}
    for _ in range(2):  # the second time it is set up
        run = subprocess.run(
            ["make", "doctor"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[-1] == "fake: -m rmkit doctor --profile mini"
    assert run.stdout.count("\n") == 1
    assert [path.name[:13] for path in (tmp_path / name).glob(".rmkit*")] == [".rmkit-setup-"]
