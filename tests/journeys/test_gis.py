"""Someone with satellite scenes: windows, their places on earth, and their pixels as other tools read them."""

import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import readme
import rsprune

rasterio = pytest.importorskip("rasterio")
from rasterio.windows import from_bounds  # noqa: E402

SIDE = 256
SCENES = readme.commands("Satellite scenes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`naip/` of four bands in two zones, a corner without data; the commands of the README have run."""
    folder = tmp_path_factory.mktemp("gis")
    (folder / "naip").mkdir()
    for zone in (14, 15):
        rng = np.random.default_rng(zone)
        spread = rng.integers(1, 120, (4, 6, 10)).repeat(SIDE, 1).repeat(SIDE, 2)
        pixels = (40 + 10 * (zone - 14) + rng.random(spread.shape) * spread).astype(np.uint8)
        pixels[:, :SIDE, :SIDE] = 0
        where = {"crs": f"EPSG:269{zone}", "transform": rasterio.Affine(2, 0, 500_000, 0, -2, 5_200_000), "nodata": 0}
        name, shape = (
            f"m_4709963_se_{zone}_1_20180612.tif",
            {"height": 6 * SIDE, "width": 10 * SIDE, "count": 4, "alpha": "UNSPECIFIED"},
        )
        with rasterio.open(folder / "naip" / name, "w", "GTiff", dtype="uint8", tiled=True, **shape, **where) as file:
            file.write(pixels)
    return folder


@pytest.fixture
def done(folder, command, colours, monkeypatch):
    """The commands of the README have run, with an encoder that has no weights; what `prune` said."""
    monkeypatch.chdir(folder)
    prune, export = ([colours if word == "efficientnet-lite0" else word for word in words] for words in SCENES)
    warnings.simplefilter("default")  # as outside of tests: commands say them
    result = command(*prune)
    assert result.returncode == 0, result.stderr
    assert "2 windows" in result.stderr
    exported = command(*export)
    assert exported.returncode == 0, exported.stderr
    return result.stdout


def test_every_window_has_its_place_and_its_pixels(done, folder):
    assert "17 of 118 images kept" in done
    table = pq.read_table(folder / "tiles" / "metadata.parquet").to_pylist()
    assert [row["key"] for row in table] == rsprune.open(folder / "windows").keys
    assert {row["crs"] for row in table} <= {"EPSG:26914", "EPSG:26915"}
    for row in table:
        with rasterio.open(folder / "naip" / row["scene"]) as file:
            bounds = [row[name] for name in ("minx", "miny", "maxx", "maxy")]
            window = from_bounds(*bounds, file.transform)
            assert (window.col_off, window.row_off, window.width, window.height) == (row["x"], row["y"], SIDE, SIDE)
            assert row["crs"] == file.crs.to_string()
            expected = np.moveaxis(file.read(window=window), 0, -1)  # all bands are exported
            degrees = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *bounds)
        assert [row[name] for name in ("west", "south", "east", "north")] == pytest.approx(degrees, abs=1e-6)
        assert np.array_equal(np.asarray(Image.open(folder / "tiles" / row["file_name"])), expected)
        assert (row["datetime"].date().isoformat(), row["sensor"]) == ("2018-06-12", "NAIP")


def test_what_was_left_out_is_told_and_the_places_become_a_map(done, folder, command):
    run = rsprune.open("windows/")
    assert list(run.summary["passed_over"].values()) == [2]
    assert "2 windows" in done
    assert "<svg" in Path("windows/report.html").read_text()
    key = run.keys[0]
    result = command("explain", "windows/", key, "--source", "naip/")
    assert key in result.stdout
    assert "crs" in result.stdout
