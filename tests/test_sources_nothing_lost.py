"""No image of a collection is lost without a count, whatever its name."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

import rsprune
from failures import raises, warns
from rsprune import errors
from rsprune.sources import SkippedFilesWarning, open_source
from rsprune.sources.key_lines import key_of_line
from small_runs import picture, small_prune


def encoded(format):
    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, format)
    return stream.getvalue()


JPEG, PNG, TIFF, WEBP = map(encoded, ("JPEG", "PNG", "TIFF", "WEBP"))


def make_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def keys(source):
    return [item.key for shard in source.shards for item in source.read(shard)]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_files_of_unknown_extension_are_images_if_they_begin_as_one(tmp_path):
    images = {"a.jfif": JPEG, "b.jpe": JPEG, "c.gtiff": TIFF, "d.btf": TIFF, "e.JPG": JPEG, "f": PNG, "g.dat": WEBP}
    images |= {"h.tile_17": JPEG, "i.gif": encoded("GIF"), "j.unknown": encoded("BMP")}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    for name in ("notes", "model.bin", "label.txt", "empty.dat"):
        (tmp_path / name).write_bytes(b"" if name == "empty.dat" else b"no image")
    with warns(SkippedFilesWarning, 4):
        source = open_source(tmp_path)
    assert keys(source) == sorted(images)
    assert source.skipped == {"": 1, ".bin": 1, ".txt": 1, ".dat": 1}
    entropies = rsprune.entropy([item.data for item in source.read(source.shards[0])][:8], on_error="nan")
    np.testing.assert_allclose(entropies[[2, 3, 5]], 6.0)  # the lossless ones hold 64 values once each


def test_formats_that_are_not_read_are_told_from_images_that_are(tmp_path):
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bytes(100))
    (tmp_path / "b.png").write_bytes(PNG)
    first, second = open_source(tmp_path).read(open_source(tmp_path).shards[0])
    with raises(errors.UnknownImageFormatError, "JPEG XL"):
        rsprune.entropy([first.data])
    assert rsprune.entropy([second.data]) == pytest.approx(6.0)


# --- tar files --------------------------------------------------------------------------------------------------------


def test_dots_in_the_names_of_tar_members_lose_no_image(tmp_path):
    names = ["tile_0.5m.png", "tile_1.5m.png", "lat38.907_x.jpg", "lat38.911_x.jpg", "v1.2.3.tif", "a/b.c/d.jpg"]
    names += ["plain.jpg", "noextension", "2020.01.05.jpg"]
    members = dict.fromkeys(names, JPEG) | {"tile_0.5m.txt": b"caption", "plain.seg.png": PNG, "plain.json": b"{}"}
    source = open_source(make_tar(tmp_path / "t.tar", members))
    assert source.count(source.shards[0]) == 9
    assert keys(source) == [
        "tile_0.5m",
        "tile_1.5m",
        "lat38.907_x",
        "lat38.911_x",
        "v1.2.3",
        "a/b.c/d",
        "plain",
        "noextension",
        "2020.01.05",
    ]


def test_the_image_of_a_sample_is_its_plainest_member(tmp_path):
    members = {
        "x.mask.png": PNG,
        "x.jpg": JPEG,
        "y.rgb.png": PNG,
        "y.json": b"{}",
        "z.raw": TIFF,
        "z.npy": b"\x93NUMPY",
    }
    source = open_source(make_tar(tmp_path / "t.tar", members))
    found = {item.key: item.data for item in source.read(source.shards[0])}
    assert found == {"x": JPEG, "y": PNG, "z": TIFF}


def test_several_images_in_a_sample_need_a_field(tmp_path):
    members = {"x.jpg": JPEG, "x.png": PNG, "y.jpg": JPEG, "y.png": PNG, "z.png": PNG}
    path = make_tar(tmp_path / "t.tar", members)
    with raises(errors.SourceError, "x.jpg", "x.png"):
        keys(open_source(path))
    source = open_source(f"{path}#jpg")
    with warns(SkippedFilesWarning, 1, ".png"):
        assert source.count(source.shards[0]) == 2
    assert [item.data for item in source.read(source.shards[0])] == [JPEG, JPEG]
    assert open_source([f"{path}#png"]).total() == 3
    fingerprints = [open_source(f"{path}{field}").fingerprint() for field in ("", "#jpg", "#png")]
    assert all(fingerprints[i] != fingerprints[j] for i in range(3) for j in range(i))


def test_parts_of_a_sample_without_a_plain_image_need_a_field(tmp_path):
    path = make_tar(tmp_path / "t.tar", {"x.rgb.png": PNG, "x.seg.png": PNG})
    with raises(errors.SourceError, "x.rgb.png", "x.seg.png"):
        keys(open_source(path))
    assert keys(open_source(f"{path}#rgb.png")) == ["x"]


def test_the_mask_of_a_sample_whose_image_is_missing_is_no_image(tmp_path):
    members = {"x.jpg": JPEG, "x.seg.png": PNG, "y.seg.png": PNG, "z.rgb.png": PNG}
    source = open_source(make_tar(tmp_path / "t.tar", members))
    with warns(SkippedFilesWarning, 1, ".png"):
        assert source.total() == 2
    assert keys(source) == ["x", "z"]


def test_an_image_whose_name_makes_it_a_part_of_another_is_counted(tmp_path):
    source = open_source(make_tar(tmp_path / "t.tar", {"x.jpg": JPEG, "x.crop.jpg": JPEG, "x.crop.png": PNG}))
    with warns(SkippedFilesWarning, 1, ".crop.jpg"):
        assert source.total() == 1


def test_a_field_is_told_by_its_case_only_where_it_must_be(tmp_path):
    path = make_tar(tmp_path / "t.tar", {"x.jpg": JPEG, "x.JPG": PNG, "y.JPG": TIFF, "z.mask.PNG": PNG, "z.Jpg": WEBP})
    with raises(errors.SourceError, "x.jpg", "x.JPG"):
        open_source(path).total()
    source = open_source(f"{path}#jpg")
    assert {item.key: item.data for item in source.read(source.shards[0])} == {"x": JPEG, "y": TIFF, "z": WEBP}


def test_hidden_images_of_a_tar_are_counted(tmp_path):
    source = open_source(
        make_tar(tmp_path / "t.tar", {"x.jpg": JPEG, ".jpg": JPEG, "a/.y.png": PNG, "._x.jpg": b"", ".z": b""})
    )
    with warns(SkippedFilesWarning, 2, "1 hidden .jpg", "1 hidden .png"):
        assert source.total() == 1


def test_fields_are_given_in_the_order_of_preference(tmp_path):
    members = {"a.png": PNG, "a.img_content": JPEG, "b.png": TIFF, "c.img_content": WEBP, "d.mask.png": PNG}
    path = make_tar(tmp_path / "t.tar", members)
    source = open_source(f"{path}#img_content;png")
    with warns(SkippedFilesWarning, 1, ".png"):
        assert source.total() == 3
    assert [item.data for item in source.read(source.shards[0])] == [JPEG, TIFF, WEBP]


def sparse_tar(path, kind, name, pieces, size):
    """A tar file of one sparse file, in the form of GNU tar or of pax, as `tar --sparse` writes it."""
    data = b"".join(data for _, data in pieces)
    spans = [(start, len(data)) for start, data in pieces] + [(size, 0)]
    words = [str(word) for span in spans for word in span]
    records = {
        "0.0": [("size", size), ("numblocks", len(spans))],
        "0.1": [("size", size), ("name", name), ("map", ",".join(words))],
        "1.0": [("major", 1), ("minor", 0), ("name", name), ("realsize", size)],
    }.get(kind, [])
    if kind == "0.0":
        records += [(word, span[i]) for span in spans for i, word in enumerate(("offset", "numbytes"))]
    if kind == "1.0":
        listed = "\n".join([str(len(spans)), *words, ""]).encode()
        data = listed + bytes(-len(listed) % 512) + data
    info = tarfile.TarInfo(name if kind in ("gnu", "0.0") else f"./GNUSparseFile.1/{name}")
    info.size = len(data)
    head = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if kind == "gnu":
        numbers = [b"%011o\0" % number for span in spans for number in span]
        info.size, rest = len(data), numbers[8:]
        head[156:157], head[257:265] = b"S", b"ustar  \0"
        head[386:482] = b"".join(numbers[:8]).ljust(96, b"\0")
        head[482], head[483:495] = bool(rest), b"%011o\0" % size
        head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:512]) + 8 * 32)
        while rest:
            head += b"".join(rest[:42]).ljust(504, b"\0") + bytes([len(rest) > 42]) + bytes(7)
            rest = rest[42:]
    else:
        text = b""
        for word, value in records:
            record = f" GNU.sparse.{word}={value}\n"
            text += f"{len(record) + 2 + (len(record) > 97)}{record}".encode()
        extended = tarfile.TarInfo("pax")
        extended.type, extended.size = tarfile.XHDTYPE, len(text)
        head = bytearray(extended.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)) + head
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("after.jpg"))
    path.write_bytes(head + data + bytes(-len(data) % 512) + path.read_bytes())
    return path


@pytest.mark.parametrize("kind", ["gnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("count", [0, 1, 3, 70])
def test_sparse_files_of_a_tar_have_their_holes(tmp_path, kind, count):
    pieces = [(1000 * i + 24, bytes([i + 1]) * 512) for i in range(count)]
    expected = bytearray(1000 * count + 77)
    for start, data in pieces:
        expected[start : start + 512] = data
    path = sparse_tar(tmp_path / "t.tar", kind, "x.jpg", pieces, len(expected))
    with tarfile.open(path) as tar:
        assert tar.extractfile(tar.next()).read() == expected
    source = open_source(path)
    assert [(item.key, item.data) for item in source.read(source.shards[0])] == [("x", bytes(expected)), ("after", b"")]


def test_a_sparse_file_too_large_for_memory_and_a_damaged_map_are_counted(tmp_path):
    path = sparse_tar(tmp_path / "t.tar", "1.0", "x.jpg", [(0, b"x" * 512)], 1 << 50)
    with warns(SkippedFilesWarning, ".jpg (sparse file of 1,125,899,906,842,624 bytes"):
        assert open_source(path).total() == 1
    path.write_bytes(path.read_bytes().replace(b"\n512\n", b"\n999\n"))
    with warns(SkippedFilesWarning, ".jpg (sparse file"):
        assert open_source(path).total() == 1


def test_keys_with_control_characters_are_one_line_each_in_a_run_and_on_the_terminal(tmp_path, command):
    folder, names = tmp_path / "pool", [f"{i}.jpg" for i in range(6)] + ["a\nb.jpg", "\x1b[31mc.jpg"]
    folder.mkdir()
    for i, name in enumerate(names):
        (folder / name).write_bytes(picture(i))
    run = small_prune(folder, folder, tmp_path / "run", keep=8, entropy_keep=1.0)
    lines = (run.path / "selected.txt").read_text().splitlines()
    assert sorted(map(key_of_line, lines)) == sorted(run.keys) == sorted(names)
    (folder / "list.txt").write_text((run.path / "selected.txt").read_text())
    assert keys(open_source(folder / "list.txt")) == run.keys
    for line in lines:
        done = command("explain", run.path, line)
        assert done.returncode == 0
        assert done.stdout.startswith(line + " (shard")
    done = command("explain", run.path, "\x1b[2J")
    assert (done.returncode, "\x1b[2J" in done.stderr) == (1, False)
