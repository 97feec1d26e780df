"""Everything that holds embeddings reads as the same rows, without a copy."""

import subprocess
import sys

import numpy as np
import pytest

import rsprune
from failures import raises
from rsprune import embeddings, errors
from rsprune.embeddings import as_rows

torch = pytest.importorskip("torch")

# Small integers: exact in every dtype.
X = (np.arange(60).reshape(12, 5) % 17 - 8).astype(np.float64)


def read(embeds):
    got = as_rows(embeds)
    rows = np.concatenate([block.read(0, block.shape[0]) for block in got.blocks()])
    assert got.shape == rows.shape
    return rows


def bfloat16_bits(x):
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


class Bfloat16File:
    """A .npy file as NumPy writes it for the bfloat16 of ml_dtypes."""

    def __init__(self, path):
        np.save(path, bfloat16_bits(X).view("V2"))
        self.path = path


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x[::-1],
        lambda x: x[:, ::-1],
        lambda x: x[1::3, ::2],
        lambda x: x[::-2, ::-2],
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: np.broadcast_to(x[0], (7, 5)),
        lambda x: np.frombuffer(b"x" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    ],
)
def test_arrays_of_any_strides_are_borrowed(dtype, view):
    array = view(X.astype(dtype))
    assert read(array).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_tensors(dtype):
    tensor = torch.tensor(X, dtype=getattr(torch, dtype))
    assert read(tensor).tolist() == X.tolist()
    assert read(tensor.T.contiguous().T).tolist() == X.tolist()
    assert read(tensor[2::3, 1:]).tolist() == X[2::3, 1:].tolist()
    assert read(tensor.requires_grad_()).tolist() == X.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_tensors_on_other_devices_come_block_by_block(dtype, monkeypatch):
    # No other device is at hand: a tensor on the host takes the way of one that is not.
    tensor = torch.tensor(X, dtype=dtype)
    monkeypatch.setattr(embeddings, "_tensor", lambda tensor: tensor)
    monkeypatch.setattr(embeddings, "_DEVICE_BLOCK_BYTES", 5 * 5 * tensor.element_size())
    parts = [X[:2], tensor[2:], X[:3]]
    assert [block.shape[0] for block in as_rows(parts).blocks()] == [2, 5, 5, 3]
    assert as_rows(parts).on_host().read(0, 15).tolist() == np.concatenate([X, X[:3]]).tolist()
    centroids = np.eye(5, dtype=np.float32)
    got, expected = rsprune.assign(parts, centroids), rsprune.assign(np.concatenate([X, X[:3]]), centroids)
    assert got.labels.tolist() == expected.labels.tolist()
    assert got.similarity.tobytes() == expected.similarity.tobytes()
    tensor[9] = torch.nan
    with raises(errors.InvalidRowError, 9, "NaN"):
        rsprune.assign(parts, centroids, on_invalid="raise")
    with raises(errors.ShapeError):
        as_rows([X[:, :4], tensor])


def test_files_and_memory_maps(tmp_path):
    path = tmp_path / "x.npy"
    for dtype in (np.float16, np.float32, np.float64):
        np.save(path, X.astype(dtype))
        for form in (path, str(path), np.load(path, mmap_mode="r"), np.load(path, mmap_mode="r+")):
            assert read(form).tolist() == X.tolist()


def test_bfloat16_in_every_form(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert read(X.astype(ml_dtypes.bfloat16)).tolist() == X.tolist()
    np.save(tmp_path / "m.npy", X.astype(ml_dtypes.bfloat16))
    assert read(tmp_path / "m.npy").tolist() == X.tolist()


def test_bfloat16_files(tmp_path):
    file = Bfloat16File(tmp_path / "b.npy")
    assert read(file.path).tolist() == X.tolist()
    assert read(np.load(file.path, mmap_mode="r")[::2]).tolist() == X[::2].tolist()


def test_folders_of_shards_are_read_in_natural_order(tmp_path):
    for i in range(12):
        np.save(tmp_path / f"part_{i}.npy", X[i : i + 1])
    (tmp_path / "notes.txt").write_text("not a shard")
    assert read(tmp_path).tolist() == X.tolist()


def test_the_layout_of_clip_retrieval_is_recognised(tmp_path):
    for folder in ("img_emb", "text_emb", "metadata"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", X[:7].astype(np.float16))
    np.save(tmp_path / "img_emb" / "img_emb_1.npy", X[7:].astype(np.float16))
    np.save(tmp_path / "text_emb" / "text_emb_0.npy", X)
    (tmp_path / "metadata" / "metadata_0.parquet").write_bytes(b"")
    assert read(tmp_path).tolist() == X.tolist()


def test_lists_mix_everything(tmp_path):
    np.save(tmp_path / "x.npy", X[3:5].astype(np.float16))
    parts = [X[:1], (X[1:2].astype(np.float32), torch.tensor(X[2:3])), tmp_path / "x.npy", X[5:5], X[5:]]
    assert read(parts).tolist() == X.tolist()


def test_objects_with_array_are_arrays():
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return X

    assert read(Frame()).tolist() == X.tolist()


# --- without a copy ---------------------------------------------------------------------------------------------------


def test_arrays_are_borrowed_not_copied():
    array = X.copy()
    rows = next(as_rows(array).blocks())
    array[3, 2] = 1234
    assert rows.read(3, 4)[0, 2] == 1234
    tensor = torch.zeros(4, 3, dtype=torch.bfloat16)
    rows = next(as_rows(tensor).blocks())
    tensor[1, 1] = 2
    assert rows.read(1, 2).tolist() == [[0, 2, 0]]


def test_borrowed_arrays_outlive_their_names():
    rows = as_rows(np.full((1000, 100), 7.0)[::2])
    junk = [np.zeros((500, 100)) for _ in range(20)]
    assert np.all(next(rows.blocks()).read(0, 500) == 7)
    assert len(junk) == 20


MEASURE = """
import sys, re
from pathlib import Path
import numpy as np
import rsprune

def memory(kind):
    return int(re.search(rf"{kind}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

path, form = sys.argv[1:]
centroids = np.eye(4, 1024, dtype=np.float32)
rsprune.assign(np.ones((100, 1024), np.float32), centroids)
embeds = path if form == "path" else np.load(path, mmap_mode="r")
# Pages of a map count as resident whoever maps them: for the caller's own map only what is allocated can be judged.
kind = "VmRSS" if form == "path" else "RssAnon"
before = memory(kind)
labels, _ = rsprune.assign(embeds, centroids)
assert len(labels) == 262144 and (labels == -1).all()
print(memory(kind) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", ["path", "memmap"])
def test_a_gigabyte_is_read_in_a_few_megabytes(tmp_path, form):
    path = tmp_path / "sparse.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (262144, 1024)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**30)
    command = [sys.executable, "-c", MEASURE, str(path), form]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(out.stdout) < 32


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("embeds", "error", "values"),
    [
        (X.astype(np.int64), errors.DtypeError, ("embeddings", "int64", ".astype(numpy.float32)")),
        (X.astype(np.uint16), errors.DtypeError, ("embeddings", "uint16")),
        (X > 0, errors.DtypeError, ("embeddings",)),
        (X.astype(complex), errors.DtypeError, ("embeddings", "complex128")),
        (X.astype(object), errors.DtypeError, ("embeddings",)),
        (X.astype(np.longdouble), errors.DtypeError, ()),
        (
            X.astype(">f4"),
            errors.DtypeError,
            ("embeddings", ">f4", ".astype('float32')"),
        ),
        (torch.tensor(X).int(), errors.DtypeError, ("embeddings", "torch.int32")),
        (torch.tensor(X).to_sparse(), errors.DtypeError, ("torch.sparse_coo",)),
        (X[0], errors.ShapeError, ("embeddings", "(5,)")),
        (X[None], errors.ShapeError, ("embeddings", "(1, 12, 5)")),
        (torch.tensor(X)[0], errors.ShapeError, ("embeddings", "(5,)")),
        (X[:0], errors.EmptyInputError, (0,)),
        (X[:, :0], errors.ShapeError, (0,)),
        ([], errors.EmptyInputError, ()),
        ([X, X[:, :4]], errors.ShapeError, ("part", 1, 4, 0, 5)),
        (3.5, errors.DtypeError, ("embeddings",)),
        (None, errors.DtypeError, ("embeddings",)),
        ([0.5, 0.5], errors.DtypeError, ("embeddings", "list", "numpy.asarray")),
        ([[1.0, 2.0], [1.0]], errors.ShapeError, ("embeddings", 1, 2)),
        ([X[0], X[1, :3]], errors.ShapeError, (1, 3, 5)),
        ([[1.0, 2.0], [1.0, "a"]], errors.DtypeError, ("list", "a")),
        ([[1.0], X], errors.ShapeError, (1,)),
        ([X[0].astype(int)], errors.DtypeError, ("int64",)),
        (np.float32(1), errors.DtypeError, ("float32", "embeddings")),
        ({"x": X}, errors.DtypeError, ("embeddings",)),
    ],
)
def test_what_holds_no_embeddings(embeds, error, values):
    with raises(error, *values):
        as_rows(embeds)


@pytest.mark.parametrize("rows", [X.tolist(), tuple(map(tuple, X.tolist())), list(X)])
def test_a_list_of_rows_is_an_array(rows):
    assert (as_rows(rows).take(np.arange(len(X))) == X).all()
    assert as_rows(((1, 0), (0, 1))).take(np.arange(2)).tolist() == [[1, 0], [0, 1]]


def test_bad_files_name_themselves(tmp_path):
    path = tmp_path / "bad.npy"
    cases = [
        (lambda: np.save(path, np.asfortranarray(X)), errors.FormatError, ()),
        (lambda: np.save(path, X.astype(">f8")), errors.DtypeError, ()),
        (lambda: np.save(path, X.astype(np.int32)), errors.DtypeError, ("<i4",)),
        (lambda: np.save(path, np.array([{}])), errors.DtypeError, ("O",)),
        (lambda: np.save(path, np.zeros(3, [("a", "f4")])), errors.DtypeError, ("'a'",)),
        (lambda: np.save(path, X[0]), errors.ShapeError, ("[5]",)),
        (lambda: path.write_bytes(b""), errors.FormatError, ()),
        (lambda: path.write_bytes(b"\x89PNG\r\n\x1a\n and so on"), errors.FormatError, ()),
    ]
    for write, error, values in cases:
        write()
        with raises(error, path, *values):
            as_rows(path)
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:-1])
    with raises(errors.FormatError, "header", "(12, 5)", "float64", 479):
        as_rows(path)


def test_missing_files_and_empty_folders(tmp_path):
    with raises(FileNotFoundError, "none.npy"):
        as_rows(tmp_path / "none.npy")
    with raises(errors.EmptyInputError, tmp_path):
        as_rows(tmp_path)
    np.save(tmp_path / "a_1.npy", X)
    np.save(tmp_path / "a_2.npy", X[:, :3])
    with raises(errors.ShapeError, "a_2.npy", 3, "a_1.npy", 5):
        as_rows(tmp_path)


def test_torch_is_not_imported_for_arrays():
    code = "import rsprune, numpy, sys; rsprune.assign(numpy.eye(3), numpy.eye(3)); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
