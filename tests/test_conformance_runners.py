"""What holds for every registered runner, one of another package among them."""

import itertools
import json
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from failures import raises
from ray_nodes import NODE, KillsNode, three_nodes
from rsprune import io
from rsprune.errors import ArgumentError, DamagedFileError, LostShardsError, WorkerError
from rsprune.runners import RUNNERS, NoProgress, Runner
from rsprune.runners.processes import ProcessRunner, map_in_processes, run_shard
from rsprune.runs.config import ExecutionOptions, GrayOptions, PruneOptions
from rsprune.runs.context import RunContext
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import open_reference
from rsprune.runs.stages import CentroidsStage, EmbedStage, EntropyStage, SelectStage
from rsprune.runs.stages.embed import SomeRows
from rsprune.runs.stages.entropy import EntropyRanking, cut_entropies
from rsprune.sources import SkippedFilesWarning, open_source
from rsprune.sources.damaged import leave_out
from small_runs import Colours, DiesOfBright, artefacts, bright_picture, picture, small_prune, write_tar
from small_stages import Counting

# Ray leaves open what its processes write to.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*/dev/null:ResourceWarning")

# Another package's runner: the last shard first, in threads.
BACKWARDS = """
from concurrent.futures import ThreadPoolExecutor

from rsprune.runners import Runner


class Backwards(Runner):
    def run(self, stage, shards, progress):
        with stage, ThreadPoolExecutor(self.workers or 2) as pool:
            yield from pool.map(lambda shard: stage.run(shard, progress.advance), reversed(shards))
"""


class Recorder(NoProgress):
    def __init__(self):
        self.images, self.notes, self.stages = 0, [], []

    def start(self, stage, total, done):
        self.stages.append((stage, total, done))

    def advance(self, images):
        self.images += images

    def note(self, message):
        self.notes.append(message)


@pytest.fixture(scope="module")
def cluster():
    with three_nodes() as made:
        yield made


@pytest.fixture(params=["local", "processes", "backwards", "ray"])
def runner(request, plugin_package) -> str:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    if request.param == "backwards":
        plugin_package("backwards_runner", BACKWARDS, {"rsprune.runners": {"backwards": "Backwards"}})
    return request.param


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three tars of 12 images, one of them unreadable, and 15 reference images."""
    folder = tmp_path_factory.mktemp("images")
    for shard in range(3):
        members = {f"{shard}-{i:02d}.jpg": picture(100 * shard + i) for i in range(12)}
        write_tar(folder / f"pool-{shard}.tar", members | ({"1-05.jpg": b""} if shard == 1 else {}))
    write_tar(folder / "reference.tar", {f"r{i:02d}.jpg": picture(9_000 + i) for i in range(15)})
    return folder


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    run = small_prune(f"{images}/pool-*.tar", images / "reference.tar", tmp_path_factory.mktemp("expected") / "run")
    return artefacts(run.path)


def test_the_registry_knows_every_runner(runner):
    assert runner in RUNNERS.names()
    assert issubclass(RUNNERS.get(runner), Runner)
    with raises(ArgumentError, "abacus", "local", "processes"):
        RUNNERS.get("abacus")


OTHERS = ("local", "processes", "backwards")


@pytest.mark.parametrize(
    ("runner", "workers"),
    [*itertools.product(OTHERS, (1, 2)), *(pytest.param("ray", count, marks=pytest.mark.slow) for count in (1, 2))],
    indirect=["runner"],
)
def test_same_bytes_as_in_this_process(runner, workers, images, expected, tmp_path):
    out = tmp_path / "run"
    small_prune(f"{images}/pool-*.tar", images / "reference.tar", out, runner=runner, workers=workers)
    assert artefacts(out) == expected


def test_summaries_are_merged_and_done_shards_are_not_done_again(runner, tmp_path):
    progress = Recorder()
    (tmp_path / "s1.json").write_text("{}")
    merged = RUNNERS.get(runner)(2).map_merge(Counting(tmp_path), progress)
    assert (merged.images, merged.names) == (10, {"s0", "s1", "s2", "s3"})
    assert (progress.stages, progress.images) == ([("counting", 10, 2)], 8)
    assert (tmp_path / "s1.json").read_text() == "{}"


def test_an_error_of_the_stage_ends_the_work_and_keeps_what_is_done(runner, tmp_path):
    with raises(ValueError, "s2"):
        RUNNERS.get(runner)(1).map_merge(Counting(tmp_path, fails="s2"))
    assert not (tmp_path / "s2.json").exists()
    assert RUNNERS.get(runner)(1).map_merge(Counting(tmp_path)).images == 10


SIGNALS = [
    pytest.param(one, number, code, marks=[pytest.mark.slow] * (one == "ray"))
    for one in (*OTHERS, "ray")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143))
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three folders of images that take a while, and their entropies, by nobody who was stopped."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for shard in range(3):
        (folder / f"{shard}").mkdir()
        for i in range(60):
            path = folder / f"{shard}" / f"{i:03d}.png"
            if i < 8:
                Image.fromarray(rng.integers(0, 255, (400, 400, 3), np.uint8)).save(path, compress_level=0)
            else:
                path.hardlink_to(path.with_name(f"{i % 8:03d}.png"))
    subprocess.run(entropy_words(folder, folder / "entropies"), check=True, capture_output=True)
    return folder


def entropy_words(folder, out, *words):
    return [sys.executable, "-m", "rsprune", "entropy", *(folder / f"{i}" for i in range(3)), "-o", out, *words]


@pytest.mark.parametrize(("runner", "number", "code"), SIGNALS, indirect=["runner"])
def test_a_signal_ends_the_work_in_order_and_the_same_command_goes_on(runner, number, code, pictures, tmp_path):
    options = ["--json", "--runner", runner, "--workers", "2", "--threads", "1"]
    words = entropy_words(pictures, tmp_path / "e", *options)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(process.stdout.readline())["event"] == "start"
    time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, len(said.strip().splitlines())) == (code, 1)
    assert not list((tmp_path / "e").rglob(".*.writing"))
    subprocess.run(words, check=True, capture_output=True)
    assert artefacts(tmp_path / "e") == artefacts(pictures / "entropies")


def test_a_shard_whose_worker_dies_is_done_by_another(tmp_path):
    (tmp_path / "deaths").touch()
    progress = Recorder()
    merged = ProcessRunner(2).map_merge(Counting(tmp_path, dies=("s1", 1)), progress)
    assert (merged.images, (tmp_path / "deaths").read_text()) == (10, "x")
    assert len(progress.notes) == 1
    assert "s1" in progress.notes[0]
    assert "SIGKILL" in progress.notes[0]


def test_a_shard_that_kills_its_workers_is_named(tmp_path):
    (tmp_path / "deaths").touch()
    with raises(WorkerError, "s1", "SIGKILL", 2):
        ProcessRunner(2).map_merge(Counting(tmp_path, dies=("s1", 9)))
    assert (tmp_path / "deaths").read_text() == "xx"


def test_a_shard_that_kills_its_workers_is_put_aside_and_all_others_are_done(images, tmp_path):
    """The encoder dies of one image; its workers leave temporary files, which are removed."""
    (tmp_path / "pool").mkdir()
    members = {f"0-{i:02d}.jpg": picture(i) for i in range(12)}
    write_tar(tmp_path / "pool" / "pool-0.tar", members | {"0-11.jpg": bright_picture()})
    for shard in (1, 2):
        (tmp_path / "pool" / f"pool-{shard}.tar").symlink_to(images / f"pool-{shard}.tar")
    pool, out = str(tmp_path / "pool" / "pool-*.tar"), tmp_path / "run"
    whole = artefacts(small_prune(pool, images / "reference.tar", out).path)
    for left_over in [*(out / "embeddings").iterdir(), out / "summary.json"]:
        left_over.unlink()
    options = {"runner": "processes", "workers": 1, "encoder": DiesOfBright()}
    with raises(LostShardsError, "pool-0", "SIGKILL", 1, 3) as caught:
        small_prune(pool, images / "reference.tar", out, **options)
    assert list(caught.value.lost) == ["pool-0"]
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), LostShardsError)
    assert {path.name for path in (out / "embeddings").iterdir()} == {
        f"pool-{shard}.{kind}" for shard in (1, 2) for kind in ("json", "npy", "parquet")
    }
    assert not list(out.rglob("*.writing"))
    assert artefacts(small_prune(pool, images / "reference.tar", out).path) == whole  # where the encoder lives


def test_a_run_that_skips_damaged_shards_goes_on_without_one_that_kills_its_workers(images, tmp_path):
    members = {f"0-{i:02d}.jpg": picture(i) for i in range(12)}
    write_tar(tmp_path / "pool-0.tar", members | {"0-11.jpg": bright_picture()})
    for shard in (1, 2):
        (tmp_path / f"pool-{shard}.tar").symlink_to(images / f"pool-{shard}.tar")
    pool, out = str(tmp_path / "pool-*.tar"), tmp_path / "run"
    small_prune(pool, images / "reference.tar", out)
    for left_over in [*(out / "embeddings").iterdir(), out / "summary.json"]:
        left_over.unlink()
    options = {"encoder": DiesOfBright(), "on_damaged_shard": "skip"}
    with pytest.warns(SkippedFilesWarning):
        run = small_prune(pool, images / "reference.tar", out, runner="processes", workers=1, **options)
    assert run.summary["left_out"] == ["pool-0"]
    assert len(run.keys) == 6
    with pytest.warns(SkippedFilesWarning):  # without an attempt, which would end this process
        small_prune(pool, images / "reference.tar", out, **options)
    others = leave_out(open_source(pool), json.loads((out / "put_aside.json").read_text())["shards"])
    fresh = small_prune(others, images / "reference.tar", tmp_path / "fresh").path
    for name in ("selection.parquet", "selected.txt", "quarantine.parquet", "summary.json"):
        assert (out / name).read_bytes() == (fresh / name).read_bytes()
    assert "left_out" not in small_prune(pool, images / "reference.tar", out).summary  # where they are tried again
    assert not (out / "put_aside.json").exists()


def test_an_address_is_for_a_runner_that_has_one():
    with raises(ArgumentError, "auto", "local"):
        ExecutionOptions(address="auto").open_runner()
    assert ExecutionOptions(runner="ray", address="auto").open_runner().address == "auto"


def test_a_ray_node_that_dies_does_not_show_in_the_result(cluster, images, tmp_path):
    for shard in range(8):
        members = {f"{shard}-{i:02d}.jpg": picture(100 * shard + i) for i in range(10)}
        write_tar(tmp_path / f"pool-{shard}.tar", members)
    pool, progress = f"{tmp_path}/pool-*.tar", KillsNode(cluster)
    whole = small_prune(pool, images / "reference.tar", tmp_path / "whole")
    options = {"runner": "ray", "address": cluster.address, "encoder": Colours(pause=0.5), "progress": progress}
    run = small_prune(pool, images / "reference.tar", tmp_path / "run", **options)
    assert progress.killed is not None
    assert artefacts(run.path) == artefacts(whole.path)
    cluster.add_node(**NODE)


def test_a_stage_that_no_ray_node_has_room_for_says_so_and_waits(cluster, tmp_path):
    class Adds(Recorder):
        def note(self, message):
            super().note(message)
            if len(self.notes) == 1:
                self.added = cluster.add_node(**NODE | {"num_cpus": 2})

    progress = Adds()
    merged = RUNNERS.get("ray")(1).map_merge(Counting(tmp_path, threads=2), progress)
    cluster.remove_node(progress.added)
    assert (merged.images, len(progress.notes)) == (10, 1)
    assert "2 CPUs" in progress.notes[0]


def test_a_shard_that_kills_the_workers_of_ray_is_put_aside(cluster, tmp_path):
    (tmp_path / "deaths").touch()
    with raises(WorkerError, "s1", 4):
        RUNNERS.get("ray")(1).map_merge(Counting(tmp_path, dies=("s1", 9)))
    assert (tmp_path / "deaths").read_text() == "xxxx"
    assert RUNNERS.get("ray")(1).map_merge(Counting(tmp_path)).images == 10


def test_an_error_that_cannot_be_sent_keeps_its_name_and_text():
    with raises(RuntimeError, "Unsendable", 3):
        list(map_in_processes(fail, [None], [1]))


class Unsendable(Exception):
    def __init__(self, number, word):
        super().__init__(f"{number} {word}")


def fail(state, task, advance):
    raise Unsendable(3, "x")


# --- the stages of a run ----------------------------------------------------------------------------------------------


def test_every_stage_works_in_another_process(images, tmp_path):
    """Each stage is pickled into a process of its own; together they write what `prune` writes."""
    options = PruneOptions()
    source = open_source(f"{images}/pool-*.tar")
    written = tmp_path / "expected"
    small_prune(f"{images}/pool-*.tar", images / "reference.tar", written, coverage_sample=0)
    expected = {name: content for name, content in artefacts(written).items() if not name.startswith("selections/")}
    config = RunReader(written).config
    encoder = type(options.encoder)(encoder=Colours())
    reference = open_reference(images / "reference.tar", type(options.reference)(k=6), seed=0)
    folder = RunFolder(tmp_path / "run")
    context, runner = RunContext.of(folder, config, source, 1), ProcessRunner(2)
    folder.start(config)
    inside = RunContext.of(folder.reference(), RunReader(written / "reference").config, reference.source, 1)
    inside.folder.start(inside.config)

    summary = runner.map_merge(EntropyStage(context, source, GrayOptions()))
    survivors = cut_entropies(EntropyRanking(RunReader(folder), summary), 9, NoProgress(), keep=0.5)
    rows = SomeRows(reference.rows)
    runner.map_merge(EmbedStage(inside, reference.source, rows, encoder, options.gray.decode, 8, name="reference"))
    runner.map_merge(CentroidsStage(context, reference))
    centroids = RunReader(folder).centroids
    runner.map_merge(EmbedStage(context, source, survivors, encoder, options.gray.decode, 8, centroids))
    runner.map_merge(SelectStage(context, source, options.choice, 9, reference, survivors))

    made = artefacts(folder.path)
    missing = {"report.html", "reference/quarantine.parquet", "reference/summary.json"}
    assert set(expected) - set(made) == missing
    assert made == {name: content for name, content in expected.items() if name not in missing}


def test_summaries_merge_in_any_order_to_the_same_bytes(images, tmp_path):
    source = open_source([*(images / f"pool-{i}.tar" for i in range(3)), images / "reference.tar"])
    folder = RunFolder(tmp_path / "run")
    folder.start({"source": {"kind": "by hand"}})
    stage = EntropyStage(RunContext(folder, {"source": {"kind": "by hand"}}, 1), source, GrayOptions())
    parts = [pickle.dumps(part) for _, part in map_in_processes(run_shard, [stage], stage.shards)]
    found = set()
    for order in itertools.permutations(parts):
        total = pickle.loads(order[0])
        for part in order[1:]:
            total.merge(pickle.loads(part))
        found.add(io.canonical_json(total.finalize()))
    assert len(found) == 1
    merged = json.loads(found.pop())
    assert (merged["images"], merged["failures"]) == (51, {"empty": 1})
    assert sum(merged["entropy"][1]) == 50
    assert io.canonical_json(stage_summary(stage)) == io.canonical_json(merged)


def stage_summary(stage):
    total, *others = (stage.summarize(shard) for shard in stage.shards)
    for other in others:
        total.merge(other)
    return total.finalize()


def test_a_stage_takes_along_nothing_that_it_has_opened(images, tmp_path):
    folder = RunFolder(tmp_path / "run")
    stage = EmbedStage(
        RunContext(folder, {}, 1),
        open_source(images / "reference.tar"),
        SomeRows({}),
        PruneOptions().encoder,
        PruneOptions().gray.decode,
        8,
    )
    assert stage._thread is stage._thread
    assert "_thread" not in pickle.loads(pickle.dumps(stage)).__dict__


# --- damage -----------------------------------------------------------------------------------------------------------


DAMAGED = [
    "config.json",
    "entropy/pool-1.parquet",
    "entropy/pool-1.json",
    "embeddings/pool-2.npy",
    "embeddings/pool-2.parquet",
    "reference/embeddings/reference.npy",
    "reference/quarantine.parquet",
    "centroids.safetensors",
    "selection.parquet",
    "selected.txt",
    "quarantine.parquet",
    "summary.json",
]


@pytest.mark.parametrize(
    ("name", "where"),
    [*((name, 0.5) for name in DAMAGED), ("config.json", 0), ("entropy/pool-1.parquet", 0), ("summary.json", -1)],
)
def test_a_damaged_file_is_named_or_made_again(name, where, images, expected, tmp_path):
    out = tmp_path / "run"
    for one, content in expected.items():
        (out / one).parent.mkdir(parents=True, exist_ok=True)
        (out / one).write_bytes(content)
    content = bytearray(expected[name])
    at = where if where in (0, -1) else len(content) // 2
    content[at] ^= 0x10
    (out / name).write_bytes(content)
    if not name.startswith("reference/"):
        with raises(DamagedFileError, name.rpartition("/")[2].rpartition(".")[0]):
            read_all(out)
    small_prune(f"{images}/pool-*.tar", images / "reference.tar", out)
    assert artefacts(out) == expected


def read_all(path):
    reader = RunReader(path, finished=True)
    reader.selection()
    reader.centroids  # noqa: B018 (raises)
    reader.embeddings()
    reader.folder.verify(reader.folder.selected)
    list(reader)


def test_no_entropy_is_taken_for_another(tmp_path, images, expected):
    """A table that is whole as Parquet, but not what was written."""
    out = tmp_path / "run"
    for one, content in expected.items():
        (out / one).parent.mkdir(parents=True, exist_ok=True)
        (out / one).write_bytes(content)
    (out / "entropy" / "pool-0.parquet").write_bytes(expected["entropy/pool-2.parquet"])
    with raises(DamagedFileError, "pool-0.parquet"):
        list(RunReader(out, finished=True))
