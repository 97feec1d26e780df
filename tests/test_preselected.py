"""A choice that keeps an earlier one and tops it up, in the folder of the run."""

import numpy as np
import pytest

from failures import raises
from rsprune.errors import ArgumentError, BudgetError
from rsprune.runs.prune import open_run
from rsprune.runs.reader import RunReader
from rsprune.runs.verify import verify_run
from rsprune.selection import select_assigned
from small_runs import Stops, artefacts, picture, small_prune, write_tar


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    for s in range(4):
        write_tar(folder / f"pool-{s}.tar", {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(25)})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(12)})
    return folder


def some(tars, there, shards):
    there.mkdir(exist_ok=True)
    for s in shards:
        (there / f"pool-{s}.tar").write_bytes((tars / f"pool-{s}.tar").read_bytes())
    return str(there / "pool-*.tar")


def test_a_grown_collection_is_topped_up(tars, tmp_path):
    pool, out, options = some(tars, tmp_path / "pool", (1, 3)), tmp_path / "run", {"k": 4, "keep": 12}
    before = small_prune(pool, tars / "ref.tar", out, **options).keys
    some(tars, tmp_path / "pool", range(4))
    # The new shards come between the old ones, and far fewer of all images pass Stage I now.
    run = small_prune(pool, tars / "ref.tar", out, k=4, keep=20, entropy_keep=0.2, preselected=True)
    assert set(before) < set(run.keys)
    assert len(run.keys) == 20
    assert run.summary["phases"]["preselected"] == 12
    assert int((run.selection.phase == 2).sum()) == 12
    assert "12 kept from before" in run.describe()
    assert "8 new images chosen, 0 dropped, 12 stay" in run.describe()
    assert verify_run(out).findings == []
    # What is added is what the core adds to the same rows.
    reader = RunReader(out)
    labels, similarity = reader.embedded("label", "similarity")
    places = {(name, row): at for at, (name, row) in enumerate(embedded(reader))}
    chosen = reader.selected(["shard", "row", "phase"]).to_pylist()
    kept = [places[one["shard"], one["row"]] for one in chosen if one["phase"] == 2]
    again = select_assigned(labels, similarity, 20, k=4, preselected=np.array(kept))
    assert sorted(places[one["shard"], one["row"]] for one in chosen) == again.indices.tolist()


def embedded(reader):
    for name in reader.shards:
        for row in reader.assignments(name, ["row"])["row"].to_pylist():
            yield name, row


def test_the_same_call_is_the_same_choice_and_another_one_tops_up_again(tars, tmp_path):
    pool, out = str(tars / "pool-*.tar"), tmp_path / "run"
    first = small_prune(pool, tars / "ref.tar", out, k=4, keep=10).keys
    second = small_prune(pool, tars / "ref.tar", out, k=4, keep=16, preselected=True).keys
    held = artefacts(out)
    again = small_prune(pool, tars / "ref.tar", out, k=4, keep=16, preselected=True)
    assert artefacts(out) == held
    assert again.summary["phases"]["preselected"] == 10
    third = small_prune(pool, tars / "ref.tar", out, k=4, keep=24, fill="waterfill", preselected=True)
    assert third.summary["phases"]["preselected"] == 16
    assert set(first) < set(second) < set(third.keys)
    with raises(BudgetError, 24, 20):
        small_prune(pool, tars / "ref.tar", out, k=4, keep=20, preselected=True)
    free = small_prune(pool, tars / "ref.tar", out, k=4, keep=10)
    assert free.keys == first
    assert "preselected" not in free.summary["phases"]


def test_a_topping_up_that_was_stopped_goes_on(tars, tmp_path):
    def grow(out, encoder):
        return small_prune(pool, tars / "ref.tar", out, k=4, keep=20, preselected=True, encoder=encoder)

    left = [10**6]
    pool = some(tars, tmp_path / "pool", (0, 1))
    for name in ("whole", "stopped"):
        small_prune(pool, tars / "ref.tar", tmp_path / name, k=4, keep=12, encoder=Stops(left))
    some(tars, tmp_path / "pool", range(4))
    want = grow(tmp_path / "whole", Stops(left))
    stops = 0
    while True:
        left[0] = 1 + stops
        try:
            grow(tmp_path / "stopped", Stops(left))
        except KeyboardInterrupt:
            stops += 1
            continue
        break
    assert stops > 1
    for name in ("selection.parquet", "selected.txt", "summary.json", "preselected.parquet"):
        assert (tmp_path / "stopped" / name).read_bytes() == (want.path / name).read_bytes(), name


def test_there_must_be_a_choice_and_quotas(tars, tmp_path):
    pool = str(tars / "pool-*.tar")
    with raises(ArgumentError, "--preselected", tmp_path / "run"):
        small_prune(pool, tars / "ref.tar", tmp_path / "run", k=4, keep=12, preselected=True)
    assert not (tmp_path / "run").exists()
    with raises(ArgumentError, "'kcenter'"):
        small_prune(pool, tars / "ref.tar", tmp_path / "run", k=4, keep=12, preselected=True, strategy="kcenter")


def test_damage_to_what_is_kept_is_told(tars, tmp_path):
    pool, out = str(tars / "pool-*.tar"), tmp_path / "run"
    small_prune(pool, tars / "ref.tar", out, k=4, keep=10)
    keys = small_prune(pool, tars / "ref.tar", out, k=4, keep=16, preselected=True).keys
    path = out / "preselected.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    assert "preselected.parquet" in str(verify_run(out).findings)
    assert open_run(out).keys == keys
