"""What the artefacts of a run depend on: the records name its digest, and what does not depend on a change stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rsprune.io import digest, provenance_header

__all__ = ["PIXELS", "basis_of", "shard_digests"]

#: The options of how pixels are read, as the configuration names them.
PIXELS = ("bands", "max_bytes", "max_pixels", "valid_range")
#: The rule of Stage I, of which the entropies know nothing.
CUT = ("keep", "tau")


def basis_of(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that the artefacts of a kind depend on.

    ``"entropy"`` and ``"embeddings"`` are the tables of a shard, ``"centroids"`` the centroids; anything else depends
    on the whole configuration.
    """
    made = {name: config.get(name) for name in provenance_header()}
    if kind == "entropy":
        options = config.get("entropy") or {}
        return made | {"entropy": {name: value for name, value in options.items() if name not in CUT}}
    if kind in ("embeddings", "centroids"):
        pixels = config.get("pixels") or config.get("entropy") or {}
        read = {"pixels": {name: pixels[name] for name in PIXELS if name in pixels}}
        kept = {"keep_embeddings": config.get("keep_embeddings")} if kind == "embeddings" else {}
        return made | read | kept | {name: config.get(name) for name in ("encoder", "centroids")}
    return dict(config)


def shard_digests(fingerprint: Mapping[str, Any], shards: Iterable[str]) -> dict[str, str]:
    """Return what tells each shard of a collection from another of the same name: a digest of its fingerprint's part.

    Where the fingerprint does not name a shard, this is what it says of the file that the shard is a part of, or else
    of the whole collection.
    """
    if "sources" in fingerprint:  # a joined collection: the number of each stands before the names of its shards
        digests = {}
        groups: dict[int, list[str]] = {}
        for name in shards:
            groups.setdefault(int(name.partition("-")[0]), []).append(name)
        for number, names in groups.items():
            inner = shard_digests(fingerprint["sources"][number], [name.partition("-")[2] for name in names])
            digests.update({name: inner[name.partition("-")[2]] for name in names})
        return digests
    common = {name: value for name, value in fingerprint.items() if name not in ("shards", "left_out", "rows")}
    # A source of another package may tell its shards apart in a form of its own.
    known = {one["name"]: one for one in fingerprint.get("shards", ()) if isinstance(one, dict) and "name" in one}
    rows = fingerprint.get("rows", {})

    def part(name: str) -> Any:
        if name in known:
            return known[name]
        files = [file for file in known if name.startswith(file)]
        return known[max(files, key=len)] if files else dict(fingerprint)

    return {name: digest({**common, "shard": part(name), "rows": rows.get(name)}) for name in shards}
