"""Scenes that cannot be read as such, or not everywhere: one clear line, and a damaged window is not its scene."""

import subprocess
import sys
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from failures import raises, warns
from rsprune.errors import (
    ArgumentError,
    BandsError,
    DtypeError,
    FormatError,
    MissingDependencyError,
    NotRegularFileError,
    SourceError,
)
from rsprune.runs.stages import embed_run, entropy_run
from rsprune.sources import SkippedFilesWarning, open_source
from small_runs import Colours

NORTH_UP = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)


def scene(path, pixels, **profile):
    """Write pixels (H, W, C) by rasterio, in blocks of 16 pixels."""
    height, width, count = pixels.shape
    settings = {"driver": "GTiff", "crs": "EPSG:32632", "transform": NORTH_UP, "compress": "deflate"}
    settings |= {"tiled": True, "blockxsize": 16, "blockysize": 16} | profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=height, width=width, count=count, dtype=pixels.dtype, **settings) as file:
            file.write(np.moveaxis(pixels, -1, 0))
    return path


def noise(height=32, width=48, bands=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 200, (height, width, bands)).astype(dtype)


def block_of(path, x, y):
    """Where the bytes of a block lie in its file: offset and size."""
    with rasterio.open(path) as file:
        return [int(file.get_tag_item(f"BLOCK_{what}_{x}_{y}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")]


def test_scenes_without_a_reference_system_are_read_and_named_once(tmp_path):
    scene(tmp_path / "a.tif", noise(), crs=None, transform=None)
    scene(tmp_path / "b.tif", noise(), crs=None)
    scene(tmp_path / "c.tif", noise())
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        source = open_source(f"{tmp_path}/*.tif", tile=16)
        assert source.total() == 18
    (message,) = [str(one.message) for one in record]
    assert "2 of 3 scenes" in message
    assert str(tmp_path / "a.tif") in message
    for shard, known in zip(source.shards, (False, False, True), strict=True):
        row = source.read_metadata(shard, [1]).to_pylist()[0]
        places = ["crs", "minx", "miny", "maxx", "maxy", "west", "south", "east", "north"]
        assert [row[name] is not None for name in places] == [known] * 9
        assert (row["x"], row["scene"]) == (16, f"{shard.name}.tif")


def test_windows_outside_of_a_scene_are_refused(tmp_path):
    source = open_source(scene(tmp_path / "a.tif", noise()), tile=16)
    (shard,) = source.shards
    for rows in ([6], [-1], [1, 1]):
        with raises(ArgumentError, "a"):
            list(source.read(shard, rows))
        with raises(ArgumentError, "a"):
            source.read_metadata(shard, rows)
    for name, value in (("tile", 0), ("stride", -1), ("min_valid", 1.5), ("tile", 2.5)):
        with raises(ArgumentError, name, value):
            open_source(tmp_path / "a.tif", **{name: value})
    with raises(SourceError, "#red"):
        open_source(f"{tmp_path}/a.tif#red")


def test_bands_that_are_not_there_are_named_before_a_run_begins(tmp_path):
    four, six = (scene(tmp_path / f"{count}.tif", noise(bands=count)) for count in (4, 6))
    for call, path in (
        (lambda out: entropy_run(four, out=out, bands=(3, 4, 0)), four),
        (lambda out: entropy_run([four, six], out=out, entropy_bands=(0, 5)), four),
        (lambda out: entropy_run(f"{tmp_path}/?.tif", out=out), six),  # which of the six are to be read?
        (lambda out: embed_run(four, out=out, encoder=Colours(), bands=(0, 1, 4)), four),
    ):
        with raises(BandsError, path):
            call(tmp_path / "out")
        assert not (tmp_path / "out").exists()
    entropy_run(f"{tmp_path}/?.tif", out=tmp_path / "out", entropy_bands="all", progress=False)


def test_the_window_of_a_damaged_block_goes_to_the_quarantine_and_not_its_scene(tmp_path):
    path = scene(tmp_path / "a.tif", noise(), nodata=255)
    whole = {item.key: item.data for item in open_source(path, tile=16).read(open_source(path).shards[0])}
    offset, _ = block_of(path, 1, 1)
    data = bytearray(path.read_bytes())
    data[offset : offset + 2] = b"\xff\xff"
    path.write_bytes(data)
    entropy_run(path, out=tmp_path / "run", tile=16, progress=False)
    key = "a/y00016_x00016_16x16"
    table = pq.read_table(tmp_path / "run" / "quarantine.parquet").to_pylist()
    assert [(row["key"], row["stage"], row["kind"]) for row in table] == [(key, "entropy", "corrupt")]
    assert all(part in table[0]["message"] for part in ("a.tif", "x 16", "y 16"))
    assert str(tmp_path) not in table[0]["message"]
    assert len(table[0]["message"]) < 300
    found = pq.read_table(tmp_path / "run" / "entropy" / "a.parquet")["entropy"].to_pylist()
    assert [value is None for value in found] == [one == key for one in whole]
    embed_run(path, out=tmp_path / "rows", encoder=Colours(), tile=16, progress=False)
    table = pq.read_table(tmp_path / "rows" / "quarantine.parquet").to_pylist()
    assert [(row["key"], row["stage"], row["kind"]) for row in table] == [(key, "embed", "corrupt")]


def test_a_file_that_is_cut_short(tmp_path):
    path = scene(tmp_path / "a.tif", noise())
    data = path.read_bytes()
    path.write_bytes(data[:100])
    with raises(FormatError, path):
        open_source(path)
    path.unlink()
    offset, size = block_of(scene(path, noise()), 2, 1)  # the last block
    assert offset + size <= len(data)
    path.write_bytes(data[: offset + size // 2])
    entropy_run(path, out=tmp_path / "run", tile=16, progress=False)
    table = pq.read_table(tmp_path / "run" / "quarantine.parquet").to_pylist()
    assert [(row["key"], row["kind"]) for row in table] == [("a/y00016_x00032_16x16", "corrupt")]


def test_a_file_that_goes_away_is_no_damage(tmp_path):
    path = scene(tmp_path / "a.tif", noise())
    source = open_source(path, tile=16)
    path.rename(tmp_path / "elsewhere")
    with raises(FileNotFoundError, path):
        list(source.read(source.shards[0]))
    (tmp_path / "elsewhere").rename(path)
    assert len(list(source.read(source.shards[0]))) == 6


def test_damaged_scenes_are_named_together_or_left_out(tmp_path):
    for name in "abc":
        scene(tmp_path / f"{name}.tif", noise(), nodata=255)
    for name in "ac":
        (tmp_path / f"{name}.tif").write_bytes(b"II*\0 and no more")
    for call in (entropy_run, lambda spec, **options: embed_run(spec, encoder=Colours(), **options)):
        with raises(FormatError, tmp_path / "a.tif", tmp_path / "c.tif", "2 of 3", "--on-damaged-shard"):
            call(f"{tmp_path}/*.tif", out=tmp_path / "run", tile=16)
    with warns(SkippedFilesWarning, tmp_path / "a.tif"):
        entropy_run(f"{tmp_path}/*.tif", out=tmp_path / "run", tile=16, on_damaged_shard="skip", progress=False)
    assert pq.read_table(tmp_path / "run/quarantine.parquet")["shard"].to_pylist() == ["a", "c"]


def virtual(path, content):
    bands = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{content}</SimpleSource></VRTRasterBand>'
    place = "<SRS>EPSG:32632</SRS><GeoTransform>500000, 10, 0, 5400000, 0, -10</GeoTransform>"
    path.write_text(f'<VRTDataset rasterXSize="48" rasterYSize="32">{place}{bands}</VRTDataset>')
    return path


def test_virtual_rasters_are_made_of_files_that_are_there(tmp_path):
    path = tmp_path / "all.vrt"
    virtual(path, '<SourceFilename relativeToVRT="1">parts/a.tif</SourceFilename>')
    with raises(FileNotFoundError, path, "parts/a.tif"):
        open_source(path)
    (tmp_path / "parts").mkdir()
    scene(tmp_path / "parts/a.tif", noise(bands=1), nodata=0)
    source = open_source(path, tile=16)
    assert source.size(source.shards[0]) > path.stat().st_size + 100
    before = source.fingerprint()
    scene(tmp_path / "parts/a.tif", noise(64, 48, 1))
    assert open_source(path, tile=16).fingerprint() != before
    outer = virtual(tmp_path / "outer.vrt", f"<SourceFilename>{path}</SourceFilename>")
    assert open_source(outer, tile=16).total() == 6
    (tmp_path / "parts/a.tif").unlink()
    with raises(FileNotFoundError, path, "parts/a.tif"):
        open_source(outer)
    virtual(path, '<SourceFilename relativeToVRT="1">outer.vrt</SourceFilename>')  # of each other
    with raises(FormatError, path, "outer.vrt"):
        open_source(outer)


@pytest.mark.parametrize("address", ["/vsicurl/http://127.0.0.1:9/a.tif", "http://127.0.0.1:9/a.tif", "/vsis3/b/a.tif"])
def test_virtual_rasters_are_not_followed_over_the_network(tmp_path, address):
    path = virtual(tmp_path / "a.vrt", f'<SourceFilename relativeToVRT="0">{address}</SourceFilename>')
    with raises(SourceError, path, address):
        open_source(path)


def test_files_that_are_no_scenes_are_named(tmp_path):
    path = tmp_path / "a.tif"
    for content in (b"", b"no image", b"<GDAL_WMS><Service name='TMS'/></GDAL_WMS>", b"II*\0 and no more"):
        path.write_bytes(content)
        with raises(FormatError, path):
            open_source(path)
    path.write_bytes(b"<?xml version='1.0'?><GDAL_WMS><Service name='TMS'/></GDAL_WMS>")
    with raises(FormatError, path, "GDAL_WMS"):
        open_source(path)
    path.write_bytes(b"<VRTDataset rasterXSize='9'")
    with raises(FormatError, path):
        open_source(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with raises(FormatError, path, "git lfs pull"):
        open_source(path)
    path.unlink()
    with raises(FileNotFoundError, path):
        open_source(path)
    subprocess.run(["mkfifo", path], check=True)
    with raises(NotRegularFileError, path):
        open_source(path)
    with raises(FormatError, "S2A.SAFE", "B04"):
        (tmp_path / "S2A.SAFE").mkdir()
        open_source(tmp_path / "S2A.SAFE")


def test_types_and_sets_of_images_that_are_not_read(tmp_path):
    for dtype in ("complex64", "int32"):
        path = scene(tmp_path / f"{dtype}.tif", noise(dtype=dtype))
        with raises(DtypeError, path, dtype):
            open_source(path)
    path = scene(tmp_path / "pages.tif", noise())
    with rasterio.open(path, "r+") as file:
        profile = file.profile
    with rasterio.open(f"GTIFF_DIR:1:{path}"), rasterio.Env():
        pass
    with rasterio.open(path, "w", APPEND_SUBDATASET="YES", **profile) as file:
        file.write(np.moveaxis(noise(), -1, 0))
    with raises(FormatError, path, 2):
        open_source(path)


def test_rasterio_that_is_not_installed_is_named(tmp_path, monkeypatch):
    path = scene(tmp_path / "a.tif", noise())
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with raises(MissingDependencyError, path, "rsprune[geo]"):
        open_source(path)


PEAK = """if True:
    import resource, sys, numpy as np
    from rsprune.sources import SkippedFilesWarning, open_source
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = open_source(sys.argv[1])
    (shard,) = source.shards
    count = sum(item.data.shape == (256, 256) + item.data.shape[2:] for item in source.read(shard))
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


def test_a_scene_of_any_size_takes_bounded_memory_and_says_nothing(tmp_path):
    path = tmp_path / "large.tif"
    extent = {"height": 30_000, "width": 30_000, "count": 1, "dtype": "uint8", "sparse_ok": True}
    place = {"crs": "EPSG:32632", "transform": NORTH_UP, "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, blockxsize=512, blockysize=512, **extent, **place):
        pass
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    count, kilobytes = map(int, done.stdout.split())
    assert count == 117 * 117  # of 900 MB
    assert kilobytes < 300_000
    assert done.stderr == ""
