"""What the decoding pass of Stage I tells of an image beside its entropy."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune.entropy import SCORES
from rsprune.errors import ArgumentError, EmptyImageError, ShapeError
from rsprune.runs.config import GrayOptions
from rsprune.runs.schema import SCORE_FIELDS
from rsprune.runs.stages.entropy import entropy_run
from small_runs import picture, small_prune, write_tar


def encoded(image: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image whose neighbors are alike, and some noise."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    planes = [120 + 80 * np.sin(x / (9 + i)) * np.cos(y / 7) + rng.normal(0, 5, x.shape) for i in range(3)]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def by_the_book(levels: np.ndarray, missing: np.ndarray | None = None) -> tuple[float, float, float]:
    """Mean, standard deviation and variance of the Laplacian of gray levels."""
    there = np.ones(levels.shape, bool) if missing is None else ~missing
    level = levels.astype(np.int64)
    laplacian = level[:-2, 1:-1] + level[2:, 1:-1] + level[1:-1, :-2] + level[1:-1, 2:] - 4 * level[1:-1, 1:-1]
    whole = there[:-2, 1:-1] & there[2:, 1:-1] & there[1:-1, :-2] & there[1:-1, 2:] & there[1:-1, 1:-1]
    return level[there].mean(), level[there].std(), laplacian[whole].var() if whole.any() else np.nan


@pytest.mark.parametrize("shape", [(3, 3), (5, 40), (40, 5), (64, 35), (131, 257), (300, 66), (9, 16_000)])
def test_scores_are_those_of_the_gray_levels(shape):
    image = smooth(*shape)
    gray = np.asarray(Image.fromarray(image).convert("L"))
    forms = [image, encoded(image), encoded(image, "TIFF"), encoded(image, "WEBP", lossless=True), gray, encoded(gray)]
    scores = rsprune.image_scores(forms)
    assert scores.dtype.names == SCORES
    assert np.array_equal(scores["entropy"], rsprune.entropy(forms))
    assert set(scores["image_height"]) == {shape[0]}
    assert set(scores["image_width"]) == {shape[1]}
    for name, value in zip(("gray_mean", "gray_std", "sharpness"), by_the_book(gray), strict=True):
        np.testing.assert_allclose(scores[name], value, rtol=1e-12)
        assert len(set(scores[name])) == 1
    assert np.isnan(scores["jpeg_quality"]).all()


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
@pytest.mark.parametrize("gray", ["bt601", "luma", "mean"])
def test_a_jpeg_has_the_scores_of_its_pixels(options, gray):
    file = encoded(smooth(150, 203), "JPEG", quality=83, **options)
    pixels = Image.open(io.BytesIO(file))
    if gray == "luma":
        pixels.draft("L", None)
    levels = {"mean": lambda: (np.asarray(pixels).astype(int).sum(2) * 2 + 3) // 6}.get(
        gray, lambda: np.asarray(pixels.convert("L"))
    )()
    scores = rsprune.image_scores([file], gray=gray)[0]
    np.testing.assert_allclose(scores.tolist()[3:6], by_the_book(levels), rtol=1e-12)
    assert scores.tolist()[1:3] == (203, 150)
    assert scores["jpeg_quality"] == 83


def test_the_quality_of_a_jpeg_is_the_one_it_was_saved_with():
    gray, color = smooth(16, 16)[..., 0], smooth(16, 16)
    for image in (gray, color):
        files = [encoded(image, "JPEG", quality=quality) for quality in range(1, 101)]
        assert rsprune.image_scores(files)["jpeg_quality"].tolist() == list(range(1, 101))
    assert rsprune.image_scores([encoded(color, "JPEG", quality=40, progressive=True)])["jpeg_quality"] == 40
    own = encoded(color, "JPEG", qtables=[[7] * 64, [9] * 64])
    assert rsprune.image_scores([own])["jpeg_quality"] == 94  # the sum of that table, 460, is nearest to 448
    assert np.isnan(rsprune.image_scores([encoded(color, "TIFF", compression="jpeg")])["jpeg_quality"])


def test_levels_of_nodata_have_no_part_in_the_scores():
    image = smooth(60, 80)
    image[:20, :30] = 0
    image[image == 0] = np.where(np.indices(image.shape)[0][image == 0] < 20, 0, 1)
    gray = np.asarray(Image.fromarray(image).convert("L"))
    expected = by_the_book(gray, (image == 0).all(axis=2))
    for form in (image, encoded(image)):
        scores = rsprune.image_scores([form], nodata=0)[0]
        np.testing.assert_allclose(scores.tolist()[3:6], expected, rtol=1e-12)
    deep = np.where((image == 0).all(axis=2), np.nan, gray.astype(np.float32) + 0.5)
    scores = rsprune.image_scores([deep.astype(np.float32)], valid_range=(0, 256))[0]
    np.testing.assert_allclose(scores.tolist()[3:6], expected, rtol=1e-12)


def test_scores_of_bands_are_their_means():
    image = smooth(50, 70)
    with_bands = GrayOptions(entropy_bands="all").measure([encoded(image), b""], 1)
    each = rsprune.image_scores([np.ascontiguousarray(image[..., band]) for band in range(3)])
    means = [np.mean(each[name]) for name in SCORES]
    np.testing.assert_allclose(with_bands[0][0], means, rtol=1e-12)
    assert np.isnan(with_bands[0][1]).all()
    assert [number for number, *_ in with_bands[1]] == [1]


def test_images_without_scores():
    scores = rsprune.image_scores([b"", np.zeros((2, 9), np.uint8)], on_error="nan")
    assert np.isnan(scores[0].tolist()).all()
    assert np.isnan(scores["sharpness"][1])
    assert scores[1].tolist()[:5] == (0, 9, 2, 0, 0)
    assert len(rsprune.image_scores([])) == 0
    with raises(EmptyImageError, "images[0]"):
        rsprune.image_scores([b""])
    with raises(ArgumentError, "image_scores"):
        rsprune.image_scores("a.jpg")
    with raises(ShapeError, "(4, 4)"):
        rsprune.image_scores(np.zeros((4, 4), np.uint8))


def test_threads_and_order_do_not_show():
    files = [encoded(smooth(90, 90 + i, i), "JPEG", quality=50 + i) for i in range(24)]
    once = rsprune.image_scores(files, threads=1)
    again = rsprune.image_scores(files[::-1], threads=3)[::-1]
    assert once.tobytes() == again.tobytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    for s in range(2):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(12)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(8)})
    small_prune(str(folder / "pool-*.tar"), folder / "ref.tar", folder / "run", k=3)
    return folder / "run"


def test_the_tables_of_a_run_hold_the_scores(run):
    manifest = pq.read_table(run / "selection.parquet")
    for s in range(2):
        table = pq.read_table(run / f"entropy/pool-{s}.parquet")
        files = [picture(100 * s + i) if i != 5 else b"no image" for i in range(12)]
        expected = rsprune.image_scores(files, on_error="nan")
        for field in SCORE_FIELDS:
            column = table[field.name]
            assert column.type == field.type
            stored = np.float32 if field.type == pa.float32() else int
            known = [None if np.isnan(score) else stored(score) for score in expected[field.name]]
            assert column.to_pylist() == known
        chosen = manifest.filter(np.array(manifest["shard"].to_pylist()) == f"pool-{s}")
        for name in SCORES:
            assert chosen[name].to_pylist() == table[name].take(chosen["row"]).to_pylist()


def test_stage_one_alone_writes_them(run, tmp_path):
    entropy_run(str(run.parent / "pool-*.tar"), out=tmp_path / "one", progress=False)
    for s in range(2):
        one, all_of_it = (pq.read_table(path / f"entropy/pool-{s}.parquet") for path in (tmp_path / "one", run))
        assert one == all_of_it
