"""Comparison of selection methods on one pool, at the same budgets, by the same measures."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import strategies
from rsprune.centroids import Centroids, as_core, fit_centroids
from rsprune.charts import Panel, dots
from rsprune.embeddings import as_rows
from rsprune.errors import ArgumentError, BudgetError, EmptyInputError, MissingInputError
from rsprune.evaluation.subset import SubsetEvaluator
from rsprune.experiments.pool import ArrayPool, EmbeddedPool, Pool, known_to, read_classes
from rsprune.experiments.tables import Column, csv_table, markdown_table, text_table, write_results
from rsprune.io import (
    check_output_folder,
    digest,
    provenance_header,
    verified_record,
    write_npy,
    write_record,
    write_text,
)
from rsprune.options import Options, keywords, option
from rsprune.runners import Progress, show_progress
from rsprune.runs.config import parse_budget, parse_settings
from rsprune.runs.row_names import row_names
from rsprune.selection import budget_rows
from rsprune.sources.filesystem import load_array
from rsprune.sources.key_lines import line_of_key
from rsprune.validation import check_column

__all__ = ["CompareOptions", "Comparison", "Entry", "compare", "parse"]

COLUMNS = (
    Column("rows", "rows", 0),
    Column("coverage", "coverage", 3, better="higher: like the pool"),
    Column("density", "density", 2),
    Column("mmd", "MMD 1e3", 2, 1e3),
    Column("frechet", "FD", 4),
    Column("mean_nn_distance", "mean NN distance", 3),
    Column("covering_radius", "covering radius", 3),
    Column("target_coverage", "target coverage", 3, better="higher"),
    Column("target_density", "target density", 2),
    Column("target_mmd", "target MMD 1e3", 2, 1e3),
    Column("target_frechet", "target FD", 4, better="lower"),
    Column("knn_radius", "k-NN radius", 3),
    Column("vendi", "Vendi", 1, better="higher: more varied"),
    Column("balance", "balance", 3, better="higher"),
    Column("duplicates", "duplicates", 3, better="lower"),
    Column("class_balance", "class balance", 3, better="higher"),
    Column("class_coverage", "class coverage", 3),
    Column("low_entropy", "low entropy", 3, better="lower"),
    Column("seconds", "seconds", 2),
)


@dataclass(frozen=True)
class Entry:
    """One method at one budget: its metrics, or why it has none.

    The metrics are those of :class:`rsprune.evaluation.SubsetMetrics`, ``low_entropy`` (share of images below the
    pool's lower quartile of entropy) and ``seconds`` (of the selection alone).
    """

    strategy: str  # the method with its options, as it was given
    keep: float  # the fraction of the collection, or the number of images
    metrics: Mapping[str, float | None]
    failure: str | None = None  # why the method could not choose so many


@dataclass(frozen=True)
class Comparison:
    """A finished comparison."""

    path: Path  # the folder with compare.txt, compare.csv, compare.md, compare.svg, and each selection's rows
    head: tuple[str, ...]  # what was compared, in lines
    entries: tuple[Entry, ...]  # one for each method and budget

    def describe(self) -> str:
        """The table as text."""
        return "\n".join([*self.head, "", *self._tables(text_table), f"written to {self.path}"])

    def markdown(self) -> str:
        """The table in Markdown."""
        return "\n".join([*(f"- {line}" for line in self.head), "", *self._tables(markdown_table)])

    def csv(self) -> str:
        """The table as CSV, with the numbers unrounded."""
        rows = [{"strategy": one.strategy, "keep": one.keep, **one.metrics} for one in self.entries if not one.failure]
        return csv_table(["strategy", "keep", *(column.name for column in COLUMNS)], rows)

    def figure(self) -> str:
        """The figure: a dot for each method and budget, a panel for each measure."""
        names = list(dict.fromkeys(one.strategy for one in self.entries))
        keeps = list(dict.fromkeys(one.keep for one in self.entries))
        found = {(one.strategy, one.keep): one.metrics for one in self.entries}
        panels = [
            Panel(
                one.head, one.better, [[found.get((name, keep), {}).get(one.name) for name in names] for keep in keeps]
            )
            for one in self._used_columns()
            if one.better is not None
        ]
        return dots(self.head[0], names, [f"keep {keep:g}" for keep in keeps], panels)

    def _used_columns(self) -> list[Column]:
        return [one for one in COLUMNS if any(entry.metrics.get(one.name) is not None for entry in self.entries)]

    def _tables(self, table: Any) -> list[str]:
        lines: list[str] = []
        used = self._used_columns()
        for keep in dict.fromkeys(one.keep for one in self.entries):
            mine = [one for one in self.entries if one.keep == keep]
            lines += [
                f"keep {keep:g}",
                "",
                table(used, [(one.strategy, one.metrics) for one in mine if not one.failure]),
            ]
            lines += [*(f"{one.strategy}: {one.failure}" for one in mine if one.failure), ""]
        return lines


@dataclass(frozen=True)
class CompareOptions(Options):
    """The options of `rsprune compare`."""

    keep: Sequence[float] = option(
        (0.30, 0.15, 0.10),
        help="Budgets: fractions of the whole collection, or numbers of images.",
        metavar="N,N",
        parser=lambda text: tuple(parse_budget(one) for one in text.split(",")),
    )
    labels: Path | None = option(None, help="A CSV table of classes, for measuring alone: no method sees it.")
    key_column: str = option("key", help="Its column of keys.")
    label_column: str = option("class", help="Its column of classes.")
    holdout: float = option(
        0.5,
        help="The share of the reference images that no method sees, the target of the measures. The centroids of "
        "rsprune are fitted on the others. 0: all serve both, with the run's own centroids.",
        minimum=0,
        below=1,
    )
    k: int = option(
        200, help="Embeddings alone: how many centroids are fitted on the reference.", flags=("--k", "-k"), minimum=1
    )
    seed: int = option(0, help="The seed of every random draw.", minimum=0)
    threads: int | None = option(None, help="Threads. Default: all cores.", flags=("--threads", "-j"), minimum=1)


@keywords(CompareOptions)
def compare(
    run: Any,
    strategies: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    reference: Any = None,
    centroids: Any = None,
    keys: str | Path | None = None,
    entropy: Any = None,
    options: CompareOptions,
    progress: bool | Progress = True,
) -> Comparison:
    """Run selection methods on the embeddings of a run, and measure what each chose.

    What is done stands in the folder, one file for each method and budget: a comparison that was stopped goes on.

    Parameters
    ----------
    run
        A run folder that kept its embeddings. Only Stage I's survivors have one: for methods without Stage I, run
        ``prune`` with ``entropy_keep=1``. Or embeddings alone: see :func:`rsprune.embeddings.as_rows`.
    strategies
        Names, each with options if wanted: ``"rsprune:entropy_keep=0.3"``. All methods by default.
    out
        Where to write; the folder ``compare`` of the run by default. Embeddings alone have no default.
    reference, centroids, keys, entropy
        Of embeddings alone: those of the reference images, centroids (or their file), a file that names the rows, and
        the entropies of the images (N,), or a ``.npy`` file of them. A method that needs what is not given is left out.
    progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    ArgumentError
        No such method or option; a run without embeddings; embeddings alone, and no ``out``; or what is for these
        alone, given for a run.
    BudgetError
        A budget that is none.
    FormatError
        The table lacks a column, or names none of the images.
    """
    pool = open_pool(run, reference, centroids, keys, entropy, options.k)
    if out is None and isinstance(pool, ArrayPool):
        message = "embeddings alone have no folder of their own: say where to write with out (--out)"
        raise ArgumentError(message)
    asked = [parse(one) for one in strategies or all_names()]
    budgets = [(one, budget_rows(one, pool.total)) for one in options.keep]
    place = pool.reader.folder.path / "compare" if out is None and isinstance(pool, EmbeddedPool) else out
    folder = check_output_folder(str(place), "entries")
    contest = _Contest(pool, options)
    entries: list[Entry] = []
    with show_progress(progress) as observer:
        observer.start("compare", sum(rows for _, rows in budgets) * len(asked), 0)
        for share, rows in budgets:
            for spec, name, settings in asked:
                entries.append(contest.entry(folder, spec, name, settings, share, rows))
                observer.advance(rows)
        observer.finish()
    comparison = Comparison(folder, contest.head(), tuple(entries))
    write_results(
        folder / "compare", comparison.describe(), comparison.markdown(), comparison.csv(), comparison.figure()
    )
    return comparison


def open_pool(
    pool: Any, reference: Any, centroids: Any, keys: str | Path | None, entropy: Any, k: int
) -> EmbeddedPool | ArrayPool:
    """Open a run folder, or embeddings alone with what is known of them."""
    if isinstance(pool, list | tuple) and len(pool) == 1:
        pool = pool[0]
    given = {"reference": reference, "centroids": centroids, "keys": keys, "entropy": entropy}
    if isinstance(pool, str | Path) and Path(pool, "config.json").is_file():
        for name, value in given.items():
            if value is not None:
                message = f"{name} is for embeddings alone; the run in {os.fspath(pool)} has its own"
                raise ArgumentError(message)
        return EmbeddedPool.open(pool)
    try:
        rows = as_rows(pool)
    except EmptyInputError as error:
        if not (isinstance(pool, str | Path) and Path(pool).is_dir()):
            raise
        message = (
            f"{os.fspath(pool)} is no run folder (it has no config.json), and holds no embeddings (.npy files, tables)"
        )
        raise FileNotFoundError(message) from error
    names = row_names(pool, keys)
    if isinstance(entropy, str | Path):
        entropy = load_array(Path(entropy))
    return ArrayPool(
        rows,
        None if names is None else names.to_pylist(),
        None if reference is None else as_rows(reference),
        None if centroids is None else Centroids(as_core(centroids, rows.shape[0]).vectors()),
        k,
        None if entropy is None else check_column("entropy", entropy, rows.shape[0]).astype(np.float64),
    )


def all_names() -> list[str]:
    """List the methods that have a budget."""
    return [name for name in strategies.names() if strategies.get(name).budget != "none"]


def parse(spec: str) -> tuple[str, str, dict[str, Any]]:
    """Take ``name:option=value:option=value`` apart, and check that there are such a method and options."""
    name, *parts = spec.split(":")
    options = parse_settings(parts)
    strategies.get(name).check(options)
    return spec, name, options


class _Contest:
    """What all methods share; each part is computed when it is first needed."""

    def __init__(self, pool: Pool, options: CompareOptions) -> None:
        self.pool, self.options = pool, options
        self.labels: NDArray[np.int64] | None = None
        if options.labels is not None:
            self.labels, names = read_classes(options.labels, pool.keys, options.key_column, options.label_column)
            self.classes = len(names)
        self.prior: NDArray[Any] | None = None
        self.target: NDArray[Any] | None = None
        if halves := pool.reference(options.holdout, options.seed):
            self.prior, self.target = halves
        self.low = None if pool.entropy is None else float(np.nanquantile(pool.entropy, 0.25))
        self.digest = digest(
            {
                **provenance_header(),
                "run": pool.identify(),
                "labels": None if self.labels is None else self.labels.tolist(),
                "holdout": options.holdout,
                "seed": options.seed,
            }
        )

    def head(self) -> tuple[str, ...]:
        """Describe what was compared, in lines."""
        lines = [self.pool.describe()]
        k = self.pool.k
        if self.target is None or self.prior is None:
            lines.append("no reference embeddings: no target, and methods that need them are left out")
        elif self.options.holdout:
            lines.append(
                f"reference: {len(self.prior):,} images for the methods ({k} centroids); "
                f"target: {len(self.target):,} others"
            )
        else:
            lines.append(f"reference and target: the same {len(self.target):,} images; {k} centroids")
        lines.append(
            f"balance and duplicates by {k} clusters of the pool, fitted apart from the methods' "
            f"(seed {self.options.seed + 1})"
        )
        if self.low is not None:
            lines.append(f"low entropy: under {self.low:.4f} bits, the lower quartile of the pool")
        if self.labels is not None:
            lines.append(f"{self.classes} classes of {int((self.labels >= 0).sum()):,} images; no method sees them")
        return tuple(lines)

    def entry(self, folder: Path, spec: str, name: str, options: dict[str, Any], keep: float, rows: int) -> Entry:
        """Return the result of a method at a budget, from the folder if it is there."""
        of = {"strategy": name, "options": options, "rows": rows, "of": self.digest}
        path = folder / "entries" / f"{name}-{rows}-{digest(of)[:12]}.json"
        kept = verified_record(path)
        if kept is None:
            kept = {**of, **self.run(path.with_suffix(".npy"), name, options, rows)}
            write_record(path, kept, [] if kept["failure"] else [path.with_suffix(".npy")])
        return Entry(spec, keep, kept["metrics"], kept["failure"])

    def run(self, path: Path, name: str, options: dict[str, Any], rows: int) -> dict[str, Any]:
        """Select with a method, and measure the selection."""
        known = known_to(self.pool, name, self.prior, lambda: self.centroids)
        settings = {"seed": self.options.seed, "threads": self.options.threads, **options}
        begun = time.perf_counter()
        try:
            chosen = strategies.select_from(name, known, rows, **settings)
        except (BudgetError, MissingInputError) as error:
            return {"metrics": {}, "failure": str(error)}
        seconds = time.perf_counter() - begun
        write_npy(path, chosen.indices)
        if isinstance(self.pool, ArrayPool) and (names := self.pool.names) is not None:
            lines = "".join(f"{line_of_key(names[row])}\n" for row in chosen.indices)
            write_text(path.with_suffix(".txt"), lines)
        metrics = asdict(self.measure(chosen))
        if self.low is not None and self.pool.entropy is not None:
            metrics["low_entropy"] = float((self.pool.entropy[chosen.indices] < self.low).mean())
        return {"metrics": {**metrics, "seconds": seconds}, "failure": None}

    @cached_property
    def centroids(self) -> Centroids | None:
        """The centroids of RS-Prune: fitted on what the methods may see."""
        if self.prior is None or not self.options.holdout:
            return self.pool.centroids
        return fit_centroids(self.prior, self.pool.k, seed=self.options.seed, threads=self.options.threads)

    @cached_property
    def measure(self) -> SubsetEvaluator:
        """The measures of this pool."""
        pool, seed, threads = self.pool, self.options.seed, self.options.threads
        k = min(pool.k, pool.embeds.shape[0])
        # A seed of its own: methods that fit as many clusters on the pool must not meet the very same ones.
        clusters = fit_centroids(pool.embeds, k, seed=seed + 1, n_init=1, threads=threads)
        return SubsetEvaluator(
            pool.embeds, clusters, target=self.target, labels=self.labels, seed=seed, threads=threads
        )
