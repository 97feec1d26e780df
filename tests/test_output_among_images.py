"""No command writes into a folder whose images it reads."""

import pytest

import rsprune
from failures import raises
from rsprune.errors import OutputError
from rsprune.runs.stages import centroids_run, embed_run, entropy_run
from rsprune.sources import check_outside, open_source
from small_runs import Colours, picture, write_tar


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(picture(i))
    return folder


@pytest.fixture
def tars(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    write_tar(folder / "a.tar", {f"{i}.jpg": picture(i) for i in range(6)})
    return folder


CALLS = {
    "prune": lambda images, out: rsprune.prune(
        images, reference=images, out=out, keep=2, k=2, encoder=Colours(), progress=False
    ),
    "embed": lambda images, out: embed_run(images, out=out, encoder=Colours(), progress=False),
    "entropy": lambda images, out: entropy_run(images, out=out, progress=False),
    "centroids": lambda images, out: centroids_run(images, out=out, k=2, encoder=Colours(), progress=False),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("place", ["run", "deep/er/run", "."])
def test_a_run_is_not_written_among_its_images(name, place, images, tars):
    for source in (images, tars):
        before = sorted(source.rglob("*"))
        with raises(OutputError, source / place, source):
            CALLS[name](source, source / place)
        with raises(OutputError, source):
            CALLS[name]([images, tars], source / place)
        assert sorted(source.rglob("*")) == before


def test_neither_is_it_among_those_of_the_reference(images, tars):
    with raises(OutputError, tars / "run", tars):
        rsprune.prune(images, reference=tars, out=tars / "run", keep=2, k=2, encoder=Colours(), progress=False)


def test_a_link_leads_to_the_same_place(images, tmp_path):
    (tmp_path / "link").symlink_to(images)
    with raises(OutputError, tmp_path / "link" / "run"):
        entropy_run(images, out=tmp_path / "link" / "run", progress=False)
    with raises(OutputError, images / "run"):
        entropy_run(tmp_path / "link", out=images / "run", progress=False)


def test_files_that_are_named_one_by_one_leave_room_beside_them(images, tars, tmp_path):
    (images / "all.txt").write_text("\n".join(f"{i}.jpg" for i in range(6)))
    entropy_run(images / "all.txt", out=images / "run", progress=False)
    entropy_run(str(tars / "*.tar"), out=tars / "run", progress=False)
    check_outside(tmp_path / "tars-run", open_source(str(tars / "*.tar")))


def test_the_commands_say_so_in_a_line(images, command):
    done = command("entropy", images, "-o", images / "run")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not (images / "run").exists()
