"""The kinds of files that hold many images each."""

from __future__ import annotations

from rsprune.sources.arrow import ArrowSource
from rsprune.sources.container import ContainerSource
from rsprune.sources.parquet import ParquetSource
from rsprune.sources.stack import StackSource
from rsprune.sources.webdataset import TarSource

__all__ = ["CONTAINERS", "container_of"]

CONTAINERS: tuple[type[ContainerSource], ...] = (TarSource, ArrowSource, ParquetSource, StackSource)


def container_of(path: str) -> type[ContainerSource] | None:
    """Return the source of files of this name, whether they are there or not."""
    return next((kind for kind in CONTAINERS if kind.names(path)), None)
