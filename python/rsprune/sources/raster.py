"""Rasters of any size: their headers and parts of them, read by GDAL through rasterio. No file is left open."""

from __future__ import annotations

import datetime
import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import CorruptImageError, DtypeError, FormatError, SourceError, needed_by
from rsprune.sources.base import Item
from rsprune.sources.filesystem import check_regular, local_path, open_binary, read_head, regular_size
from rsprune.storage import is_remote

__all__ = ["CACHE_BYTES", "Bounds", "Raster", "RasterReader", "open_raster", "reading_raster"]

#: GDAL's cache of decoded blocks, in bytes.
CACHE_BYTES = 1 << 27
SETTINGS = {
    "GDAL_CACHEMAX": CACHE_BYTES,
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",  # nothing is fetched over the network for a file that names an address
}
#: GDAL's driver for what a file begins with, whatever its name: it has drivers for services on the network, too.
DRIVERS = {
    "GTiff": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "JP2OpenJPEG": re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    "VRT": re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:VRT|\?xml)"),
}

#: The 10 m bands of Sentinel-2: red, green, blue, near infrared.
SENTINEL_BANDS = ("B04", "B03", "B02", "B08")
SENTINEL_FILE = re.compile(r"_(B0[2348])(?:_10m)?\.(?:jp2|tiff?)$")
#: The name that NAIP gives to a quarter quadrangle: the date of its acquisition comes last.
NAIP_NAME = re.compile(r"m_\d{7}_[ns][ew]_\d{1,2}_\w+?_(\d{4})(\d\d)(\d\d)(?!\d)")

#: A message of GDAL is cut to this.
LONGEST_CAUSE = 200
#: Bytes of a file that are read at a time to see whether the system gives them.
CHUNK = 1 << 24

#: The points of a window whose degrees are taken, as fractions of its width and height: its corners and more between.
_SIDE = np.linspace(0, 1, 5)
ALONG_X = np.concatenate([_SIDE, _SIDE, np.zeros(5), np.ones(5)])
ALONG_Y = np.concatenate([np.zeros(5), np.ones(5), _SIDE, _SIDE])

#: The filters of warnings are those of the process.
_OPENING = threading.Lock()

#: The lowest x and y and the highest, or west, south, east and north.
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Raster:
    """What the headers of a raster say.

    Attributes
    ----------
    path
        The file or the folder, as it was given.
    files
        The file, or one for each band.
    parts
        The files that a virtual raster is made of.
    height, width, bands
        Its extent.
    dtype
        The type of its samples.
    block
        Height and width of the blocks that its file is compressed in.
    masked
        Whether pixels may hold no data.
    nodata
        What pixels without data hold in all bands, where the files do not say it.
    crs
        Its coordinate reference system: ``EPSG:26914``, or WKT; None if it has none.
    transform
        The six coefficients that make coordinates of columns and rows.
    datetime, sensor
        When the scene was taken, and by what, where the file says it.
    """

    path: str
    files: tuple[str, ...]
    parts: tuple[str, ...]
    height: int
    width: int
    bands: int
    dtype: str
    block: tuple[int, int]
    masked: bool
    nodata: int | None
    crs: str | None
    transform: tuple[float, ...]
    datetime: datetime.datetime | None
    sensor: str | None

    @property
    def size(self) -> int:
        """Bytes of its files together."""
        return sum(map(regular_size, (*self.files, *self.parts)))

    @property
    def pixel_bytes(self) -> int:
        """Bytes that a pixel takes in memory."""
        return self.bands * np.dtype(self.dtype).itemsize

    def bounds(self, x: int, y: int, width: int, height: int) -> Bounds:
        """Return the bounds of a window in the raster's coordinates."""
        a, b, c, d, e, f = self.transform
        corners = [(i, j) for i in (x, x + width) for j in (y, y + height)]
        xs, ys = zip(*((a * i + b * j + c, d * i + e * j + f) for i, j in corners), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def degrees(self, bounds: Sequence[Bounds]) -> list[Bounds | None]:
        """Return bounds in degrees: west, south, east and north. West lies beyond east across the antimeridian."""
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
        from rasterio.warp import transform

        if not bounds:
            return []
        minx, miny, maxx, maxy = np.array(bounds).T[..., None]
        xs, ys = minx + (maxx - minx) * ALONG_X, miny + (maxy - miny) * ALONG_Y
        try:
            with _gdal():
                found = transform(CRS.from_string(self.crs), CRS.from_epsg(4326), xs.ravel(), ys.ravel())
        except (CRSError, ValueError, OSError):  # a system without a way to degrees
            return [None] * len(bounds)
        longitude, latitude = (np.reshape(values, xs.shape) for values in found)
        across = np.ptp(longitude, axis=1) > 180
        longitude[across] %= 360
        west, east = longitude.min(1), longitude.max(1)
        east[across] -= 360
        places = np.column_stack([west, latitude.min(1), east, latitude.max(1)])
        return [tuple(one) if np.isfinite(one).all() else None for one in places.tolist()]


def open_raster(path: str) -> Raster:
    """Read the headers of a raster: a file, or a ``.SAFE`` folder of Sentinel-2, of which the 10 m bands are read.

    Raises
    ------
    MissingDependencyError
        rasterio is not installed.
    FormatError
        It is no raster of a format that is read, or a file of several rasters.
    DtypeError
        Its samples are of a type that is not read.
    OSError
        A file cannot be read, or a virtual raster names one that is not there.
    """
    require_rasterio(path)
    from rasterio.errors import CRSError, RasterioError

    files = _sentinel_files(path) if path.lower().endswith(".safe") else (path,)
    with opened(files) as datasets:
        try:
            with _gdal():
                return _read_headers(path, files, datasets)
        except (RasterioError, CRSError) as error:
            message = f"{path} is damaged: {_cause(error)}"
            raise FormatError(message) from error


def _read_headers(path: str, files: tuple[str, ...], datasets: Sequence[Any]) -> Raster:
    safe = len(files) > 1
    first = datasets[0]
    if first.subdatasets:
        message = f"{path} holds {len(first.subdatasets)} images, and one is read: save each as a file of its own"
        raise FormatError(message)
    shapes = {(one.height, one.width) for one in datasets}
    types = {dtype for one in datasets for dtype in one.dtypes}
    if len(shapes) > 1:
        message = f"{path} is damaged: its bands have different sizes, {sorted(shapes)}"
        raise FormatError(message)
    if len(types) > 1:
        message = f"{path} has bands of different types: {', '.join(sorted(types))}"
        raise DtypeError(message)
    (dtype,) = types
    palette = _palette(first)
    try:
        Item(path, np.empty((1, 1, 1), dtype))  # refuses what is not read
    except (TypeError, DtypeError) as error:
        message = f"{path} has samples of {dtype}, which are not read: {error}"
        raise DtypeError(message) from error
    taken, sensor = _sentinel_origin(Path(path)) if safe else _origin(path, first)
    crs = first.crs.to_string() if first.crs and not first.transform.is_identity else None
    return Raster(
        path=path,
        files=files,
        parts=tuple(_virtual_parts(path, local_path(path))) if not safe else (),
        height=first.height,
        width=first.width,
        bands=sum(one.count for one in datasets) if palette is None else 3,
        dtype=dtype,
        block=first.block_shapes[0],
        masked=safe or any("all_valid" not in {flag.name for flag in flags} for flags in first.mask_flag_enums),
        nodata=0 if safe else None,
        crs=crs,
        transform=tuple(first.transform)[:6],
        datetime=taken,
        sensor=sensor,
    )


class RasterReader:
    """Reads windows of a raster whose files are open; see :func:`reading_raster`."""

    def __init__(self, raster: Raster, datasets: Sequence[Any]) -> None:
        self._raster, self._datasets = raster, datasets
        self._checked = False
        with _gdal():
            self._palette = _palette(datasets[0])
            self._alpha = "alpha" in {flag.name for flag in datasets[0].mask_flag_enums[0]}

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """Read the pixels of a window, (height, width, bands).

        Raises
        ------
        CorruptImageError
            They cannot be decoded.
        OSError
            The system does not give the file.
        """
        parts = self._of_all("read", x, y, width, height)
        pixels = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if self._palette is not None:
            colors: NDArray[np.uint8] = self._palette[pixels[0]]
            return colors
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))

    def valid(self, x: int, y: int, width: int, height: int) -> float:
        """Return the fraction of a window that holds data."""
        if self._raster.nodata is not None:
            return float((self.read(x, y, width, height) != self._raster.nodata).any(axis=2).mean())
        mask = self._of_all("dataset_mask", x, y, width, height)[0]
        # Many writers call any fourth band alpha. Near infrared has more values than a mask.
        if self._alpha:
            values = np.unique(mask)
            if len(values) > 2 or values[0] > 0 or (len(values) == 2 and values[1] < np.iinfo(mask.dtype).max):
                return 1.0
        return float(np.count_nonzero(mask) / mask.size)

    def _of_all(self, method: str, x: int, y: int, width: int, height: int) -> list[NDArray[Any]]:
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        try:
            with _gdal():
                return [getattr(one, method)(window=Window(x, y, width, height)) for one in self._datasets]
        except (RasterioError, OSError) as error:
            self._check_files()
            message = f"{os.path.basename(self._raster.path)}: the window at x {x}, y {y}: {_cause(error)}"  # noqa: PTH119
            raise CorruptImageError(message) from error

    def _check_files(self) -> None:
        """Raise the system's error where it does not give the bytes of a file: GDAL has the same one for damage."""
        if self._checked:
            return
        for file in self._raster.files:
            with open_binary(file) as stream:
                while stream.read(CHUNK):
                    pass
        self._checked = True


@contextmanager
def reading_raster(raster: Raster) -> Iterator[RasterReader]:
    """Open the files of a raster."""
    require_rasterio(raster.path)
    with opened(raster.files) as datasets:
        yield RasterReader(raster, datasets)


@contextmanager
def opened(files: Sequence[str]) -> Iterator[list[Any]]:
    """Open rasterio's data sets of some files; see :func:`open_raster` for the errors."""
    with ExitStack() as stack:
        datasets = []
        for file in files:
            datasets.append(_open(file))
            stack.callback(_close, datasets[-1])
        yield datasets


def _close(dataset: Any) -> None:
    with _gdal():
        dataset.close()


def _open(path: str) -> Any:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    check_regular(path)
    local = local_path(path)
    _virtual_parts(path, local)
    head = read_head(local, 64)
    driver = next((name for name, magic in DRIVERS.items() if magic.match(head)), None)
    if driver is None:
        message = f"{path} is no TIFF, JPEG 2000 or VRT file, whatever its name"
        raise FormatError(message)
    try:
        with _gdal(), _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(os.path.abspath(local), driver=driver, sharing=False)  # noqa: PTH100
    except (RasterioError, OSError, ValueError) as error:
        message = f"{path} cannot be read as a scene: {_cause(error)}"
        raise FormatError(message) from error


@contextmanager
def _gdal() -> Iterator[None]:
    """Bound what GDAL keeps in memory, opens and prints, for one call: the consumer of a generator has other rules."""
    import rasterio

    with rasterio.Env(**SETTINGS):
        yield


def require_rasterio(path: str) -> None:
    """Raise a :class:`MissingDependencyError` if rasterio is not installed."""
    with needed_by(f"the scene {path}", "geo"):
        import rasterio  # noqa: F401


def _cause(error: BaseException) -> str:
    """Return what GDAL says, without the paths of this machine."""
    text = str(error.__cause__ or error).partition(" See previous")[0]
    return re.sub(r"(?:/[^/\s:,']+)+/", "", text)[:LONGEST_CAUSE].rstrip(".")


def _palette(dataset: Any) -> NDArray[np.uint8] | None:
    """Return the colors of a single band's values, uint8 (256, 3), if it has some."""
    if dataset.count != 1 or dataset.dtypes[0] != "uint8":
        return None
    try:
        colors = dataset.colormap(1)
    except ValueError:
        return None
    palette = np.zeros((256, 3), np.uint8)
    for value, color in colors.items():
        palette[value] = color[:3]
    return palette


def _virtual_parts(
    path: str, local: str, seen: dict[str, None] | None = None, above: tuple[str, ...] = ()
) -> dict[str, None]:
    """List what a virtual raster is made of, at any depth: files on the local disk, that are there.

    GDAL itself would follow it to any address, and find a missing file only with the first window of it.
    """
    seen = {} if seen is None else seen
    if not DRIVERS["VRT"].match(read_head(local, 64)):
        return seen
    try:
        root = ElementTree.parse(local).getroot()
    except ElementTree.ParseError as error:
        message = f"{path} is damaged: {error}"
        raise FormatError(message) from error
    if root.tag != "VRTDataset":
        message = f"{path} is no virtual raster: its XML is a {root.tag}"
        raise FormatError(message)
    above = (*above, os.path.realpath(local))
    sources = [one for one in root.iter() if one.tag in ("SourceFilename", "SourceDataset")]
    for element in sources:
        name = (element.text or "").strip()
        relative = element.get("relativeToVRT") == "1" or element.get("relativetoVRT") == "1"
        place = os.path.join(os.path.dirname(os.path.abspath(local)), name) if relative else name  # noqa: PTH100, PTH118, PTH120
        if name.startswith("/vsi") or "://" in name:
            message = f"{path} names {name}, which is not on the local disk: copy it, and make the virtual raster anew"
            raise SourceError(message)
        if not os.path.isfile(place):  # noqa: PTH113
            message = f"{path} is made of {name!r}, which is not there: restore it, or make the virtual raster anew"
            raise FileNotFoundError(message)
        if os.path.realpath(place) in above:
            message = f"{path} is made of itself, by way of {name}"
            raise FormatError(message)
        check_regular(place)
        if place not in seen:
            seen[place] = None
            _virtual_parts(place, place, seen, above)
    return seen


def _sentinel_files(path: str) -> tuple[str, ...]:
    """Find the 10 m bands in a ``.SAFE`` folder."""
    if is_remote(path):
        message = f"{path} is not on the local disk: copy the folder"
        raise SourceError(message)
    folder = Path(path)
    found: dict[str, list[str]] = {band: [] for band in SENTINEL_BANDS}
    for file in sorted(folder.glob("GRANULE/*/IMG_DATA/**/*")):
        if match := SENTINEL_FILE.search(file.name):
            found[match[1]].append(os.fspath(file))
    counts = {band: len(files) for band, files in found.items()}
    if set(counts.values()) != {1}:
        folder.stat()  # raises where there is none
        seen = ", ".join(f"{count} of {band}" for band, count in counts.items())
        message = f"{path} should hold a file of each 10 m band in GRANULE/*/IMG_DATA; it holds {seen}"
        raise FormatError(message)
    return tuple(files[0] for files in found.values())


def _sentinel_origin(folder: Path) -> tuple[datetime.datetime | None, str | None]:
    """Read from a product's metadata when it was taken, and by which satellite."""
    for file in sorted(folder.glob("MTD_MSI*.xml")):
        text = file.read_text(encoding="utf-8", errors="replace")
        start = re.search(r"<DATATAKE_SENSING_START>\s*([^<\s]+)", text)
        craft = re.search(r"<SPACECRAFT_NAME>\s*([^<]+?)\s*<", text)
        return _time(start[1]) if start else None, f"{craft[1]} MSI" if craft else None
    return None, None


def _origin(path: str, dataset: Any) -> tuple[datetime.datetime | None, str | None]:
    """Say when a raster was taken, and by what: its tags, or the name that NAIP gives to its scenes."""
    imagery, tags = dataset.tags(ns="IMAGERY"), dataset.tags()
    taken = _time(imagery.get("ACQUISITIONDATETIME") or tags.get("ACQUISITIONDATETIME") or "")
    sensor = imagery.get("SATELLITEID") or tags.get("SATELLITEID")
    if match := NAIP_NAME.search(os.path.basename(path)):  # noqa: PTH119
        return taken or _time("-".join(match.groups())), sensor or "NAIP"
    return taken or _time(tags.get("TIFFTAG_DATETIME", "")), sensor


def _time(text: str) -> datetime.datetime | None:
    """Parse a time as files have it: ISO 8601, or TIFF's form with colons in the date. Times are UTC."""
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip()).removesuffix("Z")
    with suppress(ValueError):
        return datetime.datetime.fromisoformat(text).replace(tzinfo=None)
    return None
