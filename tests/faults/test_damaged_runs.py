"""A bit that flips anywhere in a run folder is told by whoever reads the file, and the same command mends it."""

import random
import shutil

import pytest

from rsprune.errors import DamagedFileError, UnfinishedRunError
from rsprune.runs.prune import open_run
from rsprune.runs.reader import RunReader
from small_runs import artefacts, picture, small_prune, write_tar


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Two shards with a damaged image in each, a reference, and a finished run."""
    folder = tmp_path_factory.mktemp("damaged")
    for s in range(2):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(12)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(8)})
    prune(folder, folder / "run")
    return folder


def prune(there, out):
    small_prune(str(there / "pool-*.tar"), there / "ref.tar", out, k=3, threads=1)


def content(path):
    """All that a finished run and its choices say; what is for other programs is compared with its digest."""
    run, reader = open_run(path), RunReader(path)
    shards = [(reader.entropy(one).tobytes(), reader.assignments(one).to_pydict()) for one in reader.shards]
    reader.folder.verify(reader.folder.centroids)
    return repr(shards), [said(open_run(path, name)) for name in (None, *run.selections)]


def said(run):
    """What one choice says."""
    for one in (run.reader.folder.selected, run.reader.folder.quarantine):
        run.reader.folder.verify(one)
    return run.summary, run.keys, run.selection.indices.tolist(), run.describe()


@pytest.mark.parametrize(("flips", "mends"), [(3, 0), pytest.param(30, 30, marks=pytest.mark.slow)])
def test_every_artefact_with_a_flipped_bit(there, tmp_path, flips, mends):
    whole, run, rng = artefacts(there / "run"), tmp_path / "run", random.Random(17)
    shutil.copytree(there / "run", run)
    expected, told = content(run), set()
    for name, good in whole.items():
        for number in range(flips):
            damaged, bit = bytearray(good), rng.randrange(8 * len(good))
            damaged[bit // 8] ^= 1 << bit % 8
            (run / name).write_bytes(damaged)
            try:
                assert content(run) == expected, (name, bit)
            except (DamagedFileError, UnfinishedRunError) as error:
                told.add(name)
                message = str(error)
            else:
                message = str(run)
            assert str(run) in message, (name, bit, message)
            assert "\n" not in message, (name, bit, message)
            if number < mends:
                prune(there, run)
                assert artefacts(run) == whole, (name, bit)
            (run / name).write_bytes(good)
    unread = {name for name in whole if name.startswith(("reference/", "dropped/")) or name.endswith((".npy", ".html"))}
    assert told >= set(whole) - unread, set(whole) - unread - told
