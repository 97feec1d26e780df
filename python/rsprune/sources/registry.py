"""The sources by name, and opening a collection by the first one that knows its form."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rsprune.errors import ArgumentError, SourceError
from rsprune.registry import Registry
from rsprune.sources.base import Source, SourceLike
from rsprune.storage import is_remote

__all__ = ["SOURCES", "open_source", "source_forms"]

SOURCES: Registry[type[Source]] = Registry(
    "source",
    "rsprune.sources",
    {
        "scenes": "rsprune.sources.scenes:ScenesSource",
        "arrow": "rsprune.sources.arrow:ArrowSource",
        "folder": "rsprune.sources.folder:FolderSource",
        "list": "rsprune.sources.file_list:ListSource",
        "webdataset": "rsprune.sources.webdataset:TarSource",
        "parquet": "rsprune.sources.parquet:ParquetSource",
        "stack": "rsprune.sources.stack:StackSource",
        "concat": "rsprune.sources.concat:ConcatSource",
    },
    check=lambda member: isinstance(member, type) and issubclass(member, Source),
    expected="a subclass of rsprune.sources.Source",
)

COMPRESSED = (".tar.zst", ".tzst", ".tar.lz4", ".zip", ".7z", ".rar")


def source_forms(names: Iterable[str] = SOURCES) -> str:
    """List what :func:`open_source` opens, in words: one form for each of the sources called ``names``."""
    *others, last = [SOURCES.get(name).reads for name in names]
    return f"{', '.join(others)}, or {last}" if others else last


def open_source(spec: SourceLike, **options: Any) -> Source:
    """Open a collection of images.

    Parameters
    ----------
    spec : str, path, Source, or a sequence of them
        A folder of image files, with class folders or without, or of files that hold images; a list of such files (one
        path a line, or CSV with a column ``path``); a data set that the library ``datasets`` has saved; tar files in
        the WebDataset layout, Arrow, Parquet and NumPy files, given as one file, a glob pattern or a brace range. Each
        of them on the local disk, or at an address: ``s3://``, ``gs://``, ``az://``, ``https://`` or ``hf://``. A
        sequence of such files of one kind is one collection; any other sequence concatenates its collections in their
        order. Sources of other packages are asked after these: see :data:`SOURCES`.
    **options
        Options of the layout: :class:`rsprune.runs.config.SourceOptions` explains each. A source that is open already
        takes none.

    Returns
    -------
    Source
        Its shards in the order of the rows, and their images.

    Raises
    ------
    SourceError
        If ``spec`` is nothing of the kind, or cannot be read as what it is.
    EmptyInputError
        If there are no images in it.
    NotRegularFileError
        If it is a pipe, a device or a socket.
    FileNotFoundError, PermissionError
        If it is not there, or not readable.

    Warns
    -----
    SkippedFilesWarning
        If a folder holds files that are no images; their number by extension.
    """
    if isinstance(spec, Source):
        if options:
            message = f"{', '.join(options)}: give options where a collection is opened; this one is open already"
            raise ArgumentError(message)
        return spec
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    for name in SOURCES:
        source = SOURCES.get(name)
        if _takes(source, options) and (source.matches_with_options(spec) if options else source.matches(spec)):
            opener: Any = source.open  # a class that takes no options has no parameters for them
            opened: Source = opener(spec, **options)
            if options:
                opened.options = options
            return opened
    raise _not_understood(spec, options)


def _takes(source: type[Source], options: Iterable[str]) -> bool:
    return source.takes is None or set(options) <= set(source.takes)


def _not_understood(spec: Any, options: Collection[str]) -> Exception:
    forms = source_forms()
    if not isinstance(spec, str):
        return SourceError(f"expected {forms}, got {type(spec).__name__} {reprlib.repr(spec)}")
    if not is_remote(spec) and not Path(spec).exists():
        return FileNotFoundError(f"no such file or folder: {spec!r}. Expected {forms}")
    if spec.lower().endswith(COMPRESSED):
        return SourceError(f"{spec!r} is an archive that is not read: unpack it to a folder, or to a .tar file")
    if options:
        forms = source_forms(name for name in SOURCES if _takes(SOURCES.get(name), options))
        return ArgumentError(f"{spec!r} is none of what has the options {', '.join(options)}: {forms}")
    return SourceError(f"cannot read {spec!r} as a collection of images: expected {forms}")
