"""The pictures of the page: small JPEGs in its text, each twice as large as it is shown."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.decoding import decode_images
from rsprune.errors import KeyMismatchError, RspruneError
from rsprune.report.examples import Example
from rsprune.report.statistics import Strip
from rsprune.runs.reader import RunReader
from rsprune.sources import ImageData, Source
from rsprune.sources.keys import read_known

__all__ = ["LARGE", "SMALL", "Gallery"]

LARGE, SMALL = 96, 56  # CSS pixels of the longer side: of a tile, and of a picture of a strip
QUALITY = {LARGE: 85, SMALL: 75}  # of JPEG
MOST = 11 << 20  # characters of all pictures together: the page stays under 15 MB
PICTURE = re.compile(r'<img src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)" width="(\d+)" height="\d+" alt="([^"]*)">')
MAP_DATA = re.compile(r'<script type="application/json" id="map-data">(.*?)</script>', re.DOTALL)


class Gallery:
    """The pictures of a page, by the sizes in which they are shown.

    Parameters
    ----------
    run
        The run.
    wanted
        The examples that are shown, the most important first, with the size of each.
    named
        Other images whose keys are shown.
    source
        The collection; without it the pictures are those of the page that is there.
    """

    def __init__(
        self,
        run: RunReader,
        wanted: Sequence[tuple[int, Example]],
        named: Iterable[Example] = (),
        source: Source | None = None,
    ) -> None:
        self.keys = keys_of_examples(run, {*(example for _, example in wanted), *named})
        if source is None:
            shown = pictures_of(run.folder.report)
            found = {(side, one.number): shown.get((side, self.keys[one.number])) for side, one in wanted}
            self._pictures = {place: address for place, address in found.items() if address is not None}
            #: Whether pictures of the page that is there are shown no longer.
            self.loses = bool(shown) and not self._pictures
        else:
            entropy = run.config.get("entropy", {})
            options = {name: entropy.get(name) for name in ("bands", "valid_range", "max_pixels", "max_bytes")}
            options["valid_range"] = options["valid_range"] and tuple(options["valid_range"])
            self._pictures = pictures(source, wanted, run, options)
            self.loses = False
        self.missing = len({(side, one.number) for side, one in wanted}) - len(self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def key(self, example: Example) -> str:
        """Return the key of an example."""
        return self.keys[example.number]

    def picture(self, example: Example, side: int) -> str | None:
        """Return the address of a picture; None if the image cannot be read now."""
        return self._pictures.get((side, example.number))

    def shows(self, strip: Strip, side: int) -> bool:
        """Tell whether there is a picture of a strip."""
        return any(self.picture(one, side) for part in vars(strip).values() for one in part)


def keys_of_examples(run: RunReader, examples: Iterable[Example]) -> dict[int, str]:
    """Look up the key of each example, by row number."""
    places: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for example in examples:
        places[example.shard].add((example.row, example.number))
    keys: dict[int, str] = {}
    for shard in sorted(places):
        some = sorted(places[shard])
        column = run.keys(shard).take(pa.array([row for row, _ in some])).to_pylist()
        keys.update(zip((number for _, number in some), column, strict=True))
    return keys


def pictures_of(page: Path) -> dict[tuple[int, str], str]:
    """Read the pictures of a page that was written before: ``data:`` addresses by their sizes and keys."""
    text = page.read_bytes().decode(errors="replace") if page.is_file() else ""
    found = {(int(side), unescape(key)): address for address, side, key in PICTURE.findall(text)}
    for data in MAP_DATA.findall(text):
        with suppress(ValueError, AttributeError):
            found |= {(SMALL, key): address for key, address in json.loads(data).get("pictures", {}).items()}
    return found


def pictures(
    source: Source, wanted: Sequence[tuple[int, Example]], run: RunReader, options: Mapping[str, Any]
) -> dict[tuple[int, int], str]:
    """Read examples from the collection that the run was made from, one at a time, and scale them down.

    Returns ``data:`` addresses of JPEG images by size and row number, without those that cannot be read now and those
    for which the page has no room; an image that has another key now is a ``KeyMismatchError``. ``options`` are
    ``bands``, ``valid_range``, ``max_pixels`` and ``max_bytes`` of the decoder.
    """
    sides: dict[Example, list[int]] = defaultdict(list)
    for side, example in dict.fromkeys(wanted):
        sides[example].append(side)
    by_shard: dict[str, dict[int, Example]] = defaultdict(dict)
    for example in sides:
        by_shard[example.shard][example.row] = example
    parts = {shard.name: shard for shard in source.shards}
    found: dict[tuple[int, int], str] = {}
    for name in sorted(by_shard.keys() & parts.keys()):
        rows = sorted(by_shard[name])
        # The page is about a run that is over: images that have gone since then leave gaps in it, no error.
        try:
            known = run.names(name).take(pa.array(rows)).to_pylist()
            for row, item in zip(rows, read_known(source, parts[name], rows, known, run.folder.path), strict=True):
                image = decode(item.data, options)
                if image is not None:
                    example = by_shard[name][row]
                    found |= {(side, example.number): data_address(image, side) for side in sides[example]}
        except KeyMismatchError:
            raise
        except (OSError, RspruneError):
            continue
    return within_room(found, [(side, example.number) for side, example in wanted])


def within_room(found: Mapping[tuple[int, int], str], order: Sequence[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Keep the first pictures of an order that the page has room for."""
    kept, room = {}, MOST
    for place in dict.fromkeys(order):
        if place in found and (room := room - len(found[place])) >= 0:
            kept[place] = found[place]
    return kept


def decode(data: ImageData, options: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Decode one image to uint8 (H, W, C); None where it cannot be."""
    images, _ = decode_images([data], threads=1, **options)
    return images[0]


def data_address(image: NDArray[np.uint8], side: int) -> str:
    """Encode uint8 (H, W, C) as a JPEG of twice ``side`` in a ``data:`` address.

    The first three bands are shown, or the first.
    """
    from PIL import Image

    pixels = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((2 * side, 2 * side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY[side], optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
