"""The campaign's short form: one kill, two runs at once, nothing writable, the clock set back, a full disk, a dozen bad inputs.

`tests/campaign.py` is the long one.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from bad_cases import CASES
from bad_inputs import Place, outcome, plain, sentence
from campaign_mishaps import BACK, DAY
from campaign_runs import half_made, state

from rmkit import cli, profile
from rmkit.paths import REPOSITORY

DOZEN = (
    "a key twice",
    "extends itself",
    "below the least",
    "frames that the VAE has not",
    "a shard beyond the last",
    "half of the weights",
    "half a clip",
    "a clip of another size",
    "half a picture",
    "a weather that a town lacks",
    "text named mp4",
    "an output of the user's",
)
COMMAND = """
import sys
from pathlib import Path
from rmkit import cli, profile
profile.REPOSITORY = Path(sys.argv[1])
sys.exit(cli.main([*sys.argv[2:], "--profile", "smoke"]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The clips of `smoke`, in results of the test's own."""
    root = tmp_path_factory.mktemp("campaign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "REPOSITORY", root)
        made = Place(REPOSITORY, root / "results", root / "base", root / "user")
        assert cli.main(["data", "--profile", "smoke"]) == 0
        shutil.copytree(made.run, made.base)
        yield made


@pytest.fixture(scope="module")
def expected(place: Place) -> dict[str, bytes]:
    """What the stage `structure` makes when nothing happens."""
    assert cli.main(["structure", "--profile", "smoke"]) == 0
    return videos(place)


@pytest.fixture(autouse=True)
def afresh(place: Place, expected: dict[str, bytes]) -> None:
    place.restore()


def videos(place: Place) -> dict[str, bytes]:
    return {str(p.relative_to(place.run)): p.read_bytes() for p in place.run.glob("structure/*/*.mp4")}


def start(
    place: Place, command: str = "structure", *before: str | Path, path: str = ""
) -> subprocess.Popen[str]:
    """A command in a process group of its own; before: what runs it."""
    words = [*before, sys.executable, "-c", COMMAND, place.results.parent, command]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([path, str(REPOSITORY)])}
    return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def with_mounts(script: str, folder: Path) -> list[str | Path]:
    """What runs a command where a folder is mounted as a script says; skips where nobody may mount."""
    before = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'{script}; shift; exec "$@"',
        "sh",
        folder,
    ]
    if not shutil.which("unshare") or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    return before


def test_a_kill_costs_nothing(place: Place, expected: dict[str, bytes]):
    before = state(place.run)
    process = start(place)
    while state(place.run) == before and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and videos(place) != expected
    assert cli.main(["structure", "--profile", "smoke"]) == 0
    assert videos(place) == expected and not half_made(place.run)


def test_two_at_once_make_what_one_makes(place: Place, expected: dict[str, bytes]):
    both = [start(place) for _ in range(2)]
    assert [process.communicate(timeout=300) and process.returncode for process in both] == [0, 0]
    assert videos(place) == expected and not half_made(place.run)


def test_a_clock_set_back(place: Place, expected: dict[str, bytes], tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(BACK)
    process = start(place, path=str(tmp_path))
    assert (process.communicate(timeout=300), process.returncode)[1] == 0
    min(place.run.glob("structure/*/*.mp4")).unlink()
    for path in place.run.rglob("*"):
        os.utime(path, (time.time() + DAY,) * 2)
    assert cli.main(["structure", "--profile", "smoke"]) == 0
    assert videos(place) == expected


def test_results_that_are_read_only(place: Place):
    before = state(place.run)
    process = start(
        place, "structure", *with_mounts('mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"', place.run)
    )
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2 and said.count("\n") == 1 and "nothing can be written to" in said
    assert state(place.run) == before


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (
            "size=64k",
            r"rmkit: .*/structure\S* has [.\d]+ MB free and this run needs about [.\d]+ MB; free some",
        ),
        (
            "nr_inodes=4",
            r"rmkit: the disk is full while writing .*/structure/",
        ),  # room, but not for another file
    ],
)
def test_a_full_disk(place: Place, size: str, sentence: str):
    target = place.run / "structure"
    target.mkdir(exist_ok=True)
    process = start(place, "structure", *with_mounts(f'mount -t tmpfs -o {size} tmpfs "$1"', target))
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2 and said.count("\n") == 1 and re.match(sentence, said)


@pytest.mark.parametrize("case", [case for case in CASES if case.what in DOZEN], ids=lambda case: case.what)
def test_a_bad_input(place: Place, case, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def call(words: list[str], env: Mapping[str, str]) -> tuple[int, str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        return cli.main(words), sentence(capsys.readouterr().err)

    found = outcome(place, case, call)
    assert found["code"] == 2 and found["said"].startswith("rmkit: ") and found["said"].count("\n") == 0
    assert not found["lost"] and not found["written"]


def test_the_cases_are_each_of_their_own():
    names = Counter(case.what for case in CASES)
    assert len(names) >= 100 and max(names.values()) == 1
    assert set(DOZEN) <= names.keys()
    assert plain("rmkit: own.yaml: 'a.b': must be 4 or more.") == plain(
        "rmkit: own.yaml: 'c': must be 16 or more."
    )
