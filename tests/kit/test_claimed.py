"""Claims: what is being made by the living is left to them, what the dead have left is taken over and cleared away."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from rmkit.errors import InputError
from rmkit.kit import claims, stage, store
from rmkit.paths import REPOSITORY

RECIPE = store.Recipe("stage", 1, {}, {})
DEADLINE = 30  # seconds; another process imports in two or three

# Writes half of an artefact, says so, and goes on when its standard input says a word.
SLOW = """
import sys
from pathlib import Path
from rmkit.kit import store
with store.writing(Path(sys.argv[1]), store.Recipe("stage", 1, {}, {})) as temporary:
    temporary.write_text("half")
    print("half", flush=True)
    sys.stdin.readline()
    temporary.write_text(temporary.read_text() + " and whole")
"""


@contextmanager
def half_written(path: Path) -> Iterator[subprocess.Popen]:
    """Another process that has written half of `path`."""
    command = [sys.executable, "-c", SLOW, str(path)]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as other:
        assert other.stdout.readline() == "half\n"
        yield other
        other.kill()


def foreign(path: Path, host: str = "elsewhere") -> Path:
    """A claim on `path` of a process on another machine."""
    claim = claims.of(path)
    claim.write_text(json.dumps({"host": host, "process": 7, "since": "1"}))
    return claim


def test_what_another_process_writes_is_not_deleted_but_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = tmp_path / "a.txt"
    with half_written(path) as other:
        with pytest.raises(claims.Taken), claims.held(path):
            raise AssertionError("two must not write it")
        Timer(1.0, other.communicate, ["go on\n"]).start()
        with store.writing(path, RECIPE) as temporary:
            assert path.read_text() == "half and whole" and store.is_done(path, RECIPE)
            temporary.write_text("mine")
        assert other.wait() == 0
    assert f"a.txt is being made by process {other.pid} on " in capsys.readouterr().out
    assert path.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "a.txt.json"]


def test_what_a_killed_process_leaves_is_taken_over_at_once(tmp_path: Path):
    path = tmp_path / "a.txt"
    with half_written(path) as other:
        other.send_signal(signal.SIGKILL)
        # Not waited for yet: what is dead and still listed counts as dead.
        time.sleep(0.2)
        assert len(list(tmp_path.iterdir())) == 2  # half of it, and the claim
        with store.writing(path, RECIPE) as temporary:
            temporary.write_text("mine")
    assert path.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "a.txt.json"]


def test_leftovers_of_a_neighbour_are_not_mistaken(tmp_path: Path):
    """`a.b.txt` has a name that begins as that of `a.txt`."""
    with store.writing(tmp_path / "a.b.txt", RECIPE) as neighbour:
        neighbour.write_text("neighbour")
        with store.writing(tmp_path / "a.txt", RECIPE) as temporary:
            temporary.write_text("a")
    assert (tmp_path / "a.b.txt").read_text() == "neighbour"


def test_a_claim_of_another_machine_holds_while_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims, "EXPIRY", 0.5)
    claim = foreign(tmp_path / "a.txt")
    for _ in range(8):
        with pytest.raises(claims.Taken):
            with claims.held(tmp_path / "a.txt"):
                raise AssertionError
        time.sleep(0.1)
        os.utime(claim)


@pytest.mark.parametrize("hours", [0, -30, 30])
def test_a_claim_of_another_machine_expires_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(claims, "EXPIRY", 0.3)
    monkeypatch.setattr(claims, "POLL", 0.05)
    claim, then = foreign(tmp_path / "a.txt"), time.time() + 3600 * hours
    os.utime(claim, (then, then))
    started = time.monotonic()
    with claims.held(tmp_path / "a.txt", wait=True):
        assert time.monotonic() - started >= 0.3
        assert json.loads(claim.read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())
    assert "a.txt is being made by process 7 on elsewhere: waiting" in capsys.readouterr().out


def test_a_clock_that_is_set_back_kills_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    with half_written(path):
        monkeypatch.setattr(time, "time", lambda: 0.0)
        with pytest.raises(claims.Taken), claims.held(path):
            raise AssertionError


def test_a_number_that_another_process_has_now_is_not_the_dead_one(tmp_path: Path):
    claim = claims.of(tmp_path / "a.txt")
    claim.write_text(json.dumps({**claims.me(), "process": os.getppid(), "since": "long ago"}))
    with claims.held(tmp_path / "a.txt"):
        assert json.loads(claim.read_text()) == claims.me()


def test_half_a_claim_holds_until_it_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    claim = claims.of(tmp_path / "a.txt")
    claim.touch()
    with pytest.raises(claims.Taken), claims.held(tmp_path / "a.txt"):
        raise AssertionError
    monkeypatch.setattr(claims, "EXPIRY", 0.0)
    with claims.held(tmp_path / "a.txt"):
        pass
    assert not claim.exists()


def test_the_claim_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    with claims.held(tmp_path / "a.txt"):
        claim = claims.of(tmp_path / "a.txt")
        os.utime(claim, (0, 0))
        until = time.monotonic() + 2 * 5.0  # of a thread that is asleep since an earlier test
        while claim.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.05)
        assert claim.stat().st_mtime > 0


def test_only_the_own_claim_is_given_back(tmp_path: Path):
    with claims.held(tmp_path / "a.txt"):
        claim = foreign(tmp_path / "a.txt")  # who thought this process dead
    assert claim.exists()


def test_a_full_disk_is_a_sentence_when_it_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(claims.json, "dump", full)
    with pytest.raises(InputError, match=r"the disk is full while writing .*a\.txt"):
        with store.writing(tmp_path / "a.txt", RECIPE):
            raise AssertionError
    assert not list(tmp_path.iterdir())


DRIVER = """
import sys, time
from pathlib import Path
from rmkit.kit import stage, store
def make(item, temporary):
    time.sleep(0.05)
    temporary.write_text(str(item.subject))
    with open(sys.argv[2], "a") as log:
        print(item.subject, file=log)
recipes = [store.Recipe("stage", 1, {}, {"number": str(i)}) for i in range(20)]
items = [stage.Item(Path(sys.argv[1]) / f"{i}.txt", recipe, i) for i, recipe in enumerate(recipes)]
assert len(stage.run("stage", items, lambda: make)) == 20
"""


def test_two_drivers_on_one_folder_make_everything_once(tmp_path: Path):
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "made"), str(tmp_path / "log")]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    drivers = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [driver.communicate(timeout=DEADLINE) and driver.returncode for driver in drivers] == [0, 0]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(20))
    assert len(list((tmp_path / "made").iterdir())) == 40  # each with its sidecar


def test_an_item_that_another_makes_comes_last_and_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims, "POLL", 0.05)
    monkeypatch.setattr(claims, "EXPIRY", 0.5)
    recipes = [store.Recipe("stage", 1, {}, {"number": str(i)}) for i in range(3)]
    items = [stage.Item(tmp_path / f"{i}.txt", recipe, i) for i, recipe in enumerate(recipes)]
    foreign(items[0].path)
    made = []

    def make(item: stage.Item[int], temporary: Path) -> None:
        made.append(item.subject)
        temporary.write_text("x")

    assert len(stage.run("stage", items, lambda: make)) == 3
    assert made == [1, 2, 0]
