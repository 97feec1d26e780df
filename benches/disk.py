"""Select from embeddings on the disk, against merely reading them: time, and the memory that it takes.

The files, 21.5 GB and 4.3 GB, are made once in $RSPRUNE_BENCH_DIR, or in `benches/.cache/`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

import rsprune
from benches import embeddings
from benches.harness import THREADS, Comparison
from rsprune.io import atomic_write

N, DIM, K, BUDGET_PART = 10_500_000, 1024, 200, 0.15
N_WARM = 2_100_000  # what fits into the page cache
READ_BYTES = 16 << 20
MEMORY_LIMIT = 2e9


def comparisons() -> Iterator[Comparison]:
    for n, cold in ((N, True), (N_WARM, False)):
        path = make(n)
        centroids = path.with_suffix(".centroids.npy")
        np.save(centroids, embeddings.directions(K, DIM))
        size = path.stat().st_size
        yield Comparison(
            f"select from {n:,} x {DIM} float16 on the disk ({size / 1e9:.1f} GB), {'cold' if cold else 'cached'}",
            1 / 1.25 if cold else None,
            lambda path=path, centroids=centroids: select_apart(path, centroids),
            {
                "read(2)": lambda path=path: read(path),
                f"read(2), {THREADS} threads": lambda path=path: read(path, THREADS),
            },
            verify=verify,
            before=(lambda path=path: forget(path)) if cold else None,
            warm_up=not cold,
        )


def make(n: int) -> Path:
    """The file of `n` rows about 300 directions."""
    path = Path(os.environ.get("RSPRUNE_BENCH_DIR", embeddings.CACHE)) / f"embeddings-{n}x{DIM}.npy"
    if not path.exists():
        print(f"making {path}, {2 * n * DIM / 1e9:.1f} GB", file=sys.stderr)
        with atomic_write(path) as beside:
            rows = np.lib.format.open_memmap(beside, "w+", np.float16, (n, DIM))
            step = 100_000
            for start in range(0, n, step):
                stop = min(n, start + step)
                rows[start:stop] = embeddings.mixture(stop - start, DIM, 300, seed=start)
            rows.flush()
    return path


def forget(path: Path) -> None:
    """Drop the file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path, threads: int = 1) -> None:
    """Read the file in large pieces, every thread its own stretch."""
    stretch = -(-path.stat().st_size // threads)

    def stretch_of(i: int) -> None:
        buffer = bytearray(READ_BYTES)
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), i * stretch, stretch, os.POSIX_FADV_SEQUENTIAL)
            file.seek(i * stretch)
            left = stretch
            while left > 0 and (got := file.readinto(memoryview(buffer)[: min(left, READ_BYTES)])):
                left -= got

    readers = [threading.Thread(target=stretch_of, args=(i,)) for i in range(threads)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def select_apart(path: Path, centroids: Path) -> dict[str, float]:
    """Select in a process of its own, whose memory can be measured."""
    command = [sys.executable, "-m", "benches.disk", str(path), str(centroids)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def verify(answers: Mapping[str, object]) -> str:
    memory = answers["rsprune"]["peak_anonymous_bytes"]
    if memory > MEMORY_LIMIT:
        message = f"{memory / 1e9:.2f} GB of memory of its own"
        raise MemoryError(message)
    return f"{memory / 1e9:.2f} GB of memory of its own at most; {answers['rsprune']['rows']:,} rows selected"


def main() -> None:
    """Select from the file in argv with the centroids in argv, and print what it took."""
    done = threading.Event()
    peak = 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    selection = rsprune.select(sys.argv[1], np.load(sys.argv[2]), BUDGET_PART, threads=THREADS)
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    print(json.dumps({"seconds": seconds, "peak_anonymous_bytes": peak, "rows": len(selection)}))


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


if __name__ == "__main__":
    main()
