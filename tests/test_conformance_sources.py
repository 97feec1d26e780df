"""What holds for every registered source, one of another package among them."""

import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image

import rsprune
from failures import raises
from rsprune import _core, errors
from rsprune.io import read_table
from rsprune.sources import SOURCES, Source, image_files, open_source, source_forms
from rsprune.sources import stack as stacks

# The images of every collection: 7, in shards of 3.
IMAGES = [np.random.default_rng(i).integers(0, 256, (6, 5, 3), np.uint8) for i in range(7)]
SHARD = 3


def encode(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def folder(root, images):
    for i, data in enumerate(map(encode, images)):
        (root / f"{i}.png").write_bytes(data)
    return root


def file_list(root, images):
    names = sorted((path.name for path in folder(root, images).iterdir()), reverse=True)
    (root / "list.txt").write_text("\n".join(reversed(names)))
    return root / "list.txt"


def webdataset(root, images):
    for start in range(0, len(images), SHARD):
        with tarfile.open(root / f"{start}.tar", "w") as tar:
            for i, data in enumerate(map(encode, images[start : start + SHARD]), start):
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return f"{root}/*.tar"


def concat(root, images):
    parts = [root / "first", root / "second"]
    for part, some in zip(parts, (images[:4], images[4:]), strict=True):
        part.mkdir()
        folder(part, some)
    return [str(part) for part in parts]


def stack(root, images):
    np.save(root / "stack.npy", np.stack(images))
    return str(root / "stack.npy")


def raw(root, images):
    np.stack(images).tofile(root / f"tiles.{'x'.join(map(str, images[0].shape))}.raw")
    return str(next(root.iterdir()))


def rows_of(images):
    cells = [{"bytes": encode(image), "path": f"{i}.png"} for i, image in enumerate(images)]
    return pa.table({"image": cells, "caption": [f"scene {i}" for i in range(len(images))]})


def scenes(root, images):
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)}
    for i, image in enumerate(images):
        height, width, count = image.shape
        extent = {"height": height, "width": width, "count": count, "dtype": image.dtype}
        with rasterio.open(root / f"{i}.tif", "w", driver="GTiff", **extent, **place) as file:
            file.write(np.moveaxis(image, -1, 0))
    return f"{root}/*.tif"


def arrow(root, images):
    files = []
    for start in range(0, len(images), SHARD):
        files.append(f"data-{start // SHARD:05d}-of-00003.arrow")
        table = rows_of(images).slice(start, SHARD)
        with pa.OSFile(f"{root}/{files[-1]}", "w") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files]}))
    return root


def parquet(root, images):
    (root / "data").mkdir()
    for start in range(0, len(images), SHARD):
        place = root / "data" / f"train-{start // SHARD:05d}-of-00003.parquet"
        pq.write_table(rows_of(images).slice(start, SHARD), place, row_group_size=2)
    return f"{root}/data/*.parquet"


EXAMPLES = {
    "scenes": scenes,
    "arrow": arrow,
    "folder": folder,
    "list": file_list,
    "webdataset": webdataset,
    "parquet": parquet,
    "stack": stack,
    "concat": concat,
    "raw": raw,
}


@pytest.fixture
def raw_plugin(plugin_package, monkeypatch):
    """The source that the documentation shows, as a package of its own."""
    page = (Path(__file__).parents[1] / "docs" / "sources.md").read_text()
    code = re.search(r"```python\n(# rsprune_raw\.py\n.*?)```", page, re.DOTALL)[1]
    code = code.replace("SHARD_IMAGES = 4096", f"SHARD_IMAGES = {SHARD}")
    plugin_package("rsprune_raw", code, {"rsprune.sources": {"raw": "RawSource"}})


@pytest.fixture(params=EXAMPLES)
def make(request, tmp_path, raw_plugin, monkeypatch):
    """Make a collection of images of one kind, and open it: make() or make(images)."""
    for module in (image_files, stacks):
        monkeypatch.setattr(module, "SHARD_IMAGES", SHARD)
    made = []

    def make(images=IMAGES):
        made.append(tmp_path / f"collection{len(made)}")
        made[-1].mkdir()
        source = open_source(EXAMPLES[request.param](made[-1], images))
        assert type(source) is SOURCES.get(request.param)
        return source

    make.folder = lambda: made[-1]
    return make


def read(source):
    return [(item.key, decoded(item)) for shard in source.shards for item in source.read(shard)]


def decoded(item):
    (image,), failures = _core.decode_images([item.data])
    assert failures == []
    return image.tolist()


def test_every_registered_source_has_an_example(raw_plugin):
    assert list(EXAMPLES) == SOURCES.names() == list(SOURCES)
    for name in SOURCES:
        assert SOURCES.get(name).reads in source_forms()
    with raises(errors.SourceError, SOURCES.get("raw").reads):
        open_source(3)


def test_items_come_in_order_under_keys_of_their_own(make):
    source = make()
    names = [shard.name for shard in source.shards]
    assert names == sorted(set(names))
    assert len(names) > 1
    assert all(re.fullmatch(r"[\w%+.-]+", name) for name in names)
    keys, images = zip(*read(source), strict=True)
    assert list(images) == [image.tolist() for image in IMAGES]
    assert len(set(keys)) == len(keys)


def test_counts_are_those_of_the_items(make):
    source = make()
    assert [source.count(shard) for shard in source.shards] == [len(list(source.read(s))) for s in source.shards]
    assert source.total() == len(IMAGES)
    assert all(isinstance(source.size(shard), int) and source.size(shard) > 0 for shard in source.shards)


def test_rows_pick_items(make):
    source = make()
    for shard in source.shards:
        whole = [(item.key, decoded(item)) for item in source.read(shard)]
        for rows in ([], [0], [len(whole) - 1], list(range(0, len(whole), 2))):
            assert [(item.key, decoded(item)) for item in source.read(shard, rows)] == [whole[row] for row in rows]
        for rows in ([len(whole)], [-1], [0, 0], [1, 0]):
            with raises(errors.ArgumentError, shard.name):
                list(source.read(shard, rows))


def test_metadata_are_a_row_an_image_without_its_pixels(make):
    source = make()
    schema = source.metadata_schema
    assert len(set(schema.names)) == len(schema)
    for shard in source.shards:
        everything = range(source.count(shard))
        whole = source.read_metadata(shard, everything)
        assert whole.schema == schema
        assert whole.num_rows == len(everything) or not len(schema)
        items = list(source.read(shard))
        for item, row in zip(items, whole.to_pylist(), strict=bool(len(schema))):
            assert dict(item.metadata) in ({}, row)
        for rows in ([], [0], list(everything)[::2]):
            assert source.read_metadata(shard, rows) == whole.take(pa.array(rows, pa.int64()))
        with raises(errors.ArgumentError, shard.name):
            source.read_metadata(shard, [len(everything)])


def test_reading_again_and_at_once_gives_the_same(make):
    source = make()
    shard = source.shards[0]
    whole = [item.key for item in source.read(shard)]
    assert [(a.key, b.key) for a, b in zip(source.read(shard), source.read(shard), strict=True)] == [
        (key, key) for key in whole
    ]
    abandoned = source.read(shard)
    next(abandoned)
    abandoned.close()
    assert [item.key for item in source.read(shard)] == whole


def test_fingerprint_is_that_of_a_copy_and_of_no_other_collection(make):
    first = make().fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert first["kind"]
    assert make().fingerprint() == first
    assert make(IMAGES[:-1]).fingerprint() != first
    assert make([np.random.default_rng(9).integers(0, 256, (64, 64, 3), np.uint8)] * len(IMAGES)).fingerprint() != first


def test_another_process_reads_a_pickled_source(make, tmp_path):
    source = make()
    list(source.read(source.shards[0]))  # what is open now is not in the pickle
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(source))
    code = """if True:
        import json, pickle, sys
        from rsprune import _core
        source = pickle.load(open(sys.argv[1], "rb"))
        items = [item for shard in source.shards for item in source.read(shard)]
        images, failures = _core.decode_images([item.data for item in items])
        print(json.dumps([source.fingerprint(), [[i.key, a.tolist()] for i, a in zip(items, images)], failures]))
    """
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "source.pickle"], capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == [source.fingerprint(), [list(pair) for pair in read(source)], []]


def test_stage_one_runs_over_it(make, tmp_path):
    from rsprune.runs.stages import entropy_run

    source = make()
    entropy_run(source, out=tmp_path / "run", progress=False)
    tables = [read_table(path) for path in sorted((tmp_path / "run" / "entropy").glob("*.parquet"))]
    assert [key for table in tables for key in table["key"].to_pylist()] == [key for key, _ in read(source)]
    found = [value for table in tables for value in table["entropy"].to_pylist()]
    assert found == rsprune.entropy(IMAGES).tolist()


def test_what_is_not_there_is_named(make):
    source = make()
    shutil.rmtree(make.folder())
    names = []
    for shard in source.shards:
        try:
            items = list(source.read(shard))
        except OSError as error:  # the file of a shard
            names.append(str(error))
        else:  # the file of each image
            _, failures = _core.entropy_images([item.data for item in items], gray="bt601")
            assert {kind for _, kind, _ in failures} == {"not_found"}
            names += [message for _, _, message in failures]
    assert names
    assert all(str(make.folder()) in name for name in names)


def test_a_source_need_not_be_registered():
    class Bare(Source):
        shards = ()
        read = count = size = fingerprint = None

    assert not Bare.matches("x")
    assert open_source(source := Bare()) is source
