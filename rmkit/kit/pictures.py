"""What picture files say of themselves, without decoding them: their size, and whether their end is there (ours).

Reads headers and the last bytes; writes nothing. A data set is looked through so before hours are spent on it.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from rmkit.errors import InputError

TAIL = 1024  # bytes in which a file's end mark is looked for
END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}


def one_size(paths: Iterable[Path], of: str) -> tuple[int, int] | None:
    """(height, width) of all of `paths`, None without any; `of`: what they are the pictures of, for the sentence.

    Raises InputError for a picture that is missing, of another size than the first, cut short, or no picture.
    """
    first: tuple[Path, tuple[int, int]] | None = None
    for path in paths:
        found = size(path)
        first = first or (path, found)
        if found != first[1]:
            raise InputError(
                f"{path} has {found[1]}x{found[0]} pixels and {first[0].name} has {first[1][1]}x{first[1][0]} (width x "
                f"height): the pictures of {of} must be of one size."
            )
    return first[1] if first else None


def size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels; raises InputError for a file that is missing, cut short, or no picture."""
    try:
        with path.open("rb") as file:
            with Image.open(file) as picture:
                width, height = picture.size
                kind = picture.format
            if _is_cut_short(file, kind):
                raise InputError(f"{path} is not a readable picture (it is cut short): copy it again.")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} is not a readable picture ({error}).") from None
    return height, width


def _is_cut_short(file, kind: str | None) -> bool:
    """Whether the end of a PNG, JPEG or plain BMP is missing; of other formats nothing is said."""
    total = file.seek(0, os.SEEK_END)
    if kind in END_MARKS:
        file.seek(max(0, total - TAIL))
        return END_MARKS[kind] not in file.read()
    file.seek(0)
    head = file.read(34)
    if kind != "BMP" or len(head) < 34:
        return False
    pixels, _, width, height, _, bits, compression = struct.unpack("<IIiiHHI", head[10:34])
    row = (width * bits + 31) // 32 * 4  # bytes
    return compression == 0 and total < pixels + row * abs(height)
