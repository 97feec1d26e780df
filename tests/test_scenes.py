"""Scenes: windows of rasters are the same images as files, with their places on earth, whatever holds no data."""

import json
import os
import pickle
import re
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio.shutil
from PIL import Image
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform_bounds

import rsprune
from failures import raises, warns
from rsprune.errors import ArgumentError, EmptyInputError, FormatError
from rsprune.report import explain, write_report
from rsprune.runs.stages import entropy_run
from rsprune.sources import Shard, SkippedFilesWarning, open_source, scenes
from rsprune.sources.scenes import _runs
from small_runs import artefacts, picture, small_prune, write_tar

UTM = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)}


def scene(path, pixels, **profile):
    """Write pixels (H, W, C) by rasterio, 16-pixel blocks, in UTM zone 32 unless told otherwise."""
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    if profile.get("driver") == "JP2OpenJPEG":
        tiles = {"quality": 100, "reversible": True}
    driver = {"driver": "GTiff", **tiles} | UTM | profile
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=height, width=width, count=count, dtype=pixels.dtype, **driver) as file:
            file.write(np.moveaxis(pixels, -1, 0))
    return path


def pixels(seed, height=72, width=104, bands=3, dtype=np.uint8):
    """Pixels whose entropy and color differ from window to window."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(1, 90, (-(-height // 24), -(-width // 24), bands))
    spread = np.repeat(np.repeat(blocks, 24, 0), 24, 1)[:height, :width]
    return (rng.integers(0, 120, bands) + rng.random((height, width, bands)) * spread).astype(dtype)


def windows(source):
    return {item.key: item.data for shard in source.shards for item in source.read(shard)}


@pytest.fixture
def reference(tmp_path):
    write_tar(tmp_path / "reference.tar", {f"{i % 3}/{i}.jpg": picture(1000 + i) for i in range(12)})
    return tmp_path / "reference.tar"


def test_scenes_are_pruned_to_the_keys_of_the_same_windows_as_images(tmp_path, reference):
    images = tmp_path / "images"
    for i in range(3):
        whole = pixels(i)
        scene(tmp_path / "pool" / f"s{i}.tif", whole)
        (images / f"s{i}").mkdir(parents=True)
        for y in range(0, 72, 24):
            for x in range(0, 96, 24):
                Image.fromarray(whole[y : y + 24, x : x + 24]).save(images / f"s{i}" / f"y{y:05d}_x{x:05d}_24x24.png")
    expected = small_prune(images, reference, tmp_path / "of-images")
    run = small_prune(tmp_path / "pool", reference, tmp_path / "of-scenes", tile=24)
    assert run.keys == [key.removesuffix(".png") for key in expected.keys]
    np.testing.assert_array_equal(run.selection.similarity, expected.selection.similarity)
    np.testing.assert_array_equal(run.selection.indices, expected.selection.indices)

    table = pq.read_table(run.path / "selection.parquet")
    row = table.to_pylist()[0]
    assert row["scene"] == f"{row['key'][:2]}.tif"
    assert (row["crs"], row["width"], row["height"]) == ("EPSG:32632", 24, 24)
    west, north = 500_000 + 10 * row["x"], 5_400_000 - 10 * row["y"]
    bounds = (west, north - 240, west + 240, north)
    assert (row["minx"], row["miny"], row["maxx"], row["maxy"]) == bounds
    degrees = transform_bounds("EPSG:32632", "EPSG:4326", *bounds)
    assert (row["west"], row["south"], row["east"], row["north"]) == pytest.approx(degrees, abs=1e-9)
    assert "EPSG:32632" in explain(run.path, run.keys[0])[0].text()
    dropped = next(key for key in windows(open_source(tmp_path / "pool", tile=24)) if key not in run.keys)
    assert "EPSG:32632" in explain(run.path, dropped, tmp_path / "pool")[0].text()
    before = artefacts(run.path)
    small_prune(tmp_path / "pool", reference, run.path, tile=24)
    assert artefacts(run.path) == before


def test_the_page_has_a_map_of_what_was_kept_and_what_was_dropped(tmp_path, reference):
    for i in range(2):
        scene(tmp_path / "pool" / f"s{i}.tif", pixels(i))
    scene(tmp_path / "pool" / "t.tif", pixels(2), transform=Affine(10, 0, 500_000, 0, -10, 5_400_000 - 1440))
    run = small_prune(tmp_path / "pool", reference, tmp_path / "run", tile=24)
    squares = [
        (int(kept), int(total)) for kept, total in re.findall(r"<title>(\d+) of (\d+) kept", run.report.read_text())
    ]
    assert sorted(total for _, total in squares) == [1] * 12 + [2] * 12  # the scenes s0 and s1 are of one place
    assert sum(kept for kept, _ in squares) == len(run.keys) == 9
    assert all(place in run.report.read_text() for place in ("9.00° E", "48.75° N", "<strong>9 of 36</strong>"))
    write_report(run.path)  # without the collection only what was kept is known
    squares = re.findall(r"<title>(\d+) of (\d+) kept", run.report.read_text())
    assert all(kept == total for kept, total in squares)
    assert sum(int(kept) for kept, _ in squares) == 9


def test_bounds_in_degrees_across_the_antimeridian(tmp_path):
    path = scene(
        tmp_path / "a.tif", pixels(0), crs="EPSG:32601", transform=Affine(1000, 0, 270_000, 0, -1000, 7_000_000)
    )
    source = open_source(path, tile=24)
    rows = source.read_metadata(source.shards[0], range(source.total())).to_pylist()
    crossing = [row for row in rows if row["east"] < row["west"]]
    assert crossing
    for row in rows:
        bounds = [row[name] for name in ("minx", "miny", "maxx", "maxy")]
        degrees = transform_bounds("EPSG:32601", "EPSG:4326", *bounds)
        assert [row[name] for name in ("west", "south", "east", "north")] == pytest.approx(degrees, abs=1e-3)  # of 0.2


def test_windows_begin_at_every_stride_and_end_within_the_scene(tmp_path):
    whole = pixels(0, 50, 70, 2, np.uint16)
    path = scene(tmp_path / "a.tif", whole)
    found = windows(open_source(path, tile=24, stride=16))
    places = [(y, x) for y in (0, 16) for x in (0, 16, 32)]
    assert list(found) == [f"a/y{y:05d}_x{x:05d}_24x24" for y, x in places]
    for (y, x), data in zip(places, found.values(), strict=True):
        np.testing.assert_array_equal(data, whole[y : y + 24, x : x + 24])
    # Further apart than they are wide, and as a scene that is smaller in one direction, or in both.
    assert [(y, x) for y, x in places if y == 0 and x != 16] == [(0, 0), (0, 32)]
    assert list(windows(open_source(path, tile=24, stride=32))) == ["a/y00000_x00000_24x24", "a/y00000_x00032_24x24"]
    assert list(windows(open_source(path, tile=60))) == ["a/y00000_x00000_60x50"]
    assert list(windows(open_source(path))) == ["a/y00000_x00000_70x50"]
    np.testing.assert_array_equal(windows(open_source(path))["a/y00000_x00000_70x50"], whole)
    few = open_source(path, tile=24, stride=16)
    assert [item.key for item in few.read(few.shards[0], [1, 2, 5])] == [list(found)[i] for i in (1, 2, 5)]


def test_wide_scenes_are_read_in_stripes_whose_blocks_are_decoded_once(tmp_path, monkeypatch):
    whole = pixels(0, 96, 200)
    path = scene(tmp_path / "a.tif", whole)
    monkeypatch.setattr(scenes, "CACHE_BYTES", 2 * (16 + 24) * 3 * 50)  # stripes of 48 pixels
    monkeypatch.setattr(scenes, "READ_BYTES", 24 * 48 * 3)
    found = windows(open_source(path, tile=24))
    assert len(found) == 4 * 8
    assert [key for key in found if "x00048" in key or "x00072" in key] == list(found)[8:16]
    for key, data in found.items():
        y, x = int(key[3:8]), int(key[10:15])
        np.testing.assert_array_equal(data, whole[y : y + 24, x : x + 24])


def test_windows_that_are_neighbors_are_read_at_once():
    row = np.array([[x, 0, 8, 8] for x in (0, 8, 16, 32, 40)] + [[48, 8, 8, 8]])
    assert _runs(row, 8, 1) == [0, 3, 5, 6]
    assert _runs(row[:3], 8, scenes.READ_BYTES // 128) == [0, 2, 3]
    assert _runs(row[::2], 16, 1) == [0, 1, 2, 3]
    assert _runs(row[:0], 8, 1) == [0]


@pytest.mark.parametrize("how", ["nodata", "mask", "alpha"])
def test_windows_without_data_are_left_out_and_counted(tmp_path, reference, how):
    whole = pixels(0, 48, 96)
    whole += 1
    empty = np.zeros((48, 96), bool)
    empty[:24, :24] = True  # the first window
    empty[:24, 24:27] = True  # an eighth of the second
    empty[:24, 48:50] = True  # a twelfth of the third
    whole[empty] = 0
    whole[30, 30] = (0, 9, 9)  # black in one band is not without data
    path = tmp_path / "scene.tif"
    if how == "nodata":
        scene(path, whole, nodata=0)
    elif how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            scene(path, whole)
            with rasterio.open(path, "r+") as file:
                file.write_mask(~empty)
    else:
        scene(path, np.dstack([whole, np.where(empty, 0, 255).astype(np.uint8)]), photometric="RGB", alpha="YES")
    source = open_source(path, tile=24)
    with warns(SkippedFilesWarning, 2, "90%"):
        assert source.total() == 6
    assert list(source.passed_over.values()) == [2]
    assert list(windows(source)) == source.read_keys(source.shards[0])
    assert next(iter(windows(source))) == "scene/y00000_x00048_24x24"
    with warns(SkippedFilesWarning, 1, "80%"):
        assert open_source(path, tile=24, min_valid=0.8).total() == 7
    assert open_source(path, tile=24, min_valid=0).total() == 8
    with warns(SkippedFilesWarning, 2):
        run = small_prune(path, reference, tmp_path / "run", tile=24, keep=3, k=2)
    assert (run.summary["images"], run.summary["passed_over"]) == (6, dict(source.passed_over))
    assert "2 windows of which less than 90% holds data" in run.describe()
    assert pickle.loads(pickle.dumps(source)).total() == 6


def test_near_infrared_that_is_called_alpha_is_no_mask(tmp_path):
    whole = pixels(0, 48, 48, 4)
    whole[:24, :24, 3] = np.where(np.random.default_rng(0).random((24, 24)) < 0.5, 0, 40)
    path = scene(tmp_path / "a.tif", whole, photometric="RGB", alpha="YES")
    source = open_source(path, tile=24)
    assert source.total() == 4
    np.testing.assert_array_equal(windows(source)["a/y00000_x00000_24x24"], whole[:24, :24])


def test_entropy_over_bands_is_the_mean_of_each(tmp_path):
    whole = pixels(0, 48, 48, 4)
    path = scene(tmp_path / "a.tif", whole)
    tiles = np.stack(list(windows(open_source(path, tile=24)).values()))
    each = np.stack([rsprune.entropy(tiles[..., band]) for band in range(4)])
    for bands, chosen in (("all", [0, 1, 2, 3]), ((3, 0), [3, 0]), ((1,), [1])):
        out = tmp_path / f"run-{bands}"
        entropy_run(path, out=out, tile=24, entropy_bands=bands, progress=False)
        found = pq.read_table(out / "entropy" / "a.parquet")["entropy"].to_numpy()
        np.testing.assert_allclose(found, each[chosen].mean(0), rtol=1e-15)
        config = json.loads((out / "config.json").read_text())
        assert config["entropy"]["entropy_bands"] == (bands if bands == "all" else list(bands))
    for bands in ((), (-1,), "some"):
        with raises(ArgumentError, "entropy_bands"):
            entropy_run(path, out=tmp_path / "no", entropy_bands=bands)


def test_entropy_of_all_bands_of_encoded_images(tmp_path):
    color, gray = pixels(0, 20, 30), pixels(1, 20, 30, 1)[..., 0]
    (tmp_path / "pool").mkdir()
    Image.fromarray(color).save(tmp_path / "pool/a.png")
    Image.fromarray(gray).save(tmp_path / "pool/b.png")
    (tmp_path / "pool/c.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    entropy_run(tmp_path / "pool", out=tmp_path / "run", entropy_bands="all", progress=False)
    table = pq.read_table(tmp_path / "run/entropy/part-000000.parquet")
    expected = [np.mean([rsprune.entropy(color[None, ..., b])[0] for b in range(3)]), rsprune.entropy(gray[None])[0]]
    assert table["entropy"].to_pylist() == [*expected, None]
    assert table["kind"].to_pylist()[:2] == [None, None]
    assert table["kind"].to_pylist()[2] in ("truncated", "corrupt")


@pytest.mark.parametrize("driver", ["JP2OpenJPEG", "COG", "VRT", "strips", "palette"])
def test_forms_of_files(tmp_path, driver):
    whole = pixels(0, 60, 80, 1 if driver == "palette" else 3)
    path = tmp_path / "a.tif"
    if driver == "JP2OpenJPEG":
        path = scene(path.with_suffix(".jp2"), whole, driver=driver)
    elif driver == "COG":
        with rasterio.open(scene(tmp_path / "b.tif", whole)) as file:
            rasterio.shutil.copy(file, path, driver="COG", blocksize=128)
    elif driver == "VRT":
        with rasterio.open(scene(path, whole)) as file:
            rasterio.shutil.copy(file, path := tmp_path / "a.vrt", driver="VRT")
    elif driver == "strips":
        scene(path, whole, tiled=False, blockxsize=None, blockysize=7)
    else:
        scene(path, whole)
        colors = {value: (value, 255 - value, 7, 255) for value in range(256)}
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, colors)
        whole = np.array([colors[value][:3] for value in range(256)], np.uint8)[whole[..., 0]]
    found = windows(open_source(path, tile=40))
    assert list(found) == ["a/y00000_x00000_40x40", "a/y00000_x00040_40x40"]
    np.testing.assert_array_equal(np.concatenate(list(found.values()), 1), whole[:40])


def sentinel(root, level, bands):
    """A product true to the published layout: ``bands`` by name, uint16 (H, W)."""
    product = root / f"S2B_MSI{level}_20230607T103629_N0509_R008_T32UMU_20230607T124559.SAFE"
    images = product / "GRANULE" / f"{level}_T32UMU_A032650_20230607T103932" / "IMG_DATA"
    for name, band in bands.items():
        place = images / f"T32UMU_20230607T103629_{name}.jp2"
        if level == "L2A":
            place = images / f"R{name[-3:]}" / place.name
        scene(place, band[..., None], driver="JP2OpenJPEG")
    (product / "GRANULE" / "QI_DATA").mkdir()
    scene(product / "GRANULE" / "QI_DATA" / "MSK_CLASSI_B00.jp2", pixels(9, 30, 30, 1), driver="JP2OpenJPEG")
    (product / f"MTD_MSI{level}.xml").write_text(
        "<n1:Level-User_Product><Product_Info><Datatake><SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME>"
        "<DATATAKE_SENSING_START>2023-06-07T10:36:29.024Z</DATATAKE_SENSING_START></Datatake></Product_Info>"
        "</n1:Level-User_Product>"
    )
    return product


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_sentinel_2_products_are_scenes_of_four_bands(tmp_path, level):
    whole = pixels(3, 60, 90, 5, np.uint16) * 70 + 1
    whole[:40, :36] = 0  # beyond the swath
    names = ["B02", "B03", "B04", "B08", "B05"]
    if level == "L2A":
        names = [f"{name}_{'20m' if name == 'B05' else '10m'}" for name in names] + ["B02_20m"]
    bands = {name: whole[..., i % 5] for i, name in enumerate(names)}
    product = sentinel(tmp_path / "archive", level, bands)
    for spec, options in ((product, {"tile": 40}), (tmp_path / "archive", {"tile": 40}), (f"{product}/", {"tile": 40})):
        source = open_source(spec, **options)
        with warns(SkippedFilesWarning, 1):
            assert source.total() == 1
        ((key, data),) = windows(source).items()
        assert key.endswith("T32UMU_20230607T124559/y00000_x00040_40x40")
        np.testing.assert_array_equal(data, whole[:40, 40:80][..., [2, 1, 0, 3]])  # red, green, blue, near infrared
    row = source.read_metadata(source.shards[0], [0]).to_pylist()[0]
    assert (row["sensor"], row["datetime"]) == ("Sentinel-2B MSI", datetime(2023, 6, 7, 10, 36, 29, 24000))
    assert row["crs"] == "EPSG:32632"
    with warns(SkippedFilesWarning, 4):
        assert open_source(tmp_path / "archive", tile=20).total() == 8
    assert type(open_source(tmp_path / "archive")) is scenes.ScenesSource
    next(product.glob("GRANULE/*/IMG_DATA/**/*B08*")).unlink()
    with raises(FormatError, product, "B08"):
        open_source(product)


def test_a_folder_of_states_and_years_is_read_at_any_depth(tmp_path):
    for year in (2018, 2020):
        for name in (f"m_4709963_se_14_1_{year}0831.tif", "m_1.tif"):
            scene(tmp_path / "nd" / str(year) / "47099" / name, pixels(year, 24, 48, 4), driver="GTiff")
    (tmp_path / "nd" / "2018" / "index.shp").write_bytes(b"x")
    with warns(SkippedFilesWarning, tmp_path / "nd", ".shp"):
        source = open_source(tmp_path / "nd", tile=24)
    assert [shard.name for shard in source.shards] == [
        "2018+47099+m_1",
        "2018+47099+m_4709963_se_14_1_20180831",
        "2020+47099+m_1",
        "2020+47099+m_4709963_se_14_1_20200831",
    ]
    assert source.read_keys(source.shards[0]) == [f"2018/47099/m_1/y00000_x{x:05d}_24x24" for x in (0, 24)]
    row = source.read_metadata(source.shards[3], [1]).to_pylist()[0]
    assert (row["sensor"], row["datetime"], row["x"]) == ("NAIP", datetime(2020, 8, 31), 24)
    # Without the option small TIFF files are images, as ever.
    with warns(SkippedFilesWarning, ".shp"):
        assert type(open_source(tmp_path / "nd")).__name__ == "FolderSource"
    (tmp_path / "list.txt").write_text("nd/2018/47099/m_1.tif\nnd/2020/47099/m_1.tif\n")
    assert [shard.name for shard in open_source(tmp_path / "list.txt", tile=24).shards] == [
        "2018+47099+m_1",
        "2020+47099+m_1",
    ]
    (tmp_path / "empty").mkdir()
    with raises(EmptyInputError, tmp_path / "empty"):
        open_source(tmp_path / "empty", tile=24)


@pytest.mark.skipif("RSPRUNE_DATA" not in os.environ, reason="RSPRUNE_DATA names no folder of real images")
def test_scenes_of_naip_over_three_bands_and_over_four(tmp_path, reference):
    pool = Path(os.environ["RSPRUNE_DATA"]) / "naip4"
    kept = []
    for name, bands in (("three", None), ("four", "all")):
        run = small_prune(pool, reference, tmp_path / name, tile=256, entropy_bands=bands, k=4)
        assert run.summary["images"] == 8 * 6
        kept.append(run.keys)
        images = {item.key: item.data for item in open_source(pool, tile=256).read(Shard("m_4709963_se_14_1_20120731"))}
        found = pq.read_table(run.path / "entropy" / "m_4709963_se_14_1_20120731.parquet")["entropy"].to_numpy()
        stack = np.stack(list(images.values()))
        each = [rsprune.entropy(stack[..., band]) for band in range(4)]
        expected = np.mean(each, 0) if bands else rsprune.entropy(stack[..., :3])
        np.testing.assert_allclose(found, expected, rtol=1e-15)
    table = pq.read_table(tmp_path / "four" / "selection.parquet")
    assert set(table["crs"].to_pylist()) == {"EPSG:26914"}
    assert set(table["sensor"].to_pylist()) == {"NAIP"}
    assert (
        "2012-07-31" in explain(tmp_path / "four", "m_4709963_se_14_1_20120731/y00256_x00000_256x256", pool)[0].text()
    )
    assert len(kept[0]) == len(kept[1]) == 12
