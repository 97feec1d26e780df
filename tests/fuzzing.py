"""Fuzzing of everything that reads files from elsewhere, in Python: seeds, mutations of them, and what must come of it.

Each file is read whole or refused with an error of rsprune's, within bounded time and memory. As a program,
``python tests/fuzzing.py --seconds 60 tar npy``, it runs targets, and keeps the files that show a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
from PIL import Image

import rsprune
from rsprune.embeddings import as_rows
from rsprune.encoders.loader import embed_items
from rsprune.errors import RspruneError
from rsprune.experiments.pool import read_classes
from rsprune.io import read_json, read_provenance, read_record, read_table, write_record, write_table
from rsprune.sources import open_source
from rsprune.sources.base import Item
from rsprune.sources.filesystem import load_array
from rsprune.tensors import write_tensors
from small_runs import Colours, picture, write_tar

#: Seconds and bytes that reading a file of some kilobytes may take.
SECONDS, MEMORY = 10, 1 << 30
#: Images that are looked at in one file; a header may promise any number.
IMAGES = 64

#: What showed a fault once: the name of the target, and what is damaged.
FOUND = Path(__file__).parent / "found_by_fuzzing"

INTERESTING = [0, 1, 2, 7, 8, 16, 32, 64, 100, 127, 128, 255, 256, 512, 1024, 4096, 32767, 32768, 65535, 65536]
INTERESTING += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
TOKENS = [
    b"\0",
    b"\n",
    b"\r\n",
    b'"',
    b",",
    b"{",
    b"}",
    b"[]",
    b"null",
    b"1e999",
    b"-1",
    b"NaN",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
]
TOKENS += ["é".encode(), b"\\ud800", b"../", b"/", b"..", b"*", b"9" * 30, b"[" * 2000, b"a" * 70000]


class Target(NamedTuple):
    """A kind of file: its seeds, and what reads it."""

    suffix: str
    seeds: list[bytes]
    read: Callable[[Path], object]


# --- seeds ------------------------------------------------------------------------------------------------------------


def made(write: Callable[[Path], object], suffix: str) -> bytes:
    """Return what a function writes to a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"seed{suffix}"
        write(path)
        return path.read_bytes()


def tars() -> list[bytes]:
    """Tar files: plain, with long names and records of their own kind, and with a sparse and a linked member."""
    plain = made(lambda path: write_tar(path, {f"{i}.jpg": picture(i) for i in range(3)}), ".tar")
    out = []
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name in ("é" * 60 + ".jpg", "n" * 150 + ".jpg", "a.json"):
                info = tarfile.TarInfo(name)
                info.size = len(picture(1))
                info.pax_headers = {"comment": "x" * 40} if kind == tarfile.PAX_FORMAT else {}
                tar.addfile(info, io.BytesIO(picture(1)))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
            tar.addfile(link)
        out.append(file.getvalue())
    return [plain, *out]


def tables() -> list[pa.Table]:
    """Tables of images, as data sets hold them."""
    pictures = [picture(i) for i in range(4)]
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": one, "path": f"{i}.jpg"} for i, one in enumerate(pictures)], struct_type)
    return [
        pa.table({"image": images, "label": pa.array([0, 1, 0, 1]), "caption": ["a", "b", None, "d"]}),
        pa.table({"key": ["a", "b", "c", "d"], "image": pa.array(pictures, pa.binary())}),
    ]


def arrow(table: pa.Table, path: Path, stream: bool) -> None:
    """Write a table as a file or as a stream."""
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table)


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    """Return an array as a file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npz() -> bytes:
    """Return an archive of images."""
    file = io.BytesIO()
    np.savez_compressed(file, images=np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3), labels=np.arange(2))
    return file.getvalue()


def encoded(form: str, mode: str = "RGB", **options: object) -> bytes:
    """Return a small image."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (17, 19, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


# --- readers ----------------------------------------------------------------------------------------------------------


def read_images(path: Path) -> None:
    """Read a collection as a run does."""
    source = open_source(str(path))
    source.fingerprint()
    for shard in source.shards:
        rows = list(range(min(source.count(shard), IMAGES)))
        items = list(source.read(shard, rows))
        assert len(items) == len(rows)
        for _ in embed_items(Colours(), items, batch_size=8, threads=1):
            pass


def read_rows(path: Path) -> None:
    """Read embeddings and arrays of images, as whatever reads them."""
    for read in (as_rows, load_array, rsprune.Centroids.load, read_images):
        read_or_refuse(read, path)


def read_entropy(path: Path) -> None:
    """Read an encoded image in each way, and as a path."""
    data = path.read_bytes()
    for image in (data, str(path)):
        for gray in ("bt601", "luma", "mean"):
            read_or_refuse(lambda one, gray=gray: rsprune.entropy([one], gray=gray, threads=1), image)
        for _ in embed_items(Colours(), [Item("x", image)], batch_size=1, threads=1):
            pass


def read_or_refuse(read: Callable[..., object], *values: object) -> None:
    """Read; that it is refused is no reason not to try others."""
    with contextlib.suppress(RspruneError):
        read(*values)


def read_listed(path: Path) -> None:
    """Read a list beside the images that its seeds name, and what sets classes by it."""
    for name in ("a.jpg", "b.jpg"):
        (path.parent / name).write_bytes(picture(1))
    read_or_refuse(read_images, path)
    read_or_refuse(read_classes, path, ["a", "b"], "name", "kind")


def read_tables(path: Path) -> None:
    """Read a table of a run folder."""
    for read in (read_table, read_provenance, read_images):
        read_or_refuse(read, path)


def targets() -> dict[str, Target]:
    """Return every target, by name."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 4)).astype(np.float32)
    lists = [b"a.jpg\nb.jpg\n", b"# a list\r\na.jpg\r\n\r\nb.jpg", b'"a.jpg"\n']
    csvs = [b"path,key\na.jpg,1\nb.jpg,2\n", b'name,kind,path\na,"x, y",a.jpg\nb,z,b.jpg\n', b"path;n\na.jpg;1\n"]
    vectors = np.eye(3, 8, dtype=np.float32)
    record = {"run": "0123", "images": 3, "nested": {"a": [1, 2.5, None, True, "é"]}}
    return {
        "tar": Target(".tar", tars(), read_images),
        "arrow": Target(
            ".arrow",
            [made(lambda path, t=t, s=s: arrow(t, path, s), ".arrow") for t in tables() for s in (False, True)],
            read_images,
        ),
        "parquet": Target(
            ".parquet",
            [made(lambda path, t=t: pa.parquet.write_table(t, path), ".parquet") for t in tables()]
            + [made(lambda path: write_table(path, tables()[1], {"a": 1}), ".parquet")],
            read_tables,
        ),
        "npy": Target(
            ".npy",
            [npy(rows), npy(rows.astype(np.float16), (2, 0)), npy(np.zeros((2, 8, 8, 3), np.uint8)), npy(rows.T)],
            read_rows,
        ),
        "npz": Target(".npz", [npz()], read_images),
        "safetensors": Target(
            ".safetensors",
            [
                made(lambda path: rsprune.Centroids(vectors, {"encoder": "e"}).save(path), ".safetensors"),
                made(lambda path: write_tensors(path, "x", {"a": rows, "b": rows[0]}, {}), ".safetensors"),
            ],
            rsprune.Centroids.load,
        ),
        "list": Target(".txt", lists, read_listed),
        "csv": Target(".csv", csvs, read_listed),
        "json": Target(
            ".json",
            [made(lambda path: write_record(path, record, []), ".json"), json.dumps(record).encode()],
            lambda path: (read_or_refuse(read_json, path), read_record(path)),
        ),
        "jpeg": Target(
            ".jpg", [encoded("JPEG"), encoded("JPEG", "L"), encoded("JPEG", progressive=True)], read_entropy
        ),
        "png": Target(".png", [encoded("PNG", mode) for mode in ("RGB", "L", "P", "RGBA", "1")], read_entropy),
        "tiff": Target(
            ".tif",
            [encoded("TIFF", compression=one) for one in (None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg")],
            read_entropy,
        ),
        "other": Target(
            ".webp",
            [encoded("WEBP"), encoded("GIF"), encoded("BMP"), encoded("JPEG2000"), encoded("PPM")],
            read_entropy,
        ),
    }


# --- mutations --------------------------------------------------------------------------------------------------------


def mutated(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return one of the seeds with a few changes, more often near its ends, where headers are."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        size = len(data)
        if not size:
            break
        at = rng.choice((rng.randrange(size), rng.randrange(min(size, 512)), size - 1 - rng.randrange(min(size, 1024))))
        kind = rng.randrange(9)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((2, 4, 8))
            number = rng.choice(INTERESTING) % 256**width
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 5:
            data[at:at] = data[at : at + rng.randrange(1, 600)]
        elif kind == 6:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 7:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at : at + 64] = other[start : start + 64]
        else:
            text = str(rng.choice(INTERESTING)).encode()
            data[at : at + len(text)] = text
    return bytes(data)


def with_checksums(data: bytes) -> bytes:
    """Return a tar file whose headers have the right checksums, without which they are refused for that alone."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


# --- execution --------------------------------------------------------------------------------------------------------


class TooSlowError(BaseException):
    """Reading a file took too long."""


def overdue(*_: object) -> None:
    """End what takes too long."""
    raise TooSlowError


def fuzz(name: str, seed: int, seconds: float, executions: int | None, findings: Path) -> tuple[int, list[str]]:
    """Run a target; return how often, and a line for each finding, whose file is kept."""
    target, rng = targets()[name], random.Random(seed)
    found: dict[str, str] = {}
    folder = Path(tempfile.mkdtemp())
    path = folder / f"x{target.suffix}"
    signal.signal(signal.SIGALRM, overdue)
    end, count = time.monotonic() + seconds, 0
    earlier = [one.read_bytes() for one in sorted(FOUND.glob(f"{name}-*"))]
    for data in target.seeds + earlier:  # they are what they should be: read, or refused with a reason
        path.write_bytes(data)
        read_or_refuse(target.read, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() < end and (executions is None or count < executions):
        data = mutated(target.seeds, rng)
        if name == "tar" and rng.random() < 0.7:
            data = with_checksums(data)
        path.write_bytes(data)
        (findings / f"{name}{target.suffix}.last").write_bytes(data)  # what a crash leaves
        count += 1
        try:
            signal.alarm(SECONDS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.read(path)
            signal.alarm(0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            fault = f"{(peak - before) >> 10} MiB" if (peak - before) << 10 > MEMORY else None
        except (RspruneError, FileNotFoundError) as error:  # what a list names is not there
            fault = "an error of several lines" if "\n" in str(error).strip() else None
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            ours = [one for one in traceback.extract_tb(error.__traceback__) if "rsprune" in one.filename]
            where = ours[-1] if ours else last
            fault = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:100]}"
        finally:
            signal.alarm(0)
        if fault is not None and (kind := fault.split(": ")[0]) not in found:
            kept = findings / f"{name}-{len(found)}{target.suffix}"
            kept.write_bytes(data)
            found[kind] = f"{name}: {fault} ({kept})"
            before = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    (findings / f"{name}{target.suffix}.last").unlink(missing_ok=True)
    return count, list(found.values())


def main() -> int:
    """Run targets, and say what they found."""
    parser = argparse.ArgumentParser(description="Fuzz what reads files from elsewhere.")
    parser.add_argument("targets", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each target")
    parser.add_argument("--executions", type=int, help="of each target at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "rsprune-findings")
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    everything = []
    for name in options.targets or targets():
        count, found = fuzz(name, options.seed, options.seconds, options.executions, options.findings)
        print(f"{name}: {count:,} executions, {len(found)} findings", flush=True)
        everything += found
    print("\n".join(everything))
    return 1 if everything else 0


if __name__ == "__main__":
    sys.exit(main())
