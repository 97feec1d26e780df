"""Collections made to take minutes, or all memory, before the first image: by their folders, lists and tar headers."""

import json
import os
import struct
import subprocess
import tarfile
import time
import tracemalloc
from contextlib import contextmanager

import pytest

import rsprune
from failures import raises
from rsprune.errors import FormatError, SourceError
from rsprune.io import read_json
from rsprune.sources import open_source
from rsprune.sources.tar import members
from rsprune.tensors import read_tensors


@contextmanager
def within(seconds, size=None):
    """Expect a block to take no more time of the CPU and, if ``size`` is given, of Python's memory than this."""
    if size is not None:
        tracemalloc.start()
    begun = time.process_time()
    try:
        yield
        assert time.process_time() - begun < seconds
        assert size is None or tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def keys_of(path):
    source = open_source(path)
    return [item.key for shard in source.shards for item in source.read(shard)]


def test_each_folder_is_entered_once_however_many_ways_lead_to_it(tmp_path):
    """21 floors with two doors each: 2,097,152 ways to one image, of which Linux would follow 40 links at once."""
    folder = tmp_path / "pool"
    for floor in range(21):
        (tmp_path / f"floor{floor}").mkdir()
    for floor in range(20):
        for door in "ab":
            (tmp_path / f"floor{floor}" / door).symlink_to(tmp_path / f"floor{floor + 1}", target_is_directory=True)
    (tmp_path / "floor20" / "image.png").write_bytes(b"an image")
    (tmp_path / "floor20" / "back").symlink_to(tmp_path / "floor0", target_is_directory=True)
    folder.symlink_to(tmp_path / "floor0", target_is_directory=True)
    with within(5):
        assert keys_of(folder) == ["a/" * 20 + "image.png"]


def test_folders_nested_deep_are_read(tmp_path):
    deep, at = 1500, os.open(tmp_path, os.O_RDONLY)
    for _ in range(deep):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    with os.fdopen(os.open("x.png", os.O_WRONLY | os.O_CREAT, dir_fd=at), "wb") as file:
        file.write(b"an image")
    os.close(at)
    try:
        with within(10, 64 << 20):
            assert keys_of(tmp_path) == ["d/" * deep + "x.png"]
    finally:  # which Python's own way to remove folders, one call in another, does not get through
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
@pytest.mark.parametrize("size", [20 << 20, pytest.param(100 << 20, marks=pytest.mark.slow)])
def test_one_long_line_is_no_list(name, size, tmp_path):
    path = tmp_path / name
    path.write_text("path\n" + "x" * size if name.endswith("csv") else "x" * size)
    with within(2, 4 << 20), raises(SourceError, path):
        open_source(path)


def header(kind, name, data=b"", link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def listed(tmp_path, *parts):
    path = tmp_path / "x.tar"
    path.write_bytes(b"".join(parts) + bytes(1024))
    fd = os.open(path, os.O_RDONLY)
    try:
        return members(fd, str(path))
    finally:
        os.close(fd)


def test_many_records_in_pax_headers_take_time_as_their_size(tmp_path):
    """Three megabytes of the shortest records."""
    records = header(tarfile.XHDTYPE, "pax", b"6 a=b\n" * ((1 << 20) // 6))
    image = header(tarfile.REGTYPE, "x.png", b"an image")
    with within(5):
        found = listed(tmp_path, *[records, image] * 3)
    assert [one.path for one in found] == ["x.png"] * 3
    with raises(FormatError, "x.tar"):
        listed(tmp_path, header(tarfile.XHDTYPE, "pax", b"1" * (1 << 19)), image)


def test_many_links_to_one_name_and_in_one_chain_take_time_as_their_number(tmp_path):
    count = 20_000
    same = [header(tarfile.REGTYPE, "a", b"an image"), *[header(tarfile.LNKTYPE, "a", link="a")] * count]
    chain = [header(tarfile.SYMTYPE, f"{i}", link=f"{i + 1}") for i in range(count)]
    with within(5):
        found = listed(tmp_path, *same, *chain, header(tarfile.REGTYPE, f"{count}", b"another"))
    assert [one.offset for one in found[: count + 1]] == [512] * (count + 1)
    assert {one.offset for one in found[count + 1 :]} == {found[-1].offset}
    circle = [header(tarfile.SYMTYPE, f"{i}", link=f"{(i + 1) % 5}") for i in range(5)]
    assert all("no file" in one.problem for one in listed(tmp_path, *circle))


def test_json_nested_deep_is_an_error_of_its_file(tmp_path):
    deep = "[" * 100_000
    (tmp_path / "x.json").write_text(deep)
    with raises(FormatError, tmp_path / "x.json"):
        read_json(tmp_path / "x.json")
    head = {"__metadata__": {"rsprune": deep}, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(head).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with raises(FormatError, tmp_path / "x.safetensors"):
        read_tensors(tmp_path / "x.safetensors", "numbers", ["x"])
    with raises(FormatError, tmp_path / "x.safetensors"):
        rsprune.Centroids.load(tmp_path / "x.safetensors")
