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
    (tmp_path / "a.gif").write_bytes(encoded("GIF"))
    (tmp_path / "b.png").write_bytes(PNG)
    first, second = open_source(tmp_path).read(open_source(tmp_path).shards[0])
    with pytest.raises(errors.ImageError):
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
