"""The choices of a run by their names: all in the folder, each as a fresh run makes it."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import rsprune
from failures import raises
from rsprune.cli.app import app
from rsprune.errors import ArgumentError, ConfigMismatchError, OutputError
from rsprune.runners import NoProgress
from rsprune.runs.stages import embed_run, entropy_run
from rsprune.runs.verify import verify_run
from small_runs import Colours, artefacts, picture, small_prune, write_tar

#: What tells one choice from another; a page is of the newest.
FILES = ("config.json", "selection.parquet", "selected.txt", "summary.json", "quarantine.parquet")


class Notes(NoProgress):
    """Remembers what is noted."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


class Counting(Colours):
    """Counts the images that it embeds."""

    def __init__(self):
        super().__init__()
        self.images = 0

    def forward(self, pixels):
        self.images += len(pixels)
        return super().forward(pixels)


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    for s in range(3):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(24)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(12)})
    return folder


CALLS = {
    "rsprune-keep0.15-entropy-keep0.5": {"keep": 0.15},
    "rsprune-keep0.2-entropy-keep0.5": {"keep": 0.2},
    "kcenter-keep0.2-entropy-keep0.5": {"keep": 0.2, "strategy": "kcenter"},
    "rsprune-keep9-fill-waterfill-within-far": {"keep": 9, "fill": "waterfill", "within": "far", "entropy_keep": 0.3},
}


@pytest.fixture(scope="module")
def decided(tars, tmp_path_factory):
    """A folder in which all of these choices were made, and how many images each call embedded."""
    out, embedded = tmp_path_factory.mktemp("runs") / "run", []
    for settings in CALLS.values():
        encoder = Counting()
        small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", out, encoder=encoder, **settings)
        embedded.append(encoder.images)
    return out, embedded


def test_every_choice_is_kept_by_its_name_and_equals_a_fresh_run(tars, decided, tmp_path):
    out, embedded = decided
    assert embedded[0] > 36
    assert embedded[1:3] == [1, 1]  # one image of noise tries the encoder
    assert embedded[3] < 20  # a sample of what Stage I drops now
    for name, settings in CALLS.items():
        fresh = small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", tmp_path / name, **settings)
        want, made = artefacts(fresh.path), artefacts(out)
        assert [one for one in FILES if made[f"selections/{name}/{one}"] != want[one]] == []
        opened = rsprune.open(out, name=name)
        assert opened.keys == fresh.keys
        assert opened.indices.tolist() == fresh.indices.tolist()
        assert opened.summary == fresh.summary
    # The newest stands at the top level, too, page included.
    assert [one for one in (*FILES, "report.html") if made[one] != want[one]] == []
    assert verify_run(out).findings == []


def test_the_choices_are_listed(decided):
    out, _ = decided
    assert rsprune.open(out).selections == sorted(CALLS)
    listed = json.loads(CliRunner().invoke(app, ["explain", str(out), "--json"]).stdout)["selections"]
    assert [one["name"] for one in listed] == sorted(CALLS)
    assert {one["name"]: one["selected"] for one in listed} == dict(zip(CALLS, (10, 14, 14, 9), strict=True))
    assert [one["name"] for one in listed if one["newest"]] == [list(CALLS)[-1]]
    text = CliRunner().invoke(app, ["explain", str(out)]).stdout
    assert [name in text for name in CALLS] == [True] * 4


def test_whatever_takes_a_run_takes_a_choice_of_it(tars, decided, tmp_path):
    out, _ = decided
    name = list(CALLS)[1]
    run = rsprune.open(out / "selections" / name)
    assert run.path == out / "selections" / name
    assert run.keys == rsprune.open(out, name=name).keys
    to, source = tmp_path / "subset", str(tars / "pool-*.tar")
    done = CliRunner().invoke(app, ["export", str(run.path), "--source", source, "--as", "folder", "--to", str(to)])
    assert done.exit_code == 0, done.output
    assert sorted(path.stem for path in to.rglob("*.jpg")) == sorted(run.keys)
    assert verify_run(run.path).findings == []
    # What the tables still say of it is explained; Stage I keeps fewer images for the newest choice.
    newest = rsprune.open(out, name=list(CALLS)[-1])
    assert [one.kept for one in newest.explain(*newest.keys[:2])] == [True, True]
    with raises(ConfigMismatchError, run.path):
        run.explain(run.keys[0])


def test_a_choice_is_found_from_within_and_other_folders_are_no_choice(tars, decided, tmp_path, monkeypatch):
    out, name = decided[0], list(CALLS)[-1]
    monkeypatch.chdir(out / "selections")
    assert rsprune.open(name).explain(rsprune.open(out, name=name).keys[0])[0].kept
    # A folder of the user's own that is called so.
    (tmp_path / "config.json").write_text("{}")
    run = small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", tmp_path / "selections" / "mine", keep=9)
    assert run.path == tmp_path / "selections" / "mine"
    assert verify_run(run.path).findings == []


def test_names_are_checked(tars, decided, tmp_path):
    out, _ = decided
    pool, reference = str(tars / "pool-*.tar"), tars / "ref.tar"
    with raises(ArgumentError, "'nothing'", *CALLS):
        rsprune.open(out, name="nothing")
    for name in ("", "../above", "a/b", ".hidden", "x" * 101):
        with raises(ArgumentError, "name", repr(name)):
            small_prune(pool, reference, tmp_path / "run", name=name)
    assert not (tmp_path / "run").exists()
    with raises(OutputError, out / "selections" / "new"):
        small_prune(pool, reference, out / "selections" / "new")
    shutil.copytree(out, tmp_path / "run")
    small_prune(pool, reference, tmp_path / "run", keep=0.15, name="mine")
    before = artefacts(tmp_path / "run")
    with raises(ConfigMismatchError, tmp_path / "run" / "selections" / "mine", "selection.budget"):
        small_prune(pool, reference, tmp_path / "run", keep=0.2, name="mine")
    assert artefacts(tmp_path / "run") == before
    assert small_prune(pool, reference, tmp_path / "run", keep=0.15, name="mine").selections == sorted([*CALLS, "mine"])
    assert artefacts(tmp_path / "run") == before


def test_a_choice_that_was_lost_or_damaged_is_kept_again(tars, decided, tmp_path):
    out, name = tmp_path / "run", list(CALLS)[-1]
    shutil.copytree(decided[0], out)
    before = artefacts(out)
    (out / "selections" / name / "summary.json").unlink()
    (out / "selections" / name / "selected.txt").write_text("another\n")
    small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", out, **CALLS[name])
    assert artefacts(out) == before
    path = out / "selections" / next(iter(CALLS)) / "selected.txt"
    path.write_text("another\n")
    assert str(path.relative_to(out)) in [one.file for one in verify_run(out).findings]


@pytest.mark.parametrize("stage", ["entropy", "embed", "embed --centroids"])
def test_prune_goes_on_from_what_a_stage_wrote(tars, tmp_path, stage):
    pool, out, reference, encoder = str(tars / "pool-*.tar"), tmp_path / "run", tars / "ref.tar", Counting()
    fresh = small_prune(pool, reference, tmp_path / "fresh", keep=0.2)
    if stage == "entropy":
        entropy_run(pool, out=out, progress=False)
    elif stage == "embed":
        embed_run(pool, out=out, encoder=encoder, progress=False)
    else:
        reference = fresh.reader.centroids
        embed_run(pool, out=out, encoder=encoder, centroids=reference, keep_embeddings=True, progress=False)
        fresh = small_prune(pool, reference, tmp_path / "fitted", keep=0.2)
    before = {name: (out / name).stat().st_mtime_ns for name in artefacts(out) if name.startswith("entropy/")}
    embedded = encoder.images
    # The embeddings that are there stay, though it is not asked for them again.
    run = small_prune(pool, reference, out, keep=0.2, encoder=encoder, keep_embeddings=stage == "entropy")
    made, want = artefacts(run.path), artefacts(fresh.path)
    same = [name for name in want if name in (*FILES, "report.html") or name.endswith(".npy")]
    assert len(same) == 6 + 4 - ("-" in stage)
    assert [name for name in same if made[name] != want[name]] == []
    for name in (one for one in want if one.startswith(("embeddings/", "entropy/")) and one.endswith(".parquet")):
        assert pq.read_table(run.path / name) == pq.read_table(fresh.path / name)
    assert verify_run(run.path).findings == []
    if stage == "entropy":
        assert len(before) == 6
        assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    else:
        assert embedded == 69 + 1  # all that could be read, and one of noise
        # The reference, a sample of what Stage I drops, and one of noise; no survivor.
        assert encoder.images - embedded <= 12 * (stage == "embed") + 36 + 1


def test_a_strategy_that_needs_embeddings_has_them_made_where_clusters_alone_are_there(tars, tmp_path):
    pool, reference, notes = str(tars / "pool-*.tar"), tars / "ref.tar", Notes()
    first = small_prune(pool, reference, tmp_path / "run", keep=0.2, keep_embeddings=False)
    keys = first.keys
    assert not list(first.path.glob("embeddings/*.npy"))
    run = small_prune(pool, reference, first.path, keep=0.2, strategy="kcenter", keep_embeddings=False, progress=notes)
    assert any("embedded again" in note for note in notes.said)
    fresh = small_prune(pool, reference, tmp_path / "fresh", keep=0.2, strategy="kcenter")
    made, want = artefacts(run.path), artefacts(fresh.path)
    assert [name for name in (*FILES, "report.html") if made[name] != want[name]] == []
    assert rsprune.open(run.path, name="rsprune-keep0.2-entropy-keep0.5").keys == keys
    assert verify_run(run.path).findings == []
