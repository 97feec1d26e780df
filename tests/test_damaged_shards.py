"""Shards that are empty or damaged: a run goes on without the former, and without the latter when it is asked to."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from failures import raises, warns
from rsprune.errors import FormatError
from rsprune.report import explain, write_report
from rsprune.runs.plan import plan
from rsprune.runs.reader import RunReader
from rsprune.runs.stages import embed_run, entropy_run
from rsprune.sources import SkippedFilesWarning, open_source
from rsprune.sources.damaged import without_damaged
from rsprune.training.autoencoder import load_autoencoder
from rsprune.training.latent_cache import cache_latents
from rsprune.training.transforms import ImageTransform
from small_runs import Colours, artefacts, picture, small_prune, write_tar


@pytest.fixture
def pool(tmp_path):
    for shard in range(4):
        write_tar(tmp_path / f"pool/{shard}.tar", {f"{shard}-{i}.jpg": picture(10 * shard + i) for i in range(10)})
    return tmp_path / "pool"


@pytest.fixture(autouse=True)
def reference(tmp_path):
    (tmp_path / "pool").mkdir()
    write_tar(tmp_path / "reference.tar", {f"{i % 3}/{i}.jpg": picture(1000 + i) for i in range(12)})
    return tmp_path / "reference.tar"


def test_an_empty_shard_changes_nothing_but_the_input(pool, reference, tmp_path):
    before = small_prune(pool, reference, tmp_path / "before")
    (pool / "1a.tar").touch()
    with warns(SkippedFilesWarning, pool / "1a.tar"):
        after = small_prune(pool, reference, tmp_path / "after")
    np.testing.assert_array_equal(after.selection.indices, before.selection.indices)
    assert after.keys == before.keys
    assert after.summary["quarantined"] == 0
    with warns(SkippedFilesWarning, pool / "1a.tar"):
        embed_run(pool, out=tmp_path / "rows", encoder=Colours(), progress=False)
    rows = [np.load(path) for path in sorted((tmp_path / "rows" / "embeddings").glob("*.npy"))]
    assert [len(one) for one in rows] == [10, 10, 0, 10, 10]


def test_all_damaged_shards_are_named_before_a_run_begins(pool, reference, tmp_path):
    os.truncate(pool / "1.tar", 6000)
    (pool / "3.tar").write_bytes(b"no tar file" * 100)
    for call in (
        lambda out: small_prune(pool, reference, out),
        lambda out: entropy_run(pool, out=out, progress=False),
        lambda out: embed_run(pool, out=out, encoder=Colours(), progress=False),
        lambda out: plan(pool, reference=reference, encoder=Colours(), k=6),
        lambda out: small_prune(reference, pool, out),
    ):
        with raises(FormatError, pool / "1.tar", pool / "3.tar", "2 of 4", "--on-damaged-shard"):
            call(tmp_path / "out")
        assert not (tmp_path / "out" / "config.json").exists()


def test_a_run_goes_on_without_damaged_shards_when_asked(pool, reference, tmp_path):
    rest = {name: (pool / f"{name}.tar").read_bytes() for name in "02"}
    for name in "13":
        os.truncate(pool / f"{name}.tar", 6000)
    with warns(SkippedFilesWarning, "2 of 4", pool / "1.tar", pool / "3.tar"):
        run = small_prune(pool, reference, tmp_path / "run", on_damaged_shard="skip", keep=0.4)
    assert (run.summary["images"], run.summary["quarantined"], run.summary["left_out"]) == (20, 0, ["1", "3"])
    rows = pq.read_table(run.path / "quarantine.parquet").to_pylist()
    assert [(row["shard"], row["row"], row["kind"]) for row in rows] == [(n, -1, "damaged_shard") for n in "13"]
    assert [row["message"].partition(" ")[0] for row in rows] == ["1.tar", "3.tar"]
    assert len(pq.read_table(run.path / "reference" / "quarantine.parquet")) == 0
    with warns(SkippedFilesWarning, "2 of 4", pool / "1.tar"):
        of_pool = small_prune(reference, pool, tmp_path / "of-pool", on_damaged_shard="skip", keep=0.5)
    rows = pq.read_table(of_pool.path / "reference" / "quarantine.parquet").to_pylist()
    assert [(row["shard"], row["kind"]) for row in rows] == [(n, "damaged_shard") for n in "13"]
    assert "2 damaged shards" in run.report.read_text()
    assert "damaged shards: 1, 3" in run.describe()
    (tmp_path / "good").mkdir()
    for name, data in rest.items():
        (tmp_path / "good" / f"{name}.tar").write_bytes(data)
    good = small_prune(tmp_path / "good", reference, tmp_path / "other", keep=0.4)
    assert run.keys == good.keys
    np.testing.assert_array_equal(run.selection.similarity, good.selection.similarity)
    before = artefacts(run.path)
    with warns(SkippedFilesWarning, "2 of 4"):
        small_prune(pool, reference, run.path, on_damaged_shard="skip", keep=0.4)
    assert artefacts(run.path) == before


def test_a_run_without_damaged_shards_is_trained_on(pool, reference, tmp_path):
    os.truncate(pool / "1.tar", 6000)
    with warns(SkippedFilesWarning, "1 of 4"):
        run = small_prune(pool, reference, tmp_path / "run", on_damaged_shard="skip")
    codec, transform = load_autoencoder("identity", 3), ImageTransform(16)
    cache = cache_latents(pool, codec, transform, out=tmp_path / "latents", run=run.path, mirror=False, progress=False)
    assert list(cache.keys) == run.keys
    assert write_report(run.path, open_source(pool)) == run.report
    assert explain(run.path, run.keys[:1], pool)[0].kept
    with raises(FormatError, pool / "1.tar", "1 of 4"):
        cache_latents(pool, codec, transform, out=tmp_path / "all", mirror=False, progress=False)


@pytest.mark.filterwarnings("default::rsprune.sources.SkippedFilesWarning")
def test_every_command_takes_the_option(pool, tmp_path, command):
    os.truncate(pool / "2.tar", 6000)
    words = ("entropy", pool, "--out", tmp_path / "run")
    refused = command(*words)
    assert refused.returncode == 1
    assert "--on-damaged-shard skip" in refused.stderr
    done = command(*words, "--on-damaged-shard", "skip")
    assert (done.returncode, str(pool / "2.tar") in done.stderr) == (0, True)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["images"], summary["left_out"]) == (30, ["2"])
    assert RunReader(tmp_path / "run").shards == ("0", "1", "3")
    for other in ("prune", "embed", "plan", "centroids"):
        assert "--on-damaged-shard" in command(other, "--help").stdout


def test_damaged_shards_alone_are_no_collection(pool, tmp_path):
    for path in pool.iterdir():
        os.truncate(path, 700)
    with raises(FormatError, "4 of 4"):
        entropy_run(pool, out=tmp_path / "run", on_damaged_shard="skip", progress=False)
    source = open_source(tmp_path / "reference.tar")
    assert without_damaged(source) is source
