"""A folder of image files, with or without class folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rsprune.errors import EmptyInputError, SourceError
from rsprune.sources.base import IMAGE_EXTENSIONS, Source
from rsprune.sources.files import FileSource
from rsprune.sources.webdataset import TarSource

__all__ = ["open_folder"]


def open_folder(root: Path) -> Source:
    """Open a folder: its images, or the tar files in it where it has no images.

    The images are ordered by their path relative to ``root``, compared by code point. If all of them lie in sub-folders
    then those of the first level are the classes. Hidden files and folders are left out, links are followed.

    Raises
    ------
    EmptyInputError
        If there are neither images nor tar files.
    SourceError
        For a name that is not UTF-8.
    PermissionError
        If a folder cannot be read.
    """
    # A path without a folder has no label.
    images = FileSource("folder", root, ((path, path.rpartition("/")[0].partition("/")[0]) for path in walk(root)))
    if images.shards:
        return images
    tars = [root / path for path in walk(root, (".tar",))]
    if tars:
        return TarSource(tars)
    message = f"no images in {root}: no file below it ends in {', '.join(IMAGE_EXTENSIONS)} or .tar"
    raise EmptyInputError(message)


def walk(root: Path, extensions: tuple[str, ...] = IMAGE_EXTENSIONS) -> Iterator[str]:
    """Yield the files below ``root`` with one of ``extensions``, in ascending order of their paths relative to it.

    Only the folders on the way to the current file are held in memory.
    """
    yield from _walk(str(root), "", extensions, frozenset())


def _walk(folder: str, prefix: str, extensions: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[str]:
    stat = os.stat(folder)  # noqa: PTH116
    here = (stat.st_dev, stat.st_ino)
    if here in above:  # a link back to a folder on the way down
        return
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                # With its slash a folder sorts just as the paths in it do.
                found.append(entry.name + "/")
            # A dangling link counts: it is an image that cannot be read, and is reported as such.
            elif entry.name.lower().endswith(extensions) and (entry.is_file() or entry.is_symlink()):
                found.append(entry.name)
    for name in sorted(found):
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(prefix + name)
            message = f"a file name in {folder} is not UTF-8: {shown!r}. Rename it: keys are text"
            raise SourceError(message) from None
        if name.endswith("/"):
            yield from _walk(f"{folder}/{name[:-1]}", prefix + name, extensions, above | {here})
        else:
            yield prefix + name
