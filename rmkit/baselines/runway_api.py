"""Runway's service through its Python SDK: a task submitted, waited for and downloaded, however badly it behaves (ours).

The SDK, runwayml, sends the requests. Its answers are taken raw and checked here, since it takes any body for a task;
it is told not to repeat a request, since endpoint.py says which statuses pass and how long to wait; and its own wait
for a task is not used, since a cancelled one does not end it. As SDK 5.24 has it, a data address is at most 5 MB, links
to results expire after 24 hours, and a task asked for again has fresh ones. Not known from there: what a request costs
whose answer got lost; it is sent again, as the SDK would. Reads RUNWAYML_API_SECRET, which goes into the header of
requests to the service and nowhere else: not to where results lie, into an exception, a log or an answer.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from rmkit.errors import InputError
from rmkit.kit import endpoint, video
from rmkit.kit.endpoint import Backoff, Unusable

if TYPE_CHECKING:
    import httpx
    import runwayml

KEY = "RUNWAYML_API_SECRET"
LARGEST = 5_000_000  # characters of a data address
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
    service: "runwayml.RunwayML" = field(repr=False)
    elsewhere: "httpx.Client" = field(repr=False)  # without the key
    key: SecretStr

    def submit(self, request: Mapping[str, Any]) -> str:
        """Have a video made, by the arguments of the SDK's `video_to_video.create`; returns the task's id."""
        create = self.service.video_to_video.with_raw_response.create
        return self._json(lambda: create(**request), _with_id)["id"]

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
        retrieve = self.service.tasks.with_raw_response.retrieve
        started, number = time.monotonic(), 0
        while True:
            body = self._json(lambda: retrieve(task), _with_status)
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
        self, request: Callable[[], "runwayml.APIResponse"], checked: Callable[[Any], dict]
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
    import runwayml

    key = endpoint.key(KEY)
    with (
        runwayml.RunwayML(
            api_key=key.get_secret_value(),
            base_url=base_url,
            timeout=timeout,
            max_retries=0,
            http_client=httpx.Client(),  # the SDK's own follows redirects
        ) as service,
        httpx.Client(timeout=timeout, follow_redirects=True) as elsewhere,
    ):
        yield Runway(endpoint.host_of(base_url), service, elsewhere, key)


def _sent(request: Callable[[], "runwayml.APIResponse"]) -> "httpx.Response":
    """The answer to one attempt, whatever its status."""
    import runwayml

    try:
        return request().http_response
    except runwayml.APIStatusError as error:
        return error.response  # the error itself repeats what the service says
    except runwayml.APIConnectionError as error:  # no connection, a timeout, a stream that breaks off
        raise Unusable(type(error.__cause__).__name__) from None  # its request holds the key


def _with_id(body: Any) -> dict:
    if not (isinstance(body, dict) and isinstance(body.get("id"), str) and body["id"]):
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
