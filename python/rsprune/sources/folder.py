"""A folder of image files, with or without class folders."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from rsprune.errors import ArgumentError, EmptyInputError, SourceError
from rsprune.sources.base import SkippedFilesWarning, Source, describe_skipped
from rsprune.sources.classes import ClassFolders
from rsprune.sources.container import ContainerSource
from rsprune.sources.container_kinds import container_of
from rsprune.sources.exported import ExportedFolder, exported_layout
from rsprune.sources.filesystem import join, read_head
from rsprune.sources.formats import HEAD, IMAGE_EXTENSIONS, OTHER_EXTENSIONS, is_image
from rsprune.sources.image_files import FileSource, NamedFile
from rsprune.sources.table import TableSource
from rsprune.storage import address_of, is_remote, list_objects

__all__ = ["FolderSource"]


class FolderSource(FileSource):
    """The images below a folder, ordered by their paths relative to it, compared by code point.

    If all of them lie in sub-folders then those are the classes, of the first level at which they differ. Hidden files
    and folders are left out, links are followed. A file whose extension is unknown is an image if it begins as one.

    Parameters
    ----------
    root : str or Path
        The folder, or its address.

    Attributes
    ----------
    skipped : Counter of str
        The number of files that are no images, by extension.
    """

    reads: ClassVar[str] = "a folder of images"

    def __init__(self, root: str | Path) -> None:
        self.folders = [root]
        self.skipped: Counter[str] = Counter()
        self._classes = ClassFolders()

        def files() -> Iterator[NamedFile]:
            for path, size in walk(root, self._accept):
                self._classes.add(path)
                yield NamedFile(path, "", size)

        super().__init__("folder", root, files())

    def _read_labels(self, packed: Any, keys: Sequence[str]) -> Sequence[str | None]:
        return list(map(self._classes.of, keys))

    @classmethod
    def matches(cls, spec: str | Sequence[Any]) -> bool:
        """Return whether ``spec`` is a folder, or an address whose last part has no extension."""
        if is_remote(spec):
            return spec.endswith("/") or not PurePosixPath(spec).suffix
        return isinstance(spec, str) and Path(spec).is_dir()

    takes: ClassVar[Sequence[str] | None] = ("image_column",)

    @classmethod
    def open(cls, spec: Any, image_column: str | None = None) -> Source:
        """Open a folder: its images, or, where it has none, the tar files, tables or stacks of images in it.

        Raises
        ------
        EmptyInputError
            If there are neither images nor files that hold some.
        SourceError
            For a name that is not UTF-8, and where either of two things may be meant: files of several kinds that hold
            images, or as many of them beside images, or more. Arrays beside images may be anything, and do not count.
        PermissionError
            If a folder cannot be read.
        """
        root = address_of(spec) or Path(spec)
        layout = exported_layout(root)
        if layout in ("folder", "links", "fiftyone"):
            return ExportedFolder(root)
        source = cls(root)
        images = sum(map(source.count, source.shards))
        for extension in (".tar", ".arrow", ".parquet"):
            if 0 < images <= source.skipped[extension]:
                message = (
                    f"{root} holds {images} images and {source.skipped[extension]} {extension} files: give "
                    f"'{root}/**/*{extension}' for the images in these files, or a list of the others"
                )
                raise SourceError(message)
        found: Source = source if images else _open_containers(os.fspath(root), source.skipped)
        if isinstance(found, TableSource):
            found.with_column(image_column)
        elif image_column is not None:
            message = f"image_column is {image_column!r}: it is for Arrow and Parquet files, and {root} holds others"
            raise ArgumentError(message)
        if source.skipped and layout is None:
            warnings.warn(describe_skipped(root, source.skipped), SkippedFilesWarning, stacklevel=3)
        return found

    @property
    def passed_over(self) -> Mapping[str, int]:
        """The number of files that are no images, by extension."""
        return {extension or ".": count for extension, count in self.skipped.most_common()}

    def _accept(self, path: str) -> bool:
        extension = _extension(path)
        # Whatever bears an image's extension counts, a pipe or a dangling link too: it is reported as unreadable.
        if extension in IMAGE_EXTENSIONS or (extension not in OTHER_EXTENSIONS and _begins_as_image(path)):
            return True
        self.skipped[extension] += 1
        return False


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (a path for each of millions is slow)


def _open_containers(root: str, skipped: Counter[str]) -> Source:
    """Open the files below a folder that hold images, and take them out of those that are ``skipped``."""
    kinds: dict[type[ContainerSource], list[str]] = {}
    for path, _ in walk(root, lambda path: container_of(path) is not None):
        kind = container_of(path)
        assert kind is not None
        kinds.setdefault(kind, []).append(path)
    if len(kinds) > 1:
        counts = ", ".join(f"{len(paths)} {_extension(paths[0])}" for paths in kinds.values())
        first = next(iter(kinds.values()))[0]
        message = f"{root} holds files of several kinds: {counts}. Give one of them: '{root}/**/*{_extension(first)}'"
        raise SourceError(message)
    if not kinds:
        seen = f": {describe_skipped(root, skipped)}" if skipped else ""
        message = f"no images in {root}, and no files that hold images{seen}"
        raise EmptyInputError(message)
    ((kind, paths),) = kinds.items()
    for path in paths:
        skipped[_extension(path)] -= 1
    if kind.beside:
        skipped[kind.beside] = 0
    for extension in [one for one, count in skipped.items() if not count]:
        del skipped[extension]
    found = kind.open_folder(root, [join(root, path) for path in paths])
    found.folders = [root]
    return found


def _begins_as_image(path: str) -> bool:
    try:
        return is_image(read_head(path, HEAD))
    except OSError:
        return False


def walk(root: str | Path, accept: Callable[[str], bool]) -> Iterator[tuple[str, int]]:
    """Yield the accepted files below ``root``, in ascending order of their paths relative to it.

    A folder that links lead to in several ways, be it back to one above, is entered once, by the first of its paths.
    The size of each file comes with it, or -1 where the system was not asked for it.
    """
    if is_remote(root):
        for uri, size, _ in list_objects(root):
            path = uri[len(root) + 1 :]
            if not any(part.startswith(".") for part in path.split("/")) and accept(uri):
                yield path, size
        return
    seen: set[tuple[int, int]] = set()
    way = [_entries(str(root), "", accept, seen)]
    while way:
        entry = next(way[-1], None)
        if entry is None:
            way.pop()
        elif entry.endswith("/"):
            way.append(_entries(str(root), entry, accept, seen))
        else:
            yield entry, -1


def _entries(root: str, prefix: str, accept: Callable[[str], bool], seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the accepted files and, with a slash, the folders in one folder that was not ``seen``."""
    folder = f"{root}/{prefix[:-1]}" if prefix else root
    stat = os.stat(folder)  # noqa: PTH116
    here = (stat.st_dev, stat.st_ino)
    if here in seen:
        return
    seen.add(here)
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                # With its slash a folder sorts just as the paths in it do.
                found.append(entry.name + "/")
            elif accept(entry.path):
                found.append(entry.name)
    for name in sorted(found):
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(prefix + name)
            message = f"a file name in {folder} is not UTF-8: {shown!r}. Rename it: keys are text"
            raise SourceError(message) from None
        yield prefix + name
