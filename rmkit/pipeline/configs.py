"""A model's config.json, part by part, without its weights (ours).

Reads a local folder's own; of a hub's name the copy in model_configs/ (SOURCES.md there says from where), else the
cached file: the hub is not asked. Writes nothing.
"""

import functools
import json
from pathlib import Path
from typing import Any

from rmkit.errors import InputError
from rmkit.kit import weights
from rmkit.paths import resolve

SHIPPED = Path(__file__).parent / "model_configs"
INDEX, TOKENIZER = "model_index", "tokenizer"


def index(name: str) -> dict[str, Any]:
    """A pipeline's model_index.json."""
    return part(name, INDEX)


def part(name: str, what: str = "model") -> dict[str, Any]:
    """The config of a part of a pipeline; "model": of a folder that is one model.

    Raises InputError where neither folder, copy nor cache has it.
    """
    single = {INDEX: "model_index.json", "model": "config.json", TOKENIZER: "tokenizer/tokenizer_config.json"}
    file = single.get(what, f"{what}/config.json")
    if not weights.is_hub_name(name):
        return _read(resolve(name) / file)
    shipped = SHIPPED / weights.repository(name).replace("/", "--")
    if shipped.is_dir():
        return _read(shipped / f"{what}.json")
    from huggingface_hub import hf_hub_download

    repository, _, revision = name.partition("@")
    try:
        return _read(
            Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=True))
        )
    except OSError:
        raise InputError(
            f"{name} is not counted: its {file} is not in the hub's cache (`hf download {repository} --include '*.json'`)."
        ) from None


def has(name: str, what: str) -> bool:
    """Whether a pipeline has that part."""
    try:
        listed = index(name).get(what)
    except InputError:
        listed = None
    if listed is not None:
        return listed[0] is not None
    try:
        return bool(part(name, what))
    except InputError:
        return False


@functools.cache
def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):  # the latter: a model in one file, as ONNX
        raise InputError(f"{file} does not exist: copy the model there or correct the profile.") from None
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}); copy the model again.") from None
