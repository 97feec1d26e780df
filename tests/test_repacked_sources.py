"""A collection whose images change their places between two commands: nothing is joined to the image of another key."""

import shutil
import tarfile

import pytest

import rsprune
from failures import raises
from rsprune.errors import KeyMismatchError, SourceChangedError
from rsprune.evaluation import EncoderExtractor
from rsprune.evaluation.evaluate import evaluate
from rsprune.report import explain, write_report
from rsprune.runs.stages import centroids_run, embed_run, entropy_run
from rsprune.sources import Source, open_source
from rsprune.sources.concat import ConcatSource
from small_runs import Colours, picture, write_tar

PLUGIN = """
from small_runs import Colours

def build(*args, **options):
    return Colours()
"""

#: The first row of the second shard: its key, and the one that it has after repack().
MOVED = ("pool-1", 0, "1-000", "1-011")


def repack(path):
    """Write the members of a tar file in the opposite order: the same names and sizes."""
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    size = path.stat().st_size
    write_tar(path, dict(reversed(members.items())))
    assert path.stat().st_size == size


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two tars of 12 images, and a run that kept 8."""
    folder = tmp_path_factory.mktemp("made")
    for shard in range(2):
        write_tar(folder / f"pool-{shard}.tar", {f"{shard}-{i:03d}.jpg": picture(100 * shard + i) for i in range(12)})
    write_tar(folder / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(12)})
    prune(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """The same, whose second tar is packed anew."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    repack(tmp_path / "pool-1.tar")
    return tmp_path


def pool(folder):
    return str(folder / "pool-*.tar")


def prune(folder, **options):
    settings = {"keep": 8, "entropy_keep": 0.5, "k": 2, "encoder": Colours(), "progress": False, "out": folder / "run"}
    return rsprune.prune(pool(folder), reference=folder / "reference.tar", **(settings | options))


def without_stage_two(run):
    """A run folder as it is when Stage I has ended."""
    shutil.rmtree(run / "embeddings")
    for name in ("selection.parquet", "selected.txt", "quarantine.parquet", "summary.json"):
        (run / name).unlink()


# --- the commands -----------------------------------------------------------------------------------------------------


def train_command(folder):
    network = ["--size", "8", "--model", "8x1x1/4", "--iterations", "1", "--batch", "2", "--device", "cpu"]
    return ["train", pool(folder), "--run", folder / "run", "-o", folder / "training", *network]


COMMANDS = {
    "prune": lambda folder: [
        *("prune", pool(folder), "-r", folder / "reference.tar", "-o", folder / "run", "-e", "colours"),
        *("--keep", "8", "--entropy-keep", "0.5", "--k", "2"),
    ],
    "train": train_command,
    "explain": lambda folder: ["explain", folder / "run", "0-000", "--source", pool(folder)],
    "report": lambda folder: ["report", folder / "run", "--source", pool(folder)],
    "evaluate": lambda folder: [
        *("evaluate", folder / "reference.tar", "--real", pool(folder), "-e", "colours"),
        *("--cache", folder / "cache", "--size", "8"),
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_the_shard_and_the_first_key(name, folder, made, command, plugin_package):
    plugin_package("colours_plugin", PLUGIN, {"rsprune.encoders": {"colours": "build"}})
    if name == "evaluate":  # what its cache is of
        shutil.copy(folder / "pool-1.tar", folder / "repacked")
        shutil.copy(made / "pool-1.tar", folder / "pool-1.tar")
        assert command(*COMMANDS[name](folder)).returncode == 0
        shutil.move(folder / "repacked", folder / "pool-1.tar")
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    done = command(*COMMANDS[name](folder))
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error")] == done.stderr.splitlines()[-1:]
    for value in ("shard pool-1", "row 0", "'1-000'", "'1-011'"):
        assert value in done.stderr
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before


def test_stage_two_does_not_go_on_with_other_images(folder):
    without_stage_two(folder / "run")
    with raises(KeyMismatchError, folder / "run", *MOVED):
        prune(folder)
    assert not list((folder / "run").glob("embeddings/*"))


def test_the_calls_name_the_shard_and_the_first_key(folder):
    from rsprune.training.pretrain import pretrain

    source = pool(folder)
    with raises(KeyMismatchError, *MOVED):
        prune(folder)
    with raises(KeyMismatchError, *MOVED):
        explain(folder / "run", "0-000", source)
    assert explain(folder / "run", "0-000")[0].row == 0
    with raises(KeyMismatchError, *MOVED):
        write_report(folder / "run", open_source(source))
    with raises(KeyMismatchError, *MOVED):
        pretrain(source, out=folder / "training", run=folder / "run", size=8, model="8x1x1/4", device="cpu")


@pytest.mark.parametrize("stage", [entropy_run, embed_run, centroids_run])
def test_a_stage_alone_does_not_go_on_with_other_images(stage, folder, made):
    options = {} if stage is entropy_run else {"encoder": Colours()}
    options |= {"k": 2} if stage is centroids_run else {}
    shutil.copy(made / "pool-1.tar", folder)
    stage(pool(folder), out=folder / "stage", progress=False, **options)
    repack(folder / "pool-1.tar")
    with raises(KeyMismatchError, *MOVED):
        stage(pool(folder), out=folder / "stage", progress=False, **options)


def test_reference_images_are_known_by_their_keys(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    repack(tmp_path / "reference.tar")
    with raises(KeyMismatchError, "reference", 0, "r0", "r11"):
        prune(tmp_path)


def test_a_draw_of_reference_images_is_known_by_its_keys(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    prune(tmp_path, reference_max_images=5, out=tmp_path / "drawn")
    repack(tmp_path / "reference.tar")
    with raises(KeyMismatchError, "reference"):
        prune(tmp_path, reference_max_images=5, out=tmp_path / "drawn")


def test_a_latent_cache_does_not_go_on_with_other_images(folder, made):
    from rsprune.training.autoencoder import load_autoencoder
    from rsprune.training.latent_cache import cache_latents
    from rsprune.training.transforms import ImageTransform

    def cache():
        codec = load_autoencoder("identity", 3)
        return cache_latents(pool(folder), codec, ImageTransform(8), out=folder / "latents", progress=False)

    shutil.copy(made / "pool-1.tar", folder)
    cache()
    repack(folder / "pool-1.tar")
    with raises(KeyMismatchError, folder / "latents", *MOVED):
        cache()


def test_an_experiment_does_not_go_on_with_other_images(folder, made, monkeypatch):
    from rsprune.experiments.experiment import experiment

    def run(**changes):
        return experiment(
            "fig4", pool(folder), {"scenes": folder / "reference.tar"}, out=folder / "experiments", scale="cpu",
            changes=changes, device="cpu", progress=False,
        )  # fmt: skip

    monkeypatch.setattr("rsprune.experiments.experiment.load_encoder", lambda *args, **options: Colours())
    monkeypatch.setattr("rsprune.experiments.experiment.run_trials", lambda *args: [])
    monkeypatch.setattr("rsprune.experiments.experiment.conditions", lambda *args: ())
    changes = {"size": 8, "k": 2, "autoencoder": "identity", "real": 4, "seeds": 1}
    shutil.copy(made / "pool-1.tar", folder)
    run(**changes)
    repack(folder / "pool-1.tar")
    with raises(KeyMismatchError, *MOVED):
        run(**changes)


# --- other ways in which rows change ----------------------------------------------------------------------------------


def test_a_run_whose_stages_saw_different_images_is_not_read(made, folder):
    """As an earlier rsprune has left it."""
    other = folder / "other"
    prune(folder, out=other)
    for kind in ("json", "parquet"):
        shutil.copy(other / "entropy" / f"pool-1.{kind}", folder / "run" / "entropy")
    with raises(KeyMismatchError, folder / "run", "pool-1"):
        explain(folder / "run", "0-000")
    with raises(KeyMismatchError, folder / "run", "pool-1"):
        write_report(folder / "run")


def test_a_list_in_another_order_is_told_by_its_keys(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(picture(i))
    names = [f"{i}.jpg" for i in range(6)]
    (tmp_path / "all.txt").write_text("\n".join(names))
    entropy_run(tmp_path / "all.txt", out=tmp_path / "run", progress=False)
    (tmp_path / "all.txt").write_text("\n".join([*names[:2], names[3], names[2], *names[4:]]))
    with raises(KeyMismatchError, "part-000000", 2, "2.jpg", "3.jpg"):
        entropy_run(tmp_path / "all.txt", out=tmp_path / "run", progress=False)


def test_a_renamed_or_a_missing_file_is_told_by_its_key(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(6):
        (images / f"{i}.jpg").write_bytes(picture(i))
    entropy_run(images, out=tmp_path / "run", progress=False)
    (images / "3.jpg").rename(images / "3b.jpg")
    with raises(KeyMismatchError, "part-000000", 3, "3.jpg", "3b.jpg"):
        entropy_run(images, out=tmp_path / "run", progress=False)
    (images / "3b.jpg").rename(images / "3.jpg")
    (images / "5.jpg").unlink()
    with raises(KeyMismatchError, "part-000000", 5, "5.jpg", "no image"):
        entropy_run(images, out=tmp_path / "run", progress=False)
    (images / "5.jpg").write_bytes(picture(5))
    (images / "6.jpg").write_bytes(picture(6))
    grown = entropy_run(images, out=tmp_path / "run", progress=False)  # an image behind those that were there
    assert grown.metrics["images"] == 7
    (images / "6.jpg").unlink()
    with raises(KeyMismatchError, "part-000000", 6, "6.jpg", "no image"):
        entropy_run(images, out=tmp_path / "run", progress=False)
    (images / "6.jpg").write_bytes(picture(6))
    (images / "5.jpg").write_bytes(picture(7))  # the same keys, another size
    with raises(SourceChangedError, "part-000000", tmp_path / "run"):
        entropy_run(images, out=tmp_path / "run", progress=False)


class Unlisted(ConcatSource):
    """A source that knows no key before it has read the image, as those of other packages may be."""

    def read_keys(self, shard):
        return Source.read_keys(self, shard)


def test_rows_are_compared_as_they_are_read_where_keys_are_not_known_before(folder):
    """Only those that are read again: of the others nothing is taken."""
    from rsprune.training.autoencoder import load_autoencoder
    from rsprune.training.latent_cache import cache_latents
    from rsprune.training.transforms import ImageTransform

    def source():
        return Unlisted([open_source(folder / f"pool-{shard}.tar") for shard in range(2)])

    settings = {"keep": 8, "entropy_keep": 0.5, "k": 2, "encoder": Colours(), "progress": False}
    repack(folder / "pool-1.tar")
    done = rsprune.prune(source(), reference=folder / "reference.tar", out=folder / "again", **settings)
    repack(folder / "pool-1.tar")
    with raises(KeyMismatchError, folder / "again", "1-pool-1"):
        write_report(folder / "again", source())
    codec = load_autoencoder("identity", 3)
    with raises(KeyMismatchError, folder / "again", "1-pool-1"):
        cache_latents(source(), codec, ImageTransform(8), out=folder / "latents", run=done.path, progress=False)
    assert not (folder / "latents" / "latents" / "1-pool-1.parquet").exists()
    without_stage_two(folder / "again")
    with raises(KeyMismatchError, folder / "again", "1-pool-1"):
        rsprune.prune(source(), reference=folder / "reference.tar", out=folder / "again", **settings)


def test_features_that_are_kept_are_of_these_images(folder, made):
    extractors = [EncoderExtractor(Colours())]
    options = {"cache": folder / "cache", "size": 8}
    shutil.copy(made / "pool-1.tar", folder)
    first = evaluate(folder / "reference.tar", pool(folder), extractors, **options)
    assert evaluate(folder / "reference.tar", pool(folder), extractors, **options).metrics == first.metrics
    repack(folder / "pool-1.tar")
    with raises(KeyMismatchError, folder / "cache", *MOVED):
        evaluate(folder / "reference.tar", pool(folder), extractors, **options)
