"""A finished run mends itself: the same call makes every missing or damaged file again, with the same bytes."""

import shutil

import pytest

from failures import raises
from rsprune import errors
from rsprune.runs.stages import centroids_run, embed_run, entropy_run
from small_runs import Colours, artefacts, picture, small_prune, write_tar


def prune(there, out):
    small_prune(str(there / "pool-*.tar"), there / "ref.tar", out, k=3)


def prune_without_embeddings(there, out):
    small_prune(str(there / "pool-*.tar"), there / "ref.tar", out, k=3, keep_embeddings=False)


def entropy(there, out):
    entropy_run(str(there / "pool-*.tar"), out=out, progress=False)


def embed(there, out):
    embed_run(str(there / "pool-*.tar"), out=out, encoder=Colours(), progress=False)


def centroids(there, out):
    centroids_run(there / "ref.tar", out=out, k=3, encoder=Colours(), progress=False)


COMMANDS = [prune, prune_without_embeddings, entropy, embed, centroids]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Two shards with a damaged image in each, a reference, and by its name a finished run of each command."""
    folder = tmp_path_factory.mktemp("mending")
    for s in range(2):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(12)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(8)} | {"bad.jpg": b"no image"})
    for command in COMMANDS:
        command(folder, folder / command.__name__)
    return folder


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


DAMAGES = {
    "missing": lambda content: None,
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: flipped(content, len(content) // 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.__name__)
def test_every_damaged_file_is_made_again(there, tmp_path, command, damage):
    whole = there / command.__name__
    expected = artefacts(whole)
    assert len(expected) > 4
    shutil.copytree(whole, tmp_path / "run")
    for name, content in expected.items():
        path = tmp_path / "run" / name
        damaged = DAMAGES[damage](content)
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        before = {one: (tmp_path / "run" / one).stat().st_mtime_ns for one in expected if one != name}
        command(there, tmp_path / "run")
        assert artefacts(tmp_path / "run") == expected, name
        if name.startswith("entropy/"):  # what does not depend on it is not done again
            other = "entropy/pool-1.parquet" if "pool-0" in name else "entropy/pool-0.parquet"
            assert (tmp_path / "run" / other).stat().st_mtime_ns == before[other]


def test_a_run_of_another_configuration_is_not_taken_for_one_that_lost_its_own(there, tmp_path):
    shutil.copytree(there / "entropy", tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with raises(errors.OutputError, tmp_path / "run"):
        entropy_run(str(there / "pool-*.tar"), out=tmp_path / "run", gray="mean", progress=False)


def test_a_folder_in_the_place_of_a_file_is_named(there, tmp_path):
    shutil.copytree(there / "prune", tmp_path / "run")
    (tmp_path / "run" / "selected.txt").unlink()
    (tmp_path / "run" / "selected.txt").mkdir()
    with raises(OSError, tmp_path / "run" / "selected.txt"):
        prune(there, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.writing"))
    (tmp_path / "run" / "selected.txt").rmdir()
    prune(there, tmp_path / "run")
    assert artefacts(tmp_path / "run") == artefacts(there / "prune")
