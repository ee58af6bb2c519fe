"""Keys of paid services: read from the environment, checked, and blotted out of what is stored (ours).

A key goes into the header of requests and nowhere else: not into an exception, a log or an answer that is kept, even
where the service quotes it. Reads environment variables; writes nothing.
"""

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import SecretStr

from rmkit.errors import InputError

SECRET = 8  # letters; a shorter key (a local server's "EMPTY") is no secret, and could be part of any answer
T = TypeVar("T")


def present(variable: str) -> bool:
    """Whether the environment has a key in `variable`."""
    return bool(os.environ.get(variable, "").strip())


def read(variable: str) -> SecretStr:
    """The key in a wrapper that does not print it; raises InputError when it cannot be one."""
    text = os.environ.get(variable, "").strip()
    # An HTTP client quotes a header that it refuses to send, and the key with it.
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise InputError(
            f"{variable} holds something that is no key: a space, a line break or a foreign letter."
        )
    return SecretStr(text)


def blotted(content: T, key: SecretStr) -> T:
    """JSON content with the key replaced by "[key]", wherever it is quoted."""
    text = key.get_secret_value()
    if len(text) < SECRET:
        return content
    return json.loads(json.dumps(content).replace(json.dumps(text)[1:-1], "[key]"))


def parsed(text: Any, made: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a service's text holds as JSON, None when it is none; made: what an object's keys and values become."""
    try:
        return json.loads(text, object_pairs_hook=made)
    except (ValueError, TypeError, RecursionError):
        return None
