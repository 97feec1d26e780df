"""Collections of images: what is found, in which order, under which name, and what is refused."""

import contextlib
import csv
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from failures import raises, warns
from rsprune import errors
from rsprune.sources import Item, Shard, SkippedFilesWarning, Source, image_files, open_source
from rsprune.sources.container import expand_braces
from rsprune.sources.filesystem import file_size
from rsprune.sources.image_files import SHARD_IMAGES
from rsprune.sources.key_lines import key_of_line, line_of_key, lines_of_keys
from rsprune.sources.tar import members


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def make_tar(path, files, format=tarfile.GNU_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def items(source):
    return [item for shard in source.shards for item in source.read(shard)]


def test_pixels_that_the_core_does_not_read_are_refused_when_the_item_is_made():
    pixels = np.zeros((4, 6, 3), np.uint16)
    assert Item("a", pixels).data is pixels
    with raises(errors.DtypeError, "a", "int64"):
        Item("a", pixels.astype(np.int64))
    with raises(errors.ArgumentError, "a"):
        Item("a", pixels[:, ::2])


def keys(source):
    return [item.key for item in items(source)]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_folder_finds_every_extension_in_any_case_and_nothing_hidden(tmp_path):
    good = ["a.jpg", "b.JPEG", "c.Png", "d.tif", "e.TIFF", "f.webp", "h.gif"]
    touch(tmp_path, *good, "g.txt", "jpg", ".hidden.jpg", ".cache/x.jpg", "._a.jpg")
    with warns(SkippedFilesWarning, 2):
        source = open_source(tmp_path)
    assert source.skipped == {".txt": 1, "": 1}
    assert keys(source) == good
    assert [item.data for item in items(source)] == [str(tmp_path / name) for name in good]


@given(
    st.sets(
        st.lists(st.text("aB.-_ é0/", min_size=1, max_size=3), min_size=1, max_size=3).map(
            lambda parts: "/".join(p.replace("/", "x").strip(".") + "z" for p in parts)
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_folder_order_is_that_of_the_relative_paths(tmp_path_factory, stems):
    root = tmp_path_factory.mktemp("folder")
    paths = [f"{stem}.jpg" for stem in stems]
    touch(root, *paths)
    assert keys(open_source(root)) == sorted(paths)


def test_folder_between_and_after_its_siblings(tmp_path):
    # As whole paths "a-/x" < "a.jpg" < "a/x" < "a0.jpg": sorting folder names alone gets this wrong.
    touch(tmp_path, "a/x.jpg", "a.jpg", "a-/x.jpg", "a0.jpg")
    assert keys(open_source(tmp_path)) == ["a-/x.jpg", "a.jpg", "a/x.jpg", "a0.jpg"]


def test_class_folders_label_only_if_every_image_lies_in_one(tmp_path):
    touch(tmp_path, "Beach/deep/b.jpg", "Airport/a.jpg")
    assert [(item.key, item.label) for item in items(open_source(tmp_path))] == [
        ("Airport/a.jpg", "Airport"),
        ("Beach/deep/b.jpg", "Beach"),
    ]
    touch(tmp_path, "zzz.jpg")
    assert {item.label for item in items(open_source(tmp_path))} == {None}


def test_shards_hold_4096_images_and_rows_pick_among_them(tmp_path):
    (tmp_path / "f").mkdir()
    for i in range(SHARD_IMAGES + 3):
        os.close(os.open(tmp_path / "f" / f"{i:05d}.png", os.O_CREAT))
    source = open_source(tmp_path / "f")
    assert source.shards == (Shard("part-000000"), Shard("part-000001"))
    assert [source.count(shard) for shard in source.shards] == [SHARD_IMAGES, 3]
    assert source.total() == SHARD_IMAGES + 3
    assert [item.key for item in source.read(source.shards[1], [0, 2])] == ["04096.png", "04098.png"]
    assert list(source.read(source.shards[0], [])) == []
    for rows in ([2, 1], [1, 1], [3], [-1]):
        with raises(errors.ArgumentError, "part-000001"):
            list(source.read(source.shards[1], rows))


def test_symlink_loop_ends_and_dangling_link_is_kept(tmp_path):
    touch(tmp_path, "a/x.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert keys(open_source(tmp_path)) == ["a/gone.jpg", "a/x.jpg"]  # b is a, which was read


def test_folder_without_images_names_itself_and_what_it_holds(tmp_path):
    touch(tmp_path, "a.txt", "b.txt")
    with raises(errors.EmptyInputError, "2 .txt") as caught:
        open_source(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_unreadable_folder(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.jpg", "locked/y.jpg")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # root reads everything, whatever its mode
    with raises(PermissionError, "locked"):
        open_source(tmp_path)


def test_file_name_that_is_not_utf8(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with raises(errors.SourceError, "UTF-8"):
        open_source(tmp_path)


def test_folder_of_tars(tmp_path):
    make_tar(tmp_path / "train" / "b.tar", [("1.jpg", b"1")])
    make_tar(tmp_path / "train" / "a.tar", [("0.jpg", b"0")])
    assert items(open_source(tmp_path)) == [Item("0", b"0"), Item("1", b"1")]


def test_folder_fingerprint_is_that_of_a_copy_and_of_no_other_folder(tmp_path):
    touch(tmp_path / "one", "a.jpg", "b.jpg")
    touch(tmp_path / "two", "a.jpg", "b.jpg")
    seen = [open_source(tmp_path / "one").fingerprint()]
    os.utime(tmp_path / "two" / "a.jpg", (1, 1))
    assert open_source(tmp_path / "two").fingerprint() == seen[0]
    (tmp_path / "two" / "b.jpg").write_bytes(b"longer than before")
    seen.append(open_source(tmp_path / "two").fingerprint())
    (tmp_path / "two" / "a.jpg").rename(tmp_path / "two" / "c.jpg")
    seen.append(open_source(tmp_path / "two").fingerprint())
    assert all(seen[i] != seen[j] for i in range(3) for j in range(i))


def test_size_of_a_shard_leaves_out_what_is_missing(tmp_path):
    touch(tmp_path, "a.jpg", "dir/b.jpg")
    (tmp_path / "c.jpg").symlink_to(tmp_path / "nowhere")
    source = open_source(tmp_path)
    assert source.size(source.shards[0]) == len("a.jpg") + len("dir/b.jpg")
    assert source.count(source.shards[0]) == 3


# --- lists ------------------------------------------------------------------------------------------------------------


def test_list_skips_blanks_and_comments_and_keeps_the_order(tmp_path):
    path = tmp_path / "list.txt"
    touch(tmp_path, "sub/a b.jpg", "abs/y.tif")  # the others are missing, which is found when they are read
    absolute = f"{tmp_path}/abs/x.tif"
    path.write_bytes(b"\xef\xbb\xbf# header\r\nz.jpg\r\n\r\n  # no\r\nsub/a b.jpg \r\n" + absolute.encode())
    source = open_source(path)
    assert items(source) == [
        Item("z.jpg", str(tmp_path / "z.jpg")),
        Item("sub/a b.jpg", str(tmp_path / "sub/a b.jpg")),
        Item(absolute, absolute),
    ]
    assert source.fingerprint()["kind"] == "list"


def test_csv_with_labels_and_other_columns(tmp_path):
    path = tmp_path / "list.csv"
    touch(tmp_path, "c.jpg")
    path.write_text('# made by hand\nid, Path ,label\n1,"a,b.jpg",Beach\n\n2,c.jpg,Port\n')
    assert [(item.key, item.label) for item in items(open_source(path))] == [("a,b.jpg", "Beach"), ("c.jpg", "Port")]


@pytest.mark.parametrize(
    ("name", "text", "error", "values"),
    [
        ("l.txt", "", errors.EmptyInputError, ("l.txt",)),
        ("l.csv", "", errors.EmptyInputError, ("l.csv",)),
        ("l.csv", "path,label\n", errors.EmptyInputError, ("l.csv",)),
        ("l.csv", "file\na.jpg\n", errors.SourceError, ("'path'",)),
        ("l.csv", "path,label\n#\na.jpg\n", errors.SourceError, (3, 2)),
        ("l.lst", "a.jpg\n#\n\nb.jpg\na.jpg\n", errors.DuplicateKeyError, (1, 5, "'a.jpg'")),
        ("l.csv", "path\nb\na\n\na\n", errors.DuplicateKeyError, (3, 5, "'a'")),
        ("l.txt", "a\0b\n", errors.SourceError, (1,)),
        ("l.txt", "a.jpg\nb.jpg\n", FileNotFoundError, ("'a.jpg'", 2)),
        ("l.csv", "path\nx/a.jpg\n", FileNotFoundError, ("x/a.jpg", 1)),
        ("l.txt", "a.tar\nb.jpg\n", errors.SourceError, (2, "'b.jpg'")),
        ("l.txt", "a.jpg\nb.tar\n", errors.SourceError, (2, "'b.tar'")),
        ("l.txt", "a.tar\nb.tar\n", FileNotFoundError, ("a.tar",)),
        ("l.csv", 'path\n"a.jpg\n' + "b.jpg\n" * 40_000, errors.SourceError, ("l.csv",)),
    ],
)
def test_list_refuses(tmp_path, name, text, error, values):
    (tmp_path / name).write_text(text)
    with raises(error, *values):
        open_source(tmp_path / name)


def test_a_list_of_files_that_are_somewhere_else_says_where_they_were_looked_for(tmp_path, monkeypatch):
    touch(tmp_path, "images/a.jpg", "lists/x.txt")
    (tmp_path / "lists" / "x.txt").write_text("images/a.jpg\nimages/b.jpg\n")
    monkeypatch.chdir(tmp_path)
    with raises(FileNotFoundError, 2, "'images/a.jpg'", "lists/images/a.jpg", "current folder"):
        open_source("lists/x.txt")
    (tmp_path / "lists" / "x.txt").write_text("../images/a.jpg\n../images/b.jpg\n")
    assert keys(open_source("lists/x.txt")) == ["../images/a.jpg", "../images/b.jpg"]


@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_a_list_of_tar_files_is_their_images(tmp_path, name):
    for i in range(3):
        make_tar(tmp_path / f"tars/{i}.tar", [(f"{i}.jpg", b""), (f"{i}.png", b"")])
    header = "path\n" if name == "l.csv" else ""
    (tmp_path / name).write_text(f"{header}tars/1.tar#png\n\n# the others\n{tmp_path}/tars/{{2..2}}.tar#png\n")
    source = open_source(tmp_path / name)
    assert [shard.name for shard in source.shards] == ["1", "2"]
    assert keys(source) == ["1", "2"]
    assert source.fingerprint()["kind"] == "webdataset"


def test_keys_of_any_characters_are_read_back_from_lines(tmp_path):
    names = [
        "a.jpg",
        "a b.jpg",
        "é\u3000.jpg",
        "a\nb.jpg",
        "\r.jpg",
        " a.jpg",
        "#1.jpg",
        '"a".jpg',
        "\x1b[31m.jpg",
        "a\\n.jpg",
    ]
    names += ["a\x85b.jpg", "a\u2028b.jpg", "\ufeffa.jpg", "b.jpg "]
    touch(tmp_path, *names)
    lines = [line_of_key(name) for name in names]
    assert lines[:2] + lines[9:10] == ["a.jpg", "a b.jpg", "a\\n.jpg"]  # ordinary keys stay as they are
    text = "".join(f"{line}\n" for line in lines)
    assert text.splitlines() == lines
    assert all(line.isprintable() for line in lines)
    (tmp_path / "l.txt").write_text(text, encoding="utf-8")
    assert keys(open_source(tmp_path / "l.txt")) == names
    with (tmp_path / "l.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
            [("path", "label"), *((name, "x\ny") for name in names if not name.startswith("#"))]
        )
    assert keys(open_source(tmp_path / "l.csv")) == [name for name in names if not name.startswith("#")]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_key_is_one_line(key):
    line = line_of_key(key)
    assert line.splitlines() == [line]
    assert line == line.strip()
    assert key_of_line(line) == key
    assert lines_of_keys(pa.chunked_array([["a b", key], [key]], pa.string())) == f"a b\n{line}\n{line}\n"


def test_the_size_of_a_file_is_asked_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "SHARD_IMAGES", 5)
    monkeypatch.setattr(image_files, "STAT_BLOCK", 2)
    names = [f"{i:02d}.jpg" for i in range(13)]
    touch(tmp_path, *names)
    (tmp_path / "07.jpg").write_bytes(b"longer")
    asked = []
    monkeypatch.setattr(image_files, "file_size", lambda path: asked.append(Path(path).name) or file_size(path))
    source = open_source(tmp_path)
    fingerprint = source.fingerprint()
    assert sorted(asked) == names
    assert [source.size(shard) for shard in source.shards] == [
        sum((tmp_path / name).stat().st_size for name in names[start : start + 5]) for start in (0, 5, 10)
    ]
    assert (source.fingerprint(), sorted(asked)) == (fingerprint, names)


def test_list_that_is_not_utf8(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"a.jpg\n\xff\xfe\n")
    with raises(errors.SourceError, "UTF-8"):
        open_source(tmp_path / "l.txt")


# --- tar files --------------------------------------------------------------------------------------------------------


def test_webdataset_samples(tmp_path):
    path = make_tar(
        tmp_path / "s.tar",
        [
            ("only.txt", b"caption"),
            ("a.jpg", b"A"),
            ("a.json", b"{}"),
            ("b.seg.png", b"a mask"),
            ("b.TIF", b"B"),
            ("rs5m.img_content", b"C"),
            ("._a.jpg", b"resource fork"),
            ("a.jpg", b"A again"),
        ],
    )
    source = open_source(path)
    assert source.shards == (Shard("s"),)
    assert items(source) == [Item("a", b"A"), Item("b", b"B"), Item("rs5m", b"C"), Item("a", b"A again")]
    assert [item.data for item in source.read(source.shards[0], [1, 3])] == [b"B", b"A again"]
    with warns(SkippedFilesWarning, 1, ".txt"):  # the caption without an image
        assert source.count(source.shards[0]) == 4
    with pytest.raises(errors.ArgumentError):
        list(source.read(source.shards[0], [4]))


def test_class_folders_in_a_tar(tmp_path):
    path = make_tar(tmp_path / "s.tar", [("./Airport/x.1.jpg", b""), ("./Beach/a.b/y.jpg", b"")])
    labels = [(item.key, item.label) for item in items(open_source(path))]
    assert labels == [("./Airport/x.1", "Airport"), ("./Beach/a.b/y", "Beach")]
    path = make_tar(tmp_path / "t.tar", [("Airport/x.jpg", b""), ("y.jpg", b"")])
    assert [(item.key, item.label) for item in items(open_source(path))] == [("Airport/x", None), ("y", None)]


def test_lists_of_webdataset_are_one_collection(tmp_path, monkeypatch):
    for i in range(4):
        make_tar(tmp_path / f"{i}.tar", [(f"{i}.jpg", b""), (f"{i}.png", b"")])
    monkeypatch.chdir(tmp_path)
    for spec in (
        "0.tar::{1..2}.tar::3.tar#jpg",
        "0.tar#jpg::{1..2}.tar#jpg::3.tar#jpg",
        ["0.tar::1.tar#jpg", "{2..3}.tar#jpg"],
    ):
        assert keys(open_source(spec)) == ["0", "1", "2", "3"]
    with raises(errors.SourceError, "'jpg'", "'png'"):
        open_source("0.tar#jpg::1.tar#png")
    with raises(FileNotFoundError, "4.tar"):
        open_source("0.tar::4.tar")
    for spec in ("ftp://pool/0.tar", "pipe:cat 0.tar", "0.tar::ftp://pool/0.tar", ["0.tar", "ftp://pool/{0..3}.tar"]):
        with raises(errors.SourceError, "local disk"):
            open_source(spec)
    (tmp_path / "a::b.tar").write_bytes((tmp_path / "0.tar").read_bytes())
    assert keys(open_source("a::b.tar#jpg")) == ["0"]
    touch(tmp_path, "folder/x.jpg")
    assert keys(open_source(["0.tar#jpg", "folder", "1.tar::2.tar#png"])) == ["0/0", "1/x.jpg", "2/1", "2/2"]


def test_a_folder_of_tars_and_stray_images_is_refused(tmp_path):
    for i in range(2):
        make_tar(tmp_path / f"sub/{i}.tar", [(f"{i}.jpg", b"")])
    touch(tmp_path, "stray.jpg", "sub/readme.txt", "sub/index.json")
    with raises(errors.SourceError, "1 images", "2 .tar", f"{tmp_path}/**/*.tar"):
        open_source(tmp_path)
    assert keys(open_source(f"{tmp_path}/**/*.tar")) == ["0", "1"]
    (tmp_path / "stray.jpg").unlink()
    with warns(SkippedFilesWarning, 2, ".txt", ".json"):
        assert keys(open_source(tmp_path)) == ["0", "1"]
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")  # images, and archives beside them
    with warns(SkippedFilesWarning, "2 .tar", "1 .txt"):
        assert keys(open_source(tmp_path)) == ["a.jpg", "b.jpg", "c.jpg"]


def test_pattern_range_and_list_are_one_collection(tmp_path):
    for i in range(3):
        make_tar(tmp_path / f"pool-{i:02d}.tar", [(f"{i}.jpg", b"")])
    by_range = open_source(str(tmp_path / "pool-{00..02}.tar"))
    assert [shard.name for shard in by_range.shards] == ["pool-00", "pool-01", "pool-02"]
    assert keys(by_range) == ["0", "1", "2"]
    by_list = open_source([tmp_path / "pool-02.tar", tmp_path / "pool-00.tar", tmp_path / "pool-01.tar"])
    by_glob = open_source(f"{tmp_path}/pool-*.tar")
    assert by_range.fingerprint() == by_list.fingerprint() == by_glob.fingerprint()
    with raises(errors.SourceError, "pool-00.tar"):
        open_source([f"{tmp_path}/pool-*.tar", f"{tmp_path}/pool-00.tar"])
    with raises(FileNotFoundError, "pool-03.tar"):
        open_source(str(tmp_path / "pool-{00..03}.tar"))
    with raises(FileNotFoundError, "none-*.tar"):
        open_source(str(tmp_path / "none-*.tar"))


def test_same_stem_in_two_folders_gets_two_names(tmp_path):
    for folder in ("train", "val", "val+x"):
        make_tar(tmp_path / folder / "0.tar", [("k.jpg", folder.encode())])
    source = open_source(tmp_path)
    assert [shard.name for shard in source.shards] == sorted(["train+0", "val+0", "val%2Bx+0"])
    assert keys(source) == ["k", "k", "k"]  # told apart, and refused or not, by those who know all shards


def test_shard_names_are_file_names(tmp_path):
    name = open_source(make_tar(tmp_path / "a b:c.tar", [("k.jpg", b"")])).shards[0].name
    assert (tmp_path / f"{name}.parquet").parent == tmp_path
    assert not set(name) & set('/\\:*?"<>| ')


def test_braces_expand_as_in_the_shell():
    assert expand_braces("x") == ["x"]
    assert expand_braces("{a,b}-{8..10}") == ["a-8", "a-9", "a-10", "b-8", "b-9", "b-10"]
    assert expand_braces("p-{098..101}.tar") == ["p-098.tar", "p-099.tar", "p-100.tar", "p-101.tar"]
    assert expand_braces("{x}") == ["{x}"]
    with raises(errors.SourceError, "{5..1}"):
        expand_braces("{5..1}")


def own_members(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return [tuple(member)[:3] for member in members(fd, str(path)) if not member.problem]
    finally:
        os.close(fd)


def tarfile_members(path):
    with tarfile.open(path) as tar:
        return [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]


@given(
    st.lists(
        st.tuples(
            st.text("abé/. ", min_size=1, max_size=30).map(lambda s: "d/" + s.replace("/.", "/x").strip("/ ") + "e"),
            st.integers(0, 1500),
            st.sampled_from([0, 0, 0, 90, 200, 700]),
        ),
        max_size=8,
    ),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=100, deadline=None)
def test_tar_members_are_those_of_tarfile(tmp_path_factory, files, format):
    path = tmp_path_factory.mktemp("tar") / "t.tar"
    most = 60 if format == tarfile.USTAR_FORMAT else 1000
    make_tar(path, [(name + "/n" * min(extra, most), bytes(size)) for name, size, extra in files], format)
    assert own_members(path) == tarfile_members(path)


def test_links_in_a_tar_have_the_data_of_the_members_that_they_name(tmp_path):
    path = tmp_path / "t.tar"
    links = [("d.jpg", tarfile.DIRTYPE, ""), ("s.jpg", tarfile.SYMTYPE, "x.jpg"), ("h.jpg", tarfile.LNKTYPE, "./x.jpg")]
    links += [("dir/up.jpg", tarfile.SYMTYPE, "../s.jpg"), ("long.jpg", tarfile.SYMTYPE, "n" * 150 + ".jpg")]
    links += [("out.jpg", tarfile.SYMTYPE, "../x.jpg"), ("abs.jpg", tarfile.SYMTYPE, "/etc/x.jpg")]
    links += [("loop.jpg", tarfile.SYMTYPE, "pool.jpg"), ("pool.jpg", tarfile.SYMTYPE, "loop.jpg")]
    links += [("none.jpg", tarfile.LNKTYPE, "later.jpg"), ("pipe.jpg", tarfile.FIFOTYPE, "")]
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(path, "w", format=format) as tar:
            for name, data in (("x.jpg", b"X"), ("n" * 150 + ".jpg", b"N")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for name, kind, target in links:
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, target
                tar.addfile(info)
            info = tarfile.TarInfo("later.jpg")
            tar.addfile(info)
        source = open_source(path)
        found = [(item.key, item.data) for item in items(source)]
        x, n = ("x", b"X"), ("n" * 150, b"N")
        assert found == [x, n, ("s", b"X"), ("h", b"X"), ("dir/up", b"X"), ("long", b"N"), ("later", b"")]
        with warns(SkippedFilesWarning, "4 .jpg (symbolic link", "1 .jpg (hard link", "1 .jpg (fifo", 6):
            assert source.count(source.shards[0]) == 7


def test_links_name_members_of_their_own_tar_file_where_two_are_joined(tmp_path):
    parts = []
    for data in (b"A", b"B"):
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            info = tarfile.TarInfo("x.jpg")
            info.size = 1
            tar.addfile(info, io.BytesIO(data))
            info = tarfile.TarInfo("y.jpg")
            info.type, info.linkname = tarfile.SYMTYPE, "x.jpg"
            tar.addfile(info)
        parts.append((tmp_path / "t.tar").read_bytes())
    (tmp_path / "t.tar").write_bytes(b"".join(parts))
    assert items(open_source(tmp_path / "t.tar")) == [
        Item("x", b"A"),
        Item("y", b"A"),
        Item("x", b"B"),
        Item("y", b"B"),
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_joined_tar_files_are_read_as_tarfile_reads_them(tmp_path_factory, parts, rest):
    path, data = tmp_path_factory.mktemp("tar") / "t.tar", b""
    for number, (count, padded) in enumerate(parts):
        make_tar(path, [(f"{number}-{i}.jpg", bytes(100 * i)) for i in range(count)])
        data += path.read_bytes()[: None if padded else 1024 * (count + 1) if count else 512]
    path.write_bytes(data + bytes(512 * rest))
    with tarfile.open(path, ignore_zeros=True) as tar:
        assert own_members(path) == [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]


def test_what_follows_the_end_of_a_tar_and_is_none_is_counted(tmp_path):
    path = make_tar(tmp_path / "t.tar", [("a.jpg", b"A")])
    path.write_bytes(path.read_bytes() + b"garbage" * 100)
    source = open_source(path)
    with warns(SkippedFilesWarning, 1, "end of the tar file"):
        assert source.total() == 1
    second = make_tar(tmp_path / "u.tar", [("b.jpg", bytes(4000))]).read_bytes()
    path.write_bytes(make_tar(path, [("a.jpg", b"A")]).read_bytes() + second[:2000])
    with raises(errors.FormatError, "t.tar"):
        open_source(path).total()


def test_tar_cut_anywhere_is_an_error(tmp_path):
    path = make_tar(tmp_path / "t.tar", [("a.jpg", bytes(700)), ("n" * 150 + ".jpg", b"x" * 600)])
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 1024
    for length in [*range(256, end, 256), end - 1, end + 511]:
        path.write_bytes(whole[:length])
        with raises(errors.FormatError, "t.tar"):
            own_members(path)
    path.write_bytes(whole[: end + 512])  # one block of zeros is enough
    assert len(own_members(path)) == 2


@given(st.integers(0, 3000), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_tar_with_a_changed_byte_never_crashes(tmp_path_factory, at, value):
    path = tmp_path_factory.getbasetemp() / "changed.tar"
    make_tar(path, [("a.jpg", bytes(30)), ("é" * 120 + ".jpg", bytes(30))], tarfile.PAX_FORMAT)
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(data)
    # An error of its own, or members that lie in the file.
    with contextlib.suppress(errors.FormatError):
        assert all(0 <= offset <= offset + size <= len(data) for _, offset, size in own_members(path))


def test_tar_member_of_negative_size(tmp_path):
    path = make_tar(tmp_path / "t.tar", [("a.jpg", b"")])
    data = bytearray(path.read_bytes())
    data[124:136] = b"-0000001000\0"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    path.write_bytes(data)
    with raises(errors.FormatError, "t.tar", -512):
        own_members(path)


def test_tar_that_is_something_else(tmp_path):
    (tmp_path / "t.tar").write_bytes(b"\x1f\x8b" + bytes(range(256)) * 8)
    with raises(errors.FormatError, tmp_path / "t.tar"):
        items(open_source(tmp_path / "t.tar"))


def test_a_shard_without_images_has_no_rows_and_a_collection_without_images_is_an_error(tmp_path):
    make_tar(tmp_path / "a.tar", [("a.txt", b"")])
    (tmp_path / "b.tar").touch()
    make_tar(tmp_path / "c.tar", [])
    for name, kind in (("a", ".txt"), ("b", "empty"), ("c", "empty")):
        source = open_source(tmp_path / f"{name}.tar")
        assert items(source) == []
        with warns(SkippedFilesWarning, tmp_path / f"{name}.tar", kind), raises(errors.EmptyInputError, name):
            source.total()
    make_tar(tmp_path / "d.tar", [("d.jpg", b"D")])
    source = open_source(tmp_path)
    with warns(SkippedFilesWarning, tmp_path / "b.tar"):
        assert [source.count(shard) for shard in source.shards] == [0, 0, 0, 1]
    assert (source.total(), keys(source)) == (1, ["d"])


def test_all_damaged_shards_are_named_at_once(tmp_path):
    for name in "abc":
        make_tar(tmp_path / f"{name}.tar", [("x.jpg", bytes(5000))])
    for name in "ac":
        os.truncate(tmp_path / f"{name}.tar", 3000)
    with raises(errors.FormatError, tmp_path / "a.tar", tmp_path / "c.tar", 2, 3):
        open_source(tmp_path).total()


def test_tar_count_size_and_fingerprint(tmp_path):
    path = make_tar(tmp_path / "t.tar", [("a.jpg", b""), ("a.txt", b""), ("b.jpg", b"")])
    source = open_source([path, make_tar(tmp_path / "u.tar", [("c.jpg", bytes(20_000))])])
    assert [source.count(shard) for shard in source.shards] == [2, 1]
    assert source.total() == 3
    assert source.size(source.shards[0]) == path.stat().st_size
    before = source.fingerprint()
    make_tar(path, [("a.jpg", bytes(20_000))])
    assert source.fingerprint() != before


def test_reading_closes_the_file(tmp_path, monkeypatch):
    source = open_source(make_tar(tmp_path / "t.tar", [("a.jpg", b""), ("b.jpg", b"")]))
    opened, closed = [], []
    monkeypatch.setattr(os, "open", lambda *args, real=os.open: opened.append(real(*args)) or opened[-1])
    monkeypatch.setattr(os, "close", lambda fd, real=os.close: closed.append(fd) or real(fd))
    reading = source.read(source.shards[0])
    next(reading)
    assert (len(opened), len(closed)) == (1, 0)
    reading.close()
    assert closed == opened


# --- all of them ------------------------------------------------------------------------------------------------------


def test_several_collections_join_in_their_order(tmp_path):
    touch(tmp_path, "one/Airport/1.jpg", "two/Airport/1.jpg")
    make_tar(tmp_path / "t.tar", [("Airport/1.jpg", b"")])
    source = open_source([tmp_path / "two", tmp_path / "t.tar", open_source(tmp_path / "one")])
    assert [(item.key, item.label) for item in items(source)] == [
        ("0/Airport/1.jpg", "Airport"),
        ("1/Airport/1", "Airport"),
        ("2/Airport/1.jpg", "Airport"),
    ]
    names = [shard.name for shard in source.shards]
    assert names == sorted(set(names)) == ["0-part-000000", "1-t", "2-part-000000"]
    assert [(source.count(shard), source.size(shard) > 0) for shard in source.shards] == [(1, True)] * 3
    assert [part["kind"] for part in source.fingerprint()["sources"]] == ["folder", "webdataset", "folder"]


def test_sources_pickle(tmp_path):
    touch(tmp_path, "f/a.jpg")
    make_tar(tmp_path / "t.tar", [("b.jpg", b"B")])
    source = open_source([tmp_path / "f", tmp_path / "t.tar"])
    assert items(pickle.loads(pickle.dumps(source))) == items(source)


def test_open_source_returns_a_source_as_it_is(tmp_path):
    touch(tmp_path, "a.jpg")
    source = open_source(tmp_path)
    assert open_source(source) is source
    assert open_source([str(tmp_path)]).fingerprint() == source.fingerprint()


@pytest.mark.parametrize(
    ("spec", "error", "values"),
    [
        (3, errors.SourceError, (3,)),
        (b"x", errors.SourceError, ("bytes",)),
        ([], errors.EmptyInputError, ()),
        ("nowhere", FileNotFoundError, ("nowhere",)),
        ("nowhere.txt", FileNotFoundError, ("nowhere.txt",)),
        ("ftp://bucket/x.tar.gz", errors.SourceError, ("ftp://bucket/x.tar.gz",)),
        ("x.tar.zst", errors.SourceError, ("x.tar.zst",)),
        ("x.jpg", errors.SourceError, ("x.jpg",)),
    ],
)
def test_open_source_refuses(tmp_path, monkeypatch, spec, error, values):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "x.tar.zst", "x.jpg")
    with raises(error, *values):
        open_source(spec)


def test_a_source_class_that_is_opened_by_its_constructor_alone_says_so():
    with raises(errors.SourceError, "Source", repr("x")):
        Source.open("x")
