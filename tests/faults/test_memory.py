"""What a run holds in memory, whatever the collection."""

import io
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune import errors

# Prints the peak of the process before and after, in MB.
ENTROPY = """
import resource, sys
from rsprune.runs.stages.entropy import entropy_run
entropy_run(sys.argv[1], out=sys.argv[2], progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def megabytes(script, *words):
    """Run a script in a process of its own; return its peak."""
    done = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-400:]
    return int(done.stdout.split()[-1])


def collection(folder, data, count):
    """The same image ``count`` times: as a folder and as a tar file, in both of which links stand for the others."""
    folder.mkdir()
    (folder / "images").mkdir()
    with tarfile.open(folder / "images.tar", "w") as tar:
        for i in range(count):
            member, place = tarfile.TarInfo(f"{i:04d}.tif"), folder / "images" / f"{i:04d}.tif"
            if i:
                member.type, member.linkname = tarfile.LNKTYPE, "0000.tif"
                place.hardlink_to(folder / "images" / "0000.tif")
            else:
                member.size = len(data)
                place.write_bytes(data)
            tar.addfile(member, io.BytesIO(data))
    return folder / "images", folder / "images.tar"


def noise(side):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("few", "many", "side"), [(25, 200, 930), pytest.param(125, 1000, 930, marks=pytest.mark.slow)]
)
def test_a_tar_of_large_images_takes_what_a_folder_does(few, many, side, tmp_path):
    data = noise(side)  # 2.6 MB: an image of NAIP
    peaks = []
    for count in (few, many):
        folder, tar = collection(tmp_path / str(count), data, count)
        peaks.append(megabytes(ENTROPY, tar, tmp_path / f"tar-{count}"))
    reference = megabytes(ENTROPY, folder, tmp_path / "folder")
    assert peaks[1] < 1.3 * reference
    assert peaks[1] < 1.15 * peaks[0]
    (table,) = (tmp_path / f"tar-{many}" / "entropy").glob("*.parquet")
    assert pq.read_table(table)["entropy"].to_pylist() == [rsprune.entropy([data])[0]] * many


def test_a_tar_of_small_images_is_read_in_batches_of_bytes(tmp_path):
    data = noise(140)  # 59 kB: these are read into memory
    folder, tar = collection(tmp_path / "images", data, 2000)
    assert megabytes(ENTROPY, tar, tmp_path / "tar") < 1.3 * megabytes(ENTROPY, folder, tmp_path / "folder")


def test_encoded_images_above_the_limit_are_not_read(tmp_path):
    """A sparse tar file with a member of 3 GB, as a hole, between two images, and a folder with such a file."""
    good = noise(16)
    folder = tmp_path / "folder"
    folder.mkdir()
    with (tmp_path / "x.tar").open("wb") as file:
        for name, size in (("a.tif", len(good)), ("b.tif", 3 << 30), ("c.tif", len(good))):
            member = tarfile.TarInfo(name)
            member.size = size
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            if size == len(good):
                file.write(good)
                (folder / name).write_bytes(good)
            else:
                file.truncate(file.tell() + size)
                file.seek(size, io.SEEK_CUR)
                with (folder / name).open("wb") as large:
                    large.truncate(size)
            file.seek(-file.tell() % 512, io.SEEK_CUR)
        file.truncate(file.tell() + 1024)
    for source in (tmp_path / "x.tar", folder):
        out = tmp_path / f"run-{source.name}"
        assert megabytes(ENTROPY, source, out) < 200
        (row,) = pq.read_table(out / "quarantine.parquet").to_pylist()
        assert (row["key"].removesuffix(".tif"), row["row"], row["kind"]) == ("b", 1, "too_many_bytes")
        assert str(3 << 30) in row["message"]
        assert "1000000000" in row["message"]


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_the_limit_of_an_encoded_image_is_an_option(form, tmp_path):
    data = noise(16)
    (tmp_path / "x.tif").write_bytes(data)
    image = tmp_path / "x.tif" if form == "path" else data
    assert rsprune.entropy([image], max_bytes=len(data)) > 0
    with raises(errors.EncodedTooLargeError, len(data), len(data) - 1):
        rsprune.entropy([image], max_bytes=len(data) - 1)
