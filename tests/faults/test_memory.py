"""What a run holds in memory, whatever the collection."""

import io
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune import errors
from rsprune.centroids import Centroids
from rsprune.runs.context import RunContext
from rsprune.runs.folder import RunFolder
from rsprune.runs.reference import digest_of
from rsprune.runs.schema import EMBEDDING_SCHEMA, ENTROPY_SCHEMA, SCORE_FIELDS
from rsprune.runs.stages.embed import EmbedStage
from rsprune.runs.stages.entropy import EntropyStage
from rsprune.sources import Shard

ENTROPY = """
import sys
from rsprune.runs.stages.entropy import entropy_run
entropy_run(sys.argv[1], out=sys.argv[2], progress=False)
"""
# The peak of this process in MB. That of getrusage is at least what the process that started it had.
PEAK = """
from pathlib import Path
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)
"""


def megabytes(script, *words):
    """Run a script in a process of its own; return its peak."""
    words = map(str, words)
    done = subprocess.run([sys.executable, "-c", script + PEAK, *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-400:]
    return int(done.stdout.split()[-1])


def collection(folder, data, count):
    """The same image ``count`` times: as a folder and as a tar file, in both of which links stand for the others."""
    folder.mkdir()
    (folder / "images").mkdir()
    with tarfile.open(folder / "images.tar", "w") as tar:
        for i in range(count):
            member, place = tarfile.TarInfo(f"{i:04d}.tif"), folder / "images" / f"{i:04d}.tif"
            if i:
                member.type, member.linkname = tarfile.LNKTYPE, "0000.tif"
                place.hardlink_to(folder / "images" / "0000.tif")
            else:
                member.size = len(data)
                place.write_bytes(data)
            tar.addfile(member, io.BytesIO(data))
    return folder / "images", folder / "images.tar"


def noise(side):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("few", "many", "side"), [(25, 200, 930), pytest.param(125, 1000, 930, marks=pytest.mark.slow)]
)
def test_a_tar_of_large_images_takes_what_a_folder_does(few, many, side, tmp_path):
    data = noise(side)  # 2.6 MB: an image of NAIP
    peaks = []
    for count in (few, many):
        folder, tar = collection(tmp_path / str(count), data, count)
        peaks.append(megabytes(ENTROPY, tar, tmp_path / f"tar-{count}"))
    reference = megabytes(ENTROPY, folder, tmp_path / "folder")
    assert peaks[1] < 1.3 * reference
    assert peaks[1] < 1.15 * peaks[0]
    (table,) = (tmp_path / f"tar-{many}" / "entropy").glob("*.parquet")
    assert pq.read_table(table)["entropy"].to_pylist() == [rsprune.entropy([data])[0]] * many


def test_a_tar_of_small_images_is_read_in_batches_of_bytes(tmp_path):
    data = noise(140)  # 59 kB: these are read into memory
    folder, tar = collection(tmp_path / "images", data, 2000)
    assert megabytes(ENTROPY, tar, tmp_path / "tar") < 1.3 * megabytes(ENTROPY, folder, tmp_path / "folder")


def test_encoded_images_above_the_limit_are_not_read(tmp_path):
    """A sparse tar file with a member of 3 GB, as a hole, between two images, and a folder with such a file."""
    good = noise(16)
    folder = tmp_path / "folder"
    folder.mkdir()
    with (tmp_path / "x.tar").open("wb") as file:
        for name, size in (("a.tif", len(good)), ("b.tif", 3 << 30), ("c.tif", len(good))):
            member = tarfile.TarInfo(name)
            member.size = size
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            if size == len(good):
                file.write(good)
                (folder / name).write_bytes(good)
            else:
                file.truncate(file.tell() + size)
                file.seek(size, io.SEEK_CUR)
                with (folder / name).open("wb") as large:
                    large.truncate(size)
            file.seek(-file.tell() % 512, io.SEEK_CUR)
        file.truncate(file.tell() + 1024)
    for source in (tmp_path / "x.tar", folder):
        out = tmp_path / f"run-{source.name}"
        assert megabytes(ENTROPY, source, out) < 200
        (row,) = pq.read_table(out / "quarantine.parquet").to_pylist()
        assert (row["key"].removesuffix(".tif"), row["row"], row["kind"]) == ("b", 1, "too_many_bytes")
        assert str(3 << 30) in row["message"]
        assert "1000000000" in row["message"]


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_the_limit_of_an_encoded_image_is_an_option(form, tmp_path):
    data = noise(16)
    (tmp_path / "x.tif").write_bytes(data)
    image = tmp_path / "x.tif" if form == "path" else data
    assert rsprune.entropy([image], max_bytes=len(data)) > 0
    with raises(errors.EncodedTooLargeError, len(data), len(data) - 1):
        rsprune.entropy([image], max_bytes=len(data) - 1)


SELECT = """
import sys
import numpy as np
import rsprune
n, options = 10_000_000, eval(sys.argv[1])
labels, similarity = np.empty(n, np.int32), np.empty(n, np.float32)
rng = np.random.default_rng(0)
for at in range(0, n, 100_000):
    labels[at : at + 100_000] = rng.integers(0, 200, 100_000, dtype=np.int32)
    similarity[at : at + 100_000] = rng.random(100_000, dtype=np.float32)
if "score" in options:
    options["score"] = similarity
assert len(rsprune.select_assigned(labels, similarity, 1_000_000, k=200, **options)) == 1_000_000
"""


@pytest.mark.parametrize(
    "options", ["{}", '{"fill": "waterfill"}', '{"within": "random"}', '{"min_similarity": 0.5}', '{"score": None}']
)
def test_selecting_from_ten_million_rows(options):
    """Labels and similarities are 80 MB of it."""
    assert megabytes(SELECT, options) < 250


# pyarrow imports pandas where it is installed, for any conversion to NumPy: 30 MB that are not this command's.
RUN_SELECT = """
import sys
class WithoutPandas:
    def find_spec(self, name, path, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, WithoutPandas())
from rsprune.runs.stages.select import select_run
select_run(sys.argv[1], out=sys.argv[2], centroids=sys.argv[3], keep=0.15)
"""


@pytest.mark.parametrize(("rows", "limit"), [(2_000_000, 215), pytest.param(10_000_000, 250, marks=pytest.mark.slow)])
def test_selecting_from_a_folder_without_embeddings(rows, limit, tmp_path):
    """Keys are read of the rows that are chosen, a shard at a time."""
    rng, each = np.random.default_rng(0), 100_000
    vectors = rng.standard_normal((200, 8))
    centroids = Centroids((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), {})
    centroids.save(tmp_path / "centroids.safetensors")
    config = {"source": {"images": rows}, "centroids": digest_of(centroids.vectors), "keep_embeddings": False}
    folder = RunFolder(tmp_path / "run")
    folder.start(config)
    stage = EmbedStage(RunContext(folder, config), None, None, None, None, 1, centroids, keep=False)
    for first in range(0, rows, each):
        shard, numbers = Shard(f"part-{first // each:06d}"), range(first, first + each)
        keys = [f"images/{number:09d}.jpg" for number in numbers]
        values = rng.integers(0, 200, each, np.int32), rng.random(each, np.float32)
        columns = [pa.array(range(each)), pa.array(keys), *map(pa.array, values), *[pa.nulls(each, pa.string())] * 2]
        stage.write(folder.assignments(shard.name), shard, columns, EMBEDDING_SCHEMA)
        stage.complete(shard, keys)
    folder.complete(folder.summary, [], {"keys": "name"})
    peak = megabytes(RUN_SELECT, folder.path, tmp_path / "chosen.parquet", tmp_path / "centroids.safetensors")
    assert peak < limit
    table = pq.read_table(tmp_path / "chosen.parquet")
    numbers = [int(key[7:16]) for key in table["key"].to_pylist()]
    assert numbers == sorted(numbers)
    assert len(numbers) == 0.15 * rows
    assert table["row"].to_pylist() == [number % each for number in numbers]
    assert table["shard"].to_pylist() == [f"part-{number // each:06d}" for number in numbers]


QUARANTINE = """
import sys
from rsprune.runs.context import RunContext
from rsprune.runs.quarantine import write_quarantine
from rsprune.runs.reader import RunReader
reader = RunReader(sys.argv[1])
assert write_quarantine(RunContext(reader.folder, reader.config), reader)["quarantined"] == int(sys.argv[2])
"""


def test_failures_are_written_shard_by_shard(tmp_path):
    """A million images that cannot be read; all rows at once take a gigabyte."""
    rows, each = 1_000_000, 50_000
    folder = RunFolder(tmp_path / "run")
    folder.start({"source": {"images": rows}})
    stage = EntropyStage(RunContext(folder, folder.read_config()), None, None)
    message = "truncated JPEG: the data ends before the last of its rows"
    for first in range(0, rows, each):
        shard, keys = Shard(f"part-{first // each:06d}"), [f"images/{i:09d}.jpg" for i in range(first, first + each)]
        texts = [pa.repeat(pa.scalar(text, pa.string()), each) for text in ("truncated", message)]
        nothing = [pa.nulls(each, field.type) for field in SCORE_FIELDS]
        columns = [pa.array(keys), pa.nulls(each, pa.float64()), *nothing, *texts]
        stage.write(folder.entropy(shard.name), shard, columns, ENTROPY_SCHEMA)
        stage.complete(shard, keys)
    folder.complete(folder.summary, [], {"keys": "name"})
    assert megabytes(QUARANTINE, folder.path, rows) < 260
    found = pq.read_table(folder.quarantine, columns=["key", "row", "stage"])
    assert found.num_rows == rows
    assert found["key"][each].as_py() == f"images/{each:09d}.jpg"
    assert found["row"][each - 1].as_py() == each - 1
    assert found["stage"].unique().to_pylist() == ["entropy"]


PRUNE = """
import sys
import rsprune
from rsprune.runs.plan import plan
source, out = sys.argv[1:3]
options = {"reference": source, "encoder": "efficientnet-lite0", "k": 1, "keep": 0.15}
if out in ("measured", "estimated"):
    print(plan(source, measure=out == "measured", **options).memory_bytes >> 20)
else:
    rsprune.prune(source, out=out, progress=False, **options)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "tar", "larger"])
def test_a_plan_says_what_a_run_holds(form, tmp_path):
    images, tar = collection(
        tmp_path / "images", noise(256 if form == "folder" else 930), 400 if form == "larger" else 60
    )
    source = images if form == "folder" else tar
    taken = megabytes(PRUNE, source, tmp_path / "run")
    assert taken / 1.3 < planned(source, "measured") < 1.3 * taken
    assert taken / 1.3 < planned(source, "estimated") < 1.3 * taken


def planned(source, how):
    done = subprocess.run([sys.executable, "-c", PRUNE, str(source), how], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-400:]
    return int(done.stdout.split()[-1])
