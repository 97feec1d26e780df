"""What a run chose as a data set for training."""

import gc
import io
import pickle

import numpy as np
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune import errors
from rsprune.sources import open_source
from small_runs import picture, small_prune, write_tar


def to_pixels(image):
    return np.array(image)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over two tar files, of whose 24 images it keeps 12."""
    folder = tmp_path_factory.mktemp("dataset")
    for shard in range(2):
        members = {f"{shard}-lat38.{i:02d}.jpg": picture(100 * shard + i) for i in range(12)}
        write_tar(folder / f"pool-{shard}.tar", members)
    write_tar(folder / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(12)})
    spec = str(folder / "pool-*.tar")
    small_prune(spec, folder / "reference.tar", folder / "run", keep=12, entropy_keep=1.0, k=3)
    return rsprune.open(folder / "run"), spec


def pool(spec):
    source = open_source(spec)
    return {item.key: item.data for shard in source.shards for item in source.read(shard)}


def test_elements_are_the_images_chosen(run):
    run, spec = run
    dataset, known = run.dataset(spec), pool(spec)
    assert len(dataset) == 12
    assert [element["key"] for element in dataset] == run.keys
    for at in (0, 11, -1):
        pixels = np.asarray(Image.open(io.BytesIO(known[run.keys[at]])))
        np.testing.assert_array_equal(np.asarray(dataset[at]["image"]), pixels)
    assert [one["key"] for one in dataset.__getitems__([7, 2, 7, -1])] == [run.keys[at] for at in (7, 2, 7, -1)]
    with pytest.raises(IndexError):
        dataset[12]
    assert list(run.indices) == list(run.selection.indices)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_read_it(run, method):
    torch = pytest.importorskip("torch")
    run, spec = run
    dataset = pickle.loads(pickle.dumps(run.dataset(spec, transform=to_pixels)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=5, num_workers=1, multiprocessing_context=method)
    batches = list(loader)
    assert [key for batch in batches for key in batch["key"]] == run.keys
    assert batches[0]["image"].shape == (5, 24, 24, 3)


def test_another_collection(run, tmp_path):
    write_tar(tmp_path / "pool-0.tar", {"x.jpg": picture(0)})
    with raises(errors.KeyMismatchError, run[0].path):
        run[0].dataset(tmp_path / "pool-0.tar")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_original_tar_files_are_filtered(run):
    pytest.importorskip("webdataset")
    run, spec = run
    samples, known = list(run.webdataset(spec)), pool(spec)
    gc.collect()  # the library leaves files open
    assert [sample["__key__"] for sample in samples] == run.keys
    assert [sample["jpg"] for sample in samples] == [known[key] for key in run.keys]


def test_only_tar_files_are_filtered(run, tmp_path):
    pytest.importorskip("webdataset")
    (tmp_path / "pool").mkdir()
    for i in range(8):
        (tmp_path / "pool" / f"{i}.jpg").write_bytes(picture(i))
    other = small_prune(tmp_path / "pool", tmp_path / "pool", tmp_path / "run", keep=4, entropy_keep=1.0, k=2)
    with raises(errors.SourceError, "tar"):
        other.webdataset(tmp_path / "pool")
