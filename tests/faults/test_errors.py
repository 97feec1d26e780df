"""What is said of damaged files: a class of rsprune's with the file's name, in a line that fits a terminal."""

import random
import struct

import numpy as np
import pytest

import rsprune
from failures import raises
from rsprune import errors
from rsprune.embeddings import as_rows
from rsprune.experiments.pool import read_classes
from rsprune.io import read_provenance, read_table
from rsprune.runs.reference import EmbeddedReference
from rsprune.sources.filesystem import load_array
from small_runs import Colours, picture

LONGEST = 500


def classes(error=errors.RspruneError):
    yield error
    for below in error.__subclasses__():
        yield from classes(below)


#: Errors that make their messages of other values.
OF_VALUES = {errors.MissingInputError, errors.LostShardsError, errors.PartsLeftError}


def test_messages_of_values_are_cut_and_printable():
    hostile = 1_000_000 * "\x1b[2J"
    for error in (errors.LostShardsError("entropy", {"a": hostile}, 3), errors.PartsLeftError((1, 2), hostile, 1, 3)):
        assert len(str(error)) == LONGEST
        assert str(error).isprintable()


@pytest.mark.parametrize("error", sorted(set(classes()) - OF_VALUES, key=lambda one: one.__name__))
def test_messages_are_cut_and_printable(error):
    message = str(error("images/x.tif: " + 1_000_000 * "\x1b[2J" + ". Delete it"))
    assert len(message) == LONGEST
    assert message.isprintable()
    assert message.startswith("images/x.tif: \\x1b[2J")
    assert message.endswith(". Delete it")
    assert str(error("images/a b.tif: two\nlines")) == "images/a b.tif: two\nlines"


def long_tiff():
    """A megabyte of a TIFF file whose bands differ in their bits."""
    count = 250_000
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, count, 200), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 0xFFFF), (339, 3, 1, 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)).ljust(
        200, b"\0"
    ) + b"\x08\0\x10\0" * (count // 2)


def test_rows_of_failures_are_cut(tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for i in range(20):
        (pool / f"{i}.tif").write_bytes(long_tiff())
        (pool / f"{i}.jpg").write_bytes(picture(i))
    with pytest.raises(errors.ImageError) as caught:
        rsprune.entropy([pool / "0.tif"])
    assert len(str(caught.value)) <= LONGEST
    reference = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    run = tmp_path / "run"
    rsprune.prune(str(pool), reference=reference, k=2, keep=4, encoder=Colours(), out=run, progress=False)
    messages = read_table(run / "quarantine.parquet")["message"].to_pylist()
    assert len(messages) == 20
    assert max(map(len, messages)) <= LONGEST
    assert (run / "report.html").stat().st_size < 1 << 20


@pytest.mark.filterwarnings("ignore::UserWarning")  # of vectors that are not of unit length
@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_arrays_have_typed_errors(count, tmp_path):
    rng, path = random.Random(0), tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
    good = path.read_bytes()
    reads = (as_rows, lambda path: EmbeddedReference.open(path, 2, 0), rsprune.Centroids.load, load_array)
    refused = 0
    for _ in range(count):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(128)] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        for read in reads:
            try:
                read(path)
            except errors.RspruneError as error:
                refused += str(path) in str(error)
    assert refused > 2 * count


def test_embeddings_of_a_reference_are_read_where_they_lie(tmp_path):
    """A file that gets shorter ends in an error, where a mapped one would end the process."""
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32))
    reference = EmbeddedReference.open(path, 2, 0)
    with path.open("rb+") as file:
        file.truncate(4096)
    with pytest.raises((errors.RspruneError, OSError)):
        reference.fingerprint()


def test_tables_of_other_programs_have_typed_errors(tmp_path):
    (tmp_path / "x.csv").write_text("name,kind\n" + "x" * 200_000 + ",a\n")
    with raises(errors.FormatError, tmp_path / "x.csv"):
        read_classes(tmp_path / "x.csv", ["a"], "name", "kind")
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    for read in (read_table, read_provenance):
        with raises(errors.FormatError, tmp_path / "x.parquet"):
            read(tmp_path / "x.parquet")


def test_tensors_of_a_type_that_numpy_lacks_are_no_centroids(tmp_path):
    head = b'{"__metadata__":{"rsprune":"{}"},"centroids":{"dtype":"BF16","shape":[2,4],"data_offsets":[0,16]}}'
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(16))
    with raises(errors.DamagedFileError, tmp_path / "x.safetensors"):
        rsprune.Centroids.load(tmp_path / "x.safetensors")
