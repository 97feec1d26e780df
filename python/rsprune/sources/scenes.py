"""Scenes: rasters of any size, cut into windows that are the images of the collection."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rsprune.errors import CorruptImageError, EmptyInputError, FormatError, SourceError
from rsprune.io import digest
from rsprune.sources.base import (
    Item,
    Shard,
    SkippedFilesWarning,
    UnreadableImage,
    check_rows,
    describe_skipped,
)
from rsprune.sources.container import ContainerSource, find_files
from rsprune.sources.file_list import ListSource, listed_files
from rsprune.sources.filesystem import join, regular_size
from rsprune.sources.folder import FolderSource, walk
from rsprune.sources.raster import CACHE_BYTES, Raster, RasterReader, open_raster, reading_raster
from rsprune.storage import address_of, is_remote
from rsprune.validation import check_integer, check_number

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ScenesSource"]

BOUNDS = ("minx", "miny", "maxx", "maxy")
DEGREES = ("west", "south", "east", "north")
TILE = 256
MIN_VALID = 0.9
#: Scenes in which data are looked for at a time: all of them share GDAL's cache.
THREADS = min(4, os.cpu_count() or 1)
#: What is read at a time, in bytes, so that few calls read many windows.
READ_BYTES = 1 << 25
FILES = (".tif", ".tiff", ".gtif", ".gtiff", ".jp2", ".j2k")


class ScenesSource(ContainerSource):
    """GeoTIFF, COG, JPEG 2000 and VRT files and Sentinel-2 folders, cut into square windows. One scene is one shard.

    Windows begin at every multiple of the stride. Those that would reach beyond the right or the lower edge are left
    out; a scene that is smaller than a window, in width or height, gives windows of its own size there. Left out and
    counted are those of which too little holds data, by the nodata value or the mask of the file.

    A key is the scene and the window's place in it, in pixels: ``m_4709963/y00512_x00256_256x256``.

    Parameters
    ----------
    paths : sequence of path
        The files and ``.SAFE`` folders.
    tile, stride : int
        The side of a window, and the distance from one to the next, in pixels.
    min_valid : float
        The fraction of a window that must hold data.
    """

    reads: ClassVar[str] = "scenes to cut into windows (.tif, .jp2, .vrt, .SAFE)"
    takes: ClassVar[Sequence[str] | None] = ("tile", "stride", "min_valid")
    kind: ClassVar[str] = "scenes"
    part_kind: ClassVar[str] = "part"
    extensions: ClassVar[tuple[str, ...]] = (*FILES, ".vrt", ".safe", *(one.upper() for one in FILES), ".VRT", ".SAFE")

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        part: str | None = None,
        *,
        tile: int = TILE,
        stride: int | None = None,
        min_valid: float = MIN_VALID,
    ) -> None:
        check_integer("tile", tile)
        check_integer("stride", stride or tile)
        check_number("min_valid", min_valid, minimum=0, maximum=1)
        super().__init__(paths, part)
        if part is not None:
            message = f"'#{part}' chooses nothing in a scene: leave it out"
            raise SourceError(message)
        self._tile, self._stride, self._min_valid = tile, stride or tile, min_valid
        self._rasters: dict[str, Raster] = {}
        self._damaged: dict[str, str] = {}  # by shard, what is wrong with it
        for name, path in self._paths.items():
            try:
                self._rasters[name] = open_raster(path)
            except FormatError as error:
                self._damaged[name] = str(error)
        if not self._rasters:
            raise FormatError("; ".join(self._damaged.values()))
        self._windows: dict[str, NDArray[np.int64]] = {}  # by shard, x, y, width and height of its windows
        self._left_out: dict[str, int] = {}  # by shard, how many windows hold too little data
        nowhere = [one.path for one in self._rasters.values() if one.crs is None]
        if nowhere:
            message = (
                f"{len(nowhere)} of {len(self._rasters)} scenes have no coordinate reference system, so that their "
                f"windows have no bounds; the first is {nowhere[0]}"
            )
            warnings.warn(message, UserWarning, stacklevel=4)

    @classmethod
    def names(cls, spec: str | os.PathLike[str]) -> bool:
        """Return whether ``spec`` ends as the names of scenes do."""
        return super().names(os.fspath(spec).rstrip("/"))

    @classmethod
    def matches(cls, spec: str | os.PathLike[str] | Sequence[Any]) -> bool:
        """Return whether ``spec`` is a scene, a pattern, a list of these, or a folder of ``.SAFE`` folders."""
        if super().matches(spec):
            return not isinstance(spec, str) or spec.rstrip("/").lower().endswith(".safe") or not Path(spec).is_dir()
        if not isinstance(spec, str) or is_remote(spec) or not Path(spec).is_dir():
            return False
        with os.scandir(spec) as entries:
            return any(entry.name.lower().endswith(".safe") for entry in entries)

    @classmethod
    def matches_with_options(cls, spec: str | Sequence[Any]) -> bool:
        """Return whether ``spec`` is scenes, or a folder or a list, which may hold images as well."""
        return cls.matches(spec) or FolderSource.matches(spec) or ListSource.matches(spec)

    @classmethod
    def open(cls, spec: Any, **options: Any) -> Self:
        """Open the scenes that ``spec`` stands for; of a folder, all that lie in it, at any depth.

        Virtual rasters in a folder are passed over, since they are mostly made of its other files.

        Raises
        ------
        EmptyInputError
            If there are none in a folder.
        """
        paths: list[str] = []
        parts: set[str | None] = set()
        folders = []
        for one in [spec] if isinstance(spec, str) else spec:
            if not cls.names(one) and FolderSource.matches(os.fspath(one)):
                folders.append(address_of(one) or one)
                paths += _scenes_below(os.fspath(folders[-1]))
                continue
            if ListSource.matches(os.fspath(one)):
                paths += listed_files(os.fspath(one))
                continue
            for pattern, part in cls._split_list(os.fspath(one).rstrip("/")):
                parts.add(part)
                paths += find_files(pattern)
        found = cls(paths, next(iter(parts - {None}), None), **options)
        found.folders = folders
        return found

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the windows of a scene as pixels. Of one that is damaged the item says why."""
        windows, raster = self._kept(shard), self._raster(shard)
        windows = windows[np.asarray(check_rows(shard, rows, len(windows)), np.int64)]
        keys = self._keys(shard, windows)
        with reading_raster(raster) as reader:
            for start, stop in pairwise(_runs(windows, self._stride, raster.pixel_bytes)):
                for key, data in zip(keys[start:stop], _read(reader, windows[start:stop]), strict=True):
                    yield Item(key, data)

    def read_keys(self, shard: Shard) -> list[str]:
        """Return the keys of a scene's windows."""
        return self._keys(shard, self._kept(shard))

    @property
    def metadata_schema(self) -> pa.Schema:
        """The place of a window in its scene and on earth, and when and by what it was taken.

        ``minx`` to ``maxy`` are coordinates of ``crs``, ``west`` to ``north`` degrees.
        """
        import pyarrow as pa

        pixels = [(name, pa.int64()) for name in ("x", "y", "width", "height")]
        places = [(name, pa.float64()) for name in (*BOUNDS, *DEGREES)]
        origin = [("datetime", pa.timestamp("us")), ("sensor", pa.string())]
        return pa.schema([("scene", pa.string()), *pixels, ("crs", pa.string()), *places, *origin])

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the metadata of some windows; no pixel is read for it."""
        import pyarrow as pa

        raster, windows = self._raster(shard), self._kept(shard)
        windows = windows[np.asarray(check_rows(shard, rows, len(windows)), np.int64)]
        fixed: dict[str, Any] = {"scene": PurePath(raster.path).name, "crs": raster.crs}
        fixed |= {"datetime": raster.datetime, "sensor": raster.sensor}
        columns: dict[str, Any] = {name: [value] * len(windows) for name, value in fixed.items()}
        columns |= dict(zip(("x", "y", "width", "height"), windows.T, strict=True))
        bounds = [raster.bounds(*window) for window in windows.tolist()] if raster.crs else []
        for names, values in ((BOUNDS, bounds), (DEGREES, raster.degrees(bounds) if raster.crs else [])):
            for i, name in enumerate(names):
                columns[name] = [None if one is None else one[i] for one in values or [None] * len(windows)]
        schema = self.metadata_schema
        return pa.Table.from_arrays([pa.array(columns[one.name], one.type) for one in schema], schema=schema)

    @property
    def metadata_at_hand(self) -> bool:
        """It is: the scenes' headers have it."""
        return True

    def count(self, shard: Shard) -> int:
        """Count the windows of a scene. Where pixels may hold no data, they are read for it, the first time."""
        return len(self._kept(shard))

    def size(self, shard: Shard) -> int:
        """Return the size of a scene's files."""
        raster = self._rasters.get(shard.name)
        return super().size(shard) if raster is None else raster.size

    @property
    def band_counts(self) -> Mapping[int, str]:
        """The numbers of bands, and the first scene of each."""
        return {one.bands: one.path for one in reversed(self._rasters.values())}

    @property
    def passed_over(self) -> Mapping[str, int]:
        """How many windows hold too little data."""
        count = sum(self._left_out.values())
        return {f"windows of which less than {self._min_valid:.0%} holds data": count} if count else {}

    def total(self) -> int:
        """Count the windows of all scenes, of several at a time."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._kept, [shard for shard in self._shards if shard.name in self._rasters]))
        return super().total()

    def fingerprint(self) -> dict[str, Any]:
        """Identify the scenes by their names and sizes, and how they are cut."""
        shards: list[dict[str, Any]] = []
        for name, path in self._paths.items():
            raster = self._rasters.get(name)
            if raster is None:
                shards.append({"name": name, "bytes": regular_size(path)})
                continue
            one: dict[str, Any] = {"name": name, "bytes": raster.size, "width": raster.width, "height": raster.height}
            if raster.parts:
                one["parts"] = digest([[PurePath(part).name, regular_size(part)] for part in raster.parts])
            shards.append(one)
        cut = {"tile": self._tile, "stride": self._stride, "min_valid": self._min_valid}
        return {"kind": self.kind, **cut, "shards": shards}

    @classmethod
    def _check(cls, path: str) -> None:
        if not path.lower().endswith(".safe"):
            super()._check(path)

    def _kept(self, shard: Shard) -> NDArray[np.int64]:
        """Return x, y, width and height of the windows of a scene that hold enough data, (n, 4)."""
        if shard.name not in self._windows:
            raster = self._raster(shard)
            windows = _grid(raster, self._tile, self._stride)
            if raster.masked and self._min_valid > 0:
                with reading_raster(raster) as reader:
                    kept = [_is_valid(reader, window, self._min_valid) for window in windows.tolist()]
                self._left_out[shard.name] = kept.count(False)
                windows = windows[np.array(kept, np.bool_)]
            self._windows[shard.name] = windows
        return self._windows[shard.name]

    def _raster(self, shard: Shard) -> Raster:
        if shard.name in self._damaged:
            raise FormatError(self._damaged[shard.name])
        return self._rasters[shard.name]

    def _keys(self, shard: Shard, windows: NDArray[np.int64]) -> list[str]:
        scene = "/".join(map(unquote, shard.name.split("+")))  # as the container makes names of paths
        return [f"{scene}/y{y:05d}_x{x:05d}_{width}x{height}" for x, y, width, height in windows.tolist()]


def _scenes_below(root: str) -> list[str]:
    """List the scenes in a folder, at any depth; warn of its other files."""
    skipped: Counter[str] = Counter()
    found: dict[str, None] = {}

    def accept(path: str) -> bool:
        extension = PurePath(path).suffix.lower()
        inside = re.search(r"\.safe/", path, re.IGNORECASE)
        if not inside and extension not in FILES:
            skipped[extension] += 1
        return bool(inside) or extension in FILES

    for path, _ in walk(root, accept):
        product = re.match(r"(?:.*?/)??[^/]+\.safe(?=/)", path, re.IGNORECASE)
        found[join(root, product[0] if product else path)] = None
    seen = f": {describe_skipped(root, skipped)}" if skipped else ""
    if not found:
        message = f"no scenes in {root}{seen}"
        raise EmptyInputError(message)
    if skipped:
        warnings.warn(describe_skipped(root, skipped), SkippedFilesWarning, stacklevel=5)
    return list(found)


def _grid(raster: Raster, tile: int, stride: int) -> NDArray[np.int64]:
    """List x, y, width and height of all windows of a raster, (n, 4), so that no block has to be decoded twice.

    Row by row, within stripes so narrow that GDAL's cache holds the blocks that a row of windows needs.
    """
    width, height = min(tile, raster.width), min(tile, raster.height)
    ys, xs = np.mgrid[0 : raster.height - height + 1 : stride, 0 : raster.width - width + 1 : stride].reshape(2, -1)
    stripe = CACHE_BYTES // 2 // ((raster.block[0] + height) * raster.pixel_bytes)
    stripe = max(stripe - stripe % raster.block[1], raster.block[1], width)
    order = np.lexsort((xs, ys, xs // stripe))
    sizes = np.broadcast_to([width, height], (len(xs), 2))
    return np.column_stack([xs[order], ys[order], sizes]).astype(np.int64)


def _runs(windows: NDArray[np.int64], stride: int, pixel_bytes: int) -> list[int]:
    """Cut windows into runs of neighbors in a row, each of which is read at once: where each begins, and the end."""
    bounds = [0]
    for i, ((x, y, _, _), (next_x, next_y, width, height)) in enumerate(pairwise(windows.tolist()), 1):
        size = (next_x + width - int(windows[bounds[-1], 0])) * height * pixel_bytes
        if next_y != y or next_x != x + stride or stride > width or size > READ_BYTES:
            bounds.append(i)
    return [*bounds, len(windows)] if len(windows) else [0]


def _read(reader: RasterReader, windows: NDArray[np.int64]) -> Iterator[NDArray[Any] | UnreadableImage]:
    """Read neighboring windows at once; one by one where that fails."""
    start, y, width, height = windows[0].tolist()
    end = int(windows[-1, 0]) + width
    try:
        pixels = reader.read(start, y, end - start, height)
    except CorruptImageError as error:
        if len(windows) == 1:
            yield UnreadableImage(error)
            return
        for i in range(len(windows)):
            yield from _read(reader, windows[i : i + 1])
        return
    for x in (windows[:, 0] - start).tolist():
        yield np.ascontiguousarray(pixels[:, x : x + width])


def _is_valid(reader: RasterReader, window: Sequence[int], least: float) -> bool:
    """Tell whether enough of a window holds data. One that is damaged is reported when it is read."""
    try:
        return reader.valid(*window) >= least
    except CorruptImageError:
        return True
