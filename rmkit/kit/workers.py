"""Workers: the clips of a stage shared out by Ray over processes, GPUs and machines; or one shard of them (ours).

Asked for by `--workers`, `--shard` or Ray's own RAY_ADDRESS, which reach the notebooks' processes through the environment.
A worker loads what making needs once and makes one clip a call; what it makes goes into the store, on a folder that all
machines see by the same path, and only paths come back. Without Ray nothing of this is used.
"""

import functools
import hashlib
import importlib.util
import io
import os
import re
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rmkit.errors import InputError
from rmkit.paths import visible

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

T, R = TypeVar("T"), TypeVar("R")
WORKERS, SHARD, ADDRESS = "RMKIT_WORKERS", "RMKIT_SHARD", "RAY_ADDRESS"
TRIES = 2  # how often a worker may end over one clip, or in loading its models, before that is given up
STORE = 100 * 2**20  # bytes of Ray's own object store: only paths go through it


@contextmanager
def asked(count: int | None = None, shard: str | None = None) -> Iterator[None]:
    """Inside, stages are shared by so many workers, or make one shard: 'i/n', the i-th of n. InputError for another one."""
    if shard and not ((part := re.fullmatch(r"(\d+)/(\d+)", shard)) and 1 <= int(part[1]) <= int(part[2])):
        raise InputError(f"--shard {shard}: it must be i/n, from 1/n to n/n.")
    before = {name: os.environ.get(name) for name in (WORKERS, SHARD, ADDRESS)}
    os.environ |= {WORKERS: str(count)} if count else {}
    os.environ |= {SHARD: shard} if shard else {}
    try:
        yield
    finally:
        if importlib.util.find_spec("ray") and before[ADDRESS] != os.environ.get(ADDRESS):
            import ray

            ray.shutdown()
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {name: value} if value is not None else {}


def wanted() -> bool:
    """Whether Ray's workers are asked for."""
    return ADDRESS in os.environ or int(os.environ.get(WORKERS, "1")) > 1


def shard_of(clips: Sequence[T]) -> list[T]:
    """Those that this process is to make: all, or its shard."""
    number, _, count = os.environ.get(SHARD, "1/1").partition("/")
    return list(clips[int(number) - 1 :: int(count)])


def start() -> None:
    """Connect to Ray where workers are asked for; a cluster started for it is that of the processes to come as well.

    Raises InputError when Ray is not installed, or none answers at RAY_ADDRESS.
    """
    if not wanted():
        return
    if not importlib.util.find_spec("ray"):
        raise InputError(
            f"{ADDRESS if ADDRESS in os.environ else 'more than one worker'} asks for Ray, which is not installed: "
            "`make workers` installs it (or --shard i/n divides a stage without it)."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
    os.environ.setdefault("RAY_worker_niceness", "0")  # else everything else on the machine comes first
    import ray

    if ray.is_initialized():
        return
    own = {} if ADDRESS in os.environ else {"include_dashboard": False, "object_store_memory": STORE}
    try:
        # Ray would try for two minutes.
        if part := re.fullmatch(r"([^/]+):(\d+)", os.environ.get(ADDRESS, "")):
            socket.create_connection((part[1], int(part[2])), timeout=10).close()
        context = ray.init(logging_level="ERROR", log_to_driver=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"{ADDRESS}={os.environ[ADDRESS]} leads to no cluster" if not own else "no cluster starts"
        raise InputError(f"Ray: {where} ({error}).") from error
    os.environ[ADDRESS] = context.address_info["gcs_address"]


@contextmanager
def pool(
    begin: Callable[[], Callable[[T], R]], name: Callable[[T], str], folder: Path
) -> Iterator[Callable[[Sequence[T]], Iterator[R]]]:
    """A function that makes clips on workers, each of which has called `begin` once, and yields what comes of them.

    name: of a clip, for sentences; folder: where it is written, which every worker must see. An exception of a worker's is
    raised once what others have begun is finished; a clip over which workers end (TRIES) is named in an InputError once all
    the others are. Raises InputError for workers of other code.
    """
    start()
    import ray

    cluster = ray.cluster_resources()
    cpus, gpus = int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0))
    count = int(os.environ.get(WORKERS, gpus or cpus))
    # Cores set the threads of a worker, too: Ray tells OpenMP. Less than one each where there are more workers than cores.
    share = cpus // count or int(1e4 * cpus / count) / 1e4
    actor = ray.remote(_Worker).options(num_cpus=share, num_gpus=min(1, int(1e4 * gpus / count) / 1e4))
    crew = _Crew(actor, (code(), folder, ray.put(ray.cloudpickle.dumps(begin))), count, name)
    try:
        yield crew.make
    finally:
        crew.end()


class _Crew:
    """The workers of one stage, and what each is at."""

    def __init__(self, actor: Any, told: tuple, count: int, name: Callable[[Any], str]) -> None:
        self.actor, self.told, self.count, self.name = actor, told, count, name
        self.idle: list[ActorHandle] = []
        self.busy: dict[ObjectRef, tuple[ActorHandle, Any]] = {}  # with its clip; None: loading
        self.failure: BaseException | None = None
        self.deaths: Counter[str] = Counter()

    def make(self, clips: Sequence[T]) -> Iterator[R]:
        """Yield what comes of the clips, in the order in which they are finished."""
        waiting, lost = deque(clips), []
        while len(self.idle) + len(self.busy) < min(self.count, len(clips)):
            self._hire()
        while (waiting and not self.failure) or any(clip is not None for _, clip in self.busy.values()):
            while self.idle and waiting and not self.failure:
                worker, clip = self.idle.pop(), waiting.popleft()
                self.busy[worker.make.remote(clip)] = worker, clip
            came, clip = self._next()
            if clip is None:
                continue
            if came is not None:
                yield came
            elif not self.failure:
                name = self.name(clip)
                self.deaths[name] += 1
                lost.append(name) if self.deaths[name] == TRIES else waiting.append(clip)
        if self.failure:
            raise self.failure
        if lost:
            raise InputError(
                f"{', '.join(lost)}: the worker that made it ended without a word, {TRIES} times (out of memory, or a crash in "
                "a library); all others are finished. Leave the clip out, or see what is wrong with it, and run again."
            )

    def end(self) -> None:
        import ray

        for worker in [*self.idle, *(worker for worker, _ in self.busy.values())]:
            ray.kill(worker)

    def _hire(self) -> None:
        worker = self.actor.remote()
        self.busy[worker.begin.remote(*self.told)] = worker, None

    def _next(self) -> tuple[Any, Any]:
        """Wait for a worker: what it gives back, and its clip. Nothing, where it failed or ended; who ended is replaced."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        (done,), _ = ray.wait(list(self.busy), num_returns=1)
        worker, clip = self.busy.pop(done)
        try:
            came, said = ray.get(done)
            print(said, end="", flush=True)
        except RayTaskError as error:
            self.failure = self.failure or error.cause or error
            came = None
        except (RayActorError, OutOfMemoryError):
            if clip is None:
                self.deaths[""] += 1
            if self.deaths[""] == TRIES:
                self.failure = InputError(
                    f"a worker ended without a word while it loaded its models, {TRIES} times: is there memory for {self.count} "
                    "workers? What is finished is kept; run again with fewer."
                )
            else:
                self._hire()
            return None, clip
        self.idle.append(worker)
        return came, clip


class _Worker:
    """One process of Ray's: loads once, then makes clip by clip."""

    def begin(self, wanted: str, folder: Path, begin: bytes) -> tuple[None, str]:
        for name in (WORKERS, SHARD, ADDRESS):
            os.environ.pop(name, None)  # what a clip needs of other stages is made here
        here = f"the worker on {socket.gethostname()}"
        if code() != wanted:
            raise InputError(
                f"{here} runs other code of rmkit than the process that asks: bring both to one commit."
            )
        if not folder.is_dir():
            raise InputError(
                f"{here} does not see {folder}: all machines need results/ under the same path, on a shared disk."
            )
        from ray import cloudpickle

        with redirect_stdout(io.StringIO()) as said:
            self.make_clip = cloudpickle.loads(begin)()
        return None, said.getvalue()

    def make(self, clip: T) -> tuple[Any, str]:
        """What comes of a clip, and what was printed meanwhile, which the driver prints."""
        with redirect_stdout(io.StringIO()) as said:
            return self.make_clip(clip), said.getvalue()


@functools.cache
def code() -> str:
    """Fingerprint of the package's source."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for file in visible(root, "*.py"):
        digest.update(file.relative_to(root).as_posix().encode() + b"\n" + file.read_bytes())
    return digest.hexdigest()[:32]
