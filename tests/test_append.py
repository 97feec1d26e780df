"""A run whose collection has grown, or that decides anew: only what is new is computed; it ends as a fresh run."""

import contextlib
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from failures import raises
from rsprune.errors import ConfigMismatchError, PartsLeftError, SourceChangedError
from rsprune.runs.stages import embed_run, entropy_run
from small_runs import Colours, Stops, artefacts, picture, small_prune, write_tar


class Counting(Colours):
    """Counts the images that it embeds."""

    def __init__(self):
        super().__init__()
        self.images = 0

    def forward(self, pixels):
        self.images += len(pixels)
        return super().forward(pixels)


SLOW = pytest.mark.slow
#: What says nothing of the configuration that the run had before.
SAME = ("config.json", "selection.parquet", "selected.txt", "summary.json", "quarantine.parquet", "report.html")


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Five shards, with a damaged image in each, and a reference."""
    folder = tmp_path_factory.mktemp("tars")
    for s in range(5):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(20)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(12)})
    return folder


def some(tars, there, shards):
    """A pool of some of the shards."""
    there.mkdir(exist_ok=True)
    for s in shards:
        shutil.copy2(tars / f"pool-{s}.tar", there)
    return str(there / "pool-*.tar")


def made_at(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in artefacts(folder)}


@pytest.fixture(scope="module")
def fresh(tars, tmp_path_factory):
    """Runs over all shards at once, by whether embeddings are kept, and the images that each embedded."""
    runs = {}
    for keep in (False, True):
        encoder, out = Counting(), tmp_path_factory.mktemp("fresh") / "run"
        small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", out, keep_embeddings=keep, encoder=encoder)
        runs[keep] = out, encoder.images
    return runs


@pytest.mark.parametrize("keep", [False, True], ids=["clusters", "embeddings"])
@pytest.mark.parametrize(
    "first", [(1, 3), pytest.param((0, 1), marks=SLOW), pytest.param((0, 1, 2, 3), marks=SLOW)], ids=str
)
def test_a_grown_collection_costs_what_is_new_and_ends_as_a_fresh_run(tars, fresh, tmp_path, first, keep):
    pool = some(tars, tmp_path / "pool", first)
    small_prune(pool, tars / "ref.tar", tmp_path / "run", keep_embeddings=keep)
    before = made_at(tmp_path / "run")
    some(tars, tmp_path / "pool", range(5))
    encoder = Counting()
    run = small_prune(pool, tars / "ref.tar", tmp_path / "run", keep_embeddings=keep, encoder=encoder)
    whole, embedded = fresh[keep]
    want, made = artefacts(whole), artefacts(tmp_path / "run")
    assert set(made) == set(want)
    assert [name for name in SAME if made[name] != want[name]] == []
    for name in (one for one in want if one.startswith(("embeddings/", "entropy/")) and one.endswith(".parquet")):
        assert pq.read_table(tmp_path / "run" / name) == pq.read_table(whole / name)
    kept = [one for one in before if one.startswith(("entropy/", "reference/", "centroids"))]
    after = made_at(tmp_path / "run")
    assert [one for one in kept if after[one] != before[one]] == []
    assert 0 < encoder.images < embedded - 12  # the reference is not embedded again, nor are all old images
    assert "new images chosen" in run.describe()


def test_a_grown_collection_is_taken_in_after_every_kill(tars, fresh, tmp_path):
    """A call that was stopped at any shard leaves a folder that the same call finishes."""

    left = [10**6]
    pool = some(tars, tmp_path / "pool", (1, 3))
    small_prune(pool, tars / "ref.tar", tmp_path / "run", encoder=Stops(left))
    some(tars, tmp_path / "pool", range(5))
    stops = 0
    while True:
        left[0] = 2 + stops
        try:
            small_prune(pool, tars / "ref.tar", tmp_path / "run", encoder=Stops(left))
        except KeyboardInterrupt:
            stops += 1
            continue
        break
    assert stops > 1
    want, made = artefacts(fresh[True][0]), artefacts(tmp_path / "run")
    assert [name for name in SAME if made[name] != want[name]] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"keep": 0.4, "within": "random"},
        {"entropy_keep": 0.7},
        pytest.param({"tau": 3.0}, marks=SLOW),
        pytest.param({"fill": "waterfill"}, marks=SLOW),
    ],
    ids=str,
)
def test_a_choice_is_decided_anew_on_what_is_there(tars, fresh, tmp_path, changes):
    shutil.copytree(fresh[True][0], tmp_path / "run")
    encoder = Counting()
    run = small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", tmp_path / "run", encoder=encoder, **changes)
    same = small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", tmp_path / "other", **changes)
    made, want = artefacts(run.path), artefacts(same.path)
    assert [name for name in SAME if made[name] != want[name]] == []
    assert encoder.images < 40
    assert (encoder.images > 1) == bool({"entropy_keep", "tau"} & changes.keys())  # one of noise tries the encoder


@pytest.mark.parametrize("what", ["k", "encoder", "gray"])
def test_other_changes_are_refused_and_leave_the_run_as_it_is(tars, fresh, tmp_path, what):
    shutil.copytree(fresh[True][0], tmp_path / "run")
    changes = {"k": {"k": 5}, "encoder": {"encoder": Colours(version="2")}, "gray": {"gray": "mean"}}[what]
    with raises(ConfigMismatchError, tmp_path / "run"):
        small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", tmp_path / "run", keep=0.4, **changes)
    assert artefacts(tmp_path / "run") == artefacts(fresh[True][0])


def test_a_collection_that_has_lost_or_changed_a_shard_is_refused(tars, tmp_path):
    pool = some(tars, tmp_path / "pool", range(3))
    small_prune(pool, tars / "ref.tar", tmp_path / "run")
    before = artefacts(tmp_path / "run")
    (tmp_path / "pool" / "pool-1.tar").unlink()
    with raises(ConfigMismatchError, tmp_path / "run", "pool-1"):
        small_prune(pool, tars / "ref.tar", tmp_path / "run")
    write_tar(tmp_path / "pool" / "pool-1.tar", {f"1-{i:02d}.jpg": picture(i) + bytes(5000) for i in range(20)})
    with raises(SourceChangedError, tmp_path / "run", "pool-1"):
        small_prune(pool, tars / "ref.tar", tmp_path / "run")
    assert artefacts(tmp_path / "run") == before


def test_images_behind_the_last_ones_of_a_folder_are_taken_in(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(9):
        if i == 6:
            entropy_run(images, out=tmp_path / "entropy", progress=False)
            embed_run(images, out=tmp_path / "embed", encoder=Colours(), progress=False)
        (images / f"{i}.jpg").write_bytes(picture(i))
    for command, options in (("entropy", {}), ("embed", {"encoder": Colours()})):
        run = {"entropy": entropy_run, "embed": embed_run}[command]
        assert run(images, out=tmp_path / command, progress=False, **options).metrics["images"] == 9
        run(images, out=tmp_path / "fresh" / command, progress=False, **options)
        assert artefacts(tmp_path / command) == artefacts(tmp_path / "fresh" / command)
    assert np.load(tmp_path / "embed" / "embeddings" / "part-000000.npy").shape == (9, 6)


def test_the_centroids_of_a_sample_of_the_collection_stay(tars, tmp_path):
    pool = some(tars, tmp_path / "pool", (1, 3))
    small_prune(pool, "self", tmp_path / "run", reference_max_images=20)
    before = (tmp_path / "run" / "centroids.safetensors").read_bytes()
    some(tars, tmp_path / "pool", range(5))
    for _ in range(2):
        run = small_prune(pool, "self", tmp_path / "run", reference_max_images=20)
        assert run.summary["images"] == 100
        assert (tmp_path / "run" / "centroids.safetensors").read_bytes() == before
    assert run.moved == ""


@pytest.mark.parametrize(
    "lose", [lambda path: path.unlink(), lambda path: path.write_text("{")], ids=["lost", "damaged"]
)
def test_a_run_without_its_configuration_takes_no_shard_of_another_collection(tars, tmp_path, lose):
    pool = some(tars, tmp_path / "pool", range(2))
    entropy_run(pool, out=tmp_path / "run", progress=False)
    lose(tmp_path / "run" / "config.json")
    (tmp_path / "pool" / "pool-1.tar").unlink()
    with raises(ConfigMismatchError, tmp_path / "run", "pool-1"):
        entropy_run(pool, out=tmp_path / "run", progress=False)


def test_parts_take_in_what_was_added(tars, fresh, tmp_path):
    pool = some(tars, tmp_path / "pool", (1, 3))
    small_prune(pool, tars / "ref.tar", tmp_path / "run")
    some(tars, tmp_path / "pool", range(5))
    for number in (2, 1, 2, 1, 2):
        with contextlib.suppress(PartsLeftError):
            small_prune(pool, tars / "ref.tar", tmp_path / "run", part=(number, 2))
    want, made = artefacts(fresh[True][0]), artefacts(tmp_path / "run")
    assert [name for name in SAME if made[name] != want[name]] == []
