"""`rsprune centroids --sweep`: how many centroids, and which pruning ratio, for the pool of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rsprune.charts import Line, lines
from rsprune.errors import ArgumentError
from rsprune.evaluation.diagnostics import Redundancy, Trial, redundancy, sweep
from rsprune.experiments.pool import EmbeddedPool
from rsprune.experiments.tables import Column, csv_table, markdown_table, text_table, write_results
from rsprune.io import check_output_folder
from rsprune.report.words import plural
from rsprune.selection import budget_rows

__all__ = ["Diagnosis", "diagnose"]

COLUMNS = (
    Column("reference_similarity", "reference", 4),
    Column("reference_spread", "+-", 4),
    Column("pool_similarity", "pool", 4),
    Column("empty", "empty", 3),
    Column("smallest", "smallest", 0),
    Column("median", "median", 0),
    Column("largest", "largest", 0),
    Column("fill_share", "fill share", 3),
    Column("agreement", "agreement", 3),
    Column("overlap", "overlap", 3),
)


@dataclass(frozen=True)
class Diagnosis:
    """The result of a sweep."""

    path: Path  # the folder with sweep.txt, sweep.csv, sweep.md and sweep.svg
    head: tuple[str, ...]  # what was swept, in lines
    trials: tuple[Trial, ...]  # one for each K
    redundancy: Redundancy  # of the pool

    def describe(self) -> str:
        """The table and the recommendation as text."""
        rows = [(f"K {trial.k}", asdict(trial)) for trial in self.trials]
        keep = self.redundancy.keep
        advice = (
            f"redundancy: the knee is at keep {keep:.2f} (pruning ratio {1 - keep:.0%}), where the rows kept hold "
            f"{keep + self.redundancy.height:.2f} of the novelty"
        )
        return "\n".join([*self.head, "", text_table(COLUMNS, rows), "", advice, f"written to {self.path}"])

    def markdown(self) -> str:
        """The table in Markdown."""
        return markdown_table(COLUMNS, [(f"K {trial.k}", asdict(trial)) for trial in self.trials])

    def csv(self) -> str:
        """The table as CSV, with the numbers unrounded."""
        rows = [asdict(trial) for trial in self.trials]
        return csv_table(list(rows[0]), rows)

    def figure(self) -> str:
        """The figure: coverage, fill share, sizes and stability over K, and the redundancy of the pool."""
        ks = [float(trial.k) for trial in self.trials]
        covers = [trial.reference_similarity for trial in self.trials]
        spread = [trial.reference_spread for trial in self.trials]
        plots = [
            Line("cosine of held-out reference images", "K", ks, covers, spread),
            Line("share of the budget by fill", "K", ks, [trial.fill_share for trial in self.trials]),
            Line("share of empty centroids", "K", ks, [trial.empty for trial in self.trials]),
        ]
        overlaps = [trial.overlap for trial in self.trials if trial.overlap is not None]
        if overlaps:
            plots.append(Line("overlap of selections between seeds", "K", ks, overlaps))
        share, found = (values.tolist() for values in self.redundancy.curve())
        knee = round(self.redundancy.keep, 2)
        return lines(self.head[0], [*plots, Line("novelty in the rows kept", "keep", share, found, mark=knee)])


def diagnose(
    run: str | Path,
    *,
    out: str | Path,
    ks: Sequence[int] = (25, 50, 100, 200, 400),
    keep: float = 0.15,
    seeds: int = 3,
    seed: int = 0,
    threads: int | None = None,
) -> Diagnosis:
    """Sweep the number of centroids, and draw the redundancy of the pool, from a run that kept its embeddings.

    Parameters
    ----------
    run, out
        The run folder, and where to write.
    ks
        Numbers of centroids.
    keep
        The budget: a fraction of the whole collection, or a number of images.
    seeds, seed
        How many seeds, and the first of them.
    threads
        Number of threads, all cores by default.

    Raises
    ------
    OutputError
        The folder holds something else than an earlier sweep.
    ArgumentError
        The run has no embeddings of reference images, or fewer than there are centroids.
    """
    out = check_output_folder(out, "sweep.txt")
    pool = EmbeddedPool.open(run)
    halves = pool.reference(0, seed)
    if halves is None:
        message = f"{run} holds no embeddings of reference images: run prune with images as --reference"
        raise ArgumentError(message)
    reference, _ = halves
    budget = budget_rows(keep, pool.total)
    trials = sweep(reference, pool.embeds, ks, keep=budget, seeds=range(seed, seed + seeds), threads=threads)
    head = (
        pool.describe(),
        f"reference: {len(reference):,} images, a fifth of them held out; budget {budget:,}; "
        f"{plural(seeds, 'seed', 'seeds')}",
    )
    found = Diagnosis(out, head, tuple(trials), redundancy(pool.embeds, seed=seed, threads=threads))
    write_results(found.path / "sweep", found.describe(), found.markdown(), found.csv(), found.figure())
    return found
