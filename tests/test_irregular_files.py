"""Pipes, devices and sockets never stop a run: only regular files are opened."""

import os
import socket

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune import errors
from rsprune.evaluation.images import open_images
from rsprune.evaluation.statistics import Statistics
from rsprune.runs.stages import centroids_run, select_run
from rsprune.sources import open_source
from rsprune.sources.filesystem import check_regular, load_array, open_binary, open_text
from scenes import encode

# Opening one of them waits for ever, or fills the memory.
pytestmark = pytest.mark.timeout(60)

PNG = encode(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)), "PNG")


@pytest.fixture
def irregular(tmp_path):
    """A folder with a good image, and links and names of images that lead to what is no regular file."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(PNG)
    os.mkfifo(folder / "b.jpg")
    (folder / "c.jpg").symlink_to(folder / "b.jpg")
    (folder / "d.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/e.jpg")  # the path of a socket is short
        os.close(here)
    (folder / "f.jpg").symlink_to(folder / "nowhere")
    return folder


KINDS = [None, "fifo", "fifo", "character_device", "socket", "not_found"]


def test_stage_one_puts_what_is_no_regular_file_into_the_quarantine(irregular, tmp_path, command):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"images/{path.name}\n" for path in sorted(irregular.iterdir())))
    for number, source in enumerate((irregular, listed)):
        assert command("entropy", source, "--out", tmp_path / f"run{number}").returncode == 0
        quarantine = pq.read_table(tmp_path / f"run{number}" / "quarantine.parquet").to_pylist()
        assert [row["kind"] for row in quarantine] == KINDS[1:]


def test_reading_functions_name_what_is_no_regular_file(irregular):
    for name, kind in zip("abcdef", KINDS, strict=True):
        path = irregular / ("a.png" if name == "a" else f"{name}.jpg")
        if kind is None:
            check_regular(path)
            with open_binary(path) as file:
                assert file.read() == PNG
            continue
        error = FileNotFoundError if kind == "not_found" else errors.NotRegularFileError
        for opening in (check_regular, open_binary, open_text, lambda path: rsprune.entropy([path])):
            with pytest.raises(error) as caught:
                opening(path)
            assert kind.replace("_", " ") in str(caught.value) or kind == "not_found"
    with pytest.raises(IsADirectoryError):
        check_regular(irregular)


def test_lists_and_tars_that_are_no_regular_files_are_refused(tmp_path):
    for name in ("x.txt", "x.csv", "x.tar"):
        (tmp_path / name).symlink_to("/dev/zero")
        with raises(errors.NotRegularFileError, "character device"):
            open_source(tmp_path / name)
    os.mkfifo(tmp_path / "y.txt")
    with raises(errors.NotRegularFileError, "fifo"):
        open_source(tmp_path / "y.txt")


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors"])
def test_embeddings_and_centroids_that_are_no_regular_files_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    opening = rsprune.Centroids.load if name == "x.safetensors" else lambda path: rsprune.select(path, np.eye(2), 1)
    with raises(errors.NotRegularFileError, "fifo"):
        opening(tmp_path / name)


@pytest.mark.parametrize("kind", ["fifo", "character device"])
def test_arrays_that_are_no_regular_files_are_refused(tmp_path, kind):
    rows = tmp_path / "rows.npy"
    np.save(rows, np.eye(4, dtype=np.float32))
    path = tmp_path / "x.npy"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for name in ("entropy", "score", "labels", "reference", "centroids"):
        with raises(errors.NotRegularFileError, kind):
            select_run(rows, out=tmp_path / "s.parquet", keep=2, **{name: path})
    for opening in (
        lambda: centroids_run(path, out=tmp_path / "run", k=2, progress=False),
        lambda: open_images(path),
        lambda: Statistics.load(path),
    ):
        with raises(errors.NotRegularFileError, kind):
            opening()


def test_what_is_no_array_is_a_format_error(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("0.5\n")
    (tmp_path / "empty.npy").touch()
    for path in tmp_path.iterdir():
        with raises(errors.FormatError, path.name):
            load_array(path)
