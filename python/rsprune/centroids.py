"""Reference centroids: fitting, saving, loading."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.embeddings import as_rows
from rsprune.errors import ArgumentError, FormatError, RspruneError
from rsprune.io import atomic_write
from rsprune.validation import check_integer, check_threads

__all__ = ["Centroids", "OnInvalid", "as_core", "check_on_invalid", "fit_centroids"]

OnInvalid = Literal["exclude", "raise"]

_TENSOR = "centroids"
_METADATA = "rsprune"


@dataclass(frozen=True, eq=False, repr=False)
class Centroids:
    """(K, D) unit vectors that stand for the kinds of scenes in the reference images.

    Attributes
    ----------
    vectors
        float32 (K, D), C order, rows of unit length. Rows that are given with another length are normalised, with a
        warning.
    meta
        Where they come from; empty for vectors that were not made by :func:`fit_centroids`.

    Raises
    ------
    ShapeError, DtypeError, EmptyInputError
        ``vectors`` is no (K, D) array of floating numbers.
    InvalidRowError
        A vector holds NaN or infinity, or is all zero.
    """

    vectors: NDArray[np.float32]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", as_core(self.vectors, stacklevel=4).vectors())

    @property
    def k(self) -> int:
        """Number of centroids."""
        return int(self.vectors.shape[0])

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return int(self.vectors.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.vectors, dtype=dtype) if copy else np.asarray(self.vectors, dtype=dtype)

    def __repr__(self) -> str:
        encoder = self.meta.get("encoder")
        return f"Centroids(k={self.k}, dim={self.dim}" + (f", encoder={encoder!r})" if encoder else ")")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write vectors and meta as one safetensors file, beside ``path`` and then renamed.

        Raises
        ------
        ArgumentError
            ``meta`` holds something that JSON cannot express.
        """
        from safetensors.numpy import save

        try:
            meta = json.dumps(dict(self.meta), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            message = f"the meta of centroids must be JSON: {error}"
            raise ArgumentError(message) from error
        content = save({_TENSOR: np.ascontiguousarray(self.vectors)}, metadata={_METADATA: meta})
        with atomic_write(path) as beside:
            beside.write_bytes(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Centroids:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FormatError
            Not such a file, or its vectors are not (K, D) float32 of unit length.
        OSError
            The file cannot be opened.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        path.open("rb").close()  # an OSError of the system's own, whatever safetensors would make of it
        try:
            with safe_open(path, framework="np") as file:
                meta = json.loads((file.metadata() or {})[_METADATA])
                vectors = file.get_tensor(_TENSOR)
        except (SafetensorError, KeyError, ValueError) as error:
            message = f"{path}: not centroids that rsprune saved: {error}"
            raise FormatError(message) from error
        if vectors.dtype != np.float32 or not isinstance(meta, dict):
            message = (
                f"{path}: not centroids that rsprune saved: vectors of {vectors.dtype}, meta {type(meta).__name__}"
            )
            raise FormatError(message)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                return cls(vectors, meta)
        except (RspruneError, UserWarning) as error:
            message = f"{path}: {error}"
            raise FormatError(message) from error


def fit_centroids(
    ref_embeds: Any,
    k: int = 200,
    *,
    seed: int = 0,
    n_init: int = 4,
    max_iter: int = 100,
    tol: float = 1e-4,
    on_invalid: OnInvalid = "exclude",
    threads: int | None = None,
    encoder: Mapping[str, Any] | str | None = None,
) -> Centroids:
    """Fit reference centroids by spherical K-means with k-means++ starts.

    The normalised rows of all reference sets are clustered together; their class labels are not used (RS-Prune,
    Sec. 3.3). Rows are held in memory as float32, M * D * 4 bytes, unless they lie there as such; beside them stands a
    quarter of that, or half on CPUs without VNNI.

    Parameters
    ----------
    ref_embeds
        (M, D) embeddings of the reference images; see :func:`rsprune.embeddings.as_rows`.
    k
        Number of centroids.
    seed
        Of the draws of k-means++.
    n_init
        Runs from different starts; the one with the largest sum of cosines is kept.
    max_iter
        Iterations in a run, at most.
    tol
        A run ends when the sum of cosines grows by less than this, relatively, or when no label changes.
    on_invalid
        Rows that are NaN, infinite or all zero: ``"exclude"`` leaves them out and counts them in
        ``meta["invalid"]``, ``"raise"`` fails on the first.
    threads
        All cores by default. Never shows in the result.
    encoder
        What made the embeddings; kept in ``meta["encoder"]``.

    Returns
    -------
    Centroids
        With ``meta``: ``rsprune`` (version), ``k``, ``dim``, ``seed``, ``n_init``, ``max_iter``, ``tol``, ``rows``,
        ``invalid``, ``digest`` (``blake3:`` and the hash of the rows as little-endian float32, or as float64 if that
        holds more), ``encoder``, ``iterations``,
        ``objective`` (sum of cosines), ``history`` (of the objective, never falling) and ``starts`` (rows).

    Raises
    ------
    ArgumentError
        An option out of range, or fewer (distinct) valid rows than ``k``.
    InvalidRowError
        With ``on_invalid="raise"``.
    """
    embeddings = as_rows(ref_embeds)
    options: dict[str, Any] = {
        "k": check_integer("k", k),
        "seed": check_integer("seed", seed, minimum=0),
        "n_init": check_integer("n_init", n_init),
        "max_iter": check_integer("max_iter", max_iter),
        "tol": _check_tol(tol),
    }
    rows = embeddings.on_host()
    raise_invalid, threads = check_on_invalid(on_invalid), check_threads(threads)
    vectors, history, starts, invalid = _core.fit_rows(rows, raise_invalid=raise_invalid, threads=threads, **options)
    meta = {
        "rsprune": _core.VERSION,
        **options,
        "dim": rows.shape[1],
        "rows": rows.shape[0],
        "invalid": len(invalid),
        "digest": f"blake3:{rows.digest(threads=threads)}",
        "encoder": encoder if encoder is None or isinstance(encoder, str) else dict(encoder),
        "iterations": len(history),
        "objective": float(history[-1]),
        "history": history.tolist(),
        "starts": starts.tolist(),
    }
    return Centroids(vectors, meta)


def as_core(centroids: Any, stacklevel: int = 3) -> _core.Centroids:
    """Centroids as the core wants them.

    Vectors that are not of unit length (by more than 0.001) are normalised, with a warning that points ``stacklevel``
    calls up.
    """
    if isinstance(centroids, _core.Centroids):
        return centroids
    vectors = centroids.vectors if isinstance(centroids, Centroids) else centroids
    core = _core.Centroids(as_rows(vectors).on_host())
    if core.normalized:
        message = f"{core.normalized} of {core.shape[0]} centroids were not of unit length and have been normalised"
        warnings.warn(message, UserWarning, stacklevel=stacklevel)
    return core


def check_on_invalid(on_invalid: str) -> bool:
    """Whether to raise on invalid rows."""
    if on_invalid not in ("exclude", "raise"):
        message = f"on_invalid is {on_invalid!r}; expected 'exclude' or 'raise'"
        raise ArgumentError(message)
    return on_invalid == "raise"


def _check_tol(tol: Any) -> float:
    if not isinstance(tol, int | float | np.integer | np.floating):
        message = f"tol is {tol!r}; expected a number of at least 0"
        raise ArgumentError(message)
    return float(tol)
