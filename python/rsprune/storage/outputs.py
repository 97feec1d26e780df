"""Outputs at addresses: a local file or folder stands for each while a command works on it.

What is there already is fetched when it is first asked for, and whatever is written there is uploaded as soon as it is
whole. A process that is killed leaves at the address what it had finished, in the order in which it finished it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from rsprune.storage.cache import download
from rsprune.storage.clients import SCHEMES
from rsprune.storage.objects import find, is_remote, list_objects, upload
from rsprune.temporaries import folder_for_copies

__all__ = ["address_of", "localize", "stand_for", "with_addresses", "written"]

#: An address as :class:`pathlib.Path` gives it back, with one slash of the two.
COLLAPSED = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)")

#: By address, the local path that stands for it in this process.
_local: dict[str, Path] = {}


def address_of(path: str | os.PathLike[str]) -> str | None:
    """Return the address that a path is; None for a local one."""
    text = os.fspath(path)
    if isinstance(path, os.PathLike):
        text = COLLAPSED.sub(r"\1://", text, count=1)
    if not is_remote(text):
        return None
    return text if text.endswith("://") else text.rstrip("/")


def localize(path: str | os.PathLike[str]) -> Path:
    """Return the local path to write to: the path itself, or one that stands for an address.

    Raises
    ------
    PermissionError, OSError
        What is there cannot be fetched; see :func:`rsprune.storage.find`.
    """
    uri = address_of(path)
    if uri is None:
        return Path(path)
    for known, local in _local.items():
        if uri == known or uri.startswith(f"{known}/"):
            return local / uri[len(known) + 1 :]
    local = folder_for_copies() / uri.rpartition("/")[2]
    copies = {local / one.uri[len(uri) + 1 :]: one for one in list_objects(uri)}
    if not copies:
        with suppress(FileNotFoundError):
            copies[local] = find(uri)
    for copy, one in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        download(one, copy)
    stand_for(uri, local)
    return local


def stand_for(uri: str, local: Path) -> None:
    """Have a local path stand for an address in this process, too: another one has fetched what is there."""
    _local[uri] = local


def written(path: Path) -> None:
    """Upload a file that is whole, if it stands for an address, or lies in a folder that does.

    What is hidden there stays here: it is on its way to another place.
    """
    for uri, local in _local.items():
        if path == local:
            upload(path, uri)
        elif local in path.parents and not any(part.startswith(".") for part in path.relative_to(local).parts):
            upload(path, f"{uri}/{path.relative_to(local).as_posix()}")


def with_addresses(text: str) -> str:
    """Put addresses in the place of the local paths that stand for them, in what people read."""
    for uri, local in _local.items():
        text = text.replace(str(local), uri)
    return text
