"""Workers: the same artefacts as of one process, and whatever ends, one sentence and nothing lost."""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rmkit.errors import InputError
from rmkit.evaluation import evaluate
from rmkit.kit import claims, progress, stage, store, workers
from rmkit.method import anchoring, dataset, enhance, propagation, sampling, structure, training
from rmkit.paths import REPOSITORY
from rmkit.profile import Profile

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(
    not HAS_RAY and "RMKIT_REQUIRE_RAY" not in os.environ, reason="Ray is not installed: `make workers`"
)


def items(folder: Path, count: int = 6) -> list[stage.Item[int]]:
    recipes = [store.Recipe("stage", 1, {}, {"number": str(i)}) for i in range(count)]
    return [stage.Item(folder / f"{i}.txt", recipe, i) for i, recipe in enumerate(recipes)]


def making(
    before: Callable[[int, Path], None] = lambda number, temporary: None,
) -> Callable[[], stage.Make[int]]:
    """What writes an item's number and the process that made it, after `before` of the number and the path."""

    def ready() -> stage.Make[int]:
        def make(item, temporary):
            before(item.subject, temporary)
            temporary.write_text(str(item.subject))
            return {"process": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}

        return make

    return ready


def together(number: int, temporary: Path) -> None:
    """Wait until three processes are at it."""
    temporary.with_name(f"at-{os.getpid()}").touch()
    while len(list(temporary.parent.glob("at-*"))) < 3:
        time.sleep(0.02)


def made(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.txt")}


def rest(folder: Path) -> list[Path]:
    """Files that are neither an artefact nor a sidecar."""
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@needs_ray
def test_an_address_without_a_cluster_is_a_sentence_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(workers.ADDRESS, "127.0.0.1:1")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=127\.0\.0\.1:1 leads to no cluster .*refused"):
        workers.start()


@pytest.fixture(scope="module")
def three() -> Iterator[None]:
    """Three workers of a cluster of their own, for the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with workers.asked(3):
            workers.start()
            import ray

            # Functions of this file travel whole, as a worker cannot import it.
            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
            yield


def test_shards_make_each_clip_once(tmp_path: Path):
    for shard, numbers in (("1/4", "04"), ("2/4", "15"), ("4/4", "3"), ("3/4", "2")):
        with workers.asked(shard=shard):
            before = made(tmp_path)
            stage.run("stage", items(tmp_path), making(), spread=True)
            assert made(tmp_path) - before == set(numbers)
    assert stage.run("stage", items(tmp_path), making(), spread=True) == [i.path for i in items(tmp_path)]


def test_what_cannot_be_divided_is_made_by_every_shard(tmp_path: Path):
    with workers.asked(shard="2/2"):
        assert len(stage.run("stage", items(tmp_path), making())) == 6


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "1/0", "a/b", "-1/2"])
def test_a_shard_that_there_is_not(shard: str):
    with pytest.raises(InputError, match="it must be i/n"), workers.asked(shard=shard):
        raise AssertionError


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_workers_are_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match=r"asks for Ray, which is not installed: `make workers`"):
        with workers.asked(2):
            stage.run("stage", items(tmp_path), making(), spread=True)


@needs_ray
def test_three_share_the_items(
    three: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "QUIET", 0)  # however fast the machine is
    paths = stage.run("stage", items(tmp_path), making(together), spread=True)
    assert [path.read_text() for path in paths] == list("012345")
    sidecars = [store.read_sidecar(path) for path in paths]
    assert len({sidecar["process"] for sidecar in sidecars} - {os.getpid()}) == 3
    assert {sidecar["threads"] for sidecar in sidecars} == {"1"}
    assert "stage: 6 of 6" in capsys.readouterr().out


@needs_ray
def test_what_workers_print_and_leave_out_is_said(three: None, tmp_path: Path, capsys: pytest.CaptureFixture):
    def leaves_out(number: int, temporary: Path) -> None:
        if number == 1:
            raise stage.LeftOut("it has no anchor")

    assert len(stage.run("stage", items(tmp_path), making(leaves_out), spread=True)) == 5
    assert "\nstage: 1 is left out: it has no anchor\n" in "\n" + capsys.readouterr().out


@needs_ray
def test_a_killed_worker_is_replaced(three: None, tmp_path: Path):
    def killed_once(number: int, temporary: Path) -> None:
        mark = temporary.with_name("killed")
        if number == 2 and not mark.exists():
            mark.touch()
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert len(stage.run("stage", items(tmp_path), making(killed_once), spread=True)) == 6
    assert (tmp_path / "killed").exists() and not rest(tmp_path)


@needs_ray
def test_a_clip_that_kills_its_workers_is_named_and_the_others_are_made(three: None, tmp_path: Path):
    def poison(number: int, temporary: Path) -> None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match=r"/1\.txt: the worker that made it ended without a word, 2 times"):
        stage.run("stage", items(tmp_path), making(poison), spread=True)
    assert made(tmp_path) == set("02345")


@needs_ray
def test_workers_that_end_while_they_load_are_a_sentence(three: None, tmp_path: Path):
    def ready() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="ended without a word while it loaded its models"):
        stage.run("stage", items(tmp_path), ready, spread=True)


@needs_ray
@pytest.mark.parametrize("error", [InputError("clip 3 is too dark"), RuntimeError("clip 3 is too dark")])
def test_an_exception_ends_the_run_and_what_is_begun_is_kept(three: None, tmp_path: Path, error: Exception):
    def fails(number: int, temporary: Path) -> None:
        together(number, temporary)
        if number == 1:
            raise error
        time.sleep(0.5)

    with pytest.raises(type(error), match="clip 3 is too dark"):
        stage.run("stage", items(tmp_path), making(fails), spread=True)
    assert made(tmp_path) >= {"0", "2"} and "1" not in made(tmp_path) and not rest(tmp_path)


@needs_ray
def test_a_full_disk_is_one_sentence(three: None, tmp_path: Path):
    def full(number: int, temporary: Path) -> None:
        if number == 1:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"the disk is full while writing .*/1\.txt"):
        stage.run("stage", items(tmp_path), making(full), spread=True)
    assert not rest(tmp_path)
    assert len(stage.run("stage", items(tmp_path), making(), spread=True)) == 6


@needs_ray
def test_a_worker_of_other_code_is_refused(three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "code", lambda: "another")
    with pytest.raises(InputError, match="runs other code of rmkit than the process that asks"):
        stage.run("stage", items(tmp_path), making(), spread=True)
    assert not made(tmp_path)


@needs_ray
def test_a_folder_that_workers_do_not_see(three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "require_space", lambda *_: None)  # which makes it
    with pytest.raises(InputError, match=r"does not see .*/nowhere: all machines need"):
        stage.run("stage", items(tmp_path / "nowhere"), making(), spread=True)


OTHER = """
import time
from pathlib import Path
from rmkit.kit import store
with store.writing(Path("{path}"), store.Recipe("stage", 1, {{}}, {{"number": "0"}})) as temporary:
    print(flush=True)
    time.sleep(3)
    temporary.write_text("of the other")
"""


@needs_ray
def test_what_another_driver_makes_is_left_to_it(three: None, tmp_path: Path):
    script = OTHER.format(path=str(tmp_path / "0.txt"))
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert len(stage.run("stage", items(tmp_path), making(), spread=True)) == 6
    assert (tmp_path / "0.txt").read_text() == "of the other"


DRIVER = """
import os, sys, time
from pathlib import Path
from rmkit.kit import stage, store, workers
def ready():
    def make(item, temporary):
        temporary.write_text(str(os.getpid()))
        time.sleep(60)
    return make
recipes = [store.Recipe("stage", 1, {}, {"number": str(i)}) for i in range(6)]
items = [stage.Item(Path(sys.argv[1]) / f"{i}.txt", recipe, i) for i, recipe in enumerate(recipes)]
with workers.asked(3):
    stage.run("stage", items, ready, spread=True)
"""


@needs_ray
@pytest.mark.parametrize("of_its_own", [False, True])
def test_a_killed_driver_leaves_nobody_behind(three: None, tmp_path: Path, of_its_own: bool):
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    if of_its_own:  # the cluster is the driver's own, and ends with it
        del env[workers.ADDRESS]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], env=env)
    until = time.monotonic() + 300  # a cluster of its own takes 12 s on an idle machine
    while len(list(tmp_path.glob(".*.tmp.txt"))) < 3 and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(0.2)
    processes = {int(path.read_text()) for path in tmp_path.glob(".*.tmp.txt")}
    assert len(processes) == 3
    driver.kill()
    driver.wait()
    until = time.monotonic() + 60
    while any(claims._since(process) for process in processes) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(claims._since(process) for process in processes)
    assert len(stage.run("stage", items(tmp_path), making(), spread=True)) == 6 and not rest(tmp_path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a worker has: sums in another order differ in their last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def artefacts(run: Profile) -> dict[str, bytes]:
    """Every file of a run but sidecars, which tell of times; of those the key."""
    root = run.layout.root
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    sidecars = {name for name in files if name.removesuffix(".json") in files.keys() - {name}}
    keys = {name: json.loads(files[name].read_text())["key"].encode() for name in sidecars}
    return {name: path.read_bytes() for name, path in files.items()} | keys


@needs_ray
def test_workers_give_the_bytes_of_one_process(
    three: None, tiny_profile, tiny_clips, tmp_path: Path, one_thread
):
    found = []
    for name in ("one", "three"):
        # Workers know the real repository only, whose results/ an absolute name leaves.
        run = tiny_profile.model_copy(update={"name": str(tmp_path / name)})
        sampling.sample(run)
        with pytest.MonkeyPatch.context() as patch:
            if name == "one":
                patch.setattr(workers, "wanted", lambda: False)
            structure.extract(run, tiny_clips, ["edges"])
            anchoring.edit(run, tiny_clips)
        found.append(artefacts(run))
    shared = [name for name in found[0] if name.startswith(("clips", "structure", "anchors"))]
    assert len(shared) == 2 * (4 + 4 + 8) + 1 and found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


@needs_ray
def test_every_stage_can_be_sent(pairs_profile, monkeypatch: pytest.MonkeyPatch, one_thread):
    """To a worker that is this process: what is loaded and made there went through a pickle, as between machines."""
    from ray import cloudpickle

    sent = []

    @contextmanager
    def pool(begin, name, folder):
        sent.append(folder.relative_to(pairs_profile.layout.root).as_posix())
        worker = cloudpickle.loads(cloudpickle.dumps(begin))()
        yield lambda clips: [cloudpickle.loads(cloudpickle.dumps(worker(clip))) for clip in through(clips)]

    def through(clips):
        return [cloudpickle.loads(cloudpickle.dumps(clip)) for clip in clips]

    def stages() -> dict[str, bytes]:
        validation = sampling.load(pairs_profile, "validation")
        dataset.encode(pairs_profile)
        structure.extract(pairs_profile, validation)
        anchoring.edit(pairs_profile, validation, "every")
        for variant in pairs_profile.propagation.variants:
            propagation.propagate(pairs_profile, validation, variant)
        enhance.enhance(pairs_profile, validation)
        evaluate.evaluate(pairs_profile)
        return artefacts(pairs_profile)

    monkeypatch.setattr(workers, "wanted", lambda: False)
    dataset.encode(pairs_profile)
    training.train(pairs_profile)
    alone = stages()
    theirs = {f"{clip.id}.mp4" for clip in sampling.load(pairs_profile, "train")}  # the fixture's, propagated
    for folder in (
        "pairs/text",
        "pairs/latents",
        "structure",
        "anchors",
        "propagated",
        "enhanced",
        "metrics",
    ):
        for path in (pairs_profile.layout.root / folder).rglob("*"):
            if path.is_file() and path.name not in theirs:
                path.unlink()
    monkeypatch.setattr(workers, "wanted", lambda: True)
    monkeypatch.setattr(workers, "pool", pool)
    assert stages() == alone
    assert {folder.partition("/")[0] for folder in sent} >= {
        "pairs",
        "structure",
        "anchors",
        "propagated",
        "enhanced",
        "metrics",
    }
