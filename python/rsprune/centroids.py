"""Reference centroids: fitting, saving, loading."""

from __future__ import annotations

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
from rsprune.errors import ArgumentError, FormatError, RspruneError, as_html
from rsprune.sources.filesystem import check_regular
from rsprune.tensors import read_tensors, write_tensors
from rsprune.validation import (
    check_choice,
    check_column,
    check_integer,
    check_number,
    check_threads,
    warn_caller,
)

__all__ = ["Centroids", "OnInvalid", "as_core", "check_order", "fit_centroids", "swapped_hint"]

OnInvalid = Literal["exclude", "raise"]


@dataclass(frozen=True, eq=False, repr=False)
class Centroids:
    """(K, D) unit vectors that stand for the kinds of scenes in the reference images.

    Attributes
    ----------
    vectors
        float32 (K, D), C order, rows of unit length. Other rows are normalized, with a warning.
    meta
        How they were fitted, see :func:`fit_centroids`; empty for other vectors.
    tau
        float64 (K,): the least entropy of each cluster, in bits; None unless :func:`rsprune.calibrate` made them.
    reference_counts
        int64 (K,): the number of reference images in each cluster; None likewise.

    Raises
    ------
    ShapeError, DtypeError, EmptyInputError
        ``vectors`` is no (K, D) array of floating numbers, or ``tau`` or ``reference_counts`` no (K,) of numbers.
    InvalidRowError
        A vector holds NaN or infinity, or is all zero.
    """

    vectors: NDArray[np.float32]
    meta: Mapping[str, Any] = field(default_factory=dict)
    tau: NDArray[np.float64] | None = None
    reference_counts: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", as_core(self.vectors).vectors())
        if self.tau is not None:
            object.__setattr__(self, "tau", check_column("tau", self.tau, self.k, kinds="f").astype(np.float64))
        if self.reference_counts is not None:
            counts = check_column("reference_counts", self.reference_counts, self.k, kinds="iu")
            object.__setattr__(self, "reference_counts", counts.astype(np.int64))

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

    def _repr_html_(self) -> str:
        about = {name: value for name, value in self.meta.items() if name != "encoder"}
        encoder = self.meta.get("encoder")
        named = encoder.get("name") if isinstance(encoder, Mapping) else encoder
        lines = [f"{self.k} centroids of {self.dim} dimensions" + (f", of {named}" if named else "")]
        return as_html("\n".join([*lines, *(f"{name}: {value}" for name, value in about.items())]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write vectors and meta as one safetensors file, beside ``path`` and then renamed.

        ``meta`` that JSON cannot express is an :class:`ArgumentError`.
        """
        tensors = {"centroids": self.vectors, "tau": self.tau, "reference_counts": self.reference_counts}
        there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        write_tensors(path, "centroids", there, dict(self.meta))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Centroids:
        """Read what :meth:`save` wrote, or the (K, D) vectors of a ``.npy`` file, which have no ``meta``.

        A folder that `rsprune centroids` or :func:`rsprune.prune` wrote stands for the centroids in it.

        Raises
        ------
        FormatError
            Not such a file, or its vectors are not (K, D) float32 of unit length. (Those of a ``.npy`` file are
            normalized, with a warning.)
        OSError
            The file cannot be opened.
        """
        path = Path(path)
        if path.is_dir():
            path /= "centroids.safetensors"
        check_regular(path)  # raises the OSError of the system, whatever safetensors would make of it
        if path.suffix == ".npy":
            rows = as_rows(path)
            return cls(rows.take(np.arange(rows.shape[0])))
        tensors, meta = read_tensors(path, "centroids", ["centroids"], ["tau", "reference_counts"])
        vectors = tensors.pop("centroids")
        if vectors.dtype != np.float32:
            message = f"{path}: not centroids that rsprune saved: vectors of {vectors.dtype}"
            raise FormatError(message)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                return cls(vectors, meta, **tensors)
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

    The normalized rows of all reference sets are clustered together; their class labels are not used (RS-Prune,
    Sec. 3.3). Rows are held in memory as float32, M * D * 4 bytes, unless they lie there as such; beside them stands a
    quarter of that, or half on CPUs without VNNI.

    Parameters
    ----------
    ref_embeds
        (M, D) embeddings of the reference images; see :func:`rsprune.embeddings.as_rows`.
    k
        Number of centroids.
    seed
        Seed of k-means++.
    n_init
        Runs from different starts; the one with the largest sum of cosines is kept.
    max_iter
        Largest number of iterations in a run.
    tol
        A run ends when the sum of cosines grows by less than this, relatively, or when no label changes.
    on_invalid
        Rows that are NaN, infinite or all zero: ``"exclude"`` leaves them out and counts them in
        ``meta["invalid"]``, ``"raise"`` fails on the first.
    threads
        Number of threads, all cores by default. Results do not depend on it.
    encoder
        The encoder of the embeddings, kept in ``meta["encoder"]``.

    Returns
    -------
    Centroids
        With ``meta``: ``rsprune`` (version), ``k``, ``dim``, ``seed``, ``n_init``, ``max_iter``, ``tol``, ``rows``,
        ``invalid``, ``digest`` (``blake3:`` and the hash of the rows as little-endian float32, or as float64 if that
        holds more), ``encoder``, ``iterations``, ``objective`` (sum of cosines), ``history`` (of the objective, never
        falling) and ``starts`` (rows).

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
        "tol": check_number("tol", tol, minimum=0),
    }
    rows = embeddings.on_host()
    raise_invalid = check_choice("on_invalid", on_invalid, OnInvalid) == "raise"
    threads = check_threads(threads)
    clustering = _core.kmeans(rows, raise_invalid=raise_invalid, threads=threads, **options)
    meta = {
        "rsprune": _core.VERSION,
        **options,
        "dim": rows.shape[1],
        "rows": rows.shape[0],
        "invalid": len(clustering.invalid),
        "digest": f"blake3:{rows.digest(threads=threads)}",
        "encoder": encoder if encoder is None or isinstance(encoder, str) else dict(encoder),
        "iterations": len(clustering.objective),
        "objective": float(clustering.objective[-1]),
        "history": clustering.objective.tolist(),
        "starts": clustering.seeds.tolist(),
    }
    return Centroids(clustering.centroids, meta)


def check_order(embeds: Any, centroids: Any) -> None:
    """Fail where embeddings and centroids are swapped: the first is a :class:`Centroids`, and the other is none."""
    if isinstance(embeds, Centroids) and not isinstance(centroids, Centroids | _core.Centroids):
        message = "embeds is a Centroids and centroids is none: the order of the arguments is (embeds, centroids)"
        raise ArgumentError(message)


def swapped_hint(rows: int, k: int) -> str:
    """Say which argument comes first where there are more centroids than rows to select from."""
    if k <= rows:
        return ""
    return f". There are {k} centroids for {rows} rows: the order of the arguments is (embeds, centroids)"


def as_core(centroids: Any, rows: int | None = None) -> _core.Centroids:
    """Read centroids for the core: :class:`Centroids`, a (K, D) array, or the path of a file of either.

    Vectors that are not of unit length (by more than 0.001) are normalized, with a warning. But more of them than the
    ``rows`` that are to be assigned to them are taken for embeddings, and are an :class:`ArgumentError`: the two
    arguments must have been swapped. (Whoever wants such centroids can normalize them.)
    """
    if isinstance(centroids, _core.Centroids):
        return centroids
    if isinstance(centroids, str | os.PathLike) and Path(centroids).suffix != ".npy":
        centroids = Centroids.load(centroids)
    vectors = centroids.vectors if isinstance(centroids, Centroids) else centroids
    core = _core.Centroids(as_rows(vectors).on_host())
    if core.normalized:
        k = core.shape[0]
        if rows is not None and k > rows:
            message = (
                f"{k} centroids, some not of unit length, for {rows} rows: the order of the arguments is (embeds, "
                "centroids). Normalize the centroids if they are meant as such"
            )
            raise ArgumentError(message)
        warn_caller(f"{core.normalized} of {k} centroids were not of unit length and have been normalized")
    return core
