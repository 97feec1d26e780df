"""Collections of images, read in the layout that they are published in."""

from __future__ import annotations

from rsprune.sources.base import (
    FilePart,
    ImageData,
    Item,
    Shard,
    SkippedFilesWarning,
    Source,
    SourceLike,
    UnreadableImage,
    check_outside,
    check_rows,
)
from rsprune.sources.registry import SOURCES, open_source, source_forms

__all__ = [
    "SOURCES",
    "FilePart",
    "ImageData",
    "Item",
    "Shard",
    "SkippedFilesWarning",
    "Source",
    "SourceLike",
    "UnreadableImage",
    "check_outside",
    "check_rows",
    "open_source",
    "source_forms",
]
