"""What options leave out of the choice of a run: the same as `rsprune.select` does with the stored embeddings."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import rsprune
from failures import raises
from rsprune.cli.app import app
from rsprune.encoders import Encoder
from rsprune.errors import ArgumentError, BudgetError, EncoderMismatchError, ShapeError
from rsprune.runs.reader import RunReader
from rsprune.runs.stages import embed_run
from rsprune.runs.verify import verify_run
from small_runs import Colours, artefacts, picture, small_prune, write_tar

CITIES = ("Oslo", "Bern", "Rome", None)


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
    """Three shards of images of four cities, a reference, and an evaluation set."""
    folder = tmp_path_factory.mktemp("tars")
    for s in range(3):
        members = {}
        for i in range(24):
            members[f"{s}-{i:02d}.jpg"] = picture(100 * s + i)
            city = CITIES[(i * i + s) % 4]
            members[f"{s}-{i:02d}.json"] = json.dumps({"city": city, "size": [1, 2]} if city else {}).encode()
        write_tar(folder / f"pool-{s}.tar", members)
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(12)})
    write_tar(folder / "test.tar", {f"t{i}.jpg": picture(100 * i + 3) for i in range(3)})
    embed_run(folder / "test.tar", out=folder / "test", encoder=Colours(), progress=False)
    return folder


def run_of(tars, out, **options):
    return small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", out, k=4, entropy_keep=0.8, **options)


@pytest.fixture(scope="module")
def plain(tars, tmp_path_factory):
    """A run without any of these options, and what its tables say."""
    run = run_of(tars, tmp_path_factory.mktemp("plain") / "run", keep=12)
    reader = RunReader(run.path)
    return run, reader, reader.embedded_numbers()


def again(plain, keep, **options):
    """The same choice by `select`: the numbers in the collection of what it chose, and what it left out."""
    _, reader, numbers = plain
    chosen = rsprune.select(reader.embeddings(), reader.centroids, keep, **options)
    left_out = {name: numbers[getattr(chosen, name)].tolist() for name in ("leaks", "duplicates", "surplus")}
    return numbers[chosen.indices].tolist(), chosen.phase.tolist(), chosen.counts.tolist(), left_out


def said(run):
    chosen = run.selection
    left_out = {name: getattr(chosen, name).tolist() for name in ("leaks", "duplicates", "surplus")}
    return chosen.indices.tolist(), chosen.phase.tolist(), chosen.counts.tolist(), left_out


def cities_of(plain):
    """The city of each embedded image."""
    _, _, numbers = plain
    return np.array([CITIES[((n % 24) ** 2 + n // 24) % 4] or "(none)" for n in numbers.tolist()])


def kept_cities(run):
    """The city of each image that was kept, as the manifest has it."""
    return [json.loads(one).get("city", "(none)") for one in run.metadata["json"].to_pylist()]


def test_near_duplicates_leaks_and_keys_are_left_out(tars, plain, tmp_path):
    run, reader, numbers = plain
    keys = [run.keys[0], run.keys[5], "2-23"]
    (tmp_path / "never.txt").write_text("\n".join([*keys, "not-there"]))
    options = {"dedup": 0.01, "leak_eps": 0.001, "min_similarity": 0.5, "fill": "waterfill"}
    got = run_of(tars, tmp_path / "run", keep=12, exclude=tmp_path / "never.txt", leaks=tars / "test", **options)
    places = {key: at for shard in reader.shards for at, key in enumerate(reader.keys(shard).to_pylist())}
    never = [int(key[0]) * 24 + places[key] for key in keys]
    test = np.load(tars / "test" / "embeddings" / "test.npy")
    assert said(got) == again(plain, 12, exclude=np.isin(numbers, never), leaks=test, **options)
    counts = got.summary["excluded"]
    assert counts["exclude"] == np.isin(numbers, never).sum() >= 2
    assert counts["leaks"] == len(got.selection.leaks) >= 1
    assert counts["dedup"] == len(got.selection.duplicates) >= 1
    assert not set(keys) & set(got.keys)
    assert f"{counts['leaks']} by leaks" in got.describe()
    assert f"Left out before: {counts['dedup']} images by dedup, " in got.report.read_text()
    assert verify_run(got.path).findings == []
    # Each image that was left out says why.
    table = pq.read_table(got.path / "excluded.parquet")
    assert Counter(table["reason"].to_pylist()) == counts
    told = {one.key: one for one in got.explain(*table["key"].to_pylist())}
    assert [told[row["key"]].excluded for row in table.to_pylist()] == table["reason"].to_pylist()
    assert "near-duplicate" in next(one.text() for one in told.values() if one.excluded == "dedup")
    assert [one.excluded for one in got.explain(*got.keys)] == [None] * 12


def test_no_group_has_more_than_its_maximum_and_groups_have_shares(tars, plain, tmp_path):
    cities = cities_of(plain)
    bounded = run_of(tars, tmp_path / "run", keep=7, groups="json.city", max_per_group=2)
    assert said(bounded) == again(plain, 7, groups=cities, max_per_group=2)
    assert bounded.summary["excluded"] == {"max_per_group": len(cities) - 8}
    assert max(Counter(kept_cities(bounded)).values()) <= 2
    assert verify_run(bounded.path).findings == []
    with raises(BudgetError, 9, 8):
        run_of(tars, tmp_path / "run", keep=9, groups="json.city", max_per_group=2)
    shared = run_of(tars, tmp_path / "run", keep=24, groups="json.city", quotas={"Oslo": 8, "(none)": 0.25})
    assert said(shared) == again(plain, 24, groups=cities, quotas={"Oslo": 8, "(none)": 0.25})
    assert Counter(kept_cities(shared))["Oslo"] == 8
    told = {one["group"]: one["selected"] for one in shared.summary["groups"]["largest"]}
    assert (told["Oslo"], told["(none)"], sum(told.values())) == (8, 6, 24)
    assert shared.summary["quota"] is None
    assert "Each of 4 groups by json.city has its own share" in shared.report.read_text()
    assert "Oslo" in json.dumps(json.loads((shared.path / "config.json").read_text())["selection"]["quotas"])
    assert verify_run(shared.path).findings == []
    assert not (shared.path / "excluded.parquet").exists()
    even = run_of(tars, tmp_path / "run", keep=12, groups="shard", quotas="even")
    assert Counter(even.reader.selected(["shard"])["shard"].to_pylist()) == {f"pool-{s}": 4 for s in range(3)}


def test_clusters_have_quotas_and_a_choice_is_topped_up(tars, plain, tmp_path):
    first = run_of(tars, tmp_path / "run", keep=12, quotas={"1": 4, "2": 0})
    assert said(first) == again(plain, 12, quotas={1: 4, 2: 0})
    assert first.summary["clusters"]["quota"][1:3] == [4, 0]
    more = run_of(tars, tmp_path / "run", keep=20, dedup=0.003, preselected=True)
    numbers = plain[2]
    held = np.isin(numbers, first.indices)
    assert said(more)[0] == again(plain, 20, dedup=0.003, preselected=held)[0]
    assert verify_run(more.path).findings == []


def test_each_is_decided_anew_on_what_is_there(tars, plain, tmp_path):
    encoder = Counting()
    calls = {"rsprune-keep12-dedup0.002-entropy-keep0.8": {"dedup": 0.002}}
    calls["rsprune-keep12-groups-json.city-max-per-group3-entropy-keep0.8"] = {
        "groups": "json.city",
        "max_per_group": 3,
    }
    calls["rsprune-keep12-entropy-keep0.8"] = {}
    for options in calls.values():
        run = run_of(tars, tmp_path / "run", keep=12, encoder=encoder, **options)
    embedded = encoder.images
    assert run.selections == sorted(calls)
    made = artefacts(run.path)
    assert {name.rpartition("/")[2] for name in made if name.startswith(f"selections/{next(iter(calls))}/")} >= {
        "excluded.parquet"
    }
    for name, options in calls.items():
        fresh = artefacts(run_of(tars, tmp_path / name, keep=12, **options).path)
        of_choice = [one for one in fresh if one.startswith(f"selections/{name}/")]
        assert [one for one in of_choice if fresh[one] != made[one]] == []
    assert embedded < 2 * 72 + 20  # the pool once
    assert verify_run(run.path).findings == []


@pytest.mark.parametrize(
    ("options", "error", "values"),
    [
        ({"dedup": 0.01, "keep_embeddings": False}, ArgumentError, ("dedup", "--keep-embeddings")),
        ({"leaks": "TEST", "leak_eps": 0.1, "keep_embeddings": False}, ArgumentError, ("leaks", "--keep-embeddings")),
        ({"leaks": "TEST"}, ArgumentError, ("leaks", "leak_eps")),
        ({"leak_eps": 0.1}, ArgumentError, ("leaks", "leak_eps")),
        ({"leaks": np.ones((2, 5), np.float32), "leak_eps": 0.1}, ShapeError, (5, 6, "colours")),
        ({"leaks": "TEST", "leak_eps": 0.1, "encoder": Colours(version="2")}, EncoderMismatchError, ("weights",)),
        ({"groups": "country"}, ArgumentError, ("groups", "'country'", "json.FIELD", "folder", "shard")),
        ({"max_per_group": 3}, ArgumentError, ("max_per_group", 3, "groups")),
        ({"quotas": "even"}, ArgumentError, ("quotas", "'even'", "groups")),
        ({"dedup": 0.01, "strategy": "kcenter"}, ArgumentError, ("'kcenter'", "'dedup'")),
        ({"exclude": ["a"], "strategy": "kcenter"}, ArgumentError, ("'kcenter'", "'exclude'")),
        ({"exclude": "NOWHERE"}, FileNotFoundError, ("nowhere.txt",)),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else "-".join(map(str, one)),  # of options their names
)
def test_what_cannot_be_is_said_before_the_first_image(tars, tmp_path, options, error, values):
    paths = {"TEST": tars / "test", "NOWHERE": tmp_path / "nowhere.txt"}
    options = {name: paths.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    with raises(error, *values):
        run_of(tars, tmp_path / "run", keep=12, **options)
    assert not (tmp_path / "run").exists()


def test_keys_none_of_which_is_there_end_a_run_before_the_encoder(tars, tmp_path):
    encoder = Counting()
    with raises(ArgumentError, "exclude", 2, "'x'"):
        run_of(tars, tmp_path / "run", keep=12, exclude=["x", "y"], encoder=encoder)
    with raises(ArgumentError, "exclude", 72, 99):
        run_of(tars, tmp_path / "run", keep=12, exclude=[99], encoder=encoder)
    assert encoder.images <= 14  # the reference


def test_the_command_takes_them_all(tars, tmp_path, monkeypatch):
    words = ["prune", str(tars / "pool-*.tar"), "-r", str(tars / "ref.tar"), "-o", str(tmp_path / "run"), "-k", "4"]
    seen = {}
    monkeypatch.setattr("rsprune.runs.prune.prune", lambda *_, options, **__: seen.update(vars(options.choice)))
    given = ["--dedup", "0.01", "--leaks", "test", "--leak-eps", "0.1", "--exclude", "never.txt", "--groups", "city"]
    CliRunner().invoke(app, [*words, *given, "--quotas", '{"Oslo": 5}', "--max-per-group", "3", "--keep-embeddings"])
    want = {"dedup": 0.01, "leaks": "test", "leak_eps": 0.1, "exclude": "never.txt", "groups": "city"}
    assert {name: seen[name] for name in (*want, "quotas", "max_per_group")} == want | {
        "quotas": {"Oslo": 5},
        "max_per_group": 3,
    }
    assert issubclass(Colours, Encoder)


def selected(out):
    table = pq.read_table(out)
    return list(zip(table["key"].to_pylist(), table["phase"].to_pylist(), strict=True))


def test_selecting_from_the_folder_takes_them_as_the_run_does(tars, plain, tmp_path):
    run, _, _ = plain
    (tmp_path / "never.txt").write_text("\n".join(run.keys[:3]))
    words = ["select", str(run.path), "-c", str(run.path / "centroids.safetensors"), "--keep", "7"]
    words += ["--exclude", str(tmp_path / "never.txt"), "--dedup", "0.002", "--leaks", str(tars / "test")]
    words += ["--leak-eps", "0.001", "--groups", "json.city", "--max-per-group", "3"]
    out = tmp_path / "s.parquet"
    done = CliRunner().invoke(app, [*words, "--source", str(tars / "pool-*.tar"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    options = {"dedup": 0.002, "leaks": tars / "test", "leak_eps": 0.001, "groups": "json.city", "max_per_group": 3}
    same = run_of(tars, tmp_path / "run", keep=7, exclude=run.keys[:3], **options)
    assert selected(out) == list(zip(same.keys, same.selection.phase.tolist(), strict=True))
    # What stands in the manifest depends on no path.
    about = json.loads(pq.read_schema(out).metadata[b"rsprune"])["strategy_options"]
    assert about["groups"] == "json.city"
    assert str(tmp_path) not in json.dumps(about)
    assert str(tars) not in json.dumps(about)
    failed = CliRunner().invoke(app, [*words, "-o", str(out)])
    assert failed.exit_code == 1
    assert "'json.city'" in failed.output
    assert "--source" in failed.output


def test_a_folder_without_embeddings_says_what_needs_them(tars, tmp_path):
    run = run_of(tars, tmp_path / "run", keep=12, keep_embeddings=False)
    words = ["select", str(run.path), "-c", str(run.path / "centroids.safetensors"), "-o", str(tmp_path / "s.parquet")]
    for option in (["--dedup", "0.1"], ["--leaks", str(tars / "test"), "--leak-eps", "0.1"]):
        failed = CliRunner().invoke(app, [*words, *option])
        assert failed.exit_code == 1
        assert option[0][2:] in failed.output
        assert "--keep-embeddings" in failed.output
    with raises(ArgumentError, "dedup", "--keep-embeddings"):
        run_of(tars, tmp_path / "run", keep=12, keep_embeddings=False, dedup=0.1)
    done = CliRunner().invoke(app, [*words, "--groups", "shard", "--quotas", "even", "--keep", "12"])
    assert done.exit_code == 0, done.output
    assert Counter(pq.read_table(tmp_path / "s.parquet")["shard"].to_pylist()) == {f"pool-{s}": 4 for s in range(3)}


def test_everything_may_be_kept(tars, tmp_path):
    run = small_prune(str(tars / "pool-*.tar"), tars / "ref.tar", tmp_path / "run", k=4, entropy_keep=1.0, keep=72)
    assert len(run.keys) == 72
    assert run.report.is_file()
