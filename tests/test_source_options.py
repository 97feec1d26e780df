"""Options of a layout: they choose the source, a run records them, and its readers open the collection with them."""

import pytest

from failures import raises
from rsprune.errors import ArgumentError, KeyMismatchError
from rsprune.report import explain, write_report
from rsprune.runs.config import SourceOptions
from rsprune.runs.reader import RunReader, open_as_run
from rsprune.runs.stages import entropy_run
from rsprune.sources import open_source
from rsprune.training.autoencoder import load_autoencoder
from rsprune.training.latent_cache import cache_latents
from rsprune.training.transforms import ImageTransform
from small_runs import artefacts, picture, small_prune, write_tar

THINNED = '''
from pathlib import Path
from rsprune.sources.image_files import FileSource, NamedFile

class Thinned(FileSource):
    """A folder of which an image in every ``stride`` is read."""

    reads = "too many images (.thin)"
    takes = ("stride", "min_valid")

    @classmethod
    def matches(cls, spec):
        return isinstance(spec, str) and spec.endswith(".thin")

    @classmethod
    def open(cls, spec, *, stride=1, min_valid=None):
        names = sorted(path.name for path in Path(spec).parent.glob("*.jpg"))
        return cls("thinned", Path(spec).parent, [NamedFile(name, "") for name in names[::stride]])
'''


@pytest.fixture
def pool(tmp_path, plugin_package):
    plugin_package("rsprune_thinned", THINNED, {"rsprune.sources": {"thinned": "Thinned"}})
    (tmp_path / "pool").mkdir()
    for i in range(24):
        (tmp_path / "pool" / f"{i:02d}.jpg").write_bytes(picture(i))
    (tmp_path / "pool" / "all.thin").touch()
    return tmp_path / "pool" / "all.thin"


@pytest.fixture
def reference(tmp_path):
    write_tar(tmp_path / "reference.tar", {f"{i % 3}/{i}.jpg": picture(1000 + i) for i in range(12)})
    return tmp_path / "reference.tar"


def test_an_option_chooses_the_source_that_has_it(pool):
    assert (open_source(pool).total(), open_source(pool).options) == (24, {})
    thinned = open_source(pool, stride=2)
    assert (thinned.total(), thinned.options) == (12, {"stride": 2})
    twice = open_source([pool, pool], stride=2)
    assert (twice.total(), twice.options) == (24, {"stride": 2})
    assert SourceOptions(stride=3).open(pool).options == {"stride": 3}
    with raises(ArgumentError, pool, "tile"):
        open_source(pool, tile=8)
    with raises(ArgumentError, "stride"):
        open_source(thinned, stride=2)


def test_the_readers_of_a_run_open_its_collection_as_it_did(pool, reference, tmp_path):
    run = small_prune(pool, reference, tmp_path / "run", stride=2, k=3)
    reader = RunReader(run.path)
    assert reader.config["source"]["options"] == {"stride": 2}
    assert "options" not in reader.config["centroids"]["images"]  # the reference has a layout of its own
    assert run.summary["images"] == reader.open_source(pool).total() == open_as_run(pool, run.path).total() == 12
    assert open_as_run(pool, None).total() == 24
    assert explain(run.path, run.keys[:1], pool)[0].kept
    page = run.report.read_bytes()
    assert write_report(run.path, str(pool)).read_bytes() == page
    codec, transform = load_autoencoder("identity", 3), ImageTransform(16)
    cache = cache_latents(pool, codec, transform, out=tmp_path / "latents", run=run.path, mirror=False, progress=False)
    assert list(cache.keys) == run.keys
    before = artefacts(run.path)
    small_prune(open_source(pool, stride=2), reference, run.path, k=3)
    assert artefacts(run.path) == before
    with raises(KeyMismatchError, "part-000000"):
        explain(run.path, run.keys[:1], open_source(pool))


def test_options_that_are_not_given_leave_no_trace(pool, tmp_path):
    entropy_run(pool, out=tmp_path / "run", progress=False)
    assert set(RunReader(tmp_path / "run").config["source"]) == {"kind", "images", "digest"}
