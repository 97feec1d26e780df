"""Parts: calls that share out the shards of a run, each on its own, end with the bytes of one call."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from failures import raises
from rsprune.errors import ArgumentError, ConfigMismatchError, PartsLeftError
from rsprune.runners import RUNNERS, NoProgress
from rsprune.runners.parts import check_part, parse_part, share_out
from rsprune.runs.config import ExecutionOptions
from rsprune.runs.folder import RunFolder
from rsprune.runs.stages import centroids_run, embed_run, entropy_run
from rsprune.temporaries import TEMPORARY, remove_temporaries, this_machine
from small_runs import Colours, artefacts, picture, small_prune, write_tar
from small_stages import Counting


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five tars of 3 to 23 images, two of 8 reference images each."""
    folder = tmp_path_factory.mktemp("images")
    for shard, count in enumerate([3, 23, 7, 5, 11]):
        write_tar(
            folder / f"pool-{shard}.tar", {f"{shard}-{i:02d}.jpg": picture(100 * shard + i) for i in range(count)}
        )
    for shard in range(2):
        write_tar(folder / f"ref-{shard}.tar", {f"{shard}r{i}.jpg": picture(9_000 + 10 * shard + i) for i in range(8)})
    return folder


def run(images, out, **options):
    return small_prune(f"{images}/pool-*.tar", f"{images}/ref-*.tar", out, **options)


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    return artefacts(run(images, tmp_path_factory.mktemp("expected") / "run").path)


# --- which shards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 5, 16])
def test_every_piece_is_one_parts_and_the_parts_are_even(parts):
    rng = np.random.default_rng(parts)
    for _ in range(50):
        sizes = (rng.pareto(1.0, int(rng.integers(0, 60))) * 1000).astype(int).tolist()
        shares = share_out(sizes, parts)
        assert sorted(itertools.chain(*shares)) == list(range(len(sizes)))
        assert all([sizes[i] for i in share] == sorted((sizes[i] for i in share), reverse=True) for share in shares)
        loads = [sum(sizes[i] for i in share) for share in shares]
        best = max(max(sizes, default=0), -(-sum(sizes) // parts))  # no division has a smaller largest part
        assert max(loads) <= 4 / 3 * best + len(sizes)


def test_empty_shards_are_shared_out_too():
    assert [len(share) for share in share_out([0] * 12, 4)] == [3, 3, 3, 3]


def test_what_a_part_may_be(monkeypatch):
    assert (parse_part("3/16"), parse_part("slurm")) == ((3, 16), "slurm")
    assert ExecutionOptions(part="3/16").part == (3, 16)
    for text in ("3", "3/", "a/b", "3/-1", "½/2"):
        with raises(ValueError, text):
            parse_part(text)
    for part in ((0, 4), (5, 4), (1, 0), (1.5, 4), (True, 4), "3", 7, (1, 2, 3)):
        with raises(ArgumentError):
            check_part(part)
    with raises(ArgumentError, "SLURM_ARRAY_TASK_ID"):
        ExecutionOptions(part="slurm")


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"ID": 3, "MIN": 1, "MAX": 16, "COUNT": 16}, (3, 16)),
        ({"ID": 0, "MIN": 0, "MAX": 3, "COUNT": 4, "STEP": 1}, (1, 4)),
        ({"ID": 14, "MIN": 10, "MAX": 16, "COUNT": 4, "STEP": 2}, (3, 4)),
    ],
)
def test_a_task_of_an_array_job_is_a_part(environment, part, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert ExecutionOptions(part="slurm").part == part


def test_an_array_job_with_gaps_is_refused(monkeypatch):
    for name, value in {"ID": 3, "MIN": 1, "MAX": 7, "COUNT": 3}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    with raises(ArgumentError, 1, 3, 7):
        ExecutionOptions(part="slurm")


# --- what they do -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["local", "processes"])
def test_a_part_does_its_own_shards_and_names_how_many_are_left(runner, tmp_path):
    own = []
    for number in (1, 2, 3):
        one = RUNNERS.get(runner)(1)
        one.part = (number, 3)
        before = {path.name for path in tmp_path.iterdir()}
        if number < 3:
            with raises(PartsLeftError, f"{number}/3", "counting", 5) as caught:
                one.map_merge(Counting(tmp_path, size=5))
            assert (caught.value.left, caught.value.shards) == ([4, 2][number - 1], 5)
        else:
            merged = one.map_merge(Counting(tmp_path, size=5))
        own.append({path.name for path in tmp_path.iterdir()} - before)
    assert own == [{"s4.json"}, {"s3.json", "s0.json"}, {"s2.json", "s1.json"}]
    assert (merged.images, merged.names) == (15, {"s0", "s1", "s2", "s3", "s4"})


@pytest.mark.parametrize("runner", ["local", "processes"])
def test_the_largest_shards_are_begun_first(runner, tmp_path):
    done = []
    progress = NoProgress()
    progress.advance = done.append
    RUNNERS.get(runner)(1).map_merge(Counting(tmp_path, size=5), progress)
    assert done == [5, 4, 3, 2, 1]


def test_more_parts_than_shards(tmp_path):
    runner = RUNNERS.get("local")(1)
    runner.part = (4, 4)
    with raises(PartsLeftError, "4/4"):
        runner.map_merge(Counting(tmp_path, size=2))
    runner.part = None
    assert runner.map_merge(Counting(tmp_path, size=2)).images == 3
    runner.part = (4, 4)
    assert runner.map_merge(Counting(tmp_path, size=2)).images == 3


@pytest.mark.parametrize("order", ["1/1", "2/2 1/2", "3/3 1/3 2/3", "2/4 4/4 3/4 1/4"])
def test_parts_in_any_order_end_with_the_same_bytes(order, images, expected, tmp_path):
    out, rounds = tmp_path / "run", 0
    parts = [tuple(map(int, part.split("/"))) for part in order.split()]
    ended = False
    while not ended:
        rounds += 1
        for part in parts:
            with contextlib.suppress(PartsLeftError):
                ended = len(run(images, out, part=part).keys) == 12
    assert rounds <= 3
    assert artefacts(out) == expected


def test_a_call_without_a_part_does_what_is_left(images, expected, tmp_path):
    with raises(PartsLeftError, "2/3", "entropy"):
        run(images, tmp_path / "run", part=(2, 3))
    assert list((tmp_path / "run" / "reference" / "embeddings").glob("*.npy"))  # which no other stage waits for
    run(images, tmp_path / "run")
    assert artefacts(tmp_path / "run") == expected


def test_the_stages_alone_know_parts_too(images, tmp_path):
    pool = f"{images}/pool-*.tar"
    calls = {
        "entropy": lambda out, **options: entropy_run(pool, out=out, progress=False, **options),
        "embed": lambda out, **options: embed_run(pool, out=out, encoder=Colours(), progress=False, **options),
        "centroids": lambda out, **options: centroids_run(
            f"{images}/ref-*.tar", out=out, encoder=Colours(), k=3, progress=False, **options
        ),
    }
    for name, call in calls.items():
        with raises(PartsLeftError, "1/2"):
            call(tmp_path / name, part=(1, 2))
        call(tmp_path / name, part=(2, 2))
        call(tmp_path / f"{name}-whole")
        assert artefacts(tmp_path / name) == artefacts(tmp_path / f"{name}-whole")


def test_the_command_ends_well_and_says_what_is_left(command, images, tmp_path):
    words = ["entropy", *sorted(images.glob("pool-*.tar")), "--out", tmp_path / "run"]
    done = command(*words, "--part", "2/2")
    assert done.returncode == 0, done.stderr
    assert "part 2/2 of the stage entropy is done; 2 of 5 shards" in done.stdout
    done = command(*words, "--part", "2/2", "--json")
    assert '"event": "result"' in done.stdout
    assert '"left": 2' in done.stdout
    done = command(*words, "--part", "1/2")
    assert (done.returncode, "49 images" in done.stdout) == (0, True)
    assert command(*words, "--part", "3/2").returncode == 1
    assert command(*words, "--part", "three").returncode == 2


def test_parts_that_begin_at_once_in_a_new_folder(images, tmp_path):
    def part(number):
        with contextlib.suppress(PartsLeftError):
            entropy_run(f"{images}/pool-*.tar", out=tmp_path / "run", part=(number, 4), progress=False)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(part, [1, 2, 3, 4]))
    part(1)
    entropy_run(f"{images}/pool-*.tar", out=tmp_path / "whole", progress=False)
    assert artefacts(tmp_path / "run") == artefacts(tmp_path / "whole")


# --- locks and leftovers ----------------------------------------------------------------------------------------------


def test_parts_share_a_folder_and_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr("rsprune.runs.folder.PATIENCE", 0.1)
    (tmp_path / "config.json").write_text("{}")
    one, another = RunFolder(tmp_path).lock(shared=True), RunFolder(tmp_path).lock(shared=True)
    with one, another, raises(ConfigMismatchError, tmp_path), RunFolder(tmp_path).lock():
        pytest.fail("locked")
    with RunFolder(tmp_path).lock(), raises(ConfigMismatchError, tmp_path), RunFolder(tmp_path).lock(shared=True):
        pytest.fail("locked")
    with RunFolder(tmp_path).lock():
        pass


def test_a_part_that_does_not_begin_leaves_the_folder_as_it_was(tmp_path):
    with RunFolder(tmp_path / "new").lock(shared=True):
        with RunFolder(tmp_path / "new").lock(shared=True):
            pass
        assert (tmp_path / "new" / ".lock").exists()
    assert not (tmp_path / "new").exists()


def test_what_live_parts_write_stays_and_what_killed_ones_left_goes(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    now, here = time.time(), this_machine()
    files = {  # machine and process, age in days, and whether it stays beside live parts
        f"{here}-{os.getpid()}-a": (0, True),
        f"{here}-{os.getpid()}-b": (9, True),
        f"{here}-1-c": (0, True),  # another user's
        f"{here}-{ended.pid}-d": (0, False),
        "0badcafe-1-e": (0.5, True),
        "0badcafe-1-f": (1.5, False),
        "0123456789abcdef": (0.5, True),  # of an older version
    }
    paths = {name: tmp_path / "entropy" / f".a-b.c.parquet.{name}{TEMPORARY}" for name in files}
    (tmp_path / "entropy").mkdir()
    for name, (days, _) in files.items():
        paths[name].write_bytes(b"half")
        os.utime(paths[name], (now - days * 86400,) * 2)
    remove_temporaries(tmp_path, shared=True)
    assert {name: path.exists() for name, path in paths.items()} == {name: stays for name, (_, stays) in files.items()}
    remove_temporaries(tmp_path)
    assert not any(path.exists() for path in paths.values())
