"""Names of files for keys, which may be any text: safe on every file system, and never outside a folder."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from rsprune.sources.formats import IMAGE_EXTENSIONS

__all__ = ["file_stems", "split_extension"]

#: Characters that a file system refuses or a program may take for something else; ``%`` begins what stands for them.
UNSAFE = frozenset('%"*:<>?\\|')
#: Names of devices on Windows, with any extension.
DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|\Z)")
#: Bytes of a part of a path, and of a path: an extension and what a temporary file adds have room.
LONGEST_PART, LONGEST_PATH = 180, 900


def file_stems(keys: Sequence[str], *, flat: bool = False) -> list[str]:
    """Return a path below a folder for each key, without the extension of an image.

    Characters that are not safe are written as in an address: ``..`` is ``%2E.``, and an empty part is ``%``. A part
    that is too long is cut. Of keys that would be one file, also where capitals do not matter, all but the first get a
    mark, and so do those that were cut: ``~`` and 16 digits that depend on the key alone.

    Parameters
    ----------
    keys
        The keys, all different.
    flat
        Whether names have neither folders nor dots: in a tar file folders may be taken for classes, and a dot ends the
        key.
    """
    paths = [_path(split_extension(key)[0], flat) for key in keys]
    # A file must not take the place of a folder; its extension is not known yet.
    taken = {_fold(split_extension(folder)[0]) for path in paths for folder in _folders(path)}
    found = []
    for key, path in zip(keys, paths, strict=True):
        if (folded := _fold(path)) in taken:
            path = _marked(path, key)
            folded = _fold(path)
        taken.add(folded)
        found.append(path)
    return found


def split_extension(key: str) -> tuple[str, str]:
    """Split a key into what is before the extension of an image, and that extension; empty if it has none."""
    stem, dot, extension = key.rpartition(".")
    is_named = dot and stem and not stem.endswith("/") and f".{extension.lower()}" in IMAGE_EXTENSIONS
    return (stem, f".{extension}") if is_named else (key, "")


def _path(stem: str, flat: bool) -> str:
    path = "/".join(map(_part, stem.split("/")))
    if flat:
        return _cut(path.replace(".", "%2E").replace("/", "%2F"), stem)
    return path if len(path.encode()) <= LONGEST_PATH else _marked("", stem)


def _part(part: str) -> str:
    """Escape one part of a path."""
    escaped = "".join(one if one.isprintable() and one not in UNSAFE else _escape(one) for one in part)
    if escaped[:1] in {".", " "} or DEVICE.match(escaped):
        escaped = _escape(escaped[0]) + escaped[1:]
    if escaped[-1:] in {".", " "}:
        escaped = escaped[:-1] + _escape(escaped[-1])
    return _cut(escaped or "%", part)


def _cut(name: str, key: str) -> str:
    """Cut a part that is too long."""
    if len(name.encode()) <= LONGEST_PART:
        return name
    return _marked(name.encode()[: LONGEST_PART - 20].decode(errors="ignore"), key)


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _marked(path: str, key: str) -> str:
    return f"{path}~{hashlib.blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def _fold(path: str) -> str:
    """Make names equal that are one file on some system."""
    return unicodedata.normalize("NFC", path).casefold()


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
