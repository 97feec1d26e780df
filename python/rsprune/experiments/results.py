"""The tables and the figure of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsprune.charts import Line, Panel, dots, lines
from rsprune.experiments.tables import Column, Mean, csv_table, markdown_table, text_table, write_results
from rsprune.experiments.tables_and_figures import Arm, Grid

__all__ = ["COLUMNS", "Experiment"]

COLUMNS = (
    Column("rows", "images", 0),
    Column("target_frechet", "target FD", 4, better="lower"),
    Column("target_change", "change", 4),
    Column("target_kernel", "target KD 1e3", 3, 1e3, better="lower"),
    Column("target_precision", "target precision", 3),
    Column("target_recall", "target recall", 3),
    Column("target_coverage", "target coverage", 3, better="higher"),
    Column("pool_frechet", "pool FD", 4, better="lower"),
    Column("pool_kernel", "pool KD 1e3", 3, 1e3, better="lower"),
    Column("pool_precision", "pool precision", 3),
    Column("pool_recall", "pool recall", 3),
    Column("pool_coverage", "pool coverage", 3, better="higher"),
    Column("loss", "loss", 4),
    Column("seconds", "seconds to choose", 2),
    Column("paper", "paper's FID", 2),
)
PLOTS = ("target_frechet", "target_kernel", "pool_frechet", "pool_kernel")


@dataclass(frozen=True)
class Experiment:
    """An experiment, finished or under way."""

    path: Path  # its folder
    name: str
    grid: Grid
    arms: tuple[Arm, ...]
    head: tuple[str, ...]  # what was compared, in lines
    trials: dict[str, dict[int, Mapping[str, float]]] = field(default_factory=dict)  # by the arm's name and the seed
    failures: dict[str, str] = field(default_factory=dict)  # why an arm has none

    def add(self, arm: Arm, seed: int, found: Mapping[str, Any]) -> None:
        """Add the result of a trial."""
        if found["failure"] is None:
            self.trials.setdefault(arm.name, {})[seed] = found["metrics"]
        else:
            self.failures[arm.name] = found["failure"]

    def summary(self) -> list[tuple[str, dict[str, Any]]]:
        """For each arm with a finished trial its metrics: means with their spread between seeds."""
        rows = []
        base = self.trials.get(self.grid.baseline, {})
        for arm in self.arms:
            found = self.trials.get(arm.name, {})
            if not found:
                continue
            metrics: dict[str, Any] = {
                name: Mean.of([one[name] for one in found.values()]) for name in next(iter(found.values()))
            }
            metrics["rows"] = metrics["rows"].value
            both = [seed for seed in found if seed in base and arm.name != self.grid.baseline]
            if both:
                metrics["target_change"] = Mean.of(
                    [found[seed]["target_frechet"] - base[seed]["target_frechet"] for seed in both]
                )
            rows.append((arm.name, {**metrics, "paper": arm.paper}))
        return rows

    def columns(self) -> list[Column]:
        """Return the columns that have values."""
        rows = self.summary()
        return [one for one in COLUMNS if any(metrics.get(one.name) is not None for _, metrics in rows)]

    def notes(self) -> list[str]:
        """Explain the table, and name the published setting."""
        lines = [
            f"change: of the target FD from {self.grid.baseline!r}, trials of one seed with each other",
            "after ± stands the standard deviation between seeds",
            f"the paper: {self.grid.paper}; its metrics compare with each other alone",
            *self.grid.notes,
        ]
        return lines + [f"{name}: {why}" for name, why in self.failures.items()]

    def describe(self) -> str:
        """The table as text."""
        table = text_table(self.columns(), self.summary())
        return "\n".join([*self.head, "", table, "", *self.notes(), f"written to {self.path}"])

    def markdown(self) -> str:
        """The table in Markdown."""
        table = markdown_table(self.columns(), self.summary(), "trained on")
        return "\n".join([*(f"- {one}" for one in self.head), "", table, "", *(f"- {one}" for one in self.notes())])

    def csv(self) -> str:
        """All metrics of all trials, unrounded."""
        rows = [
            {"arm": arm.name, "seed": seed, **metrics, "paper": arm.paper}
            for arm in self.arms
            for seed, metrics in sorted(self.trials.get(arm.name, {}).items())
        ]
        names = [column.name for column in COLUMNS if column.name != "target_change"]
        extra = sorted({name for row in rows for name in row} - {"arm", "seed", *names})
        return csv_table(["arm", "seed", *names, *extra], rows)

    def figure(self) -> str:
        """A dot for each trial, or for a sweep the means over its axis with their spread."""
        title = f"{self.name}: {self.grid.title}"
        heads = {column.name: column.head for column in COLUMNS}
        if self.grid.axis is not None:
            means = dict(self.summary())
            swept = [(arm.at, means[arm.name]) for arm in self.arms if arm.at is not None and arm.name in means]
            return lines(title, [self._line(name, heads[name], swept) for name in PLOTS if swept])
        names = [arm.name for arm in self.arms]
        seeds = sorted({seed for trials in self.trials.values() for seed in trials})
        found = self.trials
        panels = [
            Panel(
                one.head,
                one.better,
                [[found.get(arm, {}).get(seed, {}).get(one.name) for arm in names] for seed in seeds],
            )
            for one in COLUMNS
            if one.better is not None
        ]
        return dots(title, names, [f"seed {seed}" for seed in seeds], panels)

    def _line(self, name: str, head: str, swept: Sequence[tuple[float, dict[str, Any]]]) -> Line:
        means = [metrics[name] for _, metrics in swept]
        axis, spread = self.grid.axis or "", [mean.spread or 0.0 for mean in means]
        return Line(head, axis, [at for at, _ in swept], [mean.value for mean in means], spread)

    def write(self) -> None:
        """Write table and figure."""
        write_results(self.path / self.name, self.describe(), self.markdown(), self.csv(), self.figure())
