"""Collections of images, read in the layout that they are published in."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from rsprune.errors import EmptyInputError, SourceError
from rsprune.sources.base import Item, Shard, Source
from rsprune.sources.folder import open_folder
from rsprune.sources.joined import JoinedSource
from rsprune.sources.listing import LIST_EXTENSIONS, open_list
from rsprune.sources.webdataset import TarSource, expand_braces

__all__ = ["Item", "Shard", "Source", "SourceSpec", "open_source"]

#: What :func:`open_source` opens.
SourceSpec = str | os.PathLike[str] | Source | Sequence["str | os.PathLike[str] | Source"]

UNDERSTOOD = (
    "a folder of images, a list of them (.txt, .lst, .csv), a .tar file, tar files as a pattern ('pool-*.tar') or a "
    "range ('pool-{00000..00005}.tar'), or several of these"
)


def open_source(spec: SourceSpec) -> Source:
    """Open a collection of images.

    Parameters
    ----------
    spec : str, path, Source, or a sequence of them
        A folder of image files, with class folders or without; a folder of tar files; a list of image files (one path a
        line, or CSV with a column ``path``); tar files in the WebDataset layout, given as one file, a glob pattern or a
        brace range. A sequence of tar files is one collection; any other sequence joins its collections in their order.

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
    FileNotFoundError, PermissionError
        If it is not there, or not readable.
    """
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, (str, os.PathLike)):
        return _open_path(os.fspath(spec))
    if not isinstance(spec, Sequence) or isinstance(spec, (bytes, bytearray)):
        message = f"expected {UNDERSTOOD}, got {type(spec).__name__} {spec!r}"
        raise SourceError(message)
    if not spec:
        message = f"an empty list is no collection of images: expected {UNDERSTOOD}"
        raise EmptyInputError(message)
    if all(isinstance(part, (str, os.PathLike)) and os.fspath(part).lower().endswith(".tar") for part in spec):
        return TarSource([path for part in spec for path in _tars(os.fspath(part))])  # type: ignore[arg-type]
    sources = [open_source(part) for part in spec]
    return sources[0] if len(sources) == 1 else JoinedSource(sources)


def _open_path(spec: str) -> Source:
    path = Path(spec)
    if path.is_dir():
        return open_folder(path)
    suffix = path.suffix.lower()
    if suffix in LIST_EXTENSIONS and path.exists():
        return open_list(path)
    if suffix == ".tar":
        return TarSource(_tars(spec))
    if "://" in spec:
        message = f"{spec!r} is not on a local disk: copy or mount it. Expected {UNDERSTOOD}"
        raise SourceError(message)
    if not path.exists():
        message = f"no such file or folder: {spec!r}. Expected {UNDERSTOOD}"
        raise FileNotFoundError(message)
    if spec.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        message = f"{spec!r} is compressed: its images cannot be read one by one. Unpack it to a plain .tar file"
        raise SourceError(message)
    message = f"cannot read {spec!r} as a collection of images: expected {UNDERSTOOD}"
    raise SourceError(message)


def _tars(spec: str) -> list[Path]:
    """The tar files that a path, a pattern or a range stands for."""
    found = []
    for pattern in [spec] if Path(spec).exists() else expand_braces(spec):
        if Path(pattern).exists() or not glob.has_magic(pattern):
            found.append(Path(pattern))
            continue
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (absolute patterns)
        if not matches:
            message = f"no file matches {pattern!r}"
            raise FileNotFoundError(message)
        found += map(Path, matches)
    return found
