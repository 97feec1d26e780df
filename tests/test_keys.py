"""Names that begin anew in each shard: the key of an image is then its shard and its name, in every command."""

import re

import pyarrow.parquet as pq
import pytest

import rsprune
from rsprune.report import explain
from rsprune.runs.prune import open_run
from rsprune.runs.reader import RunReader
from rsprune.runs.stages import embed_run, entropy_run, select_run
from small_runs import Colours, picture, write_tar

KEYS = [f"pool-{shard}/{row:03d}" for shard in range(3) for row in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three tars of eight images with the names 000 to 007, a run that kept all, and embeddings of all."""
    folder = tmp_path_factory.mktemp("restarting")
    for shard in range(3):
        write_tar(folder / f"pool-{shard}.tar", {f"{row:03d}.jpg": picture(100 * shard + row) for row in range(8)})
    write_tar(folder / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(12)})
    prune(folder, "run", keep=24, entropy_keep=1.0)
    return folder


def prune(folder, out, **options):
    settings = {"k": 2, "encoder": Colours(), "progress": False} | options
    return rsprune.prune(str(folder / "pool-*.tar"), reference=folder / "reference.tar", out=folder / out, **settings)


def test_a_run_keeps_the_images_of_every_shard(folder):
    run = open_run(folder / "run")
    assert run.keys == KEYS
    assert (run.path / "selected.txt").read_text().splitlines() == KEYS
    table = pq.read_table(run.path / "selection.parquet").to_pylist()
    assert [(row["shard"], row["row"]) for row in table] == [(f"pool-{i // 8}", i % 8) for i in range(24)]
    assert len(RunReader(run.path).quarantine()) == 0
    assert run.summary["keys"] == "shard/name"
    assert run.describe().count("shard/name") == 1


def test_embed_and_select_name_the_same_images(folder, tmp_path):
    done = embed_run(str(folder / "pool-*.tar"), out=tmp_path / "e", encoder=Colours(), progress=False)
    assert (done.metrics["keys"], done.text.count("shard/name")) == ("shard/name", 1)
    chosen = select_run(
        tmp_path / "e", out=tmp_path / "s.parquet", centroids=folder / "run" / "centroids.safetensors", keep=24
    )
    assert pq.read_table(tmp_path / "s.parquet")["key"].to_pylist() == KEYS
    assert chosen.text.count("shard/name") == 1
    done = entropy_run(str(folder / "pool-*.tar"), out=tmp_path / "h", progress=False)
    assert (done.metrics["keys"], done.metrics["quarantined"]) == ("shard/name", 0)
    assert done.text.count("shard/name") == 1


def test_an_image_is_explained_by_its_key(folder):
    found = explain(folder / "run", ["pool-2/003", "pool-0/003"])
    assert [(one.key, one.shard, one.row) for one in found] == [
        ("pool-2/003", "pool-2", 3),
        ("pool-0/003", "pool-0", 3),
    ]
    with pytest.raises(rsprune.errors.UnknownKeyError) as caught:
        explain(folder / "run", "003")
    assert "'pool-" in str(caught.value)


def test_the_report_names_every_image_by_its_key(folder):
    page = (folder / "run" / "report.html").read_text()
    shown = re.findall('alt="([^"]*)"', page)
    assert len(shown) > 8
    assert set(shown) <= set(KEYS)


def test_a_selection_is_trained_on_where_names_repeat(folder, tmp_path):
    from rsprune.training.autoencoder import load_autoencoder
    from rsprune.training.latent_cache import cache_latents
    from rsprune.training.transforms import ImageTransform

    few = prune(folder, tmp_path / "few", keep=5, entropy_keep=1.0)
    codec, source = load_autoencoder("identity", 3), str(folder / "pool-*.tar")
    cache = cache_latents(source, codec, ImageTransform(8), out=tmp_path / "a", run=few.path, progress=False)
    assert cache.keys == few.keys
    assert len(set(few.keys)) == 5
    assert cache_latents(source, codec, ImageTransform(8), out=tmp_path / "b", progress=False).keys == KEYS


def test_a_name_that_a_shard_repeats_is_in_quarantine_everywhere(folder, tmp_path):
    """A tar file may hold a member twice; nothing tells the two apart."""
    with (tmp_path / "pool-0.tar").open("wb") as file:
        first, second = tmp_path / "first.tar", tmp_path / "second.tar"
        write_tar(first, {f"{row}.jpg": picture(row) for row in range(4)})
        write_tar(second, {"2.jpg": picture(9), "4.jpg": picture(4)})
        file.write(first.read_bytes().rstrip(b"\0") + bytes(-len(first.read_bytes().rstrip(b"\0")) % 512))
        file.write(second.read_bytes())
    pool = tmp_path / "pool-0.tar"
    run = rsprune.prune(
        pool, reference=folder / "reference.tar", out=tmp_path / "run", keep=5, k=2, encoder=Colours(), progress=False
    )
    assert run.keys == ["0", "1", "2", "3", "4"]
    embed_run(pool, out=tmp_path / "e", encoder=Colours(), progress=False)
    entropy_run(pool, out=tmp_path / "h", progress=False)
    for out in ("run", "e", "h"):
        [one] = RunReader(tmp_path / out).quarantine().to_pylist()
        assert (one["key"], one["row"], one["kind"]) == ("2", 4, "duplicate")
    assert explain(run.path, "2")[0].row == 2


def test_pairs_of_images_are_found_by_their_keys(folder, tmp_path):
    from rsprune.evaluation.evaluate import evaluate_pairs

    for key in KEYS:
        path = tmp_path / "made" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(100 * int(key[5]) + int(key[-3:])))
    same = evaluate_pairs(tmp_path / "made", str(folder / "pool-*.tar"))
    assert same["PSNR"] == float("inf")
    assert len(same.metrics) == 2
    assert same.metrics[0].n_real == 24
