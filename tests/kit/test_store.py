"""The store: same key, nothing computed twice; killed, full or failing, nothing half-written counts as done."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.paths import REPOSITORY

RECIPE = store.Recipe("stage", 1, {"steps": 3, "sigma": (0.0, 1.0)}, {"clip": "abc"}, seed=7, model="m")


def write(path: Path, text: str, recipe: store.Recipe = RECIPE, **record) -> None:
    with store.writing(path, recipe, **record) as temporary:
        temporary.write_text(text)


def test_written_is_done_and_its_sidecar_tells_how(tmp_path: Path):
    path = tmp_path / "folder" / "a.txt"
    assert not store.is_done(path, RECIPE)
    facts = {}
    with store.writing(path, RECIPE, device="cpu", facts=facts) as temporary:
        temporary.write_text("text")
        facts["attempts"] = 2  # known only now
    assert store.is_done(path, RECIPE) and path.read_text() == "text"
    sidecar = store.read_sidecar(path)
    assert sidecar["key"] == RECIPE.key and sidecar["inputs"] == {"clip": "abc"} and sidecar["seed"] == 7
    assert (sidecar["device"], sidecar["attempts"]) == ("cpu", 2) and "commit" in sidecar
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.txt", "a.txt.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "other"},
        {"version": 2},
        {"settings": {"steps": 4}},
        {"inputs": {"clip": "abd"}},
        {"seed": 8},
        {"model": "n"},
    ],
)
def test_every_part_of_a_recipe_changes_the_key(tmp_path: Path, change: dict):
    path = tmp_path / "a.txt"
    write(path, "text")
    assert not store.is_done(path, replace(RECIPE, **change))


def test_a_clock_set_back_leaves_the_seconds_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(10**6, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    write(tmp_path / "a.txt", "text")
    assert 0 <= store.read_sidecar(tmp_path / "a.txt")["seconds"] < 60


@pytest.mark.parametrize("content", [b'{"a": [1, ', b"", b"\xff\xfe"])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"/a is damaged \(.*\): delete it and make it again\."):
        store.read_json(path)
    with pytest.raises(InputError, match=r"/a is damaged"):
        store.read_arrays(path)
    with pytest.raises(InputError, match=r"/a is damaged"):
        store.require_whole(path)


def test_half_of_arrays_and_tensors_is_a_sentence(tmp_path: Path):
    save_file({"a": np.arange(9.0)}, tmp_path / "a.safetensors")
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(9.0))
    store.require_whole(tmp_path / "a.safetensors")
    assert store.read_arrays(tmp_path / "a.npz")["a"].tolist() == list(range(9))
    for path, check in (
        (tmp_path / "a.safetensors", store.require_whole),
        (tmp_path / "a.npz", store.read_arrays),
    ):
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match=f"{path.name} is damaged"):
            check(path)


def test_key_does_not_depend_on_the_order_of_settings():
    other = replace(RECIPE, settings={"sigma": (0.0, 1.0), "steps": 3})
    assert other.key == RECIPE.key


REPLACING = """
import os, signal, sys
from pathlib import Path
from rmkit.kit import store
for i in range(50):
    with store.replacing(Path(sys.argv[1])) as temporary:
        temporary.write_text(sys.argv[2] * 50_000)
        if sys.argv[2] == "killed" and i == 9:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_several_may_replace_a_file_at_once(tmp_path: Path):
    path = tmp_path / "a.png"
    command = [sys.executable, "-c", REPLACING, str(path)]
    env = {**os.environ, "PYTHONPATH": "."}
    assert subprocess.run([*command, "killed"], cwd=REPOSITORY, env=env).returncode == -signal.SIGKILL
    assert path.read_text() == "killed" * 50_000 and len(list(tmp_path.iterdir())) == 3  # and what it left
    started = [subprocess.Popen([*command, name], cwd=REPOSITORY, env=env) for name in "bc"]
    assert [process.wait() for process in started] == [0, 0]
    assert path.read_text() in ("b" * 50_000, "c" * 50_000)
    assert list(tmp_path.iterdir()) == [path]


def test_an_artefact_may_be_a_folder_and_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "folder"
    for name in ("old", "new"):
        with store.writing(path, RECIPE) as temporary:
            temporary.mkdir()
            (temporary / name).write_text("x")
    assert [p.name for p in path.iterdir()] == ["new"]


def test_an_error_leaves_the_earlier_artefact_and_no_rest(tmp_path: Path):
    path = tmp_path / "a.txt"
    write(path, "first")
    with pytest.raises(RuntimeError), store.writing(path, replace(RECIPE, version=2)) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first" and store.is_done(path, RECIPE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "a.txt.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from rmkit.kit import store
with store.writing(Path(sys.argv[1]), store.Recipe("stage", 2, {}, {})) as temporary:
    temporary.write_text("half")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = lambda self, target: (os.rename(self, target), os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_a_killed_process_leaves_nothing_that_counts_as_done(tmp_path: Path, moment: str):
    path = tmp_path / "a.txt"
    write(path, "first")
    command = [sys.executable, "-c", KILLED, str(path), moment]
    process = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "."}, check=False)
    assert process.returncode == -signal.SIGKILL
    new = store.Recipe("stage", 2, {}, {})
    assert not store.is_done(path, new)
    assert store.is_done(path, RECIPE) == (moment == "writing")  # an artefact is old or new, never a mixture
    write(path, "second", new)
    assert store.is_done(path, new) and path.read_text() == "second"


def test_an_unreadable_sidecar_counts_as_undone(tmp_path: Path):
    path = tmp_path / "a.txt"
    write(path, "text")
    store.sidecar_of(path).write_text('{"key": ')
    assert not store.is_done(path, RECIPE)


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path):
    path = tmp_path / "a.txt"
    write(path, "first")
    with pytest.raises(InputError, match=r"the disk is full while writing .*a\.txt"):
        with store.writing(path, replace(RECIPE, version=2)) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == "first" and len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_recognised_when_a_library_hides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = store.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(InputError, match="the disk is full"), store.writing(tmp_path / "a.pt", RECIPE):
        raise RuntimeError("unexpected pos 576 vs 534")  # what torch.save says then
    monkeypatch.undo()
    with pytest.raises(InputError, match="the disk is full"), store.writing(tmp_path / "a.pt", RECIPE):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_require_space(tmp_path: Path):
    store.require_space(tmp_path, 0.0)
    with pytest.raises(InputError, match=r"GB free and this run needs about 1000000000\.0 GB"):
        store.require_space(tmp_path, 1e9)


def test_fingerprint_follows_content(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    first, file = store.fingerprint(folder), store.fingerprint(folder / "a")
    os.utime(folder / "a", (0, 0))
    assert (store.fingerprint(folder), store.fingerprint(folder / "a")) == (first, file)
    (folder / "a").write_text("2")
    assert store.fingerprint(folder) != first and store.fingerprint(folder / "a") != file
    with pytest.raises(InputError, match="does not exist"):
        store.fingerprint(tmp_path / "nothing")


def test_a_large_file_is_told_by_its_ends_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "WHOLE_FILE", 2**20)
    files = {}
    for name, tail in (("a", b"x"), ("b", b"y"), ("c", b"xx")):
        path = tmp_path / name
        path.write_bytes(bytes(3 * 2**20) + tail)
        files[name] = store.fingerprint(path)
    assert len(set(files.values())) == 3


def test_seeds_differ_by_stage_and_clip_only():
    seeds = {store.seed_for(0, stage, clip) for stage in "ab" for clip in "cde"}
    assert len(seeds) == 6 and all(0 <= seed < 2**31 for seed in seeds)
    assert store.seed_for(0, "a", "c") == store.seed_for(0, "a", "c") != store.seed_for(1, "a", "c")
