"""Collections, references and runs at addresses: the same bytes as on the local disk, whatever the network does."""

import contextlib
import gzip
import io
import pickle
import subprocess
import sys
import tarfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio

from failures import raises
from hub_server import HubServer
from object_server import KEYS, FaultyProxy, object_server
from rsprune import storage
from rsprune.errors import EmptyInputError, OutputError, PartsLeftError, SourceError, UnreadShardError
from rsprune.runs.prune import open_run
from rsprune.runs.stages.entropy import entropy_run
from rsprune.sources import open_source
from rsprune.storage import fetch
from rsprune.temporaries import this_machine
from small_runs import artefacts, picture, small_prune, write_tar

FAULTS = ("500", "503", "reset", "cut", "short", "slow")


@pytest.fixture(scope="module")
def buckets(tmp_path_factory):
    """The folder of the buckets, and the port of a server of it."""
    folder = tmp_path_factory.mktemp("buckets")
    for shard in range(3):
        members = {f"{10 * shard + i:03d}.jpg": picture(10 * shard + i) for i in range(10)}
        (folder / "pool").mkdir(exist_ok=True)
        write_tar(folder / "pool" / f"{shard:02d}.tar", members)
    for i in range(24):
        place = folder / "scenes" / "aid" / f"class {i % 3}" / f"ä%20{i:02d}#.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(100 + i))
    (folder / "scenes" / "list.txt").write_text("aid/class 0/ä%2003#.jpg\naid/gone.jpg\n")
    (folder / "runs").mkdir()
    with object_server(folder) as port:
        yield folder, port


@pytest.fixture
def serve(buckets, monkeypatch, tmp_path):
    """Have the environment lead to the server, through a proxy with these faults: serve(fault) -> proxy."""
    proxies = []

    def serve(fault=lambda number, method, path: None):
        proxy = FaultyProxy(buckets[1], fault).__enter__()
        proxies.append(proxy)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        forget()
        return proxy

    for name, value in {**KEYS, "AWS_REGION": "us-east-1", "RSPRUNE_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rsprune.storage.clients.DELAYS", (0.01, 0.02, 0.05, 0.1))
    (tmp_path / "cache").mkdir()
    yield serve
    for proxy in proxies:
        proxy.__exit__()
    forget()


def forget():
    """Begin as a new process does."""
    storage.clients._store.cache_clear()
    storage.cache._cache_of.cache_clear()
    storage.objects._recalled.cache_clear()
    storage.outputs._local.clear()


def every_third(number, method, path):
    """Let every third request fail, each in another one of the ways."""
    return FAULTS[number // 3 % len(FAULTS)] if number % 3 == 2 else None


def test_a_run_at_addresses_has_the_bytes_of_a_local_one(buckets, serve, tmp_path):
    folder, _ = buckets
    want = small_prune(str(folder / "pool" / "*.tar"), str(folder / "scenes" / "aid"), tmp_path / "local")
    proxy = serve(every_third)
    done = small_prune("s3://pool/*.tar", "s3://scenes/aid", "s3://runs/whole")
    kinds = Counter(fault for *_, fault in proxy.requests if fault)
    assert set(kinds) == set(FAULTS)
    assert done.keys == want.keys
    assert artefacts(folder / "runs" / "whole") == artefacts(tmp_path / "local")
    forget()
    assert open_run("s3://runs/whole").keys == want.keys
    forget()
    (name,) = want.selections
    there = open_run(f"s3://runs/whole/selections/{name}")
    assert (there.keys, there.selections) == (want.keys, [name])
    assert there.explain(want.keys[0])[0].kept
    for secret in KEYS.values():
        assert not [name for name, data in artefacts(folder / "runs" / "whole").items() if secret.encode() in data]


@pytest.mark.parametrize("spec", ["s3://pool/{00..02}.tar", "s3://pool/**/0?.tar", "s3://pool", "s3://pool/"])
def test_a_pattern_a_range_and_a_bucket_are_the_same_shards(spec, buckets, serve):
    serve()
    local, remote = open_source(str(buckets[0] / "pool")), open_source(spec)
    assert remote.fingerprint() == local.fingerprint()
    for shard in local.shards:
        assert [(item.key, item.data) for item in remote.read(shard)] == [
            (item.key, item.data) for item in local.read(shard)
        ]


def test_a_folder_is_listed_once_and_read_as_it_is_locally(buckets, serve):
    proxy = serve()
    local, remote = open_source(str(buckets[0] / "scenes" / "aid")), open_source("s3://scenes/aid/")
    assert remote.fingerprint() == local.fingerprint()
    shard = local.shards[0]
    remote = pickle.loads(pickle.dumps(remote))
    got = {item.key: (bytes(item.data), item.label) for item in remote.read(shard)}
    assert got == {item.key: (Path(item.data).read_bytes(), item.label) for item in local.read(shard)}
    assert [item.key for item in remote.read(shard, [2, 5])] == [list(got)[2], list(got)[5]]
    methods = Counter(method for method, path, *_ in proxy.requests)
    assert methods == {"GET": 1 + 24 + 2, "HEAD": 1}  # the record of an export may be there


def test_a_list_at_an_address_names_objects_beside_it_in_vain_or_not(buckets, serve):
    serve()
    source = open_source("s3://scenes/list.txt")
    assert source.fingerprint() == open_source(str(buckets[0] / "scenes" / "list.txt")).fingerprint()
    shard = source.shards[0]
    assert [item.data for item in source.read(shard)] == [picture(103), "s3://scenes/aid/gone.jpg"]
    assert [source.was_missing(shard, row, "not_found") for row in range(2)] == [False, True]


def test_a_run_that_was_stopped_goes_on_from_what_is_at_its_address(buckets, serve, tmp_path):
    folder, _ = buckets
    want = small_prune(str(folder / "pool"), str(folder / "scenes" / "aid"), tmp_path / "local")
    written = []

    def full(number, method, path):
        if method == "PUT":
            written.append(path)
        return "403" if len(written) > 6 else None

    serve(full)
    with raises(PermissionError, "s3://runs/stopped/"):
        small_prune("s3://pool", "s3://scenes/aid", "s3://runs/stopped")
    done = artefacts(folder / "runs" / "stopped")
    assert 0 < len(done) <= 6
    proxy = serve()
    assert small_prune("s3://pool", "s3://scenes/aid", "s3://runs/stopped").keys == want.keys
    assert artefacts(folder / "runs" / "stopped") == artefacts(tmp_path / "local")
    again = {path.split("?")[0] for method, path, *_ in proxy.requests if method == "PUT"}
    finished = [name for name in done if name.startswith("entropy/") and name.endswith(".json")]
    assert finished
    assert not [name for name in finished if f"/runs/stopped/{name}" in again]


def test_parts_at_an_address_see_what_others_had_finished(buckets, serve, tmp_path):
    folder, _ = buckets
    small_prune(str(folder / "pool"), str(folder / "scenes" / "aid"), tmp_path / "local")
    serve(every_third)

    def begin(part):
        forget()  # each is a process on a machine of its own
        return small_prune("s3://pool", "s3://scenes/aid", "s3://runs/parts", part=part)

    for part in [(1, 2), (2, 2), (1, 2)]:
        with contextlib.suppress(PartsLeftError):
            begin(part)
    begin(None)
    assert artefacts(folder / "runs" / "parts") == artefacts(tmp_path / "local")


def test_commands_write_to_addresses_and_name_them(buckets, serve, tmp_path, command):
    folder, _ = buckets
    serve()
    local = tmp_path / "rows.npy"
    np.save(local, np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    np.save(tmp_path / "centroids.npy", np.eye(4, dtype=np.float32))
    words = ["select", local, "-c", tmp_path / "centroids.npy", "--keep", "10", "-o"]
    done = command(*words, "s3://runs/chosen/manifest.parquet")
    assert (done.returncode, "s3://runs/chosen/manifest.parquet" in done.stdout) == (0, True), done
    command(*words, tmp_path / "manifest.parquet")
    assert (folder / "runs/chosen/manifest.parquet").read_bytes() == (tmp_path / "manifest.parquet").read_bytes()
    assert command(*words, "s3://runs/chosen/manifest.parquet").returncode == 0  # the same command made it
    done = command(*words, "s3://pool/00.tar")
    assert (done.returncode, "s3://pool/00.tar" in done.stderr) == (1, True)
    done = command("entropy", "s3://pool", "-o", "s3://runs/entropy")
    assert done.returncode == 0, done
    assert "s3://runs/entropy" in done.stdout
    assert str(tmp_path) not in done.stdout + done.stderr
    done = command("entropy", "s3://pool", "-o", "s3://pool/run")
    assert (done.returncode, "s3://pool/run" in done.stderr) == (1, True), done


@pytest.mark.parametrize(
    ("spec", "error", "values"),
    [
        ("s3://pool/09.tar", FileNotFoundError, ["s3://pool/09.tar"]),
        ("s3://pool/{00..09}.tar", FileNotFoundError, ["s3://pool/03.tar"]),
        ("s3://pool/x*.tar", FileNotFoundError, ["s3://pool/x*.tar"]),
        ("s3://nowhere/00.tar", FileNotFoundError, ["s3://nowhere/00.tar"]),
        ("s3://nowhere", FileNotFoundError, ["s3://nowhere"]),
        ("s3://scenes/none", EmptyInputError, ["s3://scenes/none"]),
        ("s3://pool/notes.docx", SourceError, ["s3://pool/notes.docx"]),
        ("s3://", SourceError, ["s3://"]),
        ("ftp://host/x.tar", SourceError, ["ftp://", "s3://"]),
        ("https://me:word@host/x.tar", SourceError, ["https://host/x.tar"]),
        ("https://host/x.tar?X-Amz-Signature=abc#.tar", SourceError, ["https://host/x.tar"]),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line(spec, error, values, serve):
    serve()
    with raises(error, *values) as failed:
        open_source(spec)
    assert "\n" not in str(failed.value)
    assert "word@" not in str(failed.value)
    assert "abc" not in str(failed.value)


def test_a_bucket_that_refuses_and_missing_credentials_are_told_apart(serve, monkeypatch):
    serve(lambda number, method, path: "403")
    with raises(PermissionError, "s3://pool"):
        open_source("s3://pool")
    serve()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with raises(PermissionError, "s3://pool", "AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"):
        open_source("s3://pool")


def test_a_storage_that_does_not_answer_ends_the_shard_and_not_the_image(buckets, serve, tmp_path):
    serve(lambda number, method, path: "500" if "05" in path and method == "GET" else None)
    with raises(UnreadShardError, "s3://scenes/aid"):
        entropy_run("s3://scenes/aid", out=tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").glob("entropy/*"))
    serve()
    entropy_run("s3://scenes/aid", out=tmp_path / "run", progress=False)


def test_an_object_that_changes_while_it_is_read_is_told(buckets, serve):
    serve()
    found = storage.find("s3://pool/00.tar")
    if found.etag is not None:
        with raises(SourceError, "s3://pool/00.tar"):
            storage.read_range("s3://pool/00.tar", 0, 10, '"another"')
    assert len(storage.read_range("s3://pool/00.tar", 0, 10, found.etag)) == 10


def test_local_copies_make_room_for_new_ones(buckets, serve, monkeypatch):
    monkeypatch.setenv("RSPRUNE_CACHE_BYTES", "1")
    serve()
    names = [one.uri for one in storage.list_objects("s3://scenes/aid")]
    copies = [storage.fetch(name) for name in names]
    assert [copy.exists() for copy in copies] == [False] * (len(names) - 5) + [True] * 5
    assert storage.fetch(names[0]).read_bytes() == storage.read_range(names[0], 0, storage.find(names[0]).size)


def test_copies_that_a_killed_process_left_go(buckets, serve, tmp_path):
    serve()
    code = "import os, signal; from rsprune.storage import localize; localize('s3://runs/x'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    left = set((tmp_path / "cache").iterdir())
    others = tmp_path / "cache" / f"rsprune-{this_machine()}-1-of-a-live-process"
    others.mkdir()
    assert len(left) == 1
    fetch("s3://pool/00.tar")
    there = set((tmp_path / "cache").iterdir())
    assert not left & there
    assert (others in there, len(there)) == (True, 2)


def test_paths_that_lost_a_slash_are_addresses():
    assert storage.address_of(Path("s3://bucket/run/")) == "s3://bucket/run"
    assert storage.address_of("s3://bucket/run/") == "s3://bucket/run"
    assert storage.address_of(Path("s3/bucket")) is None
    assert storage.address_of("c:/run") is None


def test_the_hub_is_only_read():
    with raises(OutputError, "hf://datasets/me/mine/x.txt"):
        storage.upload(Path(__file__), "hf://datasets/me/mine/x.txt")


def test_a_few_images_of_a_known_tar_are_read_by_themselves(buckets, serve, monkeypatch):
    monkeypatch.setenv("RSPRUNE_CACHE_BYTES", "1")
    proxy = serve()
    source, local = open_source("s3://pool"), open_source(str(buckets[0] / "pool"))
    shard = source.shards[1]
    source.read_keys(shard)
    proxy.requests.clear()
    assert [(item.key, item.data) for item in source.read(shard, [4])] == [
        (item.key, item.data) for item in local.read(shard, [4])
    ]
    size = source.size(shard)
    asked = [part for method, _, part, _ in proxy.requests if method == "GET"]
    assert len(asked) == 1
    first, last = map(int, asked[0].removeprefix("bytes=").split("-"))
    assert last - first < size / 8


def test_the_hub_is_read_as_a_folder_is(buckets, monkeypatch):
    folder = buckets[0] / "scenes" / "aid"
    files = {f"train/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.jpg")}
    files["pool/00.tar"] = (buckets[0] / "pool" / "00.tar").read_bytes()
    with HubServer(files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        forget()
        remote, local = open_source("hf://datasets/me/mine/train"), open_source(str(folder))
        assert remote.fingerprint() == local.fingerprint()
        assert [item.data for item in remote.read(remote.shards[0])] == [
            Path(item.data).read_bytes() for item in local.read(local.shards[0])
        ]
        tars = open_source("hf://datasets/me/mine/pool/*.tar")
        assert tars.fingerprint() == open_source(str(buckets[0] / "pool" / "00.tar")).fingerprint()
        for missing in ("hf://datasets/me/mine/none.tar", "hf://datasets/you/yours/x.tar"):
            with raises(FileNotFoundError, missing):
                open_source(missing)
    forget()


def parquet(folder):
    table = pa.table({"image": [picture(i) for i in range(12)], "caption": [f"scene {i}" for i in range(12)]})
    pq.write_table(table, folder / "data.parquet", row_group_size=5)
    return "data.parquet"


def arrow(folder):
    table = pa.table({"image": [picture(i) for i in range(12)]})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return "data.arrow"


def stack(folder):
    np.save(folder / "data.npy", np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8))
    return "data.npy"


def compressed(folder):
    with tarfile.open(folder / "data.tar.gz", "w:gz") as tar:
        for i in range(12):
            info = tarfile.TarInfo(f"{i:02d}.jpg")
            info.size = len(picture(i))
            tar.addfile(info, io.BytesIO(picture(i)))
    return "data.tar.gz"


@pytest.mark.parametrize("write", [parquet, arrow, stack, compressed])
def test_every_layout_is_read_at_an_address(write, buckets, serve):
    folder = buckets[0] / write.__name__
    folder.mkdir()
    name = write(folder)
    serve(every_third)
    local = open_source(str(folder / name))
    for spec in (f"s3://{write.__name__}/{name}", f"s3://{write.__name__}"):
        remote = pickle.loads(pickle.dumps(open_source(spec)))
        assert remote.fingerprint() == local.fingerprint()
        assert remote.total() == local.total() == 12
        for shard in local.shards:
            for rows in (None, [1, 7]):
                for got, want in zip(remote.read(shard, rows), local.read(shard, rows), strict=True):
                    assert (got.key, got.label) == (want.key, want.label)
                    assert np.array_equal(got.data, want.data)
            assert remote.read_metadata(shard, [0, 2]) == local.read_metadata(shard, [0, 2])


@pytest.mark.parametrize("fault", ["silent", "stalled"])
def test_a_connection_that_gives_nothing_is_given_up(fault, serve, monkeypatch):
    monkeypatch.setattr("rsprune.storage.clients.PATIENCE", timedelta(seconds=0.3))
    proxy = serve(lambda number, method, path: fault if number < 2 else None)
    found = storage.list_objects("s3://pool")
    data = [storage.read_range(one.uri, 0, one.size, one.etag) for one in found]
    assert [len(one) for one in data] == [one.size for one in found]
    assert len(proxy.requests) > 4


def test_tables_and_stacks_in_a_bucket_are_those_on_the_disk(buckets, serve):
    folder, images = buckets[0] / "tables", [picture(i) for i in range(20)]
    rows = pa.table({"image": [{"bytes": one, "path": f"{i}.jpg"} for i, one in enumerate(images)], "n": range(20)})
    (folder / "saved" / "train").mkdir(parents=True)
    (folder / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "saved" / "train" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    with pa.OSFile(f"{folder}/saved/train/data.arrow", "w") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=6)
    (folder / "hub" / "data").mkdir(parents=True)
    for i in range(2):
        part = rows.slice(10 * i, 10).append_column("noise", [[bytes(1000)] * 10])
        pq.write_table(part, folder / "hub" / "data" / f"train-{i:05d}-of-00002.parquet", compression="none")
    np.save(folder / "stack.npy", np.zeros((3, 8, 9, 3), np.uint8))
    (folder / "packed.tar.gz").write_bytes(gzip.compress((buckets[0] / "pool" / "00.tar").read_bytes()))
    for place in ("saved", "saved#train", "hub", "hub/data/train-*.parquet", "stack.npy", "packed.tar.gz"):
        serve(every_third)
        here, there = open_source(f"{folder}/{place}"), open_source(f"s3://tables/{place}")
        assert there.fingerprint() == here.fingerprint()
        assert there.total() == here.total()
        for shard in here.shards:
            assert [str(item) for item in there.read(shard)] == [str(item) for item in here.read(shard)]
            assert there.read_metadata(shard, [0, 2]) == here.read_metadata(shard, [0, 2])


def test_of_a_parquet_file_that_is_counted_the_end_alone_is_fetched(buckets, serve, monkeypatch):
    folder = buckets[0] / "counted"
    folder.mkdir()
    rows = pa.table({"image": [picture(i) + bytes(50_000) for i in range(20)]})
    pq.write_table(rows, folder / "x.parquet", compression="none", use_dictionary=False)
    serve()
    monkeypatch.delattr("rsprune.sources.filesystem.fetch")
    source = open_source("s3://counted/x.parquet")
    assert source.total() == 20
    assert source.metadata_schema.names == []


def test_scenes_in_a_bucket_are_those_on_the_disk(buckets, serve):
    place = {"driver": "GTiff", "crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)}
    (buckets[0] / "naip" / "nd").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 40, 60), np.uint8)
    for name in ("a.tif", "nd/b.tif"):
        with rasterio.open(
            buckets[0] / "naip" / name, "w", height=40, width=60, count=4, dtype="uint8", **place
        ) as file:
            file.write(pixels)
    for spec, count in (("naip", 12), ("naip/*.tif", 6), ("naip/nd/b.tif", 6)):
        serve(every_third)
        here, there = (open_source(f"{root}{spec}", tile=20) for root in (f"{buckets[0]}/", "s3://"))
        assert there.total() == here.total() == count
        assert there.fingerprint() == here.fingerprint()
        for shard in here.shards:
            assert [str(item) for item in there.read(shard)] == [str(item) for item in here.read(shard)]
            assert there.read_metadata(shard, [0, 2]) == here.read_metadata(shard, [0, 2])


@pytest.mark.parametrize("form", ["folder", "tar", "parquet", "embedding-atlas", "fiftyone"])
def test_an_export_is_written_to_an_address_and_read_back(form, buckets, serve, tmp_path, command):
    folder, _ = buckets
    serve(every_third)
    run = small_prune("s3://pool", "s3://scenes/aid", tmp_path / "run")
    words = ["export", tmp_path / "run", "--source", "s3://pool", "--as", form, "--to", f"s3://runs/{form}"]
    for _ in range(2):  # the second time it is there
        done = command(*words)
        assert (done.returncode, f"s3://runs/{form}" in done.stdout) == (0, True), done
        assert not list((folder / "runs" / form).rglob(".*"))
    source = open_source(f"s3://runs/{form}")
    assert sorted(key for shard in source.shards for key in source.read_keys(shard)) == sorted(run.keys)
