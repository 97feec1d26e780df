"""The thumbnails of the page, with their captions."""

from __future__ import annotations

import base64
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.decoding import decode_images
from rsprune.errors import KeyMismatchError, RspruneError
from rsprune.report.statistics import Example, RunStatistics
from rsprune.runs.reader import RunReader
from rsprune.sources import ImageData, Source
from rsprune.sources.keys import read_known

__all__ = ["SIDE", "Gallery", "thumbnails"]

SIDE = 96  # pixels of the longer side
QUALITY = 85  # of JPEG
PICTURE = re.compile(r'<img src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)" alt="([^"]*)">')


class Gallery:
    """The thumbnails of a page, with their captions."""

    def __init__(self, run: RunReader, counts: RunStatistics, source: Source | None) -> None:
        examples = [
            *counts.kept_in_turn(),
            *counts.lowest_entropy.examples,
            *counts.nearly_kept.examples,
            *counts.least_similar.examples,
        ]
        self.keys = keys_of_examples(run, examples)
        if source is None:
            shown = pictures_of(run.folder.report)
            self.images = {number: shown[key] for number, key in self.keys.items() if key in shown}
        else:
            entropy = run.config.get("entropy", {})
            options = {name: entropy.get(name) for name in ("bands", "valid_range", "max_pixels", "max_bytes")}
            options["valid_range"] = options["valid_range"] and tuple(options["valid_range"])
            self.images = thumbnails(source, examples, run, options)

    def tiles(self, examples: Sequence[Example]) -> str:
        """Make a grid of images; empty when the collection cannot be read."""
        if not examples or not self.images:
            return ""
        return f'<ul class="tiles">\n{"".join(self.tile(example) for example in examples)}</ul>'

    def tile(self, example: Example) -> str:
        """Make one image of a grid."""
        key = escape(self.keys[example.number])
        address = self.images.get(example.number)
        picture = f'<img src="{address}" alt="{key}">' if address else '<span class="blank">not readable now</span>'
        figures = f"{example.entropy + 0.0:.2f} bits"  # + 0.0: no minus before zero
        if example.similarity is not None:
            figures += f"<br>{example.similarity:.3f} to no. {example.cluster}"
        return (
            f'<li>{picture}<span class="key" title="{key}"><bdi>{key}</bdi></span>'
            f'<span class="figures">{figures}</span></li>\n'
        )


def keys_of_examples(run: RunReader, examples: Iterable[Example]) -> dict[int, str]:
    """Look up the key of each example, by row number."""
    keys: dict[int, str] = {}
    for shard in sorted({example.shard for example in examples}):
        some = sorted({(example.row, example.number) for example in examples if example.shard == shard})
        column = run.keys(shard).take(pa.array([row for row, _ in some])).to_pylist()
        keys.update(zip((number for _, number in some), column, strict=True))
    return keys


def pictures_of(page: Path) -> dict[str, str]:
    """Read the pictures of a page that was written before: ``data:`` addresses by the keys of the images."""
    text = page.read_bytes().decode(errors="replace") if page.is_file() else ""
    return {unescape(key): address for address, key in PICTURE.findall(text)}


def thumbnails(
    source: Source, examples: Iterable[Example], run: RunReader, options: Mapping[str, Any]
) -> dict[int, str]:
    """Read examples from the collection that the run was made from, one at a time, and scale them down.

    Returns ``data:`` addresses of JPEG images by row number, without those that cannot be read now; an image that has
    another key now is a ``KeyMismatchError``. ``options`` are ``bands``, ``valid_range``, ``max_pixels`` and
    ``max_bytes`` of the decoder.
    """
    wanted: dict[str, dict[int, int]] = defaultdict(dict)
    for example in examples:
        wanted[example.shard][example.row] = example.number
    parts = {shard.name: shard for shard in source.shards}
    found: dict[int, str] = {}
    for name in sorted(wanted.keys() & parts.keys()):
        rows = sorted(wanted[name])
        # The page is about a run that is over: images that have gone since then leave gaps in it, no error.
        try:
            known = run.names(name).take(pa.array(rows)).to_pylist()
            for row, item in zip(rows, read_known(source, parts[name], rows, known, run.folder.path), strict=True):
                image = decode(item.data, options)
                if image is not None:
                    found[wanted[name][row]] = data_address(image)
        except KeyMismatchError:
            raise
        except (OSError, RspruneError):
            continue
    return found


def decode(data: ImageData, options: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Decode one image to uint8 (H, W, C); None where it cannot be."""
    images, _ = decode_images([data], threads=1, **options)
    return images[0]


def data_address(image: NDArray[np.uint8]) -> str:
    """Encode uint8 (H, W, C) as a small JPEG in a ``data:`` address. The first three bands are shown, or the first."""
    from PIL import Image

    pixels = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
