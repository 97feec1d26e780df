"""Methods side by side: what is compared, what is measured, what a stopped comparison leaves."""

import csv
import io
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

import rsprune
from failures import raises
from rsprune import errors, strategies
from rsprune.centroids import fit_centroids
from rsprune.charts import Line, Panel, dots, lines, ticks
from rsprune.evaluation import SubsetEvaluator
from rsprune.experiments import compare
from rsprune.experiments.compare import COLUMNS
from rsprune.experiments.pool import EmbeddedPool, read_classes
from rsprune.runs.folder import RunFolder

METHODS = ["rsprune", "random", "kcenter", "semdedup:within=nearest"]
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def done(embedded_run, tmp_path_factory):
    return compare(
        embedded_run,
        METHODS,
        keep=[0.3, 20],
        labels=embedded_run.parent / "classes.csv",
        key_column="name",
        label_column="kind",
        out=tmp_path_factory.mktemp("done"),
        **QUIET,
    )


def test_the_figures_are_those_of_what_each_method_chose(embedded_run, done):
    pool = EmbeddedPool.open(embedded_run)
    assert pool.embeds.shape == (88, 6)
    prior, target = pool.reference(0.5, 0)
    assert (len(prior), len(target)) == (20, 20)
    labels, names = read_classes(embedded_run.parent / "classes.csv", pool.keys, "name", "kind")
    assert names == ["even", "odd"]
    clusters = fit_centroids(pool.embeds, 4, seed=1, n_init=1)
    measure = SubsetEvaluator(pool.embeds, clusters, target=target, labels=labels)
    low = np.quantile(pool.entropy, 0.25)
    for entry in done.entries:
        name, _, option = entry.strategy.partition(":")
        options = {"within": "nearest"} if option else {}
        centroids = fit_centroids(prior, 4, seed=0) if name == "rsprune" else None
        budget = 27 if entry.keep == 0.3 else 20
        known = {"embeds": pool.embeds, "centroids": centroids, "reference": prior, "entropy": pool.entropy}
        chosen = strategies.select_from(name, known, budget, **options)
        expected = measure(chosen)
        assert entry.metrics["rows"] == budget
        for column in COLUMNS:
            if column.name not in ("low_entropy", "seconds"):
                assert entry.metrics[column.name] == getattr(expected, column.name), column.name
        assert entry.metrics["low_entropy"] == (pool.entropy[chosen.indices] < low).mean()


def test_the_tables_and_the_figure_hold_the_same(done):
    rows = list(csv.DictReader(io.StringIO((done.path / "compare.csv").read_text())))
    assert [(row["strategy"], float(row["keep"])) for row in rows] == [(e.strategy, e.keep) for e in done.entries]
    assert float(rows[2]["vendi"]) == done.entries[2].metrics["vendi"]
    markdown = (done.path / "compare.md").read_text()
    assert markdown.count("| kcenter |") == 2
    assert "2 classes of 88 images; no method sees them" in markdown
    assert "the 88 of 90 images" in (done.path / "compare.txt").read_text()
    drawing = ElementTree.parse(done.path / "compare.svg").getroot()
    titles = [one.text for one in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert sum(text.startswith("kcenter, keep 20: ") for text in titles) == 8


def test_a_stopped_comparison_goes_on(embedded_run, done, monkeypatch, tmp_path):
    arguments = {"keep": [0.3], "holdout": 0.5, "out": tmp_path, **QUIET}
    calls = []
    honest = strategies.select_from

    def counted(name, *args, **options):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(name, *args, **options)

    monkeypatch.setattr(strategies, "select_from", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(embedded_run, METHODS, **arguments)
    again = compare(embedded_run, METHODS, **arguments)
    assert calls == ["rsprune", "random", "kcenter", "kcenter", "semdedup"]
    compare(embedded_run, METHODS, **arguments)
    assert len(calls) == 5
    # Other settings are another comparison: nothing is taken over.
    compare(embedded_run, ["random"], **arguments | {"holdout": 0.25})
    assert len(calls) == 6
    assert [one.strategy for one in again.entries] == METHODS
    assert again.entries[0].metrics["class_balance"] is None


def test_what_a_method_chose_is_kept(embedded_run, done):
    pool = EmbeddedPool.open(embedded_run)
    kept = [np.load(path) for path in sorted((done.path / "entries").glob("random-20-*.npy"))]
    assert len(kept) == 1
    expected = strategies.select("random", pool.embeds, 20)
    assert kept[0].tolist() == expected.indices.tolist()


def test_a_budget_that_a_method_cannot_meet_is_said_and_ends_nothing(embedded_run, tmp_path):
    done = compare(embedded_run, ["ccs:beta=0.9", "random"], keep=[0.5], out=tmp_path, **QUIET)
    assert "fewer than the budget" in done.entries[0].failure
    assert done.entries[1].failure is None
    assert "ccs:beta=0.9: beta = 0.9 leaves" in done.describe()
    assert len(list(csv.DictReader(io.StringIO(done.csv())))) == 1


def test_without_reference_embeddings_there_is_no_target(embedded_run, tmp_path):
    bare = tmp_path / "run"
    shutil.copytree(embedded_run, bare)
    shutil.rmtree(bare / "reference")
    done = compare(bare, ["rsprune", "datacomp", "random"], keep=[0.3], **QUIET)
    assert done.entries[0].metrics["target_mmd"] is None
    assert "reference" in done.entries[1].failure
    assert "target FD" not in done.describe()
    assert (bare / "compare" / "compare.csv").is_file()


def test_everything_of_the_reference_can_serve_both(embedded_run, tmp_path):
    done = compare(embedded_run, ["rsprune"], keep=[18], holdout=0, out=tmp_path, **QUIET)
    pool = EmbeddedPool.open(embedded_run)
    chosen = rsprune.select(pool.embeds, pool.centroids, 18)
    kept = np.load(next((tmp_path / "entries").glob("rsprune-18-*.npy")))
    assert kept.tolist() == chosen.indices.tolist()
    assert "reference and target: the same 40 images" in done.describe()


@pytest.mark.parametrize(
    ("methods", "options", "error", "values"),
    [
        (["nothing"], {}, errors.ArgumentError, ("nothing",)),
        (["random:k"], {}, errors.ArgumentError, ("'k'",)),
        (["random:colour=3"], {}, errors.ArgumentError, ("'colour'",)),
        (["random"], {"keep": [0]}, errors.BudgetError, ("budget",)),
        (["random"], {"holdout": 1}, errors.ArgumentError, ("holdout", 1)),
        (["random"], {"labels": "classes.csv", "key_column": "id"}, errors.FormatError, ("column", "'id'")),
        (
            ["random"],
            {"labels": "classes.csv", "key_column": "kind", "label_column": "name"},
            errors.FormatError,
            ("classes.csv",),
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(embedded_run, tmp_path, methods, options, error, values):
    if "labels" in options:
        options = options | {"labels": embedded_run.parent / options["labels"]}
    with raises(error, *values):
        compare(embedded_run, methods, **{"keep": [0.3], "out": tmp_path, **QUIET} | options)


def test_runs_without_embeddings_are_refused(embedded_run, tmp_path):
    with raises(FileNotFoundError, tmp_path):
        compare(tmp_path, **QUIET)
    config = RunFolder(embedded_run).read_config()
    other = RunFolder(tmp_path / "other")
    other.start(config)
    with raises(errors.UnfinishedRunError, other.path):
        compare(other.path, **QUIET)
    other = RunFolder(tmp_path / "bare")
    other.start(config | {"keep_embeddings": False})
    with raises(errors.ArgumentError, "--keep-embeddings"):
        compare(other.path, **QUIET)


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3.2, 17, [0, 5, 10, 15, 20]), (2, 2, [1, 1.5, 2, 2.5, 3]), (0, 0, None)],
)
def test_ticks_are_round_and_hold_everything(low, high, expected):
    got = ticks(low, high)
    assert got[0] <= low <= high <= got[-1]
    assert len(got) <= 6
    assert expected is None or got == pytest.approx(expected)


def test_figures_are_whole_documents():
    panel = Panel("a < b", "lower", [[1.0, None], [float("nan"), 2.0]])
    root = ElementTree.fromstring(dots("A & B", ["x", "y"], ["one", "two"], [panel]))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4  # two of the legend
    line = Line("a", "K", [1, 2, 4], [0.1, 0.2, 0.5], [0.1, 0.1, 0.1], mark=2)
    root = ElementTree.fromstring(lines("title", [line, Line("b", "K", [1.0], [3.0])]))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polygon"))) == 1
