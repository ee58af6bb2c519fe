"""The judge's endpoint: an OpenAI-compatible service that is asked for ratings, and what its answers are read as (ours).

Reads OPENAI_API_KEY; writes nothing. What is paid for is handed on as it came, with the key blotted out.
"""

import json
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rmkit.errors import InputError
from rmkit.kit import keys
from rmkit.profile import Judge

KEY = "OPENAI_API_KEY"
ATTEMPTS = 6  # requests for one rating, those that the SDK repeats included
UNREADABLE = 3  # answers without a rating to one question, or before the first that has one, that end a run
SHOWN = 120  # letters of such an answer that are shown
# Where an answer is no JSON: fenced, commented, or with words around it.
WRITTEN = re.compile(r"""["']rating["']\s*:\s*(?:["']?(-?\d+(?:\.\d+)?)["']?\s*(?=[,}\n#]|//|/\*))?""")
THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)  # what some models print before they answer
PAUSE = 1.0  # seconds before an unusable answer is asked for again; doubled each time


class Unreadable(InputError):
    """Answers came, and were paid for, and none holds a rating: they are kept as they are."""

    def __init__(self, said: str, bodies: list[dict]) -> None:
        super().__init__(said)
        self.bodies = bodies


class Stopped(Exception):
    """A request that was not sent, because another one was refused."""


class Endpoint:
    """The judge's endpoint by the `openai` SDK, shared by threads: what it refuses to one stops the requests of all."""

    def __init__(self, judge: Judge) -> None:
        import openai

        self.host, self.model, self.key = urlsplit(judge.base_url).netloc, judge.model, keys.read(KEY)
        self.stopped = threading.Event()
        self.unread, self.has_read = 0, False
        self._client = openai.OpenAI(
            api_key=self.key.get_secret_value(),
            base_url=judge.base_url,
            timeout=judge.timeout,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,  # the key is for this host only
                event_hooks={"request": [self._unless_stopped], "response": [self._unless_refused]},
            ),
        )

    def ask(self, request: Mapping[str, Any]) -> tuple[int | None, list[dict]]:
        """The rating in the answer (None: declined), and every body received, with the key blotted out.

        Raises InputError when the endpoint refuses the request, asks for too long a wait, or does not answer after all
        attempts; Unreadable when it answers without a rating; Stopped once `stopped` is set.
        The SDK repeats a request without an answer, and 408, 409, 429 and
        5xx, after the wait that Retry-After asks for; it gives up where that is longer than two minutes.
        """
        import openai

        bodies: list[dict] = []
        made = unread = 0
        while True:
            client = self._client.with_options(max_retries=ATTEMPTS - made - 1)
            try:
                answer = client.chat.completions.with_raw_response.create(**request)
            except (openai.APIStatusError, openai.APIConnectionError) as error:
                # Not passed on: it may quote the key.
                made += 1 + int(error.request.headers["x-stainless-retry-count"])
                why = type(error.__cause__).__name__
                if isinstance(error, openai.APIStatusError):
                    why = f"HTTP {error.status_code}"
                    if after := error.response.headers.get("Retry-After"):
                        why += f", Retry-After: {keys.blotted(after, self.key)}"
                break
            made += 1 + answer.retries_taken
            body = keys.blotted(keys.parsed(answer.text), self.key)
            bodies += [body] if isinstance(body, dict) else []
            try:
                rating = _rating(body)
                self.has_read = True
                return rating, bodies
            except ValueError as error:
                why = f"{error}: {_beginning(body)}"
            if isinstance(body, dict):  # else a gateway's page
                unread, self.unread = unread + 1, self.unread + 1
            if unread >= UNREADABLE or (self.unread >= UNREADABLE and not self.has_read):
                raise Unreadable(
                    f"{self.host} answers, and no rating can be read (the last: {why}): '{self.model}' must answer by a JSON "
                    "schema. What came is kept in judge/; choose another model, and run again.",
                    bodies,
                )
            if made >= ATTEMPTS:
                break
            if self.stopped.wait(PAUSE * 2 ** (made - 1)):
                raise Stopped
        if made < ATTEMPTS:
            raise InputError(
                f"{self.host} asks for a longer wait ({why}): run again then; what was answered is kept."
            )
        raise InputError(
            f"{self.host} gave no usable answer in {made} attempts (the last: {why}): check its address and model "
            f"('{self.model}') and run again; what was answered is kept."
        )

    def _unless_stopped(self, _: Any) -> None:
        if self.stopped.is_set():
            raise Stopped

    def _unless_refused(self, response: Any) -> None:
        """Raise InputError for an answer that no repeat will change; what it says may quote the key."""
        status = response.status_code
        if status == 429 and b"insufficient_quota" in response.read():
            raise InputError(f"the account behind {KEY} at {self.host} has no credit left (HTTP 429).")
        if status in (401, 403):
            raise InputError(f"{self.host} refuses the key in {KEY} (HTTP {status}): set another, or none.")
        if 300 <= status < 500 and status not in (408, 409, 429):
            raise InputError(
                f"{self.host} refuses the request (HTTP {status}): check its address and model; "
                f"'{self.model}' must take pictures and answer by a JSON schema."
            )


def _rating(body: Any) -> int | None:
    """The integer 1..10 in an answer, None when the model declines to rate; raises ValueError for anything else.

    Where the answer is not the JSON that was asked for, but fenced, commented or among words, its one rating counts.
    """
    try:
        choice = body["choices"][0]
        if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
            return None
        text = choice["message"]["content"]
        if isinstance(text, list):  # parts, as some servers answer
            text = "".join(part.get("text", "") for part in text)
        text = THOUGHT.sub("", text)
        given = keys.parsed(text, _once)
        written = set(WRITTEN.findall(text)) if given is None else {given["rating"]}
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("an answer without a rating") from None
    if not written:
        raise ValueError("an answer without a rating")
    if len(written) > 1:
        raise ValueError("an answer with several ratings")
    rating = written.pop()
    if isinstance(rating, str) and re.fullmatch(r"\d+(\.0+)?", rating):
        rating = float(rating)
    # JSON's true would pass as a number.
    if type(rating) not in (int, float) or not 1 <= rating <= 10 or rating != int(rating):
        raise ValueError("a rating that is no integer from 1 to 10")
    return int(rating)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError for one that rates twice, of which the last would count without a word."""
    if [key for key, _ in pairs].count("rating") > 1:
        raise ValueError("several ratings")
    return dict(pairs)


def _beginning(body: Any) -> str:
    """The first letters of what an answer says, or of the whole of it."""
    try:
        said = str(body["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError, AttributeError):
        said = json.dumps(body)
    said = " ".join(said.split())
    return repr(said if len(said) <= SHOWN else said[:SHOWN] + "...")
