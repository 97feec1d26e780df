"""A collection that changes while it is read: an error that names the file, and nothing of its shard is kept."""

import os

import pytest

from failures import raises
from rsprune.errors import SourceChangedError
from rsprune.runners import Progress
from rsprune.runs.stages import embed_run, entropy_run
from small_runs import Colours, artefacts, picture, write_tar


class Meanwhile(Progress):
    """Does something once, as soon as images have been read."""

    def __init__(self, act):
        self.act = act

    def advance(self, images):
        if self.act is not None:
            self.act()
            self.act = None


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


def later(path):
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def run(command, source, out, progress):
    options = {"encoder": Colours()} if command is embed_run else {}
    return command(source, out=out, progress=progress, **options)


@pytest.mark.parametrize("command", [entropy_run, embed_run], ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    ("layout", "change"),
    [("tar", longer), ("tar", later), ("folder", longer), ("list", longer)],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_a_file_that_is_written_to_meanwhile_is_named(tmp_path, command, layout, change):
    images = {f"{i:02d}.jpg": picture(i) for i in range(6)}
    (tmp_path / "images").mkdir()
    for name, content in images.items():
        (tmp_path / "images" / name).write_bytes(content)
    (tmp_path / "list.txt").write_text("\n".join(f"images/{name}" for name in images))
    write_tar(tmp_path / "pool.tar", images)
    source = {"tar": tmp_path / "pool.tar", "folder": tmp_path / "images", "list": tmp_path / "list.txt"}[layout]
    file = tmp_path / "pool.tar" if layout == "tar" else tmp_path / "images" / "03.jpg"
    with raises(SourceChangedError, file):
        run(command, source, tmp_path / "run", Meanwhile(lambda: change(file)))
    assert not list((tmp_path / "run").glob("e*/*"))
    run(command, source, tmp_path / "run2", False)
    assert artefacts(tmp_path / "run2")
