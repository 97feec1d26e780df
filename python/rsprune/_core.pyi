"""The compiled core. Its users are the modules of rsprune; everybody else calls those."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "VERSION",
    "Centroids",
    "Clustering",
    "Rows",
    "Selection",
    "apportion",
    "assign",
    "cpu_features",
    "decode_images",
    "distances",
    "dots",
    "entropy_arrays",
    "entropy_images",
    "facility_location",
    "facility_location_on_graph",
    "farthest_first",
    "graph_components",
    "greedy_dedup",
    "hash64",
    "hash_strings",
    "herd",
    "kmeans",
    "knn",
    "max_similarity_to_earlier",
    "medians",
    "pass_messages",
    "preprocess_images",
    "sample_values",
    "score_images",
    "select",
    "similar_components",
    "softmax",
    "take_rows",
    "valid",
]

VERSION: str

# What images are made of; (H, W) or (H, W, C), contiguous.
_Samples = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int16] | NDArray[np.float32] | NDArray[np.float64]

def cpu_features() -> dict[str, bool | str | dict[str, str]]: ...

# Images are paths (str), encoded images (bytes), and contiguous arrays (H, W) or (H, W, C). One that fails leaves NaN
# or None in its place and its (number, kind, message) in the second list, for `rsprune.errors.failure`.
def decode_images(
    items: Sequence[str | bytes | tuple[str, int, int] | _Samples],
    /,
    *,
    bands: Sequence[int] | None = None,
    valid_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
) -> tuple[list[NDArray[np.uint8] | None], list[tuple[int, str, str]]]: ...

# Of images of more than 8 bits a sample: dtype and about `count` values, all but those of nodata, NaN and infinity.
def sample_values(
    items: Sequence[str | bytes | tuple[str, int, int] | _Samples],
    /,
    *,
    count: int,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
) -> tuple[list[tuple[str, NDArray[np.float64]] | None], list[tuple[int, str, str]]]: ...

# Into `out`, contiguous (n, S, S, 3): whole images squashed, or, with `resize_to`, squares from the middle of images
# whose shorter side, or with `squash` each side, was brought to that. An image that fails leaves zeros.
def preprocess_images(
    items: Sequence[str | bytes | tuple[str, int, int] | _Samples],
    out: NDArray[np.uint8],
    /,
    *,
    interpolation: str,
    resize_to: int | None = None,
    squash: bool = False,
    middle: str = "even",
    bands: Sequence[int] | None = None,
    valid_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
) -> list[tuple[int, str, str]]: ...
def entropy_arrays(
    array: _Samples,
    /,
    *,
    gray: str,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    valid_range: tuple[float, float] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], list[tuple[int, str, str]]]: ...
def entropy_images(
    items: Sequence[str | bytes | tuple[str, int, int] | _Samples],
    /,
    *,
    gray: str,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    valid_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], list[tuple[int, str, str]]]: ...

# A row an image: entropy, width, height, mean, standard deviation, sharpness, JPEG quality; NaN for what it has not.
def score_images(
    items: Sequence[str | bytes | tuple[str, int, int] | _Samples],
    /,
    *,
    gray: str,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    valid_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], list[tuple[int, str, str]]]: ...

@final
class Rows:
    def __new__(cls, parts: list[NDArray[Any] | str | PathLike[str]], /) -> Rows: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def read(self, start: int, stop: int, /) -> NDArray[np.float64]: ...
    def digest(self, *, threads: int | None) -> str: ...

@final
class Centroids:
    def __new__(cls, vectors: Rows, /) -> Centroids: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def normalized(self) -> int: ...
    def vectors(self) -> NDArray[np.float32]: ...

def assign(
    rows: Rows,
    centroids: Centroids,
    /,
    *,
    normalize: bool,
    raise_invalid: bool,
    first_row: int,
    block_rows: int | None,
    threads: int | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...
def take_rows(rows: Rows, numbers: NDArray[np.int64], /) -> NDArray[np.float32] | NDArray[np.float64]: ...
def valid(rows: Rows, /, *, threads: int | None) -> NDArray[np.bool_]: ...
def medians(rows: Rows, labels: NDArray[np.int32], /, *, k: int, threads: int | None) -> NDArray[np.float64]: ...
def distances(
    rows: Rows, labels: NDArray[np.int32], centers: NDArray[np.float64], /, *, threads: int | None
) -> NDArray[np.float64]: ...
def herd(
    rows: Rows, labels: NDArray[np.int32], counts: NDArray[np.int64], /, *, threads: int | None
) -> NDArray[np.int64]: ...
def dots(a: Rows, b: Rows, /, *, threads: int | None) -> NDArray[np.float64]: ...
def softmax(values: NDArray[np.float64], temperature: float, /) -> NDArray[np.float64]: ...
def hash64(seed: int, start: int, stop: int, /) -> NDArray[np.uint64]: ...

# Hashes of the strings of an Arrow array, by its bytes and offsets; those of one build alone.
def hash_strings(bytes: NDArray[np.uint8], offsets: NDArray[np.int32], /) -> NDArray[np.uint64]: ...
def apportion(
    total: int,
    weights: NDArray[np.float64] | Sequence[int],
    lower: NDArray[np.int64],
    upper: NDArray[np.int64],
    /,
    *,
    offsets: NDArray[np.float64] | None,
    priority: NDArray[np.uint64] | None,
) -> NDArray[np.int64]: ...

# Rows selected, ascending. `counts` is int64 (k, 4): pool, quota, fill, preselected.
@final
class Selection:
    @property
    def indices(self) -> NDArray[np.int64]: ...
    @property
    def cluster(self) -> NDArray[np.int32]: ...
    @property
    def similarity(self) -> NDArray[np.float32]: ...
    @property
    def phase(self) -> NDArray[np.uint8]: ...
    @property
    def counts(self) -> NDArray[np.int64]: ...
    @property
    def invalid(self) -> NDArray[np.int64]: ...

def select(
    labels: NDArray[np.int32],
    similarity: NDArray[np.float32],
    /,
    *,
    k: int,
    budget: int,
    fill: str,
    within: str,
    seed: int,
    exclude: NDArray[np.int64],
    preselected: NDArray[np.int64],
    strict: bool,
    threads: int | None,
    numbers: NDArray[np.int64] | None = None,
    pools: Sequence[int] | None = None,
    weights: Sequence[int] | None = None,
) -> Selection: ...

# Centroids float32 (k, D), the objective after each iteration of the best run, the rows that it started from.
@final
class Clustering:
    @property
    def centroids(self) -> NDArray[np.float32]: ...
    @property
    def objective(self) -> NDArray[np.float64]: ...
    @property
    def seeds(self) -> NDArray[np.int64]: ...
    @property
    def invalid(self) -> NDArray[np.int64]: ...

def kmeans(
    rows: Rows,
    /,
    *,
    k: int,
    seed: int,
    n_init: int,
    max_iter: int,
    tol: float,
    raise_invalid: bool,
    threads: int | None,
) -> Clustering: ...

# Groups are rows in an order, one group after the other, and where each starts, with the end of the last: int64.
# Neighbors are int64 (N, k), -1 for none, with their similarity, float32 (N, k).
def knn(
    queries: Rows, base: Rows, /, *, k: int, exclude_self: bool, threads: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
def max_similarity_to_earlier(
    rows: Rows, order: NDArray[np.int64], starts: NDArray[np.int64], /, *, threads: int | None
) -> NDArray[np.float32]: ...
def greedy_dedup(
    rows: Rows, order: NDArray[np.int64], starts: NDArray[np.int64], /, *, threshold: float, threads: int | None
) -> NDArray[np.bool_]: ...
def similar_components(
    rows: Rows, order: NDArray[np.int64], starts: NDArray[np.int64], /, *, threshold: float, threads: int | None
) -> NDArray[np.int64]: ...
def graph_components(
    neighbors: NDArray[np.int64], similarity: NDArray[np.float32], /, *, threshold: float
) -> NDArray[np.int64]: ...
def farthest_first(
    rows: Rows, given: NDArray[np.int64], /, *, count: int, distance: float, threads: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
def facility_location(
    rows: Rows,
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    budgets: NDArray[np.int64],
    /,
    *,
    threads: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def facility_location_on_graph(
    neighbors: NDArray[np.int64], similarity: NDArray[np.float32], /, *, budget: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def pass_messages(
    neighbors: NDArray[np.int64],
    similarity: NDArray[np.float32],
    scores: NDArray[np.float64],
    /,
    *,
    multiply: bool,
    gamma: float,
    budget: int,
) -> NDArray[np.int64]: ...
