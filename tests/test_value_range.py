"""The range of samples of more than 8 bits in runs: asked for, or taken from a sample."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

import rsprune
from failures import raises
from rsprune.cli.app import app
from rsprune.errors import ArgumentError, ConfigMismatchError, ValueRangeError
from rsprune.runs.stages import centroids_run, embed_run, entropy_run
from small_runs import Colours


def pixels(number: int, dtype: str) -> np.ndarray:
    """An image (24, 24, 3) of its own contrast."""
    rng = np.random.default_rng(number)
    values = rng.normal(0.3, 0.02 * (1 + number % 7), (24, 24, 3)).clip(-0.2, 1)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * 8000).clip(0).astype(dtype)


@pytest.fixture
def pool(tmp_path):
    """Make folders of twelve TIFF images of a dtype, among them an 8-bit PNG."""

    def make(dtype: str):
        folder = tmp_path / dtype
        folder.mkdir()
        for number in range(12):
            tifffile.imwrite(folder / f"{number:02}.tif", pixels(number, dtype), photometric="rgb")
        Image.fromarray((pixels(3, "float32").clip(0) * 255).astype(np.uint8)).save(folder / "x.png")
        return folder

    return make


def entropies(folder) -> dict[str, float]:

    rows = pq.read_table(next((folder / "entropy").glob("*.parquet"))).to_pylist()
    return {row["key"]: row["entropy"] for row in rows}


def config(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


RUNS = {
    "entropy": lambda source, out, **options: entropy_run(source, out=out, progress=False, **options),
    "embed": lambda source, out, **options: embed_run(source, out=out, encoder=Colours(), progress=False, **options),
    "centroids": lambda source, out, **options: centroids_run(
        source, out=out, k=2, encoder=Colours(), progress=False, **options
    ),
    "prune": lambda source, out, **options: rsprune.prune(
        source, reference=source, out=out, keep=4, k=2, encoder=Colours(), progress=False, **options
    ),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_run_whose_images_need_a_range_ends_before_it_begins(run, dtype, pool, tmp_path):
    folder = pool(dtype)
    values = np.stack([pixels(number, dtype) for number in range(12)])
    lo, hi = (f"{float(end):g}" for end in (values.min(), values.max()))
    with raises(ValueRangeError, dtype, lo, hi, f"--valid-range {lo},{hi}", "00.tif", "auto"):
        RUNS[run](folder, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/*.parquet"))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_auto_takes_the_percentiles_of_the_collection(dtype, pool, tmp_path):
    folder = pool(dtype)
    entropy_run(folder, out=tmp_path / "auto", valid_range="auto", progress=False)
    lo, hi = config(tmp_path / "auto")["entropy"]["valid_range"]
    want = np.percentile([pixels(number, dtype) for number in range(12)], [0.1, 99.9])
    np.testing.assert_allclose([lo, hi], want, atol=0 if dtype == "float32" else 1)
    # The same bytes as with the numbers themselves, which the run goes on with.
    entropy_run(folder, out=tmp_path / "given", valid_range=(lo, hi), progress=False)
    assert config(tmp_path / "auto") == config(tmp_path / "given")
    assert entropies(tmp_path / "auto") == entropies(tmp_path / "given")
    expected = rsprune.entropy(sorted(folder.iterdir()), valid_range=(lo, hi))
    assert list(entropies(tmp_path / "auto").values()) == expected.tolist()


def test_a_run_goes_on_with_the_range_that_it_recorded(pool, tmp_path):
    folder = pool("uint16")
    entropy_run(folder, out=tmp_path / "run", valid_range=(0, 7000), progress=False)
    next((tmp_path / "run" / "entropy").glob("*.parquet")).unlink()
    entropy_run(folder, out=tmp_path / "run", valid_range="auto", progress=False)
    assert config(tmp_path / "run")["entropy"]["valid_range"] == [0, 7000]
    with raises(ConfigMismatchError, 7000):
        entropy_run(folder, out=tmp_path / "run", valid_range=(0, 9), progress=False)


@pytest.mark.parametrize("run", ["embed", "centroids", "prune"])
def test_every_run_takes_auto(run, pool, tmp_path):
    folder = pool("int16")
    RUNS[run](folder, tmp_path / "out", valid_range="auto")
    recorded = config(tmp_path / "out")["entropy" if run == "prune" else "pixels"]["valid_range"]
    assert recorded[0] < recorded[1] <= 8000
    RUNS[run](folder, tmp_path / "out", valid_range="auto")


def test_eight_bits_need_no_range(pool, tmp_path):
    folder = tmp_path / "eight"
    folder.mkdir()
    Image.fromarray((pixels(3, "float32").clip(0) * 255).astype(np.uint8)).save(folder / "x.png")
    entropy_run(folder, out=tmp_path / "out", valid_range="auto", progress=False)
    assert config(tmp_path / "out")["entropy"]["valid_range"] is None


def test_no_range_serves_whole_numbers_and_floats(pool, tmp_path):
    folder = pool("uint16")
    tifffile.imwrite(folder / "y.tif", pixels(1, "float32"), photometric="rgb")
    with raises(ArgumentError, "uint16", "float32"):
        entropy_run(folder, out=tmp_path / "out", valid_range="auto", progress=False)
    with raises(ArgumentError, "auto"):
        rsprune.entropy([folder / "y.tif"], valid_range="auto")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-1000,10000", [-1000, 10000]), ("0,0.3", [0, 0.3]), ("-0.5,1e4", [-0.5, 1e4]), ("auto", None)],
)
def test_the_command_line_takes_any_numbers(text, expected, pool, tmp_path):
    folder, out = pool("float32"), tmp_path / "out"
    done = CliRunner().invoke(app, ["entropy", str(folder), "-o", str(out), "--valid-range", text])
    assert done.exit_code == 0, done.output
    recorded = config(out)["entropy"]["valid_range"]
    assert recorded == (expected or recorded)
    if text == "auto":
        assert f"valid range {recorded[0]:g} to {recorded[1]:g}" in " ".join(done.output.split())


def test_passed_over_files_are_counted(pool, tmp_path):
    folder = pool("uint16")
    for name in ("a.xml", "b.xml", "c.hdf"):
        (folder / name).write_text("no image")
    with pytest.warns(rsprune.sources.SkippedFilesWarning):
        done = entropy_run(folder, out=tmp_path / "out", valid_range="auto", progress=False)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["passed_over"] == {".xml": 2, ".hdf": 1}
    assert "3 files passed over: .xml 2, .hdf 1" in done.text
    with pytest.warns(rsprune.sources.SkippedFilesWarning):
        run = rsprune.prune(
            folder,
            reference=folder,
            out=tmp_path / "run",
            keep=4,
            k=2,
            encoder=Colours(),
            progress=False,
            valid_range="auto",
        )
    assert run.summary["passed_over"] == {".xml": 2, ".hdf": 1}
    assert "3 files passed over: .xml 2, .hdf 1" in run.describe()
