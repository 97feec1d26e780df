"""What can be known before the first image is told before the first image, and names the file or the option."""

import shutil

import numpy as np
import pytest

import rsprune
from failures import raises
from rsprune.errors import ArgumentError, DtypeError, EmptyInputError, FormatError, ShapeError
from rsprune.runs.stages import centroids_run, embed_run, entropy_run, select_run
from small_runs import Colours, picture, write_tar

ROWS = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    write_tar(folder / "pool.tar", {f"{i}.jpg": picture(i) for i in range(12)})
    write_tar(folder / "reference.tar", {f"{i}.jpg": picture(50 + i) for i in range(8)})
    return folder


def saved(path, content):
    """A file of this name with an array, or with bytes."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    return path


def npy(tmp_path, array=ROWS):
    return saved(tmp_path / "whole.npy", array).read_bytes()


#: What a file may hold in place of embeddings, and what it is told as.
EMBEDDINGS = {
    "objects": (lambda _: np.array([{}, None], object), FormatError),
    "cut short": (lambda tmp: npy(tmp)[:-100], FormatError),
    "cut in the header": (lambda tmp: npy(tmp)[:20], FormatError),
    "nothing": (lambda _: b"", FormatError),
    "a pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", FormatError),
    "int8": (lambda _: ROWS.astype(np.int8), DtypeError),
    "complex": (lambda _: ROWS.astype(np.complex64), DtypeError),
    "big-endian": (lambda _: ROWS.astype(">f4"), DtypeError),
    "one row": (lambda _: ROWS[0], ShapeError),
    "a number": (lambda _: np.float32(1), ShapeError),
    "a stack": (lambda _: ROWS[None], ShapeError),
    "no rows": (lambda _: ROWS[:0], EmptyInputError),
    "NaN": (lambda _: np.full((20, 6), np.nan, np.float32), ArgumentError),
    "one valid row": (lambda _: np.where(np.arange(20)[:, None] < 19, np.nan, ROWS), ArgumentError),
    "equal rows": (lambda _: np.ones((20, 6), np.float32), ArgumentError),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_a_bad_file_of_reference_embeddings(kind, pool, tmp_path):
    content, error = EMBEDDINGS[kind]
    path = saved(tmp_path / "reference.npy", content(tmp_path))
    named = () if kind == "equal rows" else (path,)  # that is found when the centroids are fitted
    with raises(error, *named):
        rsprune.prune(
            pool / "pool.tar", reference=path, out=tmp_path / "run", keep=4, k=2, encoder=Colours(), progress=False
        )
    assert not (tmp_path / "run" / "entropy").exists()
    with raises(error, *named):
        centroids_run(path, out=tmp_path / "c", k=2, progress=False)


@pytest.mark.parametrize("content", [b"", b"no tensors at all", "cut", "others"])
def test_a_bad_file_of_centroids(content, pool, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "c.safetensors"
    rsprune.fit_centroids(ROWS, 2).save(path)
    if content == "others":
        save_file({"x": ROWS}, path)
    else:
        path.write_bytes(path.read_bytes()[:-9] if content == "cut" else content)
    options = {"encoder": Colours(), "progress": False}
    with raises(FormatError, path):
        rsprune.prune(pool / "pool.tar", reference=path, out=tmp_path / "run", keep=4, **options)
    with raises(FormatError, path):
        embed_run(pool / "pool.tar", centroids=path, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


COLUMNS = {
    "objects": (np.array([{}, None], object), FormatError),
    "nothing": (b"", FormatError),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", FormatError),
    "words": (np.array(["a"] * 20), DtypeError),
    "complex": (np.ones(20, complex), DtypeError),
    "two columns": (np.ones((20, 2)), ShapeError),
    "a number": (np.float32(1), ShapeError),
    "too few": (np.arange(5), ShapeError),
    "too many": (np.arange(50), ShapeError),
}


@pytest.mark.parametrize("name", ["entropy", "score", "labels"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_bad_file_of_a_number_a_row(name, kind, tmp_path):
    content, error = COLUMNS[kind]
    path, embeds = saved(tmp_path / "column.npy", content), saved(tmp_path / "pool.npy", ROWS)
    with raises(error, path):
        select_run(embeds, out=tmp_path / "s.parquet", strategy="ccs", keep=5, **{name: path})


def test_an_archive_is_no_array(pool, tmp_path):
    np.savez(tmp_path / "rows.npz", rows=ROWS)
    path = shutil.copy(tmp_path / "rows.npz", tmp_path / "rows.npy")
    with raises(FormatError, path):
        centroids_run(path, out=tmp_path / "c", k=2, progress=False)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("bands", ()), ("bands", (-1,)), ("bands", (2**40,)), ("bands", (0, 1)), ("bands", (0, 1, 2, 3)),
        ("valid_range", (5, 1)), ("valid_range", (3, 3)), ("valid_range", (0, 1e999)), ("valid_range", (1, 2, 3)),
        ("nodata", "none"), ("nodata", float("inf")), ("k", 0), ("k", 100), ("min_similarity", 7), ("runner", "nobody"),
        ("max_pixels", 0), ("seed", -1), ("tau", 99), ("entropy_keep", 0), ("batch_size", 0), ("strategy", "nothing"),
        ("reference_max_images", 1),
    ],
)  # fmt: skip
def test_an_impossible_option_leaves_no_folder(option, value, pool, tmp_path):
    options = {"keep": 4, "k": 2, "encoder": Colours(), "progress": False} | {option: value}
    with raises(ArgumentError):
        rsprune.prune(pool / "pool.tar", reference=pool / "reference.tar", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_range_of_samples_reaches_the_decoder(pool, tmp_path):
    """Images of 8 bits are read as they are."""
    plain = entropy_run(pool / "pool.tar", out=tmp_path / "a", progress=False)
    ranged = entropy_run(pool / "pool.tar", out=tmp_path / "b", valid_range=(0, 10000), progress=False)
    assert ranged.metrics["tau"] == plain.metrics["tau"]
    done = embed_run(pool / "pool.tar", out=tmp_path / "c", valid_range=(0, 10000), encoder=Colours(), progress=False)
    assert done.metrics["quarantined"] == 0
