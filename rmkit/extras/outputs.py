"""Where what is made of a user's videos goes, and that nothing of the user's is replaced by it (ours).

Reads folders, sidecars and the files that stand where an output would go; writes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rmkit.errors import InputError
from rmkit.extras import rewrite
from rmkit.kit import footage, store

PREVIEW = ".preview.mp4"
STAGE = "own video"
LONGEST = 200  # bytes of a name; file systems take 255, and temporary files have longer ones


class Place(NamedTuple):
    """A video of the user's and the file that is made of it."""

    source: Path
    out: Path

    @property
    def preview(self) -> Path:
        """Both side by side."""
        return preview_of(self.out)

    @property
    def written(self) -> tuple[Path, Path, Path]:
        """All that is written: the output, its preview and its sidecar."""
        return self.out, self.preview, store.sidecar_of(self.out)


def preview_of(out: Path) -> Path:
    return out.with_name(out.stem + PREVIEW)


def places(source: Path, target: Path) -> list[Place]:
    """Input and output of a video or a folder of them; InputError where there is nothing to read or two would be one."""
    if source.is_dir():
        if target.is_file() or target.suffix.lower() in rewrite.FORMATS:
            raise InputError(f"{source} is a folder, so {target} must be one too.")
        found = videos(source)
        if not found:
            raise InputError(f"{source} holds no video ({', '.join(footage.ENDINGS)}).")
        made = [Place(path, target / f"{path.stem}.mp4") for path in found]
    else:
        made = [Place(source, target / f"{source.stem}.mp4" if target.is_dir() else target)]
    for place in made:
        footage.require_name(place.out)
        if len(place.out.name.encode()) > LONGEST:
            raise InputError(
                f"{place.out} has a name of more than {LONGEST} bytes, too long with what is added to it: name another output."
            )
    files = [path for place in made for path in place.written]
    if twice := [path.name for path, count in Counter(files).items() if count > 1]:
        raise InputError(
            f"{source} holds two videos whose outputs would have one name ({twice[0]}): rename one."
        )
    return made


def videos(folder: Path) -> list[Path]:
    """The videos of a folder by name, without hidden files, which systems leave there, and the kit's previews."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in footage.ENDINGS)
    names = {path.name for path in found}

    def is_preview(path: Path) -> bool:
        of = {path.name.removesuffix(PREVIEW) + ending for ending in rewrite.FORMATS}
        return path.name.endswith(PREVIEW) and bool(of & names) and rewrite.is_made(path)

    return [path for path in found if path.is_file() and path.name[0] != "." and not is_preview(path)]


def protect(made: Sequence[Place], force: bool = False) -> None:
    """Raise InputError where writing would replace an input, or without `force` a file that the kit has not made."""
    for place in made:
        for path in place.written:
            for other in made:
                if path.exists() and other.source.exists() and path.samefile(other.source):
                    raise InputError(
                        f"{other.source} would be written over by what is made of {place.source.name}: give another output."
                    )
            if path.exists() and not force and not _is_kits(path, place.out):
                raise InputError(
                    f"{path} exists and was not made by the kit: name another output, or give --force to replace it."
                )


def record(out: Path, files: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Facts for the sidecar of `out`: what was written, by name, so that it is known again; the first may be temporary."""
    names = [out.name, *(path.name for path in files[1:])]
    return {"files": {name: store.fingerprint(path) for name, path in zip(names, files, strict=True)}}


def _is_kits(path: Path, out: Path) -> bool:
    side = store.read_sidecar(out)
    if not isinstance(side, dict) or side.get("stage") != STAGE:
        # Killed before its sidecar was written, a file of the kit's tells by its comment.
        return rewrite.is_made(path)
    if path == store.sidecar_of(out):
        return True
    known = side.get("files")
    return known is None or (path.is_file() and known.get(path.name) == store.fingerprint(path))
