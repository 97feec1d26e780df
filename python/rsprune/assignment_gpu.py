"""The nearest centroid of rows that lie on a GPU, found there, with the bytes of the host.

Matrix units that multiply float16 score every centroid; a bound on their error says which centroids may be the nearest;
of those the dot products are computed again, in float64 and in the order of additions that defines them. Rows that the
bound does not cover go to the host.

**The bound.** Let ``d = c - m`` be a centroid less the mean of all, ``x'`` and ``d'`` the row and that difference, each
scaled to a norm of about 2^7 and rounded to float16, and ``y`` the score that the device returns for ``x' . d'``. As
``x . m`` is common to all centroids, the one with the largest ``x . d`` is the nearest. In units of the scaled vectors:

- Rounding the factors: ``|x . d - x' . d'| <= |x - x'| |d'| + |x| |d - d'|``. The second error is computed. The first
  is at most ``2^-11 |x|``, none for rows of float16 and bfloat16, which are scaled by powers of two.
- Subnormal numbers, which may be flushed to zero: ``2^-14`` an element, so ``2^-14 sqrt(D) (|x| + |d'|)``, and as much
  as ``2^-14`` of the score.
- Adding up: products of float16 are exact in float32. Let partial sums be held in float32 and added in any order and in
  groups of any size, each addend cut at the last bit of the largest of its group, and each sum rounded in any
  direction. With D products and no more than D sums, each of which is an addend again, that is 3 D errors, each below
  ``2^-23 S`` where S bounds the partial sums: ``|x'| |d'|``, but for these errors themselves. ``D 2^-21 |x'| |d'|``
  covers it all up to D = 2^16.
- Rounding the score to float16, in any direction: ``2^-10 |y|``.
- The float64 dot products that define the answer are rounded, and so are the differences: ``(D + 4) 2^-52 |x| |c|``.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.embeddings import device_block_rows, host_blocks

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["assign", "supports"]

# Kinds of devices whose float64 additions and multiplications are known to be those of IEEE 754, and whose matrix units
# are known to add in float32. (Of ROCm, too: its devices call themselves the same.)
_KINDS = {"cuda"}

_MAX_DIM = 1 << 16
_MIN_NORM, _MAX_NORM = 2.0**-60, 2.0**60

# Scaled rows have norms from this to twice this, the longest scaled difference has it: all scores are below 2^15.
_SCALED_NORM = 2.0**7
_ROUNDING = 2.0**-11 * (1 + 2.0**-10)  # float64 is rounded to float32 on the way
_SUBNORMAL = 2.0**-14
# 2^-10, and enough for its own square and for the rounding of the threshold to float32.
_SCORE_ROUNDING = 2.0**-10 * (1 + 2.0**-8)

# Memory on the device: of a block of rows, and pairs of a row and a centroid that are scored again at a time.
_BLOCK_BYTES = 512 << 20
_PAIRS = 1 << 18
# Columns that are gathered at a time for those, a multiple of the lanes.
_TILE = 32
_LANES = 8

_setting_flags = threading.Lock()


def supports(rows: Tensor, centroids: _core.Centroids) -> bool:
    """Tell whether :func:`assign` can take these rows; others go to the host, which also reports what is wrong."""
    return rows.device.type in _KINDS and rows.shape[1] == centroids.shape[1] <= _MAX_DIM


def assign(
    rows: Tensor,
    centroids: _core.Centroids,
    *,
    normalize: bool,
    raise_invalid: bool,
    first_row: int,
    threads: int | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return labels and similarities of rows on a device, as ``_core.assign`` does for rows on the host."""
    run = _assign
    if "torch._dynamo" in sys.modules:
        # The caller may be compiled, which fuses operations that must round each for itself.
        run = sys.modules["torch"].compiler.disable(_assign)
    return run(rows, centroids, normalize, raise_invalid, first_row, threads)


def _assign(
    rows: Tensor,
    centroids: _core.Centroids,
    normalize: bool,
    raise_invalid: bool,
    first_row: int,
    threads: int | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    torch = sys.modules["torch"]
    labels = np.empty(len(rows), np.int32)
    similarity = np.empty(len(rows), np.float32)
    options: dict[str, Any] = {"normalize": normalize, "block_rows": None, "threads": threads}
    # Neither gradients nor what the caller allows of lower precision are for here.
    with torch.inference_mode(), torch.autocast(rows.device.type, enabled=False):
        nearest = _GpuAssigner(torch, centroids, rows)
        for start in range(0, len(rows), nearest.block_rows):
            block = slice(start, start + nearest.block_rows)
            missing = nearest.find(rows[block], labels[block], similarity[block], normalize)
            step = device_block_rows(rows)
            for some in (missing[i : i + step] for i in range(0, missing.size, step)):
                part = next(host_blocks(rows[block].index_select(0, torch.from_numpy(some).to(rows.device))))
                answer = _core.assign(part, centroids, raise_invalid=False, first_row=0, **options)
                labels[block][some], similarity[block][some] = answer
            if raise_invalid and labels[block].min() < 0:
                row = start + int(labels[block].argmin())
                part = next(host_blocks(rows[row : row + 1]))
                _core.assign(part, centroids, raise_invalid=True, first_row=first_row + row, **options)
    return labels, similarity


class _GpuAssigner:
    """Centroids prepared for a device and for rows of one dtype."""

    def __init__(self, torch: Any, centroids: _core.Centroids, rows: Tensor) -> None:
        self.torch = torch
        self.vectors = torch.from_numpy(centroids.vectors()).to(rows.device, torch.float64)
        k, dim = self.vectors.shape

        def longest(vectors: Tensor) -> float:
            return float(torch.linalg.vector_norm(vectors, dim=1).max().item()) * (1 + 2.0**-20)

        differences = self.vectors - self.vectors.mean(dim=0)
        scale = _SCALED_NORM / (longest(differences) or 1.0)
        self.filter = (differences * scale).to(torch.float16)
        rounded = self.filter.to(torch.float64)
        exact = rows.dtype in (torch.float16, torch.bfloat16)
        rounding = (0.0 if exact else _ROUNDING) + dim * 2.0**-21 * (1 + 2.0**-9)
        subnormal = _SUBNORMAL * math.sqrt(dim)
        # How far a score may be from the exact one, in units of the norm of the row, its own rounding not counted.
        self.bound = (
            longest(rounded) * (rounding + subnormal / _SCALED_NORM)
            + longest(differences * scale - rounded)
            + subnormal * (1 + 2.0**-9)
            + _SUBNORMAL / _SCALED_NORM
            + scale * (dim + 4) * 2.0**-52 * longest(self.vectors)
        )
        # Bytes for each row: itself in float16, K scores and flags, two float64 tiles, two sets of lanes, 128 spare.
        self.block_rows = max(1, _BLOCK_BYTES // (2 * dim + 3 * k + 2 * 8 * _TILE + 2 * 8 * _LANES + 128))

    def find(
        self, rows: Tensor, labels: NDArray[np.int32], similarity: NDArray[np.float32], normalize: bool
    ) -> NDArray[np.int64]:
        """Fill in labels and similarities; return the rows that the bound does not cover, which are not filled in."""
        torch = self.torch
        squares = self._lane_dots((tile, tile) for tile in (part.to(torch.float64) for part in _tiles(rows)))
        possible = self._possible(rows, squares.sqrt())
        counts, squared = possible.sum(dim=1).cpu().numpy(), squares.cpu().numpy()
        ends = np.cumsum(counts)
        start = 0
        while start < len(counts):
            # As many rows as there is room for their pairs.
            before = ends[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
            found = np.flatnonzero(counts[start:end])
            if found.size:
                first = (ends[start:end] - counts[start:end] - before)[found]
                best, dots = self._best(rows[start:end], possible[start:end], first, int(counts[start:end].max()))
                found += start
                labels[found] = best
                # On the host, whose roots and quotients are surely those of IEEE 754.
                similarity[found] = dots / np.sqrt(squared[found]) if normalize else dots
            start = end
        return np.flatnonzero(counts == 0)

    def _possible(self, rows: Tensor, norms: Tensor) -> Tensor:
        """Mark the centroids that may be the nearest, bool (rows, K); none for rows that the bound does not cover."""
        torch = self.torch
        # The exponent alone: a power of two.
        scale = _SCALED_NORM / (norms.view(torch.int64) & (0x7FF << 52)).view(torch.float64)
        factor = scale[:, None].to(torch.promote_types(rows.dtype, torch.float32))
        rounded = torch.mul(rows, factor, out=rows.new_empty(rows.shape, dtype=torch.float16))
        scores = _product(torch, rounded, self.filter.t())
        best = scores.amax(dim=1).to(torch.float64)
        # The exact score of the nearest is no less than that of the best, and its own score may be rounded, too.
        least = best - _SCORE_ROUNDING * best.abs() - 2 * self.bound * (norms * scale)
        least = least - _SCORE_ROUNDING * least.abs()
        covered = (norms >= _MIN_NORM) & (norms <= _MAX_NORM)
        # Nothing is as large as NaN.
        least = least.masked_fill(~covered, torch.nan).to(torch.float32)
        possible: Tensor = scores >= least[:, None]
        return possible

    def _best(
        self, rows: Tensor, possible: Tensor, first: NDArray[np.int64], most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return, for each row that has any, the nearest of the possible centroids and its dot product.

        ``first`` are the places where the pairs of such rows begin; none has more than ``most``.
        """
        torch = self.torch
        row, k = possible.nonzero(as_tuple=True)
        tiles = zip(_tiles(rows), _tiles(self.vectors), strict=True)
        dots = self._lane_dots((x.index_select(0, row), c.index_select(0, k)) for x, c in tiles)
        # Each pair takes the best of those from itself on that are of its row, twice as many in every round. The later
        # ones have higher k, so they must be better.
        reach = 1
        while reach < most:
            better = (row[reach:] == row[:-reach]) & (dots[reach:] > dots[:-reach])
            dots = torch.cat([torch.where(better, dots[reach:], dots[:-reach]), dots[-reach:]])
            k = torch.cat([torch.where(better, k[reach:], k[:-reach]), k[-reach:]])
            reach *= 2
        at = torch.from_numpy(first).to(rows.device)
        return k[at].cpu().numpy(), dots[at].cpu().numpy()

    def _lane_dots(self, tiles: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Compute dot products of rows that come in tiles of columns, the second of each two tiles in float64.

        The definition, in eight lanes that are added as a tree, stands in ``rust/core/src/assign/lanes.rs``. Products
        and sums are separate operations, so none is fused. What pads the last step with zeros there is left out here:
        no lane is ever -0.0, so adding 0.0 changes nothing.
        """
        sums: Any = None
        for x, y in tiles:
            products: Any = x * y  # in float64: the operand of fewer bits is widened
            if sums is None:
                sums = products.new_zeros(len(products), _LANES)
            for step in products.split(_LANES, 1):
                sums[:, : step.shape[1]] += step
        s = sums.unbind(1)
        dots: Tensor = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
        return dots


def _tiles(matrix: Any) -> Iterable[Tensor]:
    """Split a matrix into views of a few columns each."""
    tiles: Iterable[Tensor] = matrix.split(_TILE, 1)
    return tiles


def _product(torch: Any, a: Tensor, b: Tensor) -> Tensor:
    """Multiply float16 matrices with partial sums in float32, even where the caller allows less for them."""
    flags = torch.backends.cuda.matmul
    reduction, accumulation = "allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation"
    with _setting_flags:
        allowed = {name: getattr(flags, name) for name in (reduction, accumulation) if hasattr(flags, name)}
        split_k = getattr(flags, f"{reduction}_split_k", None)
        try:
            for name in allowed:
                setattr(flags, name, False)
            product: Tensor = a @ b
        finally:
            # Later versions of torch set a second flag together with the first.
            if split_k is not None:
                allowed[reduction] = (allowed[reduction], split_k)
            for name, value in allowed.items():
                setattr(flags, name, value)
    return product
