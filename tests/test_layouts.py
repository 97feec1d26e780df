"""Collections as they are published: each is pruned to the images that it is pruned to as a folder."""

import bz2
import gzip
import json
import lzma
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image
from pyarrow import feather

import rsprune
from failures import raises
from rsprune.errors import (
    ArgumentError,
    DtypeError,
    EmptyInputError,
    FormatError,
    ShapeError,
    SourceError,
    ValueRangeError,
)
from rsprune.report import explain
from rsprune.runs.stages.entropy import entropy_run
from rsprune.sources import open_source
from rsprune.sources.compressed import Unpacked
from small_runs import picture, small_prune, write_tar

COUNT = 40
NAMES = [f"{i:08d}" for i in range(COUNT)]
CLASSES = ["airport", "beach"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images, and beside it a reference."""
    root = tmp_path_factory.mktemp("images")
    (root / "folder").mkdir()
    for i, name in enumerate(NAMES):
        (root / "folder" / f"{name}.jpg").write_bytes(picture(i))
    write_tar(root / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(20)})
    return root


@pytest.fixture(scope="module")
def kept(images):
    """The names of the images that are kept of the folder."""
    return [Path(key).stem for key in small_prune(images / "folder", images / "reference.tar", images / "run").keys]


def columns(**others):
    captions = [f"scene {i}" for i in range(COUNT)]
    return {"caption": captions, "label": [i % 2 for i in range(COUNT)], **others}


def data_set(images):
    """The images as a data set of the library."""
    features = datasets.Features(
        caption=datasets.Value("string"),
        label=datasets.ClassLabel(names=CLASSES),
        image=datasets.Image(),
        resolution=datasets.Value("float32"),
    )
    files = [{"bytes": (images / f"{name}.jpg").read_bytes(), "path": f"{name}.jpg"} for name in NAMES]
    return datasets.Dataset.from_dict(columns(image=files, resolution=[0.5] * COUNT), features=features)


def saved(root, images):
    data_set(images).save_to_disk(root / "saved", num_shards=3)
    return root / "saved"


def saved_paths(root, images):
    """Image features whose files stay where they are."""
    table = pa.table(columns(image=[{"bytes": None, "path": str(images / f"{name}.jpg")} for name in NAMES]))
    return save_arrow(root / "saved_paths", table)


def save_arrow(folder, table, rows=7):
    """A folder of Arrow streams in batches of so many rows, as old versions wrote it."""
    folder.mkdir(parents=True)
    with pa.OSFile(str(folder / "dataset.arrow"), "w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "dataset.arrow"}]}))
    return folder


def one_split(root, images):
    datasets.DatasetDict({"train": data_set(images)}).save_to_disk(root / "git10m")
    return root / "git10m"


def named_split(root, images):
    whole = data_set(images)
    datasets.DatasetDict({"test": whole.select(range(5)), "train": whole}).save_to_disk(root / "splits")
    return f"{root}/splits#train"


def hub(root, images):
    """The Hub's folder of Parquet files, with a page about it."""
    (root / "hub" / "data").mkdir(parents=True)
    for i in range(3):
        part = data_set(images).shard(3, i, contiguous=True)
        part.to_parquet(root / "hub" / "data" / f"train-{i:05d}-of-00003.parquet")
    return f"{root}/hub"


def encoded_column(root, images):
    pq.write_table(
        pa.table(columns(file_name=NAMES, img=[(images / f"{name}.jpg").read_bytes() for name in NAMES])),
        root / "encoded.parquet",
        row_group_size=7,
    )
    return root / "encoded.parquet"


def path_column(root, images):
    shutil.copytree(images, root / "photos")
    pq.write_table(pa.table(columns(path=[f"photos/{name}.jpg" for name in NAMES])), root / "paths.parquet")
    return root / "paths.parquet"


def by_webdataset(root, images):
    with webdataset.ShardWriter(f"{root}/written-%06d.tar", maxcount=16, verbose=0) as sink:
        for i, name in enumerate(NAMES):
            data = (images / f"{name}.jpg").read_bytes()
            sink.write({"__key__": name, "jpg": data, "json": {"scene": i}, "txt": f"scene {i}", "cls": i % 2})
    return f"{root}/written-{{000000..000002}}.tar"


def rs5m(root, images):
    """Numbers as keys, and the names of the images beside them."""
    for part in range(2):
        with webdataset.TarWriter(f"{root}/pub11-train-{part:04d}.tar") as sink:
            for i, name in list(enumerate(NAMES))[part * 20 : part * 20 + 20]:
                data = (images / f"{name}.jpg").read_bytes()
                named = {"img_name": f"{name}.jpg".encode(), "caption": f"scene {i}".encode()}
                sink.write({"__key__": f"{i % 20:06d}", "img_content": data, **named})
    return f"{root}/pub11-train-*.tar"


def compressed(root, images):
    with webdataset.ShardWriter(f"{root}/packed-%06d.tar.gz", maxcount=16, verbose=0) as sink:
        for i, name in enumerate(NAMES):
            sink.write({"__key__": name, "jpg": (images / f"{name}.jpg").read_bytes(), "cls": i % 2})
    return f"{root}/packed-*.tar.gz"


def stack(root, images):
    np.save(root / "stack.npy", pixels(images))
    return root / "stack.npy"


def archive(root, images):
    np.savez_compressed(root / "stack.npz", images=pixels(images), labels=np.arange(COUNT) % 2)
    return root / "stack.npz"


def pixels(images):
    return np.stack([np.asarray(Image.open(images / f"{name}.jpg")) for name in NAMES])


def listed(root, images):
    by_webdataset(root, images)
    (root / "tars.txt").write_text("\n".join(sorted(path.name for path in root.glob("written-*.tar"))))
    return root / "tars.txt"


LAYOUTS = [
    saved,
    saved_paths,
    one_split,
    named_split,
    hub,
    encoded_column,
    path_column,
    by_webdataset,
    listed,
    rs5m,
    compressed,
    stack,
    archive,
]


@pytest.mark.filterwarnings("ignore::rsprune.sources.SkippedFilesWarning")
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout_is_pruned_as_a_folder_is(layout, images, kept, tmp_path):
    run = small_prune(layout(tmp_path, images / "folder"), images / "reference.tar", tmp_path / "run")
    assert [Path(key).stem for key in run.keys] == kept


def test_indices_select_the_subset_of_the_data_set(images, kept, tmp_path):
    data_set(images / "folder").shuffle(seed=0).save_to_disk(tmp_path / "saved", num_shards=3)
    run = small_prune(tmp_path / "saved", images / "reference.tar", tmp_path / "run")
    subset = datasets.load_from_disk(str(tmp_path / "saved")).select(run.selection.indices)
    names = [one["path"] for one in subset.cast_column("image", datasets.Image(decode=False))["image"]]
    assert names == list(run.keys)
    assert sorted(Path(name).stem for name in names) == kept
    assert run.metadata.to_pylist() == subset.remove_columns("image").to_list()
    assert run.metadata["caption"].to_pylist() == [f"scene {int(Path(name).stem)}" for name in names]


def test_classes_are_those_of_the_data_set(images, tmp_path):
    expected = [CLASSES[i % 2] for i in range(COUNT)]
    for layout in (saved, hub):
        source = open_source(layout(tmp_path, images / "folder"))
        assert [item.label for shard in source.shards for item in source.read(shard)] == expected
    assert [item.label for item in items(archive(tmp_path, images / "folder"))] == [str(i % 2) for i in range(COUNT)]


def test_texts_beside_an_image_are_columns_of_the_manifest(images, tmp_path):
    run = small_prune(by_webdataset(tmp_path, images / "folder"), images / "reference.tar", tmp_path / "run")
    assert run.metadata.schema.names == ["cls", "json", "txt"]
    for key, row in zip(run.keys, run.metadata.to_pylist(), strict=True):
        assert row["txt"] == f"scene {int(key)}"
        assert row["cls"] == str(int(key) % 2)
        assert json.loads(row["json"]) == {"scene": int(key)}
    assert {item.label for item in items(f"{tmp_path}/written-000000.tar")} == {"0", "1"}


def test_names_of_rs5m_are_keys_where_they_are_names(tmp_path):
    names = {"a": b"one.jpg\n", "b": b"twice.jpg", "c": b"twice.jpg", "d": b"", "e": "\u00e9t\u00e9".encode()}
    members = {}
    for i, (key, name) in enumerate(names.items()):
        members |= {f"{key}.img_content": picture(i), f"{key}.img_name": name, f"{key}.caption": b"c"}
    write_tar(tmp_path / "x.tar", members)
    source = open_source(tmp_path / "x.tar")
    assert keys(tmp_path / "x.tar") == source.read_keys(source.shards[0]) == ["one.jpg", "b", "c", "d", "\u00e9t\u00e9"]
    assert source.metadata_schema.names == ["caption"]


@pytest.mark.parametrize(("extension", "pack"), [("tar.gz", gzip), ("tgz", gzip), ("tar.bz2", bz2), ("tar.xz", lzma)])
def test_a_compressed_tar_is_unpacked_once_for_each_reading(extension, pack, tmp_path, monkeypatch):
    members = {}
    for i in range(12):
        members |= {f"{i:03d}.cls": b"1", f"{i:03d}.img": picture(i) + bytes(40_000), f"{i:03d}.json": b"{}"}
    write_tar(tmp_path / "x.tar", members)
    place = tmp_path / f"x.{extension}"
    place.write_bytes(pack.compress((tmp_path / "x.tar").read_bytes()))
    plain, source = open_source(tmp_path / "x.tar"), open_source(place)
    begun = []
    read = Unpacked._read
    monkeypatch.setattr(Unpacked, "_read", lambda self, size: begun.append(self.file.tell() == 0) or read(self, size))
    (shard,) = source.shards
    assert source.total() == 12
    assert sum(begun) == 1
    expected = [(item.key, item.data, item.label) for item in plain.read(plain.shards[0])]
    assert [(item.key, item.data, item.label) for item in source.read(shard)] == expected
    assert sum(begun) == 2
    assert [item.key for item in source.read(shard, [3, 7])] == ["003", "007"]
    assert source.read_keys(shard) == [key for key, *_ in expected]
    assert sum(begun) == 3
    assert source.read_metadata(shard, [0, 5]).to_pylist() == [{"cls": "1", "json": "{}"}] * 2
    assert sum(begun) == 4
    whole = place.read_bytes()
    for cut in (30, len(whole) // 2, len(whole) - 4):
        place.write_bytes(whole[:cut])
        with raises(FormatError, place):
            open_source(place).total()
    place.write_bytes(pack.compress((tmp_path / "x.tar").read_bytes()[:150_000]))
    with raises(FormatError, place):
        open_source(place).total()


def items(spec):
    source = open_source(spec)
    return [item for shard in source.shards for item in source.read(shard)]


def keys(spec):
    return [item.key for item in items(spec)]


def test_keys_are_names_where_there_are_some_of_their_own(tmp_path):
    cells = [{"bytes": picture(i), "path": path} for i, path in enumerate(["/old/a.jpg", None, "b.jpg", "b.jpg", ""])]
    pq.write_table(pa.table({"image": cells}), tmp_path / "cells.parquet")
    assert keys(tmp_path / "cells.parquet") == ["a.jpg", "00000001", "00000002", "00000003", "00000004"]
    pq.write_table(pa.table({"image": cells, "img_name": list("vwxyz")}), tmp_path / "named.parquet")
    assert keys(tmp_path / "named.parquet") == list("vwxyz")
    first, second = (save_arrow(tmp_path / name, pa.table({"image": cells[1:2] * 3})) for name in "ab")
    assert keys(first) == ["00000000", "00000001", "00000002"]
    # Numbers are those of the rows of the whole collection.
    assert keys([first / "dataset.arrow", second / "dataset.arrow"]) == [f"{i:08d}" for i in range(6)]


def test_few_rows_are_read_without_the_others(tmp_path, monkeypatch):
    cells = [{"bytes": bytes([i]) * 5000, "path": f"{i}.jpg"} for i in range(60)]
    pq.write_table(pa.table({"image": cells, "caption": list(map(str, range(60)))}), tmp_path / "x.parquet", 10)
    source = open_source(tmp_path / "x.parquet")
    (shard,) = source.shards
    source.read_keys(shard)
    batches = type(source).batches
    seen = []

    def counted(self, path, columns, rows):
        for first, batch in batches(self, path, columns, rows):
            seen.append((columns, first))
            yield first, batch

    monkeypatch.setattr(type(source), "batches", counted)
    assert [item.data[0] for item in source.read(shard, [3, 41, 42])] == [3, 41, 42]
    assert source.read_metadata(shard, [59])["caption"].to_pylist() == ["59"]
    assert [first for columns, first in seen if columns == ["image"]] == [0, 40]
    assert [first for columns, first in seen if columns == ["caption"]] == [50]


def test_rows_without_an_image_go_to_the_quarantine(images, tmp_path):
    files = [picture(i) for i in range(COUNT)]
    files[3] = files[17] = None
    for name, table in {
        "bytes": pa.table({"image": pa.array(files, pa.binary())}),
        "structs": pa.table({"image": [one and {"bytes": one, "path": None} for one in files]}),
    }.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        run = small_prune(tmp_path / f"{name}.parquet", images / "reference.tar", tmp_path / name)
        refused = run.reader.quarantine()
        assert refused["key"].to_pylist() == ["00000003", "00000017"]
        assert refused["kind"].to_pylist() == ["empty", "empty"]


def test_a_data_set_of_nulls_has_no_readable_image(images, tmp_path):
    pq.write_table(pa.table({"image": pa.nulls(5, pa.binary())}), tmp_path / "nulls.parquet")
    with raises(EmptyInputError):
        small_prune(tmp_path / "nulls.parquet", images / "reference.tar", tmp_path / "run")


@pytest.mark.parametrize("place", ["middle", "end", "mark"])
def test_an_arrow_file_that_is_cut_short(place, tmp_path):
    cells = [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(20)]
    folder = save_arrow(tmp_path / "saved", pa.table({"image": cells}))
    whole = (folder / "dataset.arrow").read_bytes()
    size = {"middle": len(whole) // 2, "end": len(whole) - 100, "mark": len(whole) - 8}[place]
    (folder / "dataset.arrow").write_bytes(whole[:size])
    with raises(FormatError, folder / "dataset.arrow"):
        open_source(folder).total()


def test_damage_that_begins_after_whole_files_is_found_before_an_image_is_read(tmp_path):
    table = pa.table({"image": [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(9)]})
    for name in ("a", "b", "c"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-20])
    with raises(FormatError, tmp_path / "b.parquet", "--on-damaged-shard skip"):
        open_source(tmp_path).total()
    (tmp_path / "b.parquet").write_bytes(whole)
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "c.parquet")
    with raises(SourceError, tmp_path / "c.parquet", "image", "picture"):
        open_source(tmp_path).total()


@pytest.mark.filterwarnings("ignore::rsprune.sources.SkippedFilesWarning")
@pytest.mark.parametrize("damaged", ["a", "b"])
def test_the_other_files_are_read_without_a_damaged_one(damaged, images, tmp_path):
    (tmp_path / "pool").mkdir()
    for i, name in enumerate("abc"):
        files = [picture(20 * i + j) for j in range(20)]
        pq.write_table(pa.table({"image": files, "caption": ["x"] * 20}), tmp_path / "pool" / f"{name}.parquet")
    place = tmp_path / "pool" / f"{damaged}.parquet"
    place.write_bytes(place.read_bytes()[:-30])
    with raises(FormatError, place, "--on-damaged-shard skip"):
        open_source(tmp_path / "pool").total()
    run = small_prune(tmp_path / "pool", images / "reference.tar", tmp_path / "run", on_damaged_shard="skip")
    assert run.summary["left_out"] == [damaged]
    assert run.metadata["caption"].to_pylist() == ["x"] * len(run.keys)


def test_a_batch_with_wrong_offsets_is_damage(tmp_path):
    cells = [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(8)]
    folder = save_arrow(tmp_path / "saved", pa.table({"image": cells}), rows=8)
    file = folder / "dataset.arrow"
    whole = bytearray(file.read_bytes())
    offsets = np.cumsum([0, *(len(cell["bytes"]) for cell in cells)]).astype(np.int32).tobytes()
    at = whole.index(offsets)
    whole[at + 8 : at + 12] = (2**31 - 7).to_bytes(4, "little")
    file.write_bytes(whole)
    source = open_source(folder)
    with raises(FormatError, file):
        list(source.read(source.shards[0]))


def test_tables_without_images_or_with_several(tmp_path):
    words = {"caption": ["a", "b"], "scale": [1.0, 2.0]}
    pq.write_table(pa.table(words), tmp_path / "words.parquet")
    with raises(SourceError, tmp_path / "words.parquet", "caption", "scale", "string", "double"):
        open_source(tmp_path / "words.parquet").total()
    both = {"optical": [picture(0), picture(1)], "radar": [picture(2), picture(3)], "digest": [b"\1", b"\2"]}
    pq.write_table(pa.table(words | both), tmp_path / "both.parquet")
    with raises(SourceError, tmp_path / "both.parquet", "optical", "radar"):
        open_source(tmp_path / "both.parquet").total()
    source = open_source(f"{tmp_path}/both.parquet#radar")
    assert [item.data for item in source.read(source.shards[0])] == both["radar"]
    assert source.metadata_schema.names == ["caption", "scale"]
    assert source.fingerprint()["column"] == "radar"
    for place in (tmp_path / "both.parquet", tmp_path):
        (tmp_path / "words.parquet").unlink(missing_ok=True)
        named = open_source(place, image_column="radar")
        assert named.fingerprint() == source.fingerprint()
        assert [item.data for item in named.read(named.shards[0])] == both["radar"]
    saved = open_source(save_arrow(tmp_path / "saved" / "x", pa.table(words | both)), image_column="optical")
    assert [item.data for item in saved.read(saved.shards[0])] == both["optical"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").write_bytes(picture(0))
    with raises(ArgumentError, "image_column", tmp_path / "folder"):
        open_source(tmp_path / "folder", image_column="optical")
    for column in ("caption", "thermal"):
        spec = f"{tmp_path}/both.parquet#{column}"
        if column == "thermal":
            with raises(SourceError, "thermal", "optical", "radar"):
                open_source(spec).total()
        else:
            assert open_source(spec).total() == 2  # a column of paths, whatever they are


@pytest.mark.parametrize("form", ["stream", "lz4", "feather", "parquet"])
def test_columns_of_every_type_end_in_the_manifest(form, images, tmp_path):
    cells = [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(COUNT)]
    moment = datetime(2020, 1, 1, tzinfo=timezone.utc)
    others = {
        "moment": (pa.timestamp("us", "UTC"), moment),
        "price": (pa.decimal128(4, 2), Decimal("1.50")),
        "bounds": (pa.list_(pa.float64()), [1.0, 2.0]),
        "sensor": (pa.struct([("name", pa.string()), ("bands", pa.int8())]), {"name": "S2", "bands": 13}),
        "season": (pa.dictionary(pa.int32(), pa.string()), "dry"),
        "view": (pa.string_view(), "near"),
        "large": (pa.large_string(), "far"),
        "half": (pa.float16(), 0.5),
        "nothing": (pa.null(), None),
        "clear": (pa.bool_(), True),
    }
    table = pa.table({"image": cells, **{name: pa.array([v] * COUNT, t) for name, (t, v) in others.items()}})
    mask = pa.array([b"no image"] * COUNT)
    names = [*table.column_names, "mask", "twice", "twice"]
    table = pa.Table.from_arrays([*table.columns, mask, mask, mask], names=names)
    place = tmp_path / f"x.{'parquet' if form == 'parquet' else 'arrow'}"
    if form == "parquet":
        pq.write_table(table, place)
    elif form == "feather":
        feather.write_feather(table, place, compression="zstd", chunksize=7)
    else:
        options = pa.ipc.IpcWriteOptions(compression="lz4" if form == "lz4" else None)
        with pa.OSFile(str(place), "w") as file, pa.ipc.new_stream(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=7)
    run = small_prune(place, images / "reference.tar", tmp_path / "run")
    assert [Path(key).stem for key in run.keys][:1]
    assert run.metadata.to_pylist() == [{name: value for name, (_, value) in others.items()}] * len(run.keys)


def test_encoded_images_in_a_dictionary_and_dots_in_names(tmp_path):
    files = [picture(i % 3) for i in range(9)]
    table = pa.table({"the.image": pa.array(files).dictionary_encode(), "of.what": ["x"] * 9})
    (source,) = (open_source(save_arrow(tmp_path / "saved", table)),)
    assert [item.data for item in source.read(source.shards[0])] == files
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet")
    assert [item.data for item in source.read(source.shards[0])] == files
    assert source.read_metadata(source.shards[0], [1]).to_pylist() == [{"of.what": "x"}]


def test_a_run_records_the_column_and_its_readers_take_it(images, tmp_path):
    files, others = [picture(i) for i in range(COUNT)], [picture(1000 + i) for i in range(COUNT)]
    pq.write_table(pa.table({"radar": files, "optical": others}), tmp_path / "x.parquet")
    run = small_prune(tmp_path / "x.parquet", images / "reference.tar", tmp_path / "run", image_column="radar")
    assert run.reader.config["source"]["options"] == {"image_column": "radar"}
    source = run.reader.open_source(tmp_path / "x.parquet")
    assert [item.data for item in source.read(source.shards[0])] == files
    assert explain(run.path, run.keys[:1], tmp_path / "x.parquet")[0].kept


def test_splits_are_read_one_at_a_time(images, tmp_path):
    spec = named_split(tmp_path, images / "folder")
    assert open_source(spec).total() == COUNT
    for wrong in ("splits", "splits#val", "splits/train#train"):
        with raises(SourceError, "train"):
            open_source(f"{tmp_path}/{wrong}")
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": [picture(0)]}), tmp_path / "hub" / "data" / f"{name}.parquet")
    with raises(SourceError, tmp_path / "hub", "train", "test", f"{tmp_path}/hub/data/test-*.parquet"):
        open_source(tmp_path / "hub")
    assert open_source(f"{tmp_path}/hub/data/train-*.parquet").total() == 1


def test_saved_data_sets_that_cannot_be_read(tmp_path):
    folder = save_arrow(tmp_path / "saved", pa.table({"image": [picture(0)]}))
    (folder / "cache-1234.arrow").write_bytes(b"left by a map of the library")
    assert open_source(folder).total() == 1
    state = folder / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "gone.arrow"}]}))
    with raises(FileNotFoundError, folder / "gone.arrow"):
        open_source(folder)
    state.write_text(json.dumps({"_data_files": []}))
    with raises(EmptyInputError, folder):
        open_source(folder)
    state.write_text(json.dumps({"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}))
    with raises(SourceError, folder, "flatten_indices"):
        open_source(folder)
    state.write_text("{")
    with raises(FormatError, state):
        open_source(folder)


def test_arrays_that_are_no_stack_of_images(tmp_path):
    file = tmp_path / "x.npy"
    for array, error, values in (
        (np.zeros((40, 30, 3), np.uint8), ShapeError, ["(40, 30, 3)", "(1, 40, 30, 3)", "(40, 30, 3, 1)"]),
        (np.zeros((9, 3, 40, 30), np.uint8), ShapeError, ["(9, 3, 40, 30)", "numpy.moveaxis(images, 1, 3)"]),
        (np.zeros((9, 512), np.float16), DtypeError, ["(9, 512)", "float16", "embeddings"]),
        (np.zeros((9, 512), np.uint8), ShapeError, ["(9, 512)"]),
        (np.zeros((9, 40, 30), np.int64), DtypeError, ["int64"]),
        (np.zeros((0, 40, 30), np.uint8), EmptyInputError, ["(0, 40, 30)"]),
        (np.asfortranarray(np.zeros((9, 40, 30), np.uint8)), ShapeError, ["numpy.ascontiguousarray(images)"]),
        (np.array([[None]]), DtypeError, ["object"]),
    ):
        np.save(file, array)
        with raises(error, file, *values):
            open_source(file)
    np.save(file, np.zeros((9, 40, 30), np.uint8))
    file.write_bytes(file.read_bytes()[:-1])
    with raises(FormatError, file):
        open_source(file)
    file.write_bytes(b"not an array")
    with raises(FormatError, file):
        open_source(file)


def test_archives_of_arrays(tmp_path):
    train, test = (np.random.default_rng(i).integers(0, 65536, (5, 4, 3), np.uint16) for i in range(2))
    file = tmp_path / "x.npz"
    big_endian = np.stack([train] * 3).reshape(15, 4, 3, 1).astype(">u2")
    for save in (np.savez, np.savez_compressed):
        save(file, x_train=big_endian, x_test=test[..., None], y_train=np.arange(15) % 4, names=np.array(["a"]))
        with raises(SourceError, file, "x_train", "x_test", "(15, 4, 3, 1)"):
            open_source(file)
        found = items(f"{file}#x_train")
        assert [item.key for item in found] == [f"{i:08d}" for i in range(15)]
        assert [item.label for item in found] == [str(i % 4) for i in range(15)]
        assert np.array_equal(np.stack([item.data for item in found]), big_endian)
        assert {item.data.dtype for item in found} == {np.dtype(np.uint16)}
        assert {item.label for item in items(f"{file}#x_test")} == {None}
        with raises(SourceError, file, "images"):
            open_source(f"{file}#images")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with raises(FormatError, file):
        open_source(f"{file}#x_train")
    np.savez(file, images=test[..., None], labels=np.array([{}, 1, 2, 3, 4], object))
    assert {item.label for item in items(file)} == {None}
    np.savez(file, labels=np.arange(3))
    with raises(SourceError, file, "labels"):
        open_source(file)


def test_a_folder_of_several_kinds_is_not_guessed_at(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
    assert open_source(tmp_path).total() == 2
    pq.write_table(pa.table({"image": [picture(0)]}), tmp_path / "b.parquet")
    with raises(SourceError, tmp_path, ".npy", ".parquet"):
        open_source(tmp_path)
    (tmp_path / "a.npy").unlink()
    (tmp_path / "page.jpg").write_bytes(picture(1))
    with raises(SourceError, tmp_path, ".parquet"):
        open_source(tmp_path)


MEASURE = """
import re, sys
from rsprune.runs.stages.entropy import entropy_run
from rsprune.sources import open_source
source = open_source(sys.argv[1])
def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
source.total()
next(iter(source.read(source.shards[0])))
before, most = own(), 0
for item in source.read(source.shards[0]):
    most = max(most, own() - before)
source.read_metadata(source.shards[0], range(source.count(source.shards[0])))
print(most)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize("layout", ["arrow", "parquet"])
def test_a_large_file_is_never_in_memory(layout, tmp_path):
    """96 images of 1.5 MB in one batch of a stream, or one row group: 144 MB, of which 40 MB are held at most."""
    rng = np.random.default_rng(0)
    table = pa.table({"image": [rng.bytes(1_500_000) for _ in range(96)], "caption": ["x"] * 96})
    if layout == "arrow":
        spec = save_arrow(tmp_path / "saved", table, rows=96)
    else:
        spec = tmp_path / "x.parquet"
        pq.write_table(table, spec, row_group_size=96, write_batch_size=4)
    done = subprocess.run([sys.executable, "-c", MEASURE, spec], capture_output=True, text=True, check=True)
    assert 0 <= int(done.stdout) < 40 << 20


@pytest.mark.parametrize("dtype", [np.int16, np.float16, ">f4", np.float64])
def test_stacks_of_signed_and_floating_point_samples_need_a_range(dtype, tmp_path, images):
    pixels = (np.random.default_rng(0).normal(0, 40, (12, 20, 20)) * np.arange(1, 13)[:, None, None]).astype(dtype)
    np.save(tmp_path / "stack.npy", pixels)
    with raises(ValueRangeError, "valid_range"):
        entropy_run(tmp_path / "stack.npy", out=tmp_path / "run", progress=False)
    entropy_run(tmp_path / "stack.npy", out=tmp_path / "run", valid_range=(-100, 100), progress=False)
    got = pq.read_table(tmp_path / "run" / "entropy" / "stack-000000.parquet")["entropy"].to_numpy()
    assert np.array_equal(got, rsprune.entropy(list(pixels), valid_range=(-100, 100)))
