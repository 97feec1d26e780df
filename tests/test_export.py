"""`rsprune export`: what is written, that it is the run's, and that nothing else is touched."""

import errno
import gc
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune import errors
from rsprune.export import export_run
from rsprune.export.names import file_stems
from rsprune.io import read_record
from rsprune.sources import open_source
from small_runs import artefacts, picture, small_prune, write_tar

LAYOUTS = ["folder", "links", "tar", "parquet", "hf", "list", "embedding-atlas", "fiftyone"]
KEYS = [f"{kind}/{name}" for kind in ("Port", "Forest") for name in ("a.b", "é ü", *(f"{i:02d}" for i in range(10)))]


def place(folder, layout, name="out"):
    return folder / (f"{name}.csv" if layout == "list" else name)


def item_bytes(item):
    return item.data if isinstance(item.data, bytes) else Path(item.data).read_bytes()


def images_of(source):
    """The images of a collection by key."""
    found = {}
    for shard in source.shards:
        for item in source.read(shard):
            found[item.key] = item_bytes(item), item.label
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A run over 24 images in class folders, of which it keeps 12."""
    folder = tmp_path_factory.mktemp("files")
    for number, key in enumerate(KEYS):
        path = folder / "pool" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    write_tar(folder / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(12)})
    small_prune(folder / "pool", folder / "reference.tar", folder / "run", keep=12, entropy_keep=1.0, k=3)
    return folder


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """A run over two tar files with captions, of whose 24 images it keeps 12."""
    folder = tmp_path_factory.mktemp("tars")
    for shard in range(2):
        members = {}
        for i in range(12):
            members[f"{shard}-lat38.{i:02d}.jpg"] = picture(100 * shard + i)
            members[f"{shard}-lat38.{i:02d}.txt"] = f"scene {i}".encode()
        write_tar(folder / f"pool-{shard}.tar", members)
    write_tar(folder / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(12)})
    spec = str(folder / "pool-*.tar")
    small_prune(spec, folder / "reference.tar", folder / "run", keep=12, entropy_keep=1.0, k=3)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pruning_an_export_keeps_the_same_keys(layout, files, tmp_path):
    out = place(tmp_path, layout)
    done = export_run(files / "run", files / "pool", to=out, layout=layout, progress=False)
    run = rsprune.open(files / "run")
    assert done.metrics["images"] == 12
    again = small_prune(out, files / "reference.tar", tmp_path / "again", keep=12, entropy_keep=1.0, k=3)
    assert sorted(again.keys) == sorted(run.keys)
    pool = images_of(open_source(files / "pool"))
    assert images_of(open_source(out)) == {key: pool[key] for key in run.keys}


@pytest.mark.parametrize("layout", ["folder", "tar", "parquet", "hf", "embedding-atlas", "fiftyone"])
def test_images_in_tar_files_keep_their_keys_and_captions(layout, tars, tmp_path):
    spec = str(tars / "pool-*.tar")
    export_run(tars / "run", spec, to=tmp_path / "out", layout=layout, progress=False)
    run = rsprune.open(tars / "run")
    pool, source = images_of(open_source(spec)), open_source(tmp_path / "out")
    assert images_of(source) == {key: pool[key] for key in run.keys}
    captions = dict(zip(run.keys, run.metadata["txt"].to_pylist(), strict=True))
    if layout == "tar":
        table = [
            json.loads(text) for s in source.shards for text in source.read_metadata(s, range(12))["json"].to_pylist()
        ]
        assert {row["key"]: row["txt"] for row in table} == captions
    else:
        column = [one for s in source.shards for one in source.read_metadata(s, range(12))["txt"].to_pylist()]
        keys = [key for s in source.shards for key in source.read_keys(s)]
        assert dict(zip(keys, column, strict=True)) == captions


@pytest.mark.parametrize("layout", ["links", "list"])
def test_links_and_lists_are_for_files(layout, tars, tmp_path):
    with raises(errors.SourceError, rsprune.open(tars / "run").keys[0]):
        export_run(tars / "run", str(tars / "pool-*.tar"), to=place(tmp_path, layout), layout=layout, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_bytes_again(layout, files, tmp_path):
    outs = [place(tmp_path, layout, name) for name in ("one", "two")]
    for out in outs:
        export_run(files / "run", files / "pool", to=out, layout=layout, progress=False)
    assert contents(outs[0]) == contents(outs[1])
    before = contents(outs[0])
    export_run(files / "run", files / "pool", to=outs[0], layout=layout, progress=False)  # it is there
    assert contents(outs[0]) == before


def contents(out):
    return artefacts(out) if out.is_dir() else out.read_bytes()


@pytest.mark.parametrize("layout", ["tar", "parquet", "hf"])
@pytest.mark.parametrize("shards", [{"shard_images": 5}, {"shard_bytes": 6000}])
def test_shards_have_the_size_asked_for(layout, shards, files, tmp_path):
    export_run(files / "run", files / "pool", to=tmp_path / "out", layout=layout, progress=False, **shards)
    source = open_source(tmp_path / "out")
    counts = [source.count(shard) for shard in source.shards]
    assert sum(counts) == 12
    if "shard_images" in shards:
        assert counts == [5, 5, 2]
    else:
        sizes = [sum(len(item_bytes(item)) for item in source.read(shard)) for shard in source.shards]
        assert len(sizes) > 1
        assert max(sizes) <= 6000
    record = read_record(tmp_path / "out" / "export.json")
    assert (record["images"], record["parts"]) == (12, len(counts))
    if layout == "hf":
        names = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
        assert names == [f"train-{i:05d}-of-{len(counts):05d}.parquet" for i in range(len(counts))]


def test_shards_are_for_files_that_hold_many_images(files, tmp_path):
    with raises(errors.ArgumentError, "shard_images", "folder"):
        export_run(files / "run", files / "pool", to=tmp_path / "out", layout="folder", shard_images=4, progress=False)


@pytest.mark.parametrize("layout", ["folder", "links", "tar", "hf", "embedding-atlas", "fiftyone"])
@pytest.mark.parametrize("after", [1, 6, 11, 14, 17, 20])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(layout, after, files, tmp_path):
    """The child is killed before it renames, links or writes a file for the time that ``after`` says."""
    size = {"shard_images": 3} if layout in ("tar", "hf") else {}
    arguments = {"layout": layout, "progress": False, **size}
    export_run(files / "run", files / "pool", to=tmp_path / "whole", **arguments)
    child = os.fork()
    if child == 0:
        try:
            from rsprune.export import run

            run.FOLDER_IMAGES, count = 3, 0

            def hook(event, _):
                nonlocal count
                count += event in ("os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir")
                if count == after:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            export_run(files / "run", files / "pool", to=tmp_path / "out", **arguments)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    if (tmp_path / "out").exists() and not (tmp_path / "out" / "export.json").exists():
        with raises((errors.SourceError, errors.EmptyInputError)):
            open_source(tmp_path / "out")
    patch = pytest.MonkeyPatch()
    patch.setattr("rsprune.export.run.FOLDER_IMAGES", 3)
    export_run(files / "run", files / "pool", to=tmp_path / "out", **arguments)
    patch.undo()
    whole, found = artefacts(tmp_path / "whole"), artefacts(tmp_path / "out")
    for record in (whole, found):
        record["export.json"] = {
            k: v for k, v in json.loads(record["export.json"]).items() if k not in ("parts", "digest")
        }
    assert found == whole


def test_a_damaged_part_is_written_anew(files, tmp_path, monkeypatch):
    """The process ended after the first tar file was written, whose bytes changed afterwards."""
    arguments = {"layout": "tar", "shard_images": 3, "progress": False}
    export_run(files / "run", files / "pool", to=tmp_path / "whole", **arguments)

    def end(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rsprune.export.run._Writer._move", end)
        with pytest.raises(KeyboardInterrupt):
            export_run(files / "run", files / "pool", to=tmp_path / "out", **arguments)
    work = tmp_path / "out" / ".export"
    (work / "export.json").unlink()
    (work / "files" / "00001.tar").write_bytes(b"")
    export_run(files / "run", files / "pool", to=tmp_path / "out", **arguments)
    assert artefacts(tmp_path / "out") == artefacts(tmp_path / "whole")


@pytest.mark.parametrize("layout", ["folder", "tar", "parquet"])
def test_what_is_read_back_is_what_was_written(layout, files, tmp_path, monkeypatch):
    def read_back(self, folder, part):
        for at in range(part.first, part.first + part.images):
            yield self.chosen.keys[at], b"other bytes"

    monkeypatch.setattr(f"rsprune.export.layouts.{layout.title()}Layout.read_back", read_back)
    with raises(errors.DamagedFileError, tmp_path / "out"):
        export_run(files / "run", files / "pool", to=tmp_path / "out", layout=layout, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["folder", "tar", "hf", "embedding-atlas", "fiftyone"])
def test_a_finished_export_that_was_changed(layout, files, tmp_path):
    arguments = {"layout": layout, "progress": False}
    export_run(files / "run", files / "pool", to=tmp_path / "out", **arguments)
    path = max(artefacts(tmp_path / "out"), key=lambda name: name.endswith((".jpg", ".tar", "1.parquet")))
    (tmp_path / "out" / path).write_bytes(b"changed")
    with raises(errors.DamagedFileError, Path(path).name):
        export_run(files / "run", files / "pool", to=tmp_path / "out", **arguments)


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_place_that_is_taken(layout, files, tmp_path):
    out = place(tmp_path, layout)
    if layout == "list":
        out.write_text("path\nmine.jpg\n")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    before = contents(out)
    with raises(errors.OutputError, out):
        export_run(files / "run", files / "pool", to=out, layout=layout, progress=False)
    assert contents(out) == before


def test_another_export_is_there(files, tmp_path):
    export_run(files / "run", files / "pool", to=tmp_path / "out", layout="tar", progress=False)
    before = artefacts(tmp_path / "out")
    for options in ({"layout": "folder"}, {"layout": "tar", "shard_images": 2}):
        with raises(errors.ConfigMismatchError, tmp_path / "out"):
            export_run(files / "run", files / "pool", to=tmp_path / "out", progress=False, **options)
    assert artefacts(tmp_path / "out") == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_written_among_the_images(layout, files):
    before = sorted((files / "pool").rglob("*"))
    with raises(errors.OutputError, files / "pool"):
        export_run(files / "run", files / "pool", to=place(files / "pool", layout), layout=layout, progress=False)
    assert sorted((files / "pool").rglob("*")) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk(layout, files, tmp_path):
    """No file may be larger than a few hundred bytes: the system says EFBIG where it would say ENOSPC."""
    out = place(tmp_path, layout)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250, old[1]))
    try:
        with raises(OSError, "raise the limit", out) as caught:
            export_run(files / "run", files / "pool", to=out, layout=layout, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    export_run(files / "run", files / "pool", to=out, layout=layout, progress=False)


@pytest.mark.parametrize("name", ["list", "list.parquet"])
def test_a_list_has_the_name_of_one(name, files, tmp_path):
    with raises(errors.ArgumentError, tmp_path / name):
        export_run(files / "run", files / "pool", to=tmp_path / name, layout="list", progress=False)


def test_a_list_of_text_has_paths(files, tmp_path):
    export_run(files / "run", files / "pool", to=tmp_path / "list.txt", layout="list", progress=False)
    found = [tmp_path / line for line in (tmp_path / "list.txt").read_text().splitlines()]
    keys = [path.resolve().relative_to((files / "pool").resolve()).as_posix() for path in found]
    assert keys == rsprune.open(files / "run").keys


# --- the run and its images -------------------------------------------------------------------------------------------


def test_another_collection(files, tars, tmp_path):
    for source in (str(tars / "pool-*.tar"), tars / "pool-0.tar"):
        with raises(errors.KeyMismatchError, files / "run"):
            export_run(files / "run", source, to=tmp_path / "out", layout="folder", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_that_have_vanished(layout, files, tmp_path):
    shutil.copytree(files / "pool", tmp_path / "pool")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "pool").rglob("*.jpg"))
    (tmp_path / "pool.txt").write_text("\n".join(names))
    run = small_prune(tmp_path / "pool.txt", files / "reference.tar", tmp_path / "run", keep=12, entropy_keep=1.0, k=3)
    gone = tmp_path / run.keys[3]
    gone.unlink()
    with raises(FileNotFoundError, run.keys[3]):
        export_run(tmp_path / "run", tmp_path / "pool.txt", to=place(tmp_path, layout), layout=layout, progress=False)
    assert not place(tmp_path, layout).exists()


def test_a_run_that_is_not_finished(files, tmp_path):
    shutil.copytree(files / "run", tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with raises(errors.UnfinishedRunError, tmp_path / "run"):
        export_run(tmp_path / "run", files / "pool", to=tmp_path / "out", layout="folder", progress=False)
    with raises(FileNotFoundError, tmp_path / "nowhere"):
        export_run(tmp_path / "nowhere", files / "pool", to=tmp_path / "out", layout="folder", progress=False)


# --- names ------------------------------------------------------------------------------------------------------------

ODD = [
    "../up",
    "/etc/passwd",
    "a//b",
    ".hidden",
    "con.jpg",
    "a:b?*",
    "line\nfeed",
    "%41",
    "x" * 400,
    "end.",
    "",
    "é/ü.png",
]


def test_names_stay_below_the_folder_and_say_their_keys():
    stems = file_stems(ODD)
    for key, stem in zip(ODD, stems, strict=True):
        path = Path("/out") / stem
        assert Path(os.path.normpath(path)) == path
        assert path.is_relative_to("/out")
        assert path != Path("/out")
        assert all(len(part.encode()) <= 200 and not part.startswith(".") for part in path.parts)
        if len(key) < 100 and key and "//" not in key and not key.startswith("/"):
            assert unquote(stem) == key.removesuffix(".jpg").removesuffix(".png")


def test_names_differ_on_any_system():
    keys = ["a.jpg", "A.jpg", "a.png", "b", "b/c.jpg", "é.jpg", "e\u0301.jpg", "x" * 400, "x" * 401]
    stems = file_stems(keys)
    assert len({stem.casefold() for stem in stems}) == len(keys)
    assert stems[0] == "a"
    assert stems[3].startswith("b~")
    assert file_stems(keys[1:2]) == ["A"]


@pytest.mark.parametrize("layout", ["folder", "tar", "parquet", "hf", "embedding-atlas", "fiftyone"])
def test_odd_keys_come_back(layout, files, tmp_path):
    import pyarrow as pa

    keys = [*filter(None, ODD), "A/a.jpg", "a/A.jpg", "lat38.90", "lat38.91", "plain.tif"]
    cells = [{"bytes": picture(i), "path": None} for i in range(len(keys))]
    pq.write_table(pa.table({"image": cells, "key": keys}), tmp_path / "pool.parquet")
    budget = len(keys)
    small_prune(
        tmp_path / "pool.parquet", files / "reference.tar", tmp_path / "run", keep=budget, entropy_keep=1.0, k=2
    )
    export_run(tmp_path / "run", tmp_path / "pool.parquet", to=tmp_path / "out", layout=layout, progress=False)
    assert sorted(images_of(open_source(tmp_path / "out"))) == sorted(keys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pool.parquet", "run"]


# --- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bands", [(), (1,), (2,), (3,), (4,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_become_png_without_loss(bands, dtype, tmp_path):
    import cv2

    from rsprune.export.images import encode_png

    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (5, 7, *bands), dtype)
    data = encode_png("x", pixels)
    if dtype == np.uint8 or bands in ((), (1,)):
        found = np.asarray(Image.open(io.BytesIO(data)))
    else:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        # OpenCV spreads gray over three bands, and has blue first.
        found = found[..., [0, 3] if bands == (2,) else [2, 1, 0, 3][: bands[0]]]
    np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


def test_a_stack_is_written_as_png(files, tmp_path):
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(picture(i)))) for i in range(12)])
    np.save(tmp_path / "pool.npy", pixels)
    small_prune(tmp_path / "pool.npy", files / "reference.tar", tmp_path / "run", keep=6, entropy_keep=1.0, k=2)
    export_run(tmp_path / "run", tmp_path / "pool.npy", to=tmp_path / "out", layout="folder", progress=False)
    for key in rsprune.open(tmp_path / "run").keys:
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{key}.png")), pixels[int(key)])


def test_pixels_that_png_does_not_hold():
    from rsprune.export.images import encode_png

    with raises(errors.ShapeError, "tile", 13):
        encode_png("tile", np.zeros((4, 4, 13), np.uint16))
    with raises(errors.DtypeError, "tile", "float32"):
        encode_png("tile", np.zeros((4, 4), np.float32))


# --- other readers ----------------------------------------------------------------------------------------------------


def test_the_library_datasets_reads_a_data_set(files, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    export_run(files / "run", files / "pool", to=tmp_path / "hf", layout="hf", shard_images=5, progress=False)
    export_run(files / "run", files / "pool", to=tmp_path / "folder", layout="folder", progress=False)
    keys = rsprune.open(files / "run").keys
    loaded = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["key"] == keys
    assert [row["image"].size for row in loaded] == [(24, 24)] * 12
    assert loaded[0]["label"] == keys[0].split("/")[0]
    folder = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "folder"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(folder["key"]) == sorted(keys)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_library_webdataset_reads_tar_files(tars, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    spec = str(tars / "pool-*.tar")
    export_run(tars / "run", spec, to=tmp_path / "out", layout="tar", shard_images=5, progress=False)
    urls = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    gc.collect()  # the library leaves files open
    assert [sample["img_name"].decode() for sample in samples] == rsprune.open(tars / "run").keys
    assert all(Image.open(io.BytesIO(sample["jpg"])).size == (24, 24) for sample in samples)


def test_tar_files_have_no_times_and_no_owners(tars, tmp_path):
    export_run(tars / "run", str(tars / "pool-*.tar"), to=tmp_path / "out", layout="tar", progress=False)
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(files, tmp_path, command):
    words = ["export", files / "run", "--source", files / "pool", "--as", "folder", "--to", tmp_path / "out"]
    done = command(*words, "--quiet")
    assert (done.returncode, done.stdout) == (0, "")
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 12
    done = command(*words)
    assert done.returncode == 0
    assert "12 images" in done.stdout
    done = command("export", files / "run", "-s", files / "pool", "--as", "list", "--to", tmp_path / "l.csv", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["images"] == 12
    assert command("export", files / "run", "-s", files / "pool", "--as", "zip", "--to", tmp_path / "z").returncode == 2


def test_killed_from_outside(files, tmp_path):
    """The command in a process of its own, killed while it writes."""
    words = ["export", files / "run", "-s", files / "pool", "--as", "tar", "--shard-images", "2", "--to"]
    command = [sys.executable, "-m", "rsprune", *map(str, words)]
    child = subprocess.Popen([*command, tmp_path / "out"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while child.poll() is None and not list(tmp_path.glob("out/.export/*.json")) and time.monotonic() < deadline:
        time.sleep(0.001)
    child.kill()
    child.wait()
    for name in ("out", "whole"):
        arguments = {"layout": "tar", "shard_images": 2, "progress": False}
        export_run(files / "run", files / "pool", to=tmp_path / name, **arguments)
    assert artefacts(tmp_path / "out") == artefacts(tmp_path / "whole")
