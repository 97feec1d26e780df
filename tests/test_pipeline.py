"""The pipeline: what a run leaves, restarts, bad input. A tiny encoder stands in where the real one adds nothing."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import rsprune
from failures import raises
from rsprune import _core
from rsprune.errors import (
    ArgumentError,
    BudgetError,
    ConfigMismatchError,
    EmptyInputError,
    EncoderError,
    EncoderMismatchError,
    OutputError,
)
from rsprune.report import explain
from rsprune.runs.folder import RunFolder
from rsprune.runs.prune import open_run
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import balanced_draw, classes_of
from rsprune.runs.stages import centroids_run, embed_run, entropy_run, select_run
from rsprune.sources import open_source
from small_runs import Colours, artefacts, picture, small_prune, write_tar


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """Four tars of 40 images, two of them unreadable: 160 in all."""
    folder = tmp_path_factory.mktemp("pool")
    for shard in range(4):
        members = {f"{shard}-{i:03d}.jpg": picture(1000 * shard + i) for i in range(40)}
        if shard == 1:
            members["1-005.jpg"] = b""
            members["1-011.jpg"] = members["1-011.jpg"][:200]
        write_tar(folder / f"pool-{shard}.tar", members)
    return folder


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Class folders of 5 x 12 images."""
    folder = tmp_path_factory.mktemp("reference")
    for i in range(60):
        path = folder / f"class{i % 5}" / f"{i:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(90_000 + i))
    return folder


@pytest.fixture(scope="session")
def finished(pool, reference, tmp_path_factory):
    return small_prune(pool, reference, tmp_path_factory.mktemp("runs") / "run")


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_the_budget_is_met_exactly_and_counts_unreadable_images(finished):
    assert len(finished.selection) == 40  # a quarter of 160, two of which could not be read
    assert pq.read_table(finished.path / "selection.parquet").num_rows == 40
    assert len(finished.keys) == 40
    assert finished.keys == (finished.path / "selected.txt").read_text().splitlines()


def test_stage_one_keeps_the_rows_of_highest_entropy(finished, pool):
    tables = [pq.read_table(path) for path in sorted((finished.path / "entropy").glob("*.parquet"))]
    entropy = np.concatenate([table["entropy"].to_numpy() for table in tables])
    order = sorted(np.flatnonzero(~np.isnan(entropy)), key=lambda row: (-entropy[row], row))[:80]
    kept = [
        1000 * 0 + 40 * i + row
        for i, path in enumerate(sorted((finished.path / "embeddings").glob("*.parquet")))
        for row in pq.read_table(path)["row"].to_pylist()
    ]
    assert kept == sorted(order)
    assert finished.summary["tau"] == entropy[order[-1]]


def test_the_selection_is_that_of_select_on_the_stored_embeddings(finished):
    centroids = rsprune.Centroids.load(finished.path / "centroids.safetensors")
    shards = sorted((finished.path / "embeddings").glob("*.npy"))
    assert all(np.load(shard).dtype == np.float16 for shard in shards)
    chosen = rsprune.select(shards, centroids, 40)
    table = pq.read_table(finished.path / "selection.parquet")
    assert table["cluster"].to_pylist() == chosen.cluster.tolist()
    assert table["similarity"].to_pylist() == chosen.similarity.tolist()
    assert table["phase"].to_pylist() == chosen.phase.tolist()
    survivors = [key for path in shards for key in pq.read_table(path.with_suffix(".parquet"))["key"].to_pylist()]
    assert table["key"].to_pylist() == [survivors[row] for row in chosen.indices]


def test_embeddings_are_only_kept_on_demand(finished, pool, reference, tmp_path):
    run = small_prune(pool, reference, tmp_path / "run", keep_embeddings=False)
    assert not list((run.path / "embeddings").glob("*.npy"))
    assert list((run.path / "reference" / "embeddings").glob("*.npy"))
    for name in ["selection", *(f"embeddings/pool-{i}" for i in range(4))]:
        assert pq.read_table(run.path / f"{name}.parquet") == pq.read_table(finished.path / f"{name}.parquet")
    again, kept = (
        select_run(path, centroids=run.path / "centroids.safetensors", keep=30, out=tmp_path / f"{i}.parquet")
        for i, path in enumerate((run.path, finished.path))
    )
    assert again.metrics == kept.metrics
    assert pq.read_table(again.path) == pq.read_table(kept.path)
    others = rsprune.Centroids(np.eye(6, dtype=np.float32), {})
    with raises(ArgumentError, "centroids"):
        select_run(run.path, centroids=others, keep=30, out=tmp_path / "x.parquet")


def test_embedding_with_centroids_keeps_clusters_alone(finished, pool, tmp_path):
    centroids = finished.path / "centroids.safetensors"
    embed_run(pool, out=tmp_path / "e", encoder=Colours(), centroids=centroids, progress=False)
    assert not list((tmp_path / "e").rglob("*.npy"))
    chosen = select_run(tmp_path / "e", centroids=centroids, keep=40, out=tmp_path / "s.parquet")
    assert (chosen.metrics["selected"], chosen.metrics["invalid"]) == (40, 2)


def test_rows_do_not_depend_on_how_they_are_cut(finished, pool, reference, tmp_path, monkeypatch):
    monkeypatch.setattr("rsprune.runs.stages.embedding_writer.BLOCK", 3)
    run = small_prune(pool, reference, tmp_path / "run")
    assert artefacts(run.path) == artefacts(finished.path)


def test_a_full_disk_ends_the_run_and_leaves_no_half_shard(finished, pool, reference, tmp_path, monkeypatch):
    real = rsprune.runs.stages.embedding_writer.assign
    calls = []

    def fails(*args, **options):
        calls.append(1)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr("rsprune.runs.stages.embedding_writer.assign", fails)
    monkeypatch.setattr("rsprune.runs.stages.embedding_writer.BLOCK", 7)
    with raises(OSError, "No space left on device"):
        small_prune(pool, reference, tmp_path / "run")
    done = {path.stem for path in (tmp_path / "run" / "embeddings").glob("*.parquet")}
    assert done == {path.stem for path in (tmp_path / "run" / "embeddings").glob("*.npy")} != set()
    assert not list((tmp_path / "run").rglob(".*.writing"))
    assert len(calls) == 5
    monkeypatch.undo()
    small_prune(pool, reference, tmp_path / "run")
    assert artefacts(tmp_path / "run") == artefacts(finished.path)


def test_an_encoder_that_fails_leaves_no_half_shard(pool, reference, tmp_path):
    class Fails(Colours):
        left = 12

        def forward(self, pixels):
            self.left -= 1
            if self.left < 0:
                msg = "the device is gone"
                raise RuntimeError(msg)
            return super().forward(pixels)

    with raises(RuntimeError, "device"):
        small_prune(pool, reference, tmp_path / "run", encoder=Fails())
    assert not list((tmp_path / "run").rglob(".*.writing"))


class Overflows(Colours):
    """Gives numbers that are not finite for some images, by the number of each."""

    def __init__(self, broken):
        super().__init__()
        self.broken, self.seen = broken, -1  # the first image is the encoder's check

    def forward(self, pixels):
        rows = super().forward(pixels)
        numbers = range(self.seen, self.seen + len(rows))
        self.seen += len(rows)
        rows[[self.broken(number) for number in numbers], 0] = np.nan
        return rows


def test_images_without_finite_embeddings_are_in_quarantine(pool, tmp_path):
    encoder = Overflows(lambda number: number in (3, 20))
    done = embed_run(str(pool / "pool-0.tar"), out=tmp_path / "e", encoder=encoder, threads=1, progress=False)
    assert (done.metrics["images"], done.metrics["quarantined"]) == (40, 2)
    rows = RunReader(tmp_path / "e").quarantine().to_pylist()
    assert [(row["key"], row["row"], row["kind"]) for row in rows] == [
        ("0-003", 3, "not_finite"), ("0-020", 20, "not_finite")
    ]  # fmt: skip
    stored = np.load(tmp_path / "e" / "embeddings" / "pool-0.npy")
    assert np.flatnonzero(np.isnan(stored).any(1)).tolist() == [3, 20]


def test_an_encoder_without_a_finite_number_ends_before_the_first_image(pool, reference, tmp_path):
    for call in (small_prune, lambda pool, _, out, encoder: embed_run(pool, out=out, encoder=encoder, progress=False)):
        with raises(EncoderError, "colours"):
            call(pool, reference, tmp_path / "run", encoder=Overflows(lambda number: True))
        assert not (tmp_path / "run").exists()


def test_an_encoder_whose_first_batch_has_no_finite_number_ends_the_run(pool, tmp_path):
    with raises(EncoderError, "colours"):
        embed_run(pool, out=tmp_path / "e", encoder=Overflows(lambda number: number >= 0), progress=False)
    assert not list((tmp_path / "e").rglob("*.npy"))


def test_an_encoder_of_another_dimension_than_it_says_is_refused(pool, tmp_path):
    encoder = Colours()
    encoder.dim = 7
    with raises(EncoderError, "colours", "(1, 6)", "(1, 7)"):
        embed_run(pool, out=tmp_path / "e", encoder=encoder, progress=False)


def test_a_run_goes_on_with_the_batch_that_it_began_with(finished, pool, reference, tmp_path):
    """What fits in a GPU's memory is not the same every day."""
    shutil.copytree(finished.path, tmp_path / "run")
    (tmp_path / "run" / "selection.parquet").unlink()
    (tmp_path / "run" / "embeddings" / "pool-2.parquet").unlink()
    smaller = Colours()
    smaller.batch_size = 2
    small_prune(pool, reference, tmp_path / "run", encoder=smaller)
    assert artefacts(tmp_path / "run") == artefacts(finished.path)


def test_unreadable_images_are_in_quarantine_with_their_cause(finished):
    rows = pq.read_table(finished.path / "quarantine.parquet").to_pylist()
    assert [(row["key"], row["shard"], row["row"], row["stage"], row["kind"]) for row in rows] == [
        ("1-005", "pool-1", 5, "entropy", "empty"),
        ("1-011", "pool-1", 11, "entropy", "truncated"),
    ]


def test_unreadable_reference_images_are_in_a_quarantine_of_their_own(pool, reference, tmp_path):
    damaged = tmp_path / "reference"
    shutil.copytree(reference, damaged)
    (damaged / "class0" / "000.jpg").write_bytes(b"not an image")
    run = small_prune(pool, damaged, tmp_path / "run")
    rows = pq.read_table(run.path / "reference" / "quarantine.parquet").to_pylist()
    assert [(row["key"], row["kind"]) for row in rows] == [("class0/000.jpg", "unknown_format")]
    assert rsprune.Centroids.load(run.path / "centroids.safetensors").meta["invalid"] == 1


def test_every_artefact_names_its_making(finished):
    for path in [*finished.path.rglob("*.parquet")]:
        provenance = json.loads(pq.read_schema(path).metadata[b"rsprune"])
        assert provenance["rsprune"] == rsprune.__version__
        assert provenance["config"]["encoder"]["weights"]["sha256"] == "1"
    meta = rsprune.Centroids.load(finished.path / "centroids.safetensors").meta
    assert meta["encoder"]["name"] == "colours"


def test_selection_rows_are_numbered_through_the_whole_collection(finished):
    table = pq.read_table(finished.path / "selection.parquet").to_pylist()
    rows = [40 * int(row["shard"].removeprefix("pool-")) + row["row"] for row in table]
    assert finished.selection.indices.tolist() == rows
    again = open_run(finished.path)
    assert again.selection.indices.tolist() == rows
    assert again.summary["selected"] == 40


def test_a_name_of_two_shards_is_two_images(pool, reference, tmp_path):
    twin = tmp_path / "pool"
    twin.mkdir()
    write_tar(twin / "a.tar", {f"{i}.jpg": picture(i) for i in range(30)})
    write_tar(twin / "b.tar", {f"{i}.jpg": picture(i) for i in range(29, 50)})
    run = small_prune(twin, reference, tmp_path / "run", keep=51, entropy_keep=1.0)
    assert len(pq.read_table(run.path / "quarantine.parquet")) == 0
    assert {"a/29", "b/29"} < set(run.keys)
    assert len(set(run.keys)) == 51


# --- same bytes -------------------------------------------------------------------------------------------------------


def test_same_bytes_at_any_thread_count(finished, pool, reference, tmp_path):
    small_prune(pool, reference, tmp_path / "run", threads=1)
    assert artefacts(tmp_path / "run") == artefacts(finished.path)


def test_a_finished_run_is_opened_and_not_done_again(finished, pool, reference):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*.parquet")}
    run = small_prune(pool, reference, finished.path)
    assert run.selection.indices.tolist() == finished.selection.indices.tolist()
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*.parquet")} == before


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(finished, pool, reference, tmp_path):
    out = tmp_path / "run"
    code = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from small_runs import Colours, small_prune
        small_prune({str(pool)!r}, {str(reference)!r}, {str(out)!r}, encoder=Colours(pause=0.02))
        """
    )
    kills = 0
    for wait in [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]:
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        while not out.exists() and process.poll() is None:  # imports take longer than the run
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert kills >= 3
    small_prune(pool, reference, out)
    assert artefacts(out) == artefacts(finished.path)


def test_left_over_temporary_files_are_removed(finished, pool, reference, tmp_path):
    out = tmp_path / "run"
    small_prune(pool, reference, out)
    left_over = out / "embeddings" / ".pool-0.npy.writing"
    left_over.write_bytes(b"half a file")
    small_prune(pool, reference, out)
    assert not left_over.exists()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, -1, float("nan"), True, 161, 1.5, "many"])
def test_a_budget_that_is_none_is_refused_before_any_work(pool, reference, tmp_path, keep):
    with raises(BudgetError, keep):
        small_prune(pool, reference, tmp_path / "run", keep=keep)
    assert not (tmp_path / "run").exists()


def test_a_budget_above_the_readable_images_is_refused(pool, reference, tmp_path):
    with raises(BudgetError, 160, 158):
        small_prune(pool, reference, tmp_path / "run", keep=160)


def test_more_centroids_than_reference_images_are_refused(pool, reference, tmp_path):
    with raises(ArgumentError, 61, 60):
        small_prune(pool, reference, tmp_path / "run", k=61)


def test_an_empty_folder_is_refused(reference, tmp_path):
    (tmp_path / "empty").mkdir()
    with raises(EmptyInputError, tmp_path / "empty"):
        small_prune(tmp_path / "empty", reference, tmp_path / "run")


def test_a_folder_of_another_configuration_is_refused(finished, pool, reference):
    with raises(ConfigMismatchError, "centroids.k", 6, 5):
        small_prune(pool, reference, finished.path, k=5)


def test_a_folder_that_is_no_run_is_refused(pool, reference, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with raises(OutputError, tmp_path):
        small_prune(pool, reference, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_processes_in_one_folder_are_refused(finished, pool, reference):
    code = f"""
import fcntl, time
file = open({str(finished.path / ".lock")!r}, "w"); fcntl.flock(file, fcntl.LOCK_EX); print("held", flush=True)
time.sleep(30)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with raises(ConfigMismatchError, finished.path):
            small_prune(pool, reference, finished.path)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_centroids_of_another_encoder_are_refused(finished, pool, tmp_path):
    centroids = finished.path / "centroids.safetensors"
    with raises(EncoderMismatchError, "weights"):
        small_prune(pool, centroids, tmp_path / "run", encoder=Colours(version="2"))


def test_centroids_of_another_dimension_are_refused(pool, tmp_path):
    with raises(EncoderMismatchError, 7, 6):
        small_prune(pool, np.eye(7, dtype=np.float32), tmp_path / "run")


def test_an_unknown_encoder_is_refused_with_the_known_ones(pool, reference, tmp_path):
    with raises(EncoderError, "abacus", "efficientnet-lite0"):
        small_prune(pool, reference, tmp_path / "run", encoder="abacus")


@pytest.mark.parametrize(("name", "value"), [("entropy_keep", 0), ("entropy_keep", 1.5), ("tau", 9.0), ("tau", -1.0)])
def test_a_cut_out_of_range_is_refused(pool, reference, tmp_path, name, value):
    with raises(ArgumentError, value):
        small_prune(pool, reference, tmp_path / "run", **{name: value})


def test_images_none_of_which_can_be_read_end_the_run_with_the_causes(reference, tmp_path, command):
    write_tar(tmp_path / "a.tar", {"0.jpg": b"", "1.jpg": b"text", "2.jpg": b""})
    with raises(EmptyInputError, 3, "2 empty", "1 unknown format"):
        entropy_run(tmp_path / "a.tar", out=tmp_path / "entropy", progress=False)
    assert pq.read_table(tmp_path / "entropy" / "quarantine.parquet")["kind"].to_pylist() == [
        "empty",
        "unknown_format",
        "empty",
    ]
    with raises(EmptyInputError, 3, "2 empty"):
        embed_run(tmp_path / "a.tar", out=tmp_path / "embed", encoder=Colours(), progress=False)
    with raises(EmptyInputError, 3, "2 empty"):
        small_prune(tmp_path / "a.tar", reference, tmp_path / "run", keep=1)
    assert command("entropy", tmp_path / "a.tar", "-o", tmp_path / "again").returncode == 1


def test_a_reference_that_cannot_be_read_says_how_much_of_it_and_why(pool, tmp_path):
    members = {f"{i}.jpg": picture(i) if i < 4 else b"" for i in range(10)}
    write_tar(tmp_path / "reference.tar", members)
    with raises(EmptyInputError, "6 of 10", "6 empty", 6, "quarantine.parquet"):
        small_prune(pool, tmp_path / "reference.tar", tmp_path / "run", k=6)
    assert small_prune(pool, tmp_path / "reference.tar", tmp_path / "fewer", k=4).summary["selected"] == 40


def test_a_fraction_is_of_the_whole_collection_also_when_selecting_again(finished, tmp_path):
    fitted = finished.path / "centroids.safetensors"
    again = select_run(finished.path, centroids=fitted, keep=0.25, out=tmp_path / "s.parquet")
    assert pq.read_table(again.path)["key"].to_pylist() == finished.keys


def test_embeddings_need_no_encoder_for_their_centroids(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    done = centroids_run(tmp_path / "rows.npy", out=tmp_path / "out", k=4, progress=False)
    assert done.metrics["k"] == 4
    np.testing.assert_array_equal(
        rsprune.Centroids.load(tmp_path / "out" / "centroids.safetensors").vectors,
        rsprune.fit_centroids(rows, 4).vectors,
    )


# --- the forms of input -----------------------------------------------------------------------------------------------


def test_fitted_centroids_and_embeddings_serve_as_reference(finished, pool, tmp_path):
    fitted = small_prune(pool, finished.path / "centroids.safetensors", tmp_path / "fitted")
    assert fitted.keys == finished.keys
    rows = np.concatenate(
        [np.load(path) for path in sorted((finished.path / "reference" / "embeddings").glob("*.npy"))]
    )
    np.save(tmp_path / "reference.npy", rows)
    for name, form in [("array", rows), ("file", tmp_path / "reference.npy")]:
        assert small_prune(pool, form, tmp_path / name).keys == finished.keys


def test_tau_cuts_where_it_says(finished, pool, reference, tmp_path):
    run = small_prune(pool, reference, tmp_path / "run", tau=finished.summary["tau"])
    assert run.summary["survivors"] == 80
    assert run.keys == finished.keys
    with raises(BudgetError, "tau"):
        small_prune(pool, reference, tmp_path / "high", tau=7.99)


def test_stage_one_keeps_at_least_the_budget(pool, reference, tmp_path):
    run = small_prune(pool, reference, tmp_path / "run", keep=0.25, entropy_keep=0.1)
    assert run.summary["survivors"] == len(run.selection) == 40


# --- one stage alone --------------------------------------------------------------------------------------------------


def test_the_stages_one_by_one_agree_with_the_whole(finished, pool, reference, tmp_path):
    entropy = entropy_run(pool, out=tmp_path / "entropy", progress=False)
    assert entropy.metrics["quarantined"] == 2
    assert entropy.metrics["tau"]["0.50"] == finished.summary["tau"]
    centroids_run(reference, out=tmp_path / "reference", encoder=Colours(), k=6, progress=False)
    embed_run(pool, out=tmp_path / "embedded", encoder=Colours(), progress=False)
    chosen = select_run(
        tmp_path / "embedded",
        centroids=tmp_path / "reference" / "centroids.safetensors",
        keep=40,
        out=tmp_path / "selection.parquet",
    )
    assert chosen.metrics["selected"] == 40
    assert chosen.metrics["invalid"] == 2
    whole = small_prune(pool, reference, tmp_path / "whole", entropy_keep=1.0, keep=40)
    table = pq.read_table(tmp_path / "selection.parquet")
    assert table["key"].to_pylist() == whole.keys


def test_images_out_of_the_domain_are_never_kept(finished, pool, reference, tmp_path):
    tables = [pq.read_table(path) for path in sorted((finished.path / "embeddings").glob("*.parquet"))]
    similarity = np.concatenate([table["similarity"].to_numpy() for table in tables])
    least = float(np.sort(similarity[~np.isnan(similarity)])[20])
    run = small_prune(pool, reference, tmp_path / "run", min_similarity=least)
    assert len(run.selection) == 40
    assert run.selection.similarity.min() >= np.float32(least)
    assert run.summary["outside"] == len(run.selection.outside) == 20
    assert not set(run.selection) & set(run.selection.outside.tolist())
    assert "20 are out of the domain" in run.describe()
    assert json.loads(run.path.joinpath("config.json").read_text())["selection"]["min_similarity"] == least
    assert finished.summary["outside"] == 0
    # The same of what is on the disk, with the embeddings and with clusters alone.
    fitted = run.path / "centroids.safetensors"
    embed_run(pool, out=tmp_path / "clusters", encoder=Colours(), centroids=fitted, progress=False)
    for folder in (run.path, tmp_path / "clusters"):
        out = tmp_path / f"{folder.name}.parquet"
        chosen = select_run(folder, centroids=fitted, keep=20, out=out, min_similarity=least)
        assert chosen.metrics["outside"] >= 20
        table = pq.read_table(out)
        assert table["similarity"].to_numpy().min() >= np.float32(least)
        about = json.loads(table.schema.metadata[b"rsprune"])
        assert about["strategy_options"]["min_similarity"] == least
    with raises(BudgetError, "min_similarity"):
        small_prune(pool, reference, tmp_path / "none", min_similarity=1.0)
    with raises(ArgumentError, "min_similarity"):
        select_run(run.path, keep=20, out=tmp_path / "s.parquet", strategy="random", min_similarity=0.1)


@pytest.mark.parametrize("fill", ["global", "waterfill"])
def test_random_draws_go_by_the_row_in_the_whole_collection(finished, pool, reference, tmp_path, fill):
    run = small_prune(pool, reference, tmp_path / "run", within="random", fill=fill, seed=7, keep_embeddings=False)
    labels, similarity = np.full(160, -1, np.int32), np.full(160, np.nan, np.float32)
    for shard in range(4):
        table = pq.read_table(run.path / "embeddings" / f"pool-{shard}.parquet")
        rows = 40 * shard + table["row"].to_numpy()
        labels[rows], similarity[rows] = table["label"].to_numpy(), table["similarity"].to_numpy()
    dropped = np.isnan(similarity)
    assert dropped.any()
    chosen = rsprune.select_assigned(
        np.where(dropped, 0, labels),
        np.where(dropped, np.float32(0.9), similarity),
        40,
        k=6,
        exclude=np.flatnonzero(dropped),
        within="random",
        fill=fill,
        seed=7,
    )
    for name in ("indices", "cluster", "similarity", "phase"):
        assert getattr(run.selection, name).tolist() == getattr(chosen, name).tolist()
    for name in ("pool", "quota", "fill"):
        assert run.summary["clusters"][name] == chosen.counts[name].tolist()


def test_centroids_are_fitted_on_a_balanced_draw(reference, tmp_path):
    def draw(name, seed=0, **limits):
        out = tmp_path / name
        done = centroids_run(reference, out=out, encoder=Colours(), k=6, seed=seed, progress=False, **limits)
        tables = [pq.read_table(path, columns=["key"]) for path in (out / "reference" / "embeddings").glob("*.parquet")]
        keys = [key for table in tables for key in table["key"].to_pylist()]
        assert rsprune.Centroids.load(out / "centroids.safetensors").meta["rows"] == len(keys)
        assert done.metrics["k"] == 6
        return sorted(keys), json.loads((out / "config.json").read_text())["centroids"]

    keys, config = draw("a", reference_max_per_class=3)
    assert sorted(key.split("/")[0] for key in keys) == sorted(f"class{i}" for i in range(5) for _ in range(3))
    assert config["max_per_class"] == 3
    assert draw("b", reference_max_per_class=3)[0] == keys
    assert draw("c", reference_max_per_class=3, seed=1)[0] != keys
    more, _ = draw("d", reference_max_images=17)
    assert np.unique([key.split("/")[0] for key in more], return_counts=True)[1].tolist() == [4, 4, 3, 3, 3]
    assert set(keys) < set(more)
    with raises(ArgumentError, 6, 5):
        draw("e", reference_max_images=5)


def test_classes_of_joined_sets_are_their_own(reference, tmp_path):
    source = open_source([reference, reference])
    assert sorted(set(classes_of(source))) == [f"{s}/class{i}" for s in range(2) for i in range(5)]
    taken = balanced_draw(["a", "b", "a", "c", "a", "b"], seed=3, max_per_class=2, max_images=4)
    draws = _core.hash64(3, 0, 6)
    best = sorted([0, 2, 4], key=lambda i: draws[i])[:2]  # the larger classes have one more: a, of two that reach 2
    assert np.flatnonzero(taken).tolist() == sorted([*best, min([1, 5], key=lambda i: draws[i]), 3])


def test_select_refuses_embeddings_of_another_encoder(finished, pool, tmp_path):
    embed_run(pool, out=tmp_path / "embedded", encoder=Colours(version="2"), progress=False)
    with raises(EncoderMismatchError, "colours"):
        select_run(
            tmp_path / "embedded", centroids=finished.path / "centroids.safetensors", out=tmp_path / "selection.parquet"
        )


# --- other strategies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("random", {"shares": "even"}),
        ("entropy", {}),
        ("cluster_nearest", {"k": 4, "within": "far"}),
        ("vjepa2", {"within": "nearest"}),
    ],
)
def test_other_strategies_choose_in_a_run(pool, reference, tmp_path, strategy, options):
    run = small_prune(pool, reference, tmp_path / "run", strategy=strategy, strategy_options=options)
    assert len(run.selection) == 40
    assert run.summary["strategy"] == strategy
    folder = RunFolder(run.path)
    shards = sorted(path.stem for path in (run.path / "embeddings").glob("*.parquet"))
    tables = [pq.read_table(folder.assignments(shard)) for shard in shards]
    rows = np.concatenate([40 * i + table["row"].to_numpy() for i, table in enumerate(tables)])
    bits = np.concatenate([pq.read_table(folder.entropy(shard))["entropy"].to_numpy() for shard in shards])
    known = {
        "embeds": [folder.embeddings(shard) for shard in shards],
        "reference": run.path / "reference" / "embeddings",
        "centroids": rsprune.Centroids.load(folder.centroids),
        "entropy": bits[rows],
    }
    expected = rsprune.strategies.select_from(strategy, known, 40, **options)
    assert run.selection.indices.tolist() == rows[expected.indices].tolist()
    metadata = json.loads(pq.read_metadata(folder.selection).metadata[b"rsprune"])
    assert metadata["config"]["selection"]["strategy"] == strategy
    assert metadata["config"]["selection"]["strategy_options"] == options
    assert f"strategy {strategy!r}" in run.describe()
    assert f"<code>{strategy}</code>" in run.report.read_text()
    kept, dropped = (
        run.keys[0],
        next(key for table in tables for key in table["key"].to_pylist() if key not in run.keys),
    )
    assert f"the strategy {strategy!r} kept it" in explain(run.path, kept)[0].text()
    assert f"the strategy {strategy!r} did not keep it" in explain(run.path, dropped)[0].text()


def test_a_strategy_that_cannot_work_in_a_run_fails_before_it_begins(pool, reference, tmp_path, finished):
    fitted = rsprune.Centroids.load(finished.path / "centroids.safetensors")
    for error, values, options in (
        (ArgumentError, ("magic",), {"strategy": "magic"}),
        (ArgumentError, ("random", "colour"), {"strategy": "random", "strategy_options": {"colour": 1}}),
        (ArgumentError, ("fill", "within", "min_similarity"), {"strategy_options": {"k": 3}}),
        (ArgumentError, ("random", "within"), {"strategy": "random", "within": "far"}),
        (ArgumentError, ("random", "min_similarity"), {"strategy": "random", "min_similarity": 0.5}),
        (ArgumentError, ("reference_max_images",), {"reference": fitted, "reference_max_images": 9}),
        (BudgetError, ("full",), {"strategy": "full"}),
        (ArgumentError, ("vjepa2", "reference="), {"strategy": "vjepa2", "reference": fitted}),
    ):
        settings = {"reference": reference} | options
        with raises(error, *values):
            small_prune(pool, settings.pop("reference"), tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
