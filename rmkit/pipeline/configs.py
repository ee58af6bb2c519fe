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
# The classes whose passes the kit counts, by the part of a pipeline that they are.
COUNTED = {
    "transformer": ("WanTransformer3DModel", "WanVACETransformer3DModel", "QwenImageTransformer2DModel"),
    "vae": ("AutoencoderKLWan", "AutoencoderKLQwenImage"),
    "text_encoder": ("UMT5EncoderModel", "Qwen2_5_VLForConditionalGeneration"),
}


class Config(dict[str, Any]):
    """The content of a JSON file; a key that it lacks is an InputError."""

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.file} has no {key}, so the model is not counted.")


def counted(name: str, what: str) -> Config:
    """The config of a part whose passes are to be counted; InputError where its class is none of those known."""
    config = part(name, what)
    known, found = COUNTED[what], config.get("_class_name") or config.get("architectures", [None])[0]
    if found not in known:
        raise InputError(f"{name} is not counted: its {what} is a {found}, none of {', '.join(known)}.")
    return config


def index(name: str) -> Config:
    """A pipeline's model_index.json."""
    return part(name, INDEX)


def part(name: str, what: str = "model") -> Config:
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
def _read(file: Path) -> Config:
    try:
        return Config(file, json.loads(file.read_text()))
    except (FileNotFoundError, NotADirectoryError):  # the latter: a model in one file, as ONNX
        raise InputError(f"{file} does not exist: copy the model there or correct the profile.") from None
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}); copy the model again.") from None
