"""Runway Aleph: an external method, bought clip by clip from a service (paper, 4.1 and B.3).

Reads validation clips and RUNWAYML_API_SECRET. Keeps what was paid for in enhanced/runway_aleph/paid/: <clip>.task.json,
the task's id as soon as there is one, and <clip>.mp4 as it came. So a killed run goes on with the same task, and nothing
is bought or downloaded twice. A failed task leaves its clip out for good; delete its .task.json to buy it again. The
service's SDK uploads, asks, waits, and repeats requests. The paper used gen4_aleph, which took the first 5 s of a file
under 16 MB and is no longer offered; `aleph2` is. Ours: the clip is sent as H.264 and comes back at Runway's rate and
size; each frame is the one shown at its time, scaled to cover the clip's size; what is missing at the end, a tenth at
most, is held.
"""

import json
import math
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field, model_validator

from rmkit.baselines import PROMPT, Edit, Made, framing
from rmkit.errors import InputError
from rmkit.kit import keys, store, video
from rmkit.kit.stage import LeftOut
from rmkit.method import sampling
from rmkit.method.sampling import Clip
from rmkit.profile import Profile, Settings, require_plain
from rmkit.settings import Dollars

if TYPE_CHECKING:
    import httpx
    import runwayml

KEY = "RUNWAYML_API_SECRET"
ATTEMPTS = 6  # at a request, by the SDK, and at an upload or download, which it does not repeat
PAUSE = 1.0  # seconds before an upload or download is tried again; doubled each time
WAITING = ("PENDING", "THROTTLED", "RUNNING")
T = TypeVar("T")


class RunwayAlephSettings(Settings):
    """A service that charges: nothing is sent beyond the budget, and nothing without RUNWAYML_API_SECRET."""

    model: str = Field("aleph2", description="paper: gen4_aleph, which the service no longer takes")
    prompt: str = Field(PROMPT, description="paper, B.3")
    base_url: str = Field("https://api.dev.runwayml.com", description="address of the service")
    usd_per_second: float = Field(gt=0, le=1e6, description="price of a second of video: see Runway's list")
    budget_usd: Dollars = Field(20.0, description="a dearer run is refused")
    timeout: float = Field(60.0, gt=0, le=3600, description="seconds that an answer may keep silent")
    patience: float = Field(1800.0, gt=0, le=864_000, description="seconds that a task may take")

    @model_validator(mode="after")
    def _address(self) -> "RunwayAlephSettings":
        require_plain(self.base_url, "baselines.runway_aleph.base_url", KEY)
        return self


class RunwayAleph(Made):
    """Runs where the profile has `baselines.runway_aleph`."""

    name, label, colour, marker = "runway_aleph", "Runway Aleph", "#6A3D9A", "<"
    group = RunwayAlephSettings

    def usd(self, profile: Profile, count: int) -> float:
        """Counted in whole seconds a clip."""
        seconds = math.ceil(profile.clips.frames / profile.clips.fps)
        return count * seconds * self.settings(profile).usd_per_second

    def check(self, profile: Profile, count: int) -> None:
        budget, cost = self.settings(profile).budget_usd, self.usd(profile, count)
        if not keys.present(KEY):
            raise InputError(
                f"baselines.runway_aleph needs a key in {KEY}, and the environment has none: set it, or set "
                "baselines.runway_aleph to null."
            )
        keys.read(KEY)
        if cost > budget:
            raise InputError(
                f"baselines.runway_aleph would cost about {cost:.2f} USD for {count} clips, and its budget_usd is "
                f"{budget:g}: raise it, or set baselines.runway_aleph to null."
            )

    def depends_on(self, profile: Profile) -> dict[str, Any]:
        return {"prompt": self.settings(profile).prompt, "clips": profile.clips}

    def fingerprint(self, profile: Profile) -> str:
        return self.settings(profile).model

    def ready(self, profile: Profile) -> Edit:
        settings, size = self.settings(profile), profile.clips

        def edit(clip: Clip, seed: int) -> np.ndarray:
            target, (order,) = self.paid(profile, clip), self.recipes(profile, [clip])
            if not store.is_done(target, order):
                _buy(settings, sampling.path(profile, clip), order, target)
            try:
                shown = framing.at_rate(video.stream(target), video.probe(target).fps, size.frames, size.fps)
                return np.stack([framing.filling(frame, size.height, size.width) for frame in shown])
            except InputError as error:
                raise LeftOut(f"Runway's video does not fit: {error}") from None

        return edit

    def paid(self, profile: Profile, clip: Clip) -> Path:
        """Where the service's video of a clip is kept."""
        return profile.layout.enhanced / self.name / "paid" / f"{clip.id}.mp4"


METHODS = (RunwayAleph(),)


class _Refused(Exception):
    """A task that the service has failed, cancelled or forgotten, and why."""


class _Broken(Exception):
    """An upload or download that did not come through."""


def _buy(settings: RunwayAlephSettings, clip: Path, order: store.Recipe, target: Path) -> None:
    """Have a clip edited, and keep its video in `target`; a task that was begun by just this order is continued.

    Raises LeftOut when the task has failed, InputError when the service refuses, or does not answer or finish.
    """
    from anyio.from_thread import start_blocking_portal

    for number in range(ATTEMPTS):
        time.sleep(PAUSE * 2 ** (number - 1) if number else 0)
        try:
            # Only the SDK's asynchronous wait ends when a task is cancelled; notebooks have an event loop of their own.
            with start_blocking_portal() as portal:
                return portal.call(_bought, settings, clip, order, target)
        except _Broken as error:
            why = str(error)
    raise InputError(f"{settings.base_url}: {why}: run again later, nothing is paid for twice.")


async def _bought(settings: RunwayAlephSettings, clip: Path, order: store.Recipe, target: Path) -> None:
    import runwayml

    ticket = target.with_suffix(".task.json")
    task = json.loads(ticket.read_text()) if ticket.is_file() else {}
    async with runwayml.AsyncRunwayML(
        api_key=keys.read(KEY).get_secret_value(),
        base_url=settings.base_url,
        timeout=settings.timeout,
        max_retries=ATTEMPTS - 1,
        http_client=runwayml.DefaultAsyncHttpxClient(
            follow_redirects=False,  # the key is for this host only
            event_hooks={"response": [_require_content]},
        ),
    ) as service:
        if task.get("key") != order.key:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "clip.mp4"
                video.write_viewing_copy(file, video.stream(clip), video.probe(clip).fps)
                sent = await _asked(service.uploads.create_ephemeral(file=file), settings)
            edit = {"model": settings.model, "prompt_text": settings.prompt, "video_uri": sent.uri}
            begun = await _asked(service.video_to_video.create(**edit, seed=order.seed), settings)
            task = {"key": order.key, "id": begun.id, "failure": None}
            ticket.parent.mkdir(parents=True, exist_ok=True)
            store.write_json(ticket, task)
        try:
            if task["failure"]:
                raise _Refused(task["failure"])
            link = await _finished(service, settings, task["id"])
        except _Refused as reason:
            store.write_json(ticket, task | {"failure": str(reason)})
            raise LeftOut(f"task {task['id']}: {reason}; delete {ticket} to buy it again.") from None
    with store.writing(target, order, task=task["id"]) as temporary:
        await _download(link, temporary, settings.timeout)


async def _finished(service: "runwayml.AsyncRunwayML", settings: RunwayAlephSettings, task: str) -> str:
    """The address of a task's video, once it is done; each call gives a fresh one, since they expire."""
    import runwayml

    found = await _asked(service.tasks.retrieve(task), settings)
    try:
        if found.status in WAITING:
            found = await _asked(found.wait_for_task_output(timeout=settings.patience), settings)
    except runwayml.TaskFailedError as error:
        found = error.task_details
    except runwayml.TaskTimeoutError:
        raise InputError(
            f"{settings.base_url} has not finished task {task} after {settings.patience:.0f} s: run again later, it "
            "is not paid for twice."
        ) from None
    if found.status != "SUCCEEDED":
        raise _Refused(keys.blotted(getattr(found, "failure_code", None) or found.status, keys.read(KEY)))
    return str(found.output[0])


async def _download(link: str, target: Path, timeout: float) -> None:
    """Fetch a video by a client that has no key, since results lie with somebody else."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=timeout, follow_redirects=True) as client:
            target.write_bytes((await client.get(link)).raise_for_status().content)
        video.probe(target)
    except (httpx.HTTPError, httpx.InvalidURL, InputError) as error:
        raise _Broken(f"a finished task's link leads to no video ({type(error).__name__})") from None


async def _asked(request: Awaitable[T], settings: RunwayAlephSettings) -> T:
    """What the SDK gives; its errors become sentences of ours, since the service's may quote the key."""
    import httpx
    import runwayml

    try:
        return await request
    except runwayml.APIStatusError as error:
        status, why, sent = error.status_code, f"HTTP {error.status_code}", error.request
    except runwayml.APIConnectionError as error:
        status, why, sent = 503, type(error.__cause__).__name__, error.request
    except httpx.HTTPError as error:
        raise _Broken(f"an upload fails ({type(error).__name__})") from None
    if sent.url.host != urlsplit(settings.base_url).hostname:
        raise _Broken(f"an upload fails ({why})")
    if status == 404 and sent.method == "GET":
        raise _Refused("the service does not know it any more")
    if status in (401, 403):
        raise InputError(f"{settings.base_url} refuses the key in {KEY} ({why}): set another.")
    if status < 500 and status not in (408, 409, 429):
        raise InputError(
            f"{settings.base_url} refuses the request ({why}): check baselines.runway_aleph.model, the size of the "
            "clips and the credit of the account."
        )
    raise InputError(
        f"{settings.base_url} gave no usable answer in {ATTEMPTS} attempts (the last: {why}): check its address and "
        "run again; what was bought is kept."
    )


async def _require_content(response: "httpx.Response") -> None:
    """Raise for a good status without the content that the SDK takes for granted, so that it asks again."""
    import httpx

    if response.is_success:
        found = keys.parsed(await response.aread())
        is_json = "json" in response.headers.get("Content-Type", "")
        body = found if is_json and isinstance(found, dict) else {}
        needed = ["id"]
        if response.request.method == "GET":
            needed = ["status", "output"] if body.get("status") == "SUCCEEDED" else ["status"]
        elif response.url.path.endswith("/uploads"):
            needed = ["runwayUri", "uploadUrl", "fields"]
        if not all(isinstance(body.get(name), str | list | dict) and body[name] for name in needed):
            raise httpx.DecodingError("an answer without what was asked for")
