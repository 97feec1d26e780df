"""The options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rsprune.errors import ArgumentError
from rsprune.options import Options, option

__all__ = ["ExportOptions", "Layout"]

Layout = Literal["folder", "links", "tar", "parquet", "hf", "list", "embedding-atlas", "fiftyone"]

#: The layouts of files that hold many images, which have shards of a size.
SHARDED = ("tar", "parquet", "hf")


@dataclass(frozen=True)
class ExportOptions(Options):
    """In which layout the images are written."""

    layout: Layout = option(
        help="folder (files), links (symbolic links), tar (WebDataset), parquet, hf (a data set of Hugging Face), "
        "list (paths), or for an application that shows them embedding-atlas or fiftyone.",
        flags=("--as",),
    )
    shard_images: int | None = option(None, help="Images of a shard of tar, parquet or hf at most.", minimum=1)
    shard_bytes: int | None = option(
        None, help="Bytes of the images of such a shard at most. Default: 500 MB.", minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shard_images", "shard_bytes"):
            if getattr(self, name) is not None and self.layout not in SHARDED:
                message = f"{name} is for {', '.join(SHARDED)}; {self.layout} has no shards"
                raise ArgumentError(message)
