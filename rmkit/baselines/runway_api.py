"""Runway's HTTP interface: a task submitted, waited for and downloaded, however badly the service behaves (ours).

As its own Python SDK 5.13 of July 2026 has it: POST /v1/video_to_video with a video as a data address of at most 16 MB,
GET /v1/tasks/<id>, the header X-Runway-Version; links to results expire after 24 hours and a task asked for again has
fresh ones. Which statuses pass is as endpoint.py has it. Not known from there: what a request costs whose answer got
lost; it is sent again, as the SDK does. Reads RUNWAYML_API_SECRET, which goes into the header of requests to the
service and nowhere else: not to where results lie, into an exception, a log or an answer.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from rmkit import endpoint, video
from rmkit.endpoint import Backoff, Unusable
from rmkit.errors import InputError

if TYPE_CHECKING:
    import httpx

KEY = "RUNWAYML_API_SECRET"
API_VERSION = "2024-11-06"
LARGEST = 16_000_000  # characters of a data address
WAITING = ("PENDING", "THROTTLED", "RUNNING")
LINKS = 3  # fresh links asked for, each of which may have expired
REQUESTS = Backoff()
POLLS = Backoff(first=5.0, most=30.0)  # Runway asks for five seconds or more
T = TypeVar("T")


class Refused(Exception):
    """A task that the service has failed or cancelled, by its code."""


class _Expired(Exception):
    """A link that is no longer served."""


@dataclass(frozen=True)
class Runway:
    """A connection to the service; made by `connect`."""

    host: str
    service: "httpx.Client" = field(repr=False)
    elsewhere: "httpx.Client" = field(repr=False)  # without the key
    key: SecretStr

    def submit(self, request: Mapping[str, Any]) -> str:
        """Have a video made; returns the task's id."""
        body = self._json(lambda: self.service.post("v1/video_to_video", json=request), _with_id)
        return body["id"]

    def download(self, task: str, target: Path, patience: float) -> None:
        """Wait until the task is done and write its video.

        Raises Refused when it fails, InputError when it takes longer than `patience` seconds or cannot be fetched.
        """
        for _ in range(LINKS):
            link = self._finished(task, patience)
            try:
                self._again(lambda link=link: self._fetch(link, target))
                return
            except _Expired:
                continue
        raise InputError(f"{self.host} gives links to task {task} that are not served: run again later.")

    def _finished(self, task: str, patience: float) -> str:
        """The link to a task's result, once there is one."""
        started, number = time.monotonic(), 0
        while True:
            body = self._json(lambda: self.service.get(f"v1/tasks/{task}"), _with_status)
            if body["status"] == "SUCCEEDED":
                return body["output"][0]
            if body["status"] not in WAITING:
                raise Refused(str(body.get("failureCode") or body["status"]))
            number += 1
            wait = POLLS.wait(number)
            if time.monotonic() - started + wait > patience:
                raise InputError(
                    f"{self.host} has not finished task {task} after {patience:.0f} s: run again later, it is "
                    "not paid for twice."
                )
            time.sleep(wait)

    def _json(
        self, request: Callable[[], "httpx.Response"], checked: Callable[[Any], dict]
    ) -> dict[str, Any]:
        """The body of an answer, asked for until `checked` takes it; the key is blotted out."""

        def attempt() -> dict:
            response = _sent(request)
            status = response.status_code
            endpoint.raise_if_passing(response)
            # What the service says about a refusal is not repeated: it may quote the key.
            if status in (401, 403):
                raise InputError(f"{self.host} refuses the key in {KEY} (HTTP {status}): set another.")
            if status == 404 and response.request.method == "GET":
                raise Refused("the service does not know it any more")
            if status >= 300:
                raise InputError(
                    f"{self.host} refuses the request (HTTP {status}): check baselines.runway_aleph.model, the size "
                    "of the clips and the credit of the account."
                )
            return endpoint.without_key(checked(endpoint.parsed(response.text)), self.key)

        return self._again(attempt)

    def _fetch(self, link: str, target: Path) -> None:
        """One attempt at a download; what is no whole video counts as none."""
        import httpx

        try:
            with self.elsewhere.stream("GET", link) as response:
                endpoint.raise_if_passing(response)
                if response.status_code >= 300:
                    raise _Expired
                with target.open("wb") as file:
                    for block in response.iter_bytes():
                        file.write(block)
            video.probe(target)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise Unusable(type(error).__name__) from None
        except InputError:
            raise Unusable("a file that is no video") from None

    def _again(self, attempt: Callable[[], T]) -> T:
        return endpoint.patiently(attempt, REQUESTS, self.host, "check its address", threading.Event())


@contextmanager
def connect(base_url: str, timeout: float) -> Iterator[Runway]:
    """The service at an address; `timeout` in seconds for each step of a request."""
    import httpx

    key = endpoint.key(KEY)
    headers = {"Authorization": f"Bearer {key.get_secret_value()}", "X-Runway-Version": API_VERSION}
    with (
        httpx.Client(base_url=base_url, headers=headers, timeout=timeout) as service,
        httpx.Client(timeout=timeout, follow_redirects=True) as elsewhere,
    ):
        yield Runway(endpoint.host_of(base_url), service, elsewhere, key)


def _sent(request: Callable[[], "httpx.Response"]) -> "httpx.Response":
    import httpx

    try:
        return request()
    except httpx.RequestError as error:  # no connection, a timeout, a stream that breaks off
        raise Unusable(type(error).__name__) from None  # its request holds the key


def _with_id(body: Any) -> dict:
    if not (isinstance(body, dict) and isinstance(body.get("id"), str)):
        raise Unusable("an answer without a task")
    return body


def _with_status(body: Any) -> dict:
    if not (isinstance(body, dict) and isinstance(body.get("status"), str)):
        raise Unusable("an answer without a status")
    links = body.get("output")
    if body["status"] == "SUCCEEDED" and not (
        isinstance(links, list) and links and isinstance(links[0], str)
    ):
        raise Unusable("a finished task without a link")
    return body
