"""Model folders: where a profile's models are, on disk or on the hub, and whether they are whole.

Serves every model of the paper and its metrics; reads configs and the headers of weights, loads and writes nothing.
A model is asked for by its name and the key under which the profile gives that name. A name is a folder or one of the
hub's: `owner/name`, or `owner/name@revision` for another revision than `main` (a branch, a tag, a commit, `refs/pr/7`).
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rmkit.errors import InputError
from rmkit.kit import store
from rmkit.paths import resolve


def is_hub_name(name: str) -> bool:
    """Whether a model is named as on the hub (owner/name, owner/name@revision) and cannot be meant as a folder here."""
    named_so = bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", name))
    return named_so and not resolve(name).exists() and not resolve(name).parent.is_dir()


def repository(name: str) -> str:
    """A hub name without its revision, as from_pretrained takes it."""
    return name.partition("@")[0]


def hub_snapshot(name: str, file: str) -> tuple[Path, str]:
    """(cached folder, commit) of a hub repository that holds `file`; InputError when out of reach."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    at = repository(name), file
    revision = name.partition("@")[2] or "main"
    found = try_to_load_from_cache(*at, revision=revision)
    if not isinstance(found, str):
        if _is_offline():
            raise InputError(
                f"model {name} is not a folder, is not in the local cache, and the hub is switched off "
                "(HF_HUB_OFFLINE): download it first, or name a folder in the profile."
            )
        try:
            found = hf_hub_download(*at, revision=revision)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise InputError(
                f"model {name} is not a folder and the hub does not give it "
                f"({type(error).__name__}): check the name, the network and your access."
            ) from None
    root = Path(found).parents[file.count("/")]
    return root, root.name


@functools.cache
def hub_files(name: str, root: Path, commit: str) -> frozenset[str]:
    """The files of a hub repository at a commit; of the cached snapshot `root` where the hub is out of reach."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not _is_offline():
        try:
            return frozenset(HfApi().list_repo_files(repository(name), revision=commit))
        except (HfHubHTTPError, OSError):
            pass
    return frozenset(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def where(name: str, file: str) -> Path:
    """The folder of a model, or the cached snapshot of a hub name that holds `file`."""
    return hub_snapshot(name, file)[0] if is_hub_name(name) else resolve(name)


def lora_file(key: str, name: str, file: str) -> tuple[Path, str]:
    """(path, fingerprint) of a LoRA in a folder, or of a hub name in the cache; `key` is where the profile names the model.

    Raises InputError when it is out of reach.
    """
    if is_hub_name(name):
        root, commit = hub_snapshot(name, file)
        return root / file, f"{commit}/{file}"
    path = resolve(name) / file
    if not path.is_file():
        raise InputError(f"{key} is {name}, and {path} does not exist: get the LoRA or correct the profile.")
    return path, store.fingerprint(path)


def part_folder(name: str, part: str) -> Path:
    """The folder of one part of a pipeline; of a hub name, that part's files in the cache, without asking the hub for what is there.

    transformers, given a hub name, asks for files that no pipeline's tokenizer has, and fails where the hub is switched off.
    """
    if not is_hub_name(name):
        return resolve(name) / part
    from huggingface_hub import snapshot_download

    _, commit = hub_snapshot(name, "model_index.json")
    return Path(snapshot_download(repository(name), revision=commit, allow_patterns=f"{part}/*")) / part


def pipeline_folder(
    key: str, name: str, optional: Collection[str] = ("processor",)
) -> tuple[Path, str | None]:
    """(folder, None) of a complete diffusers pipeline on disk, or (cached snapshot, commit) of a hub name.

    key: where the profile names it; optional: parts that may be absent though model_index.json lists them. Raises
    InputError when it is not there, or a part is missing or truncated.
    """
    if is_hub_name(name):
        root, commit = hub_snapshot(name, "model_index.json")
        for part, origin in _parts(root).items():
            if _has_weights(origin[1]):
                _require_safetensors(key, name, root, commit, f"{part}/")
        return root, commit
    root = _existing(key, name)
    for part, origin in _parts(root).items():
        folder = root / part
        if not folder.is_dir():
            if part not in optional:
                raise InputError(
                    f"{key}: {root} lacks its {part} folder, which model_index.json lists; copy the model again."
                )
            continue
        _check_json(folder, key)
        if (folder / "config.json").is_file() or _has_weights(origin[1]):
            check_weights(folder, key)
    return root, None


def single(key: str, name: str) -> tuple[str, str | None]:
    """(folder, None) or (hub name, commit) of one transformers model with its preprocessor.

    `key` is where the profile names it; raises InputError when it is not there, or not whole.
    """
    if is_hub_name(name):
        root, commit = hub_snapshot(name, "config.json")
        _require_safetensors(key, name, root, commit)
        return repository(name), commit
    folder = _existing(key, name)
    check_weights(folder, key)
    _check_json(folder, key)
    if not (folder / "preprocessor_config.json").is_file():
        raise InputError(f"{key}: {folder} has no preprocessor_config.json; copy it again.")
    return str(folder), None


def single_config(key: str, name: str) -> tuple[str, dict[str, Any]]:
    """(folder or hub name, config.json) of one transformers model; InputError as `single`, or for broken JSON."""
    found, _ = single(key, name)
    return found, _json(key, where(name, "config.json") / "config.json")


def _check_json(folder: Path, what: str) -> None:
    """Raise InputError for a JSON file in a model's folder (config, tokenizer, scheduler) that is damaged."""
    for file in folder.glob("*.json"):
        _check_json_once(what, file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _check_json_once(what: str, file: Path, mtime_ns: int) -> None:
    """Models are checked often, and the vocabulary of a large tokenizer takes half a second to parse."""
    _json(what, file)


def _json(what: str, file: Path, *keys: str) -> Any:
    """What a JSON file of a model holds; InputError where it is none, or is a config without these keys."""
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{what}: {file} is not valid JSON ({error}); copy the model again.") from None
    is_config = file.name.endswith(("config.json", "index.json"))
    if is_config and not (isinstance(found, dict) and found.keys() >= set(keys)):
        raise InputError(f"{what}: {file} has no {', '.join(keys) or 'keys'}; copy the model again.")
    return found


def check_weights(folder: Path, what: str) -> None:
    """Raise InputError unless a model's folder has a config and whole safetensors files."""
    from safetensors import SafetensorError, safe_open

    if not (folder / "config.json").is_file():
        raise InputError(f"{what}: {folder} has no config.json; copy the model there or correct the profile.")
    expected = {file.name for file in folder.glob("*.safetensors")}
    for listing in folder.glob("*.safetensors.index.json"):
        expected |= set(_json(what, listing, "weight_map")["weight_map"].values())
    if not expected:
        raise InputError(f"{what}: {folder} has no *.safetensors file; other formats are not read.")
    for name in sorted(expected):
        try:
            safe_open(folder / name, framework="numpy")  # compares the file's length with its header's
        except (OSError, SafetensorError):
            raise InputError(f"{what}: {folder / name} is missing or truncated; copy it again.") from None


def pipeline_index(root: Path) -> dict[str, Any]:
    """A pipeline's model_index.json; InputError when there is none that can be read."""
    file = root / "model_index.json"
    if not file.is_file():
        raise InputError(f"{root} has no model_index.json: it is not a diffusers pipeline folder.")
    return _json(root.name, file, "_class_name")


def pipeline_fingerprint(key: str, name: str) -> str:
    """Content hash of a diffusers pipeline, for a hub name its commit; InputError as `pipeline_folder`."""
    root, commit = pipeline_folder(key, name)
    return commit or content(root)


def single_fingerprint(key: str, name: str) -> str:
    """Content hash of one transformers model, for a hub name its commit; InputError as `single`."""
    folder, commit = single(key, name)
    return commit or content(Path(folder))


def content(folder: Path) -> str:
    """Content hash of a model or a pipeline, 32 characters, whatever card or sheet lies beside it."""
    seen = (p for p in sorted(folder.iterdir()) if p.name[0] != ".")
    read = [p for p in seen if p.is_dir() or p.suffix in (".json", ".safetensors")]
    prints = [f"{p.name}={store.fingerprint(p)}" for p in read if p.name != "card.json"]
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()[:32]


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") == "1"


def _parts(root: Path) -> dict[str, list[str]]:
    """A pipeline's parts with library and class; [null, null] marks one that it goes without."""
    index = pipeline_index(root).items()
    return {
        name: origin for name, origin in index if name[0] != "_" and isinstance(origin, list) and origin[0]
    }


def _has_weights(kind: str) -> bool:
    return any(word in kind for word in ("Model", "Encoder", "Autoencoder"))


def _require_safetensors(key: str, name: str, root: Path, commit: str, folder: str = "") -> None:
    files = hub_files(name, root, commit)
    if not any(file.startswith(folder) and file.endswith(".safetensors") for file in files):
        raise InputError(
            f"{key}: {name} has no *.safetensors file in {folder or 'its folder'} at commit {commit[:12]}, and other "
            f"formats are not read: name a revision that has one, as {repository(name)}@REVISION."
        )


def knows(folder: Path) -> str:
    """The one world that the model of a folder knows, as the card beside it says; '' where no card says so."""
    try:
        card = json.loads((folder / "card.json").read_text())
    except (OSError, ValueError):
        return ""
    return str(card.get("knows", "")) if isinstance(card, dict) else ""


def _existing(key: str, name: str) -> Path:
    folder = resolve(name)
    if not folder.is_dir():
        raise InputError(
            f"{key} is {name}, and {folder} does not exist: get the model or correct the profile."
        )
    return folder
