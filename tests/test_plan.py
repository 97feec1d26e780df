"""`rsprune.plan`: it agrees with the run, and raises beforehand what the run would raise."""

import inspect
import shutil

import numpy as np
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune.errors import ArgumentError, BudgetError, EmptyInputError, EncoderMismatchError, OutputError, ShapeError
from rsprune.runs.plan import largest_share, plan
from rsprune.sources import open_source
from rsprune.sources.sample import spread_sample
from small_runs import Colours, artefacts, picture, small_prune, write_tar

SETTINGS = {"keep": 0.25, "entropy_keep": 0.5, "k": 6, "encoder": Colours()}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Four tars of 10, 20, 40 and 90 images."""
    folder = tmp_path_factory.mktemp("pool")
    for shard, count in enumerate((10, 20, 40, 90)):
        write_tar(folder / f"{shard}.tar", {f"{shard}-{i:03d}.jpg": picture(1000 * shard + i) for i in range(count)})
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    for i in range(60):
        path = folder / f"class{i % 5}" / f"{i:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(90_000 + i))
    return folder


def test_the_plan_agrees_with_the_run(pool, reference, tmp_path):
    planned = plan(pool, reference=reference, keep_embeddings=True, export="folder", **SETTINGS)
    run = small_prune(pool, reference, tmp_path / "run")
    assert (planned.images, planned.survivors, planned.budget) == (160, 80, 40)
    assert planned.reference_images == 60
    assert [stage.name for stage in planned.stages] == ["reference", "entropy", "embed", "dropped", "select", "export"]
    assert [stage.images for stage in planned.stages] == [60, 160, 80, 80, 80, 40]
    assert all(stage.seconds > 0 for stage in planned.stages)
    assert planned.seconds == pytest.approx(planned.setup_seconds + sum(one.seconds for one in planned.stages))
    embeddings = sum(path.stat().st_size for path in run.path.rglob("*.npy"))
    assert embeddings <= planned.write_bytes - planned.stage("export").write_bytes <= 10 * embeddings
    files = [path for path in artefacts(run.path) if path.startswith(("entropy", "embeddings"))]
    assert planned.stage("entropy").files + planned.stage("embed").files == len(files)
    assert planned.stage("entropy").read_bytes == sum(path.stat().st_size for path in pool.iterdir())
    assert "160 images in 4 shards" in planned.describe()


def test_a_plan_without_measurements_knows_no_times(pool, reference):
    planned = plan(pool, reference=reference, measure=False, **SETTINGS)
    assert planned.seconds is None
    assert {stage.seconds for stage in planned.stages} == {None}
    kept = plan(pool, reference=reference, measure=False, keep_embeddings=True, **SETTINGS)
    assert kept.stage("embed").write_bytes - planned.stage("embed").write_bytes == 80 * 2 * 6
    assert "not measured" in planned.describe()


def test_strategies_are_timed_and_keep_what_they_need(pool, reference):
    by_quota = plan(pool, reference=reference, measure=False, **SETTINGS)
    other = plan(pool, reference=reference, strategy="kcenter", **SETTINGS)
    assert other.stage("select").seconds > 0
    assert other.stage("embed").write_bytes > by_quota.stage("embed").write_bytes
    with raises(ArgumentError, "'no_such_strategy'"):
        plan(pool, reference=reference, strategy="no_such_strategy", **SETTINGS)


def test_a_threshold_in_bits_keeps_what_the_sample_says(pool, reference):
    whole = plan(pool, reference=reference, **{**SETTINGS, "keep": 10}, tau=0.0)
    assert whole.survivors == 160
    with raises(BudgetError, "tau = 8.0"):
        plan(pool, reference=reference, **SETTINGS, tau=8.0)


def test_machines_and_gpus_share_the_shards(pool, reference):
    alone = plan(pool, reference=reference, measure=False, **SETTINGS)
    assert (alone.machines, alone.gpus) == (1, 0)
    shared = plan(pool, reference=reference, measure=False, machines=2, gpus=4, **SETTINGS)
    assert "2 machines, 4 GPUs" in shared.describe()
    source = open_source(pool)
    sizes = [source.size(shard) for shard in source.shards]
    # The largest tar has more than half of the images: a second machine takes the others, a third does not help.
    assert largest_share(source, 1) == 1
    assert largest_share(source, 2) == largest_share(source, 9) == sizes[3] / sum(sizes)
    with raises(ArgumentError, "machines", 0):
        plan(pool, reference=reference, measure=False, machines=0, **SETTINGS)


def test_a_plan_raises_what_the_run_would(pool, reference, tmp_path):
    (tmp_path / "dark.jpg").write_bytes(b"no image")
    with raises(EmptyInputError, "none of the 1 images"):
        plan(tmp_path, reference=reference, **{**SETTINGS, "keep": 1})
    with raises(BudgetError, 161, 160):
        plan(pool, reference=reference, **{**SETTINGS, "keep": 161})


def test_a_range_that_is_to_be_found_is_found_for_the_sample(reference, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 3000, (16, 16)).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    settings = SETTINGS | {"bands": (0, 0, 0)}
    rows = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    planned = plan(tmp_path, reference=rows, valid_range="auto", **settings)
    assert planned.stage("entropy").images_per_second > 0


def test_what_lies_in_a_storage_takes_requests(monkeypatch, pool):
    from rsprune.storage.cache import requests_of

    assert requests_of("/data/a.tar", 10**9) == 0
    assert requests_of("s3://bucket/a.tar", 10 << 20) == 1 + 2  # it is looked up, and fetched in parts of 8 MiB
    source = open_source(pool)
    assert [source.requests(shard) for shard in source.shards] == [0, 0, 0, 0]


def test_a_sample_is_from_all_over_the_collection(pool):
    source = open_source(pool)
    sample = spread_sample(source, 32)
    counts = [sample.count(shard) for shard in sample.shards]
    assert counts == [2, 4, 8, 18]
    for shard in sample.shards:
        keys = [item.key for item in sample.read(shard)]
        everything = [item.key for item in source.read(shard)]
        assert set(keys) <= set(everything)
        assert keys == sorted(keys)
        assert keys[0] == everything[0]
        assert keys[-1] >= everything[len(everything) // 2]
        assert [item.key for item in sample.read(shard, [0, len(keys) - 1])] == [keys[0], keys[-1]]
    assert spread_sample(source, 10**6).total() == 160


def test_it_takes_every_option_of_the_run():
    from rsprune.cli import plan as planning
    from rsprune.cli import prune as pruning

    options = [inspect.signature(module.command).parameters for module in (pruning, planning)]
    assert options[0].keys() <= options[1].keys()
    words = [options[i][name].annotation.__metadata__[0].param_decls for i in (0, 1) for name in sorted(options[0])]
    assert words[: len(words) // 2] == words[len(words) // 2 :]


def test_without_measurements_it_needs_no_weights(pool, reference, tmp_path, monkeypatch):
    def load(*_, **__):
        pytest.fail("the encoder was loaded")

    monkeypatch.setattr("rsprune.runs.config.load_encoder", load)
    options = {"k": 6, "keep": 0.25, "keep_embeddings": True}
    planned = plan(pool, reference=reference, measure=False, **options)
    assert planned.dimensions == 1024
    assert planned.stage("embed").write_bytes == 48 * (2 * 1024 + 24)
    fitted = rsprune.fit_centroids(np.random.default_rng(0).normal(size=(9, 1024)), 6)
    assert plan(pool, reference=fitted, measure=False, **options).k == 6
    other = rsprune.fit_centroids(np.random.default_rng(0).normal(size=(9, 768)), 6)
    with raises(EncoderMismatchError, 768, "git-rsclip", 1024):
        plan(pool, reference=other, measure=False, **options)
    np.save(tmp_path / "test.npy", np.ones((2, 5), np.float32))
    with raises(ShapeError, 5, 1024):
        plan(pool, reference=reference, measure=False, leaks=tmp_path / "test.npy", leak_eps=0.1, **options)


def test_it_knows_the_room_and_what_the_run_would_refuse(pool, reference, tmp_path, monkeypatch):
    planned = plan(pool, reference=reference, out=tmp_path / "a" / "run", measure=False, **SETTINGS)
    assert planned.free_bytes > 1 << 20
    assert "free" in planned.describe()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    assert "not enough" in plan(pool, reference=reference, out=tmp_path, measure=False, **SETTINGS).describe()
    wrong = (
        {"dedup": 0.1},
        {"groups": "city"},
        {"max_per_group": 2},
        {"quotas": "even"},
        {"name": "a/b"},
        {"leak_eps": 1},
    )
    for options in wrong:
        with raises(ArgumentError, next(iter(options))):
            plan(pool, reference=reference, measure=False, **SETTINGS, **options)
    with raises(ArgumentError, "preselected", "'kcenter'"):
        plan(pool, reference=reference, measure=False, preselected=True, strategy="kcenter", **SETTINGS)
    with raises(BudgetError, 161, 160):
        plan(pool, reference=reference, measure=False, **SETTINGS | {"keep": 161})
    with raises(OutputError, pool):
        plan(pool, reference=reference, out=pool / "run", measure=False, **SETTINGS)
