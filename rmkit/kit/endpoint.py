"""An OpenAI-compatible endpoint: one request in, one usable answer out, however badly it behaves (ours).

Reads the key in OPENAI_API_KEY; writes nothing. The key is in the request's header and nowhere else: not in an
exception, a log or an answer, even where the endpoint quotes it.
"""

import email.utils
import json
import math
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from rmkit.errors import InputError

if TYPE_CHECKING:
    import httpx

KEY = "OPENAI_API_KEY"
SECRET = 8  # letters; a shorter key (a local server's "EMPTY") is no secret, and could be part of any answer
T = TypeVar("T")


class Unusable(Exception):
    """An attempt that failed and may succeed later; `after` is the wait the endpoint asks for, in seconds."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Stopped(Exception):
    """The request was not made, or not made again, because another one was refused."""


@dataclass(frozen=True)
class Backoff:
    """How patiently is asked again: waits double from `first` to `most` seconds, with jitter."""

    attempts: int = 6
    first: float = 1.0
    most: float = 60.0
    longest: float = 300.0  # an endpoint that asks for a longer wait ends the run

    def wait(self, attempt: int, after: float | None = None) -> float:
        """Seconds before the next attempt; jitter, so that requests refused together do not come back together."""
        if after is not None:
            return after
        return min(self.most, self.first * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Endpoint:
    """A connection that threads may share; made by `connect`."""

    host: str
    client: "httpx.Client" = field(repr=False)
    key: SecretStr
    backoff: Backoff
    stopped: threading.Event = field(default_factory=threading.Event)

    def ask(self, request: Mapping[str, Any], read: Callable[[dict], T]) -> tuple[T, list[dict]]:
        """What `read` finds in the answer, and every body received, the last being the one that counts.

        `read` raises Unusable to have the request repeated. Raises InputError when the endpoint refuses it, asks for
        too long a wait, or has given nothing usable after all attempts; the other threads' requests are Stopped then.
        """
        try:
            return self._ask(request, read)
        except InputError:
            self.stop()
            raise

    def stop(self) -> None:
        """Have no request begun or repeated any more; those under way come to their end."""
        self.stopped.set()

    def _ask(self, request: Mapping[str, Any], read: Callable[[dict], T]) -> tuple[T, list[dict]]:
        bodies: list[dict] = []

        def attempt() -> tuple[T, list[dict]]:
            bodies.append(self._post(request))
            return read(bodies[-1]), bodies

        advice = f"check its address and model ('{request['model']}')"
        return patiently(attempt, self.backoff, self.host, advice, self.stopped)

    def _post(self, request: Mapping[str, Any]) -> dict:
        """One attempt; returns the body with the key blotted out."""
        import httpx

        try:
            response = self.client.post("chat/completions", json=request)
        except httpx.RequestError as error:  # no connection, a timeout, a stream that breaks off
            raise Unusable(type(error).__name__) from None  # its request holds the key
        status = response.status_code
        if status == 429 and "insufficient_quota" in response.text:
            raise InputError(f"the account behind {KEY} at {self.host} has no credit left (HTTP 429).")
        raise_if_passing(response)
        # What the endpoint says about a refusal is not repeated: it may quote the key.
        if status in (401, 403):
            raise InputError(f"{self.host} refuses the key in {KEY} (HTTP {status}): set another, or none.")
        if status >= 300:
            raise InputError(
                f"{self.host} refuses the request (HTTP {status}): check its address and model; "
                f"'{request['model']}' must take pictures and answer by a JSON schema."
            )
        body = parsed(response.text)
        if not isinstance(body, dict):
            raise Unusable("an answer that is not JSON")
        return without_key(body, self.key)


@contextmanager
def connect(
    base_url: str, key: SecretStr, connections: int, timeout: float, backoff: Backoff
) -> Iterator[Endpoint]:
    """An endpoint with at most so many connections; `timeout` in seconds for each step of a request."""
    import httpx

    with httpx.Client(
        base_url=base_url,
        headers={"Authorization": f"Bearer {key.get_secret_value()}"},
        timeout=timeout,
        limits=httpx.Limits(max_connections=connections),
    ) as client:
        yield Endpoint(host_of(base_url), client, key, backoff)


def patiently(
    attempt: Callable[[], T], backoff: Backoff, host: str, advice: str, stopped: threading.Event
) -> T:
    """What `attempt` returns, tried again for as long as it raises Unusable.

    Raises InputError when the host asks for too long a wait or all attempts are spent, Stopped once `stopped` is set.
    """
    why, wait = "", 0.0
    for number in range(1, backoff.attempts + 1):
        if stopped.wait(wait):
            raise Stopped
        try:
            return attempt()
        except Unusable as error:
            why, wait = str(error), backoff.wait(number, error.after)
        if wait > backoff.longest:
            raise InputError(
                f"{host} asks for a wait of {wait:.0f} s ({why}): run again then; what was answered is kept."
            )
    raise InputError(
        f"{host} gave no usable answer in {backoff.attempts} attempts (the last: {why}): {advice} and run "
        "again; what was answered is kept."
    )


def raise_if_passing(response: "httpx.Response") -> None:
    """Raise Unusable for the statuses that may be gone the next time."""
    status = response.status_code
    if status in (408, 409, 425, 429) or status >= 500:
        raise Unusable(f"HTTP {status}", retry_after(response.headers.get("Retry-After")))


def without_key(body: dict, key: SecretStr) -> dict:
    """A JSON body with the key blotted out, wherever it is quoted."""
    text = key.get_secret_value()
    if len(text) < SECRET:
        return body
    return json.loads(json.dumps(body).replace(json.dumps(text)[1:-1], "[key]"))


def host_of(base_url: str) -> str:
    """Host and port of an address."""
    return urlsplit(base_url).netloc


def has_key(name: str = KEY) -> bool:
    """Whether the environment has a key in the variable `name`."""
    return bool(os.environ.get(name, "").strip())


def key(name: str = KEY) -> SecretStr:
    """The key in a wrapper that does not print it; raises InputError when it cannot be one."""
    text = os.environ.get(name, "").strip()
    # An HTTP client quotes a header that it refuses to send, and the key with it.
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise InputError(f"{name} holds something that is no key: a space, a line break or a foreign letter.")
    return SecretStr(text)


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After asks for, as a number or a date (RFC 9110, 10.2.3); None when it says nothing."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def parsed(text: Any) -> Any:
    """What a text holds as JSON, None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
