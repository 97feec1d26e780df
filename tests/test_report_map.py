"""The map of the embeddings: points where principal components put them, of the images that it names."""

import json
import re

import numpy as np
import pytest

from failures import raises
from rsprune.errors import ArgumentError, EncoderMismatchError
from rsprune.report import write_report
from rsprune.report.duplicates import BOUND, find_duplicates
from rsprune.report.embedding_map import HEIGHT, MARGIN, WIDTH, EmbeddingSample, draw_sample, fit, principal_plane
from rsprune.report.gallery import MAP_DATA
from rsprune.report.words import percent
from rsprune.runs.reader import RunReader
from rsprune.sources import open_source
from small_runs import Colours, picture, small_prune


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for i in range(60):
        (folder / f"<b>&{i:03d}.png").write_bytes(picture(i))
    return folder


@pytest.fixture(scope="module")
def run(pool, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return small_prune(pool, pool, out, k=3, keep=12, entropy_keep=0.5, keep_embeddings=True)


def text_of(run):
    return " ".join((run.path / "report.html").read_text().split())


def points_of(run):
    (data,) = MAP_DATA.findall((run.path / "report.html").read_text())
    assert "<" not in data
    return json.loads(data)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (3, 2)])
def test_the_plane_is_that_of_a_singular_value_decomposition(shape):
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.linspace(
        1, 3, shape[1], dtype=np.float32
    )
    mean, plane, share = principal_plane(rows)
    centered = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    _, values, directions = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(np.abs(directions[:2] @ plane), np.eye(2), atol=1e-9)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())
    assert (plane[np.abs(plane).argmax(axis=0), [0, 1]] > 0).all()


def test_equal_rows_have_a_place():
    _, plane, _ = principal_plane(np.ones((4, 3), np.float32))
    assert np.isfinite(plane).all()
    np.testing.assert_array_equal(fit(np.zeros((4, 2))), [[WIDTH / 2, HEIGHT / 2]] * 4)


def test_the_map_keeps_proportions_and_fills_its_frame():
    places = np.random.default_rng(1).normal(size=(50, 2)) * (5, 1)
    placed = fit(places)
    assert placed[:, 0].min() == MARGIN
    assert placed[:, 0].max() == WIDTH - MARGIN
    scale = np.ptp(placed[:, 0]) / np.ptp(places[:, 0])
    np.testing.assert_allclose(np.diff(placed[:, 1]), -scale * np.diff(places[:, 1]), atol=0.11)


def test_every_point_is_an_image_with_its_own_row(run):
    reader = RunReader(run.path, finished=True)
    sample = draw_sample(reader)
    assert {one.number for one in sample.kept} == set(run.selection.indices.tolist())
    assert len(sample.images) == sum(run.summary["clusters"]["pool"])
    stored = np.load(reader.folder.embeddings(reader.shards[0]))
    row = reader.assignments(reader.shards[0], ["row"])["row"].to_numpy()
    for one, embedding in zip(sample.images, sample.rows, strict=True):
        np.testing.assert_array_equal(embedding, stored[np.flatnonzero(row == one.row)[0]])


def test_near_duplicates_are_those_of_a_loop(run):
    sample = draw_sample(RunReader(run.path, finished=True))
    rows = sample.rows_compared.astype(np.float64)
    cosine = rows @ rows.T / np.outer(*2 * [np.linalg.norm(rows, axis=1)])
    np.fill_diagonal(cosine, -1)
    found = find_duplicates(sample)
    assert found.looked_at == len(run.keys)
    assert found.found == (cosine.max(axis=1) > BOUND).sum() > 0
    numbers = [one.number for one in sample.compared]
    for first, second, value in found.pairs:
        assert cosine[numbers.index(first.number), numbers.index(second.number)] == pytest.approx(value, abs=1e-6)
        assert value > BOUND
    assert found.pairs[0][2] == pytest.approx(cosine.max(), abs=1e-6)
    assert f"{found.found} ({percent(found.found, found.looked_at)}) have another one" in text_of(run)


def test_without_embeddings_nothing_is_compared():
    none = np.empty((0, 3), np.float32)
    assert find_duplicates(EmbeddingSample((), none, (), none, none)) is None


def test_the_page_draws_the_sample_and_says_how_many(run):
    text = (run.path / "report.html").read_text()
    data = points_of(run)
    kept, embedded = len(run.keys), sum(run.summary["clusters"]["pool"])
    keys = [point["key"] for point in data["points"]]
    assert len(keys) == len(set(keys)) == embedded
    assert keys[:kept] != sorted(keys[:kept])  # drawn
    assert sorted(keys[:kept]) == sorted(run.keys)
    assert set(data["pictures"]) == set(keys)
    dots = {style: path.count("M") for style, path in re.findall(r'class="dots (\w+)" d="([^"]*)"', text)}
    assert dots == {"kept": kept, "rest": embedded - kept, "reference": 60}
    assert f"{kept} of the {kept} that were kept, and {embedded - kept} that Stage II dropped" in text


def test_without_the_images_the_map_keeps_its_pictures(run):
    first = (run.path / "report.html").read_bytes()
    write_report(run.path)
    assert (run.path / "report.html").read_bytes() == first


def test_images_are_embedded_again_where_none_were_kept(pool, tmp_path, run):
    other = small_prune(pool, pool, tmp_path / "run", k=3, keep=12, keep_embeddings=False)
    source = open_source(str(pool))
    reader = RunReader(other.path, finished=True)
    again, stored = draw_sample(reader, source, 20, Colours()), draw_sample(RunReader(run.path, finished=True))
    assert [len(again.kept), len(again.dropped)] == [10, 10]
    known = {one.number: row for one, row in zip(stored.images, stored.rows, strict=True)}
    for one, row in zip(again.images, again.rows, strict=True):
        np.testing.assert_allclose(row, known[one.number], atol=2e-3)  # which are float16
    write_report(other.path, str(pool), map_sample=20, encoder=Colours())
    assert len(points_of(other)["points"]) == 20
    assert "10 of the 12 that were kept, and 10 that Stage II dropped" in text_of(other)
    with raises(ArgumentError, "map_sample"):
        write_report(other.path, map_sample=20)
    with raises(EncoderMismatchError, "colours"):
        write_report(other.path, str(pool), map_sample=20, encoder=Colours(version="2"))


def test_without_embeddings_clusters_are_drawn(pool, tmp_path):
    run = small_prune(pool, pool, tmp_path / "run", k=3, keep=12, keep_embeddings=False)
    data, clusters = points_of(run), run.summary["clusters"]
    assert len(data["points"]) == 3
    for k, point in enumerate(data["points"]):
        kept = clusters["quota"][k] + clusters["fill"][k]
        assert f"{kept} of {clusters['pool'][k]} kept" in point["text"]
        assert point["key"] in run.keys
    assert "--keep-embeddings" in (run.path / "report.html").read_text()
