"""Beginning a run, or going on with one whose collection may have grown, and whose choice may be another one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rsprune.errors import ConfigMismatchError, DamagedFileError, SourceChangedError
from rsprune.io import read_record
from rsprune.runs.basis import PIXELS
from rsprune.runs.context import RunContext
from rsprune.runs.reader import RunReader
from rsprune.sources import Source

__all__ = ["GROWS", "grown_shards", "start_run"]

#: What a run may have otherwise than it was begun with: it does anew what depends on it.
GROWS = ("source.images", "source.digest", "source.left_out")
#: What is decided anew on the same entropies and embeddings.
DECIDES = ("selection.", "entropy.keep", "entropy.tau")
#: What a run adds to a folder in which one of its stages was carried out alone.
ADDS = ("entropy", "encoder", "centroids", "keep_embeddings", "selection")


def start_run(context: RunContext, source: Source) -> bool:
    """Begin a run of a collection, or go on with one, and tell whether it is to have another result than it had.

    The images of the shards that are done must still be the same; there may be more shards, and more images behind the
    last ones. What is chosen may be decided anew, and what one stage wrote by itself is used. See
    :meth:`RunFolder.start` for the errors.
    """
    folder, known = context.folder, False
    added: set[str] = set()

    def check() -> None:
        reader = RunReader(folder)
        reader.check_source(source, grown=grown_shards(reader, source, context.shards))

    with contextlib.suppress(FileNotFoundError, DamagedFileError):  # then the configuration is written anew
        added = set(additions(folder.read_config(), context.config))
        check()
        known = True
    moves = folder.start(
        context.config, changes=lambda name: name in GROWS or name.startswith(DECIDES) or name in added
    )
    if not known:
        check()
    return moves


def additions(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names in a configuration of what a run adds to that of a folder which it goes on from."""
    if "selection" in now:
        yield from (name for name in ADDS if before.get(name) is None)
        if isinstance(before.get("centroids"), str):  # those of `rsprune embed --centroids`
            yield "centroids"
        pixels, entropy = before.get("pixels") or {}, now.get("entropy") or {}
        if all(pixels.get(name) == entropy.get(name) for name in PIXELS if name in pixels):
            yield "pixels"
    if before.get("keep_embeddings") is False and now.get("keep_embeddings"):
        yield "keep_embeddings"  # they are made again


def grown_shards(reader: RunReader, source: Source, digests: Mapping[str, str]) -> set[str]:
    """Return the shards of a collection that hold the images that they held when they were read, and more.

    Raises
    ------
    ConfigMismatchError
        The collection has lost shards, or some are other ones of the same name; the message names them.
    """
    names = {shard.name: shard for shard in source.shards}
    if lost := [name for name in reader.shards if name not in names]:
        message = f"{reader.folder.path} holds shards that the collection does not have now: {', '.join(lost[:5])}"
        raise ConfigMismatchError(message + (f" and {len(lost) - 5} more" if len(lost) > 5 else ""))
    grown = set()
    for name in reader.shards:
        path = reader.whole_table(name)
        if path is None or (path == reader.folder.assignments(name) and "entropy" in reader.config):
            continue  # all of it is read again
        if read_record(reader.folder.record(path)).get("shard") in (None, digests[name]):
            continue
        found, before = source.read_keys(names[name]), reader.table(path, ["key"])["key"].to_pylist()
        if found is None or len(found) <= len(before) or found[: len(before)] != before:
            reader.check_source(source)
            message = (
                f"the shard {name} is not what it was when {reader.folder.path} read it: a file of it has another "
                "size now. Restore it, or begin anew in another folder"
            )
            raise SourceChangedError(message)
        grown.add(name)
    return grown
