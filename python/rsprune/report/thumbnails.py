"""Small pictures of chosen images, as text that a page can hold."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.errors import RspruneError
from rsprune.report.tally import Pick
from rsprune.sources import Source

__all__ = ["SIDE", "thumbnails"]

SIDE = 96  # pixels of the longer side
QUALITY = 85


def thumbnails(
    source: Source, picks: Iterable[Pick], keys: Mapping[int, str], options: Mapping[str, Any]
) -> dict[int, str]:
    """Read images and make them small.

    Parameters
    ----------
    source
        The collection that the run was made from.
    picks
        The images to read. Only these are read, and one is held at a time.
    keys
        The key of each by its row number. An image that the source now gives another key is left out.
    options
        ``bands``, ``valid_range`` and ``max_pixels`` of the decoder.

    Returns
    -------
    dict
        ``data:`` addresses of JPEG images by row number. Images that cannot be read now are not in it.
    """
    wanted: dict[str, dict[int, int]] = defaultdict(dict)
    for pick in picks:
        wanted[pick.shard][pick.row] = pick.number
    parts = {shard.name: shard for shard in source.shards}
    found: dict[int, str] = {}
    for name in sorted(wanted.keys() & parts.keys()):
        rows = sorted(wanted[name])
        # The page is about a run that is over: images that have gone since then leave gaps in it, no error.
        try:
            for row, item in zip(rows, source.read(parts[name], rows), strict=False):
                number = wanted[name][row]
                image = decode(item.data, options) if item.key == keys[number] else None
                if image is not None:
                    found[number] = data_address(image)
        except (OSError, RspruneError):
            continue
    return found


def decode(data: bytes | str, options: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Decode one image to uint8 (H, W, C); None where it cannot be."""
    images, _ = _core.decode_images([data], threads=1, **options)
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
