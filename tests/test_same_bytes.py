"""The whole of "same bytes": one collection, whoever does the work, and whoever dies of it."""

import contextlib

import pytest

from ray_nodes import KillsNode, three_nodes
from rsprune.errors import PartsLeftError
from small_runs import Colours, artefacts, picture, small_prune, write_tar

SHARDS = 7


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Tars of different sizes, an image that cannot be read, and names that repeat."""
    folder = tmp_path_factory.mktemp("images")
    for shard in range(SHARDS):
        members = {f"{i:02d}.jpg": picture(100 * shard + i) for i in range(6 + 2 * (shard % 4))}
        write_tar(folder / f"pool-{shard}.tar", members | ({"03.jpg": b""} if shard == 4 else {}))
    write_tar(folder / "reference.tar", {f"r{i:02d}.jpg": picture(9_000 + i) for i in range(15)})
    return folder


@pytest.fixture
def prune(images, tmp_path):
    """Prune into a folder of this name; return its files."""

    def run(name, **options):
        out = tmp_path / name
        small_prune(f"{images}/pool-*.tar", images / "reference.tar", out, **options)
        return artefacts(out)

    return run


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "run"
    return artefacts(small_prune(f"{images}/pool-*.tar", images / "reference.tar", out).path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_processes(workers, prune, expected):
    assert prune("run", runner="processes", workers=workers) == expected


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts(parts, prune, expected):
    """Each is called until none is left over, the last first; one of them chooses."""
    for _ in range(2):
        for part in range(parts, 0, -1):
            with contextlib.suppress(PartsLeftError):
                prune("run", part=f"{part}/{parts}")
    assert prune("run") == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file.*/dev/null:ResourceWarning")  # what Ray's processes write to
def test_ray_of_three_nodes_of_which_one_is_killed(prune, expected):
    with three_nodes() as cluster:
        progress = KillsNode(cluster)
        found = prune("run", runner="ray", address=cluster.address, encoder=Colours(pause=0.5), progress=progress)
    assert progress.killed is not None
    assert found == expected
