"""The labelled scene sets of the paper, as they are published, and what stands in for them."""

import hashlib
import io
import json
import sys
import types
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from failures import raises
from rsprune import _core
from rsprune.errors import ArgumentError, FormatError, SourceError
from rsprune.runs.config import ReferenceOptions, SourceOptions
from rsprune.runs.plan import plan
from rsprune.runs.reference import open_reference, weighted_draw
from rsprune.sources import open_source, published
from rsprune.sources.published import PUBLISHED, fetch_published
from small_runs import Colours, artefacts, picture, small_prune, write_tar

# How each set looks when it is unpacked: its paths, and the class of each.
SETS = {
    "resisc45": {f"NWPU-RESISC45/{c}/{c}_{i:03d}.jpg": c for c in ("airplane", "ground_track_field") for i in (1, 2)},
    "ucmerced": {f"UCMerced_LandUse/Images/{c}/{c}{i:02d}.tif": c for c in ("agricultural", "beach") for i in range(3)},
    "aid": {f"AID/{c}/{c.lower()}_{i}.jpg": c for c in ("Airport", "BareLand") for i in (1, 10)},
    "whu-rs19": {f"WHU-RS19/{c}/{n}.jpg": c for c, n in (("airport", "airport_01"), ("beach", "beach-01"))},
    "rsd46-whu": {
        f"RSD46-WHU/{split}/{c}/{c}_{i}.png": c
        for split in ("train", "val")
        for c in ("Airplane", "Lrregular farmland")
        for i in range(2)
    },
}
# UC Merced's images are not all of 256 px.
SIDES = [(256, 256), (247, 253), (254, 248)]


def encoded(name, number):
    stream = io.BytesIO()
    height, width = SIDES[number % 3]
    pixels = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    Image.fromarray(pixels).save(stream, {".jpg": "JPEG", ".tif": "TIFF", ".png": "PNG"}[Path(name).suffix])
    return stream.getvalue()


def files_of(name):
    return {path: encoded(path, i) for i, path in enumerate(SETS[name])}


def classes(source):
    return sorted(item.label for shard in source.shards for item in source.read(shard))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("depth", [0, 1])
def test_classes_are_found_however_deep_they_lie(name, depth, tmp_path):
    for path, data in files_of(name).items():
        place = tmp_path / "unpacked" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    expected = sorted(SETS[name].values())
    folder = tmp_path / "unpacked" if depth == 0 else next((tmp_path / "unpacked").iterdir())
    assert classes(open_source(folder)) == expected
    write_tar(tmp_path / "set.tar", files_of(name))
    assert classes(open_source(tmp_path / "set.tar")) == expected
    items = [item for shard in open_source(folder).shards for item in open_source(folder).read(shard)]
    assert _core.decode_images([item.data for item in items])[1] == []


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of a folder, in place of the library that fetches: ``hub.sets`` maps a data set to its files."""
    place = types.ModuleType("huggingface_hub")
    place.sets, place.asked, place.here = {}, [], set()

    def hf_hub_download(repository, file, *, repo_type, revision, local_files_only=False):
        place.asked.append((repository, file, repo_type, revision, local_files_only))
        return str(fetch(repository, local_files_only) / file)

    def snapshot_download(repository, *, allow_patterns, repo_type, revision, local_files_only=False):
        place.asked.append((repository, allow_patterns, repo_type, revision, local_files_only))
        return str(fetch(repository, local_files_only))

    def fetch(repository, local_files_only):
        if repository not in place.sets or (local_files_only and repository not in place.here):
            message = "no route to host\nsecond line"
            raise ConnectionError(message)
        place.here.add(repository)
        return place.sets[repository]

    place.hf_hub_download, place.snapshot_download = hf_hub_download, snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", place)
    monkeypatch.setenv("RSPRUNE_SETS", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return place


def test_a_pinned_archive_is_fetched_checked_and_unpacked_once(hub, tmp_path, monkeypatch, capsys):
    entry = PUBLISHED["ucmerced"]
    hub.sets[entry.repository] = tmp_path / "hub"
    (tmp_path / "hub").mkdir()
    with zipfile.ZipFile(tmp_path / "hub" / entry.archive, "w") as archive:
        for path, data in files_of("ucmerced").items():
            archive.writestr(path, data)
    data = (tmp_path / "hub" / entry.archive).read_bytes()
    with raises(FormatError, entry.md5, tmp_path / "hub" / entry.archive):
        fetch_published("ucmerced")
    monkeypatch.setitem(PUBLISHED, "ucmerced", entry._replace(md5=hashlib.md5(data).hexdigest()))
    opened = open_reference("UCMerced", ReferenceOptions(k=2), SourceOptions(), seed=0)
    assert opened.images == 6
    assert classes(opened.source) == sorted(SETS["ucmerced"].values())
    assert hub.asked[0] == (entry.repository, entry.archive, "dataset", entry.revision, True)
    assert entry.size in capsys.readouterr().err.splitlines()[0]
    asked = len(hub.asked)
    assert open_reference("ucmerced", ReferenceOptions(k=2), seed=0).images == 6
    assert len(hub.asked) == asked
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"ucmerced-{hashlib.md5(data).hexdigest()}"]


def test_a_set_in_parquet_files_is_read_as_it_lies(hub, tmp_path):
    entry = PUBLISHED["whu-rs19"]
    hub.sets[entry.repository] = tmp_path / "hub"
    (tmp_path / "hub" / "data").mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "label": {"names": ["airport", "beach"], "_type": "ClassLabel"}}
    table = pa.table({"image": [{"bytes": picture(i), "path": None} for i in range(5)], "label": [0, 1, 1, 0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table[:3], tmp_path / "hub" / "data" / "train-00000-of-00001-0123456789abcdef.parquet")
    pq.write_table(table[3:], tmp_path / "hub" / "data" / "test-00000-of-00001-0123456789abcdef.parquet")
    opened = open_reference(["whu-rs19"], ReferenceOptions(k=2, reference_max_per_class=2), seed=0)
    assert classes(opened.source) == ["airport", "airport", "beach", "beach", "beach"]
    assert opened.images == 4
    asked = list(hub.asked)
    assert asked == [(entry.repository, published.IMAGES, "dataset", "main", False)]  # a part may be here
    assert fetch_published("whu-rs19") == tmp_path / "hub"
    assert hub.asked == asked


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_a_network_the_remedy_is_named(name, hub):
    with raises(SourceError, name, PUBLISHED[name].repository, "no route to host", "hf download") as caught:
        open_reference(name, ReferenceOptions(), seed=0)
    assert "\n" not in str(caught.value)


def test_a_folder_of_that_name_is_the_folder(hub, tmp_path):
    (tmp_path / "aid").mkdir()
    (tmp_path / "aid" / "a.jpg").write_bytes(picture(0))
    assert open_reference("aid", ReferenceOptions(k=1), seed=0).images == 1
    assert hub.asked == []


def test_entries_are_pinned_or_say_that_they_are_not():
    for entry in PUBLISHED.values():
        assert (len(entry.revision) == 40) == bool(entry.archive) == (len(entry.md5) == 32)
    assert published.PUBLISHED.keys() == SETS.keys()


def test_weights_are_the_ratio_of_the_images_that_are_drawn():
    classes = ["0/a"] * 30 + ["0/b"] * 10 + ["1/a"] * 100 + ["2/"] * 7
    taken = weighted_draw(classes, [2, 1, 0.1], seed=5)
    drawn = Counter(name for name, one in zip(classes, taken, strict=True) if one)
    assert drawn == {"0/a": 30, "0/b": 10, "1/a": 20, "2/": 2}
    taken = weighted_draw(classes, [1, 1, 1], seed=5, max_images=12)
    assert Counter(name for name, one in zip(classes, taken, strict=True) if one) == {
        "0/a": 2,
        "0/b": 2,
        "1/a": 4,
        "2/": 4,
    }
    taken = weighted_draw(classes, [1, 3, 0.5], seed=5, max_per_class=9)
    drawn = Counter(name[0] for name, one in zip(classes, taken, strict=True) if one)
    assert drawn == {"0": 3, "1": 9, "2": 1}
    with raises(ArgumentError, "[1000, 1, 1]"):
        weighted_draw(classes, [1000, 1, 1], seed=5)


@pytest.fixture
def pools(tmp_path):
    for name, first, count in (("pool", 0, 40), ("one", 9000, 12), ("two", 9500, 20)):
        write_tar(tmp_path / f"{name}.tar", {f"{i % 3}/{i:03d}.jpg": picture(first + i) for i in range(count)})
    return tmp_path


def test_several_references_with_weights(pools):
    reference = [str(pools / "one.tar"), str(pools / "two.tar")]
    run = small_prune(pools / "pool.tar", reference, pools / "run", reference_weight=[1, 0.5], k=5)
    config = run.reader.config["centroids"]
    assert config["weights"] == [1, 0.5]
    embedded = run.reader.reference
    assert [len(embedded.assignments(shard)) for shard in embedded.shards] == [12, 6]
    with raises(ArgumentError, 2, 1):
        small_prune(pools / "pool.tar", reference, pools / "other", reference_weight=[1.0], k=5)
    for wrong in ([0.0, 1.0], [-1.0, 1.0]):
        with raises(ArgumentError, "reference_weight"):
            small_prune(pools / "pool.tar", reference, pools / "other", reference_weight=wrong, k=5)


def test_without_a_reference_the_collection_itself_is_sampled(pools, monkeypatch):
    monkeypatch.chdir(pools)
    run = small_prune("pool.tar", "self", pools / "run", reference_max_images=15)
    config = run.reader.config["centroids"]
    assert (config["self"], config["max_images"]) == (True, 15)
    assert config["images"] == run.reader.config["source"]
    assert "second best" in run.describe()
    embedded = run.reader.reference.assignments("pool", ["row"])["row"].to_pylist()
    assert len(embedded) == 15
    assert len(run.keys) == 10
    before = artefacts(run.path)
    small_prune("pool.tar", "self", pools / "run", reference_max_images=15)
    assert artefacts(run.path) == before
    assert small_prune("pool.tar", "self", pools / "whole").reader.config["centroids"]["max_images"] == 50_000
    assert plan("pool.tar", reference="self", keep=0.2, k=6, encoder=Colours(), measure=False).reference_images == 40
    with raises(ArgumentError, "self"):
        open_reference("self", ReferenceOptions(), seed=0)
    with raises(ArgumentError, "self"):
        small_prune("pool.tar", "self", pools / "other", reference_max_per_class=2)
