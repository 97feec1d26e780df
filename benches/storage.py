"""Read a collection from a server of the S3 protocol on the loopback: many small images, and tar files.

The server is `s3s-fs`, which `make dev` builds without optimization: what is compared is the clients' way of asking.
"""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tests.object_server import KEYS, object_server

from benches.harness import Comparison
from rsprune import storage
from rsprune.sources import Item, open_source

IMAGES, IMAGE_BYTES = 2000, 20_000
TARS, TAR_IMAGES = 8, 250


def comparisons() -> Iterator[Comparison]:
    import fsspec
    from pyarrow import fs

    with tempfile.TemporaryDirectory() as folder, object_server(fill(Path(folder))) as port:
        endpoint = f"http://127.0.0.1:{port}"
        os.environ.update(KEYS, AWS_ENDPOINT_URL=endpoint, AWS_REGION="us-east-1")
        s3fs = fsspec.filesystem(
            "s3", endpoint_url=endpoint, key=KEYS["AWS_ACCESS_KEY_ID"], secret=KEYS["AWS_SECRET_ACCESS_KEY"]
        )
        arrow = fs.S3FileSystem(
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
        )

        def with_arrow(path: str) -> int:
            with arrow.open_input_stream(path) as stream:
                return len(stream.read())

        def arrow_small() -> int:
            found = arrow.get_file_info(fs.FileSelector("images", recursive=True))
            with ThreadPoolExecutor(32) as pool:
                return sum(pool.map(with_arrow, [one.path for one in found if one.is_file]))

        yield Comparison(
            f"{IMAGES:,} images of {IMAGE_BYTES // 1000} kB in a bucket",
            1.0,
            lambda: read("s3://images"),
            {
                "s3fs, cat": lambda: sum(map(len, s3fs.cat([f"images/{i:05d}.jpg" for i in range(IMAGES)]).values())),
                "pyarrow.fs, 32 threads": arrow_small,
            },
            verify=same,
        )
        yield Comparison(
            f"{TARS} tar files of {TAR_IMAGES:,} images of {IMAGE_BYTES // 1000} kB in a bucket",
            1.0,
            lambda: read(f"s3://tars/{{0..{TARS - 1}}}.tar"),
            {
                "s3fs, open and tarfile": lambda: sum(in_tar(s3fs.open(f"tars/{i}.tar")) for i in range(TARS)),
                # Each read is a request: files are read whole.
                "pyarrow.fs, read and tarfile": lambda: sum(
                    in_tar(io.BytesIO(arrow.open_input_file(f"tars/{i}.tar").read())) for i in range(TARS)
                ),
            },
            verify=same,
        )


def read(spec: str) -> int:
    """All bytes of a collection, without a copy from before."""
    storage.cache._cache_of.cache_clear()
    storage.objects._recalled.cache_clear()
    source = open_source(spec)
    return sum(held(item) for shard in source.shards for item in source.read(shard))


def held(item: Item) -> int:
    assert isinstance(item.data, bytes)
    return len(item.data)


def in_tar(file: object) -> int:
    with tarfile.open(fileobj=file, mode="r|") as tar:
        return sum(len(tar.extractfile(member).read()) for member in tar)


def same(results: Mapping[str, object]) -> str:
    assert len(set(results.values())) == 1, results
    return f"{next(iter(results.values())) / 1e6:,.0f} MB"


def fill(folder: Path) -> Path:
    """Write two buckets, one of images and one of tar files."""
    rng = np.random.default_rng(0)
    images, tars = folder / "images", folder / "tars"
    images.mkdir()
    tars.mkdir()
    for i in range(IMAGES):
        (images / f"{i:05d}.jpg").write_bytes(rng.bytes(IMAGE_BYTES))
    for i in range(TARS):
        with tarfile.open(tars / f"{i}.tar", "w") as tar:
            for j in range(TAR_IMAGES):
                info = tarfile.TarInfo(f"{i}_{j:05d}.jpg")
                info.size = IMAGE_BYTES
                tar.addfile(info, io.BytesIO(rng.bytes(IMAGE_BYTES)))
    return folder
