"""What a run chose as a data set for training, read from the collection itself: nothing is copied."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from rsprune.errors import MissingDependencyError, SourceError
from rsprune.export.chosen import ChosenImages
from rsprune.export.images import encoded
from rsprune.runs.reader import RunReader
from rsprune.sources import Item, Shard, SourceLike, open_source
from rsprune.sources.keys import read_known
from rsprune.sources.webdataset import TarSource, split_member

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["SelectedImages", "select_webdataset"]


class SelectedImages:
    """The images that a run chose: a map-style data set for `torch.utils.data.DataLoader`, in the manifest's order.

    An element is a dict: ``image`` is the :class:`PIL.Image.Image`, or what ``transform`` makes of it; ``key`` is its
    key; ``label`` is its class, where the collection has classes. It can be pickled, and keeps no file open: workers
    may be forked or spawned. torch is not needed.

    Parameters
    ----------
    chosen
        The images.
    transform
        Called with each :class:`PIL.Image.Image`; or, of pixels that Pillow has no mode for (several bands of 16 bits,
        more than four bands), with the array (H, W, C).

    Attributes
    ----------
    keys
        The keys of the images, in their order.
    """

    def __init__(self, chosen: ChosenImages, transform: Callable[[Any], Any] | None = None) -> None:
        self.keys = chosen.keys
        self.transform = transform
        self._source, self._run = chosen.source, chosen.reader.folder.path
        self._rows = chosen.manifest["row"].to_numpy()
        self._shards = [shard for shard, _ in chosen.by_shard]
        self._names: list[str] = []
        for shard, at in chosen.by_shard:
            self._names += chosen.reader.as_names(shard, [self.keys[one] for one in at])
        self._starts = np.array([at[0] for _, at in chosen.by_shard])
        self._labelled = chosen.has_labels

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Read several images, as a `DataLoader` asks for those of a batch: a shard that has several is read once."""
        wanted = np.array([range(len(self))[one] for one in indices], np.int64)  # negative ones count from the end
        found: dict[int, dict[str, Any]] = {}
        distinct = np.unique(wanted)
        shards = np.searchsorted(self._starts, distinct, side="right") - 1
        for shard in np.unique(shards):
            at = distinct[shards == shard]
            rows, names = self._rows[at].tolist(), [self._names[one] for one in at]
            items = read_known(self._source, Shard(self._shards[shard]), rows, names, self._run)
            found |= {place: self._element(place, item) for place, item in zip(at.tolist(), items, strict=True)}
        return [found[one] for one in wanted.tolist()]

    def _element(self, place: int, item: Item) -> dict[str, Any]:
        image = decode(item)
        element = {"image": image if self.transform is None else self.transform(image), "key": self.keys[place]}
        return element | ({"label": item.label or ""} if self._labelled else {})


def decode(item: Item) -> Image | NDArray[Any]:
    """Decode an image with Pillow; pixels that it has no mode for are left as they are."""
    from PIL import Image

    if isinstance(item.data, np.ndarray):
        if item.data.dtype == np.uint8 and item.data.ndim == 3 and item.data.shape[2] == 1:
            return Image.fromarray(item.data[..., 0])
        try:
            return Image.fromarray(item.data)
        except TypeError:
            return item.data
    image = Image.open(io.BytesIO(encoded(item.key, item.data)))
    image.load()
    return image


def select_webdataset(run: RunReader, source: SourceLike, **options: Any) -> Any:
    """Filter the tar files of a run; see :meth:`rsprune.runs.prune.Run.webdataset`."""
    try:
        import webdataset
    except ImportError:
        message = "this needs the library WebDataset: pip install webdataset"
        raise MissingDependencyError(message) from None

    chosen = ChosenImages(run, run.open_source(source))
    tars = open_source(source)  # with the shards that the run left out, of which nothing was chosen
    if not isinstance(tars, TarSource):
        message = "the images of this run do not lie in tar files: take .dataset(source), or `rsprune export --as tar`"
        raise SourceError(message)
    keys = {
        tars.path_of(Shard(shard)): frozenset(run.as_names(shard, [chosen.keys[one] for one in at]))
        for shard, at in chosen.by_shard
    }
    options = {"shardshuffle": False, "empty_check": False} | options
    samples = webdataset.WebDataset(list(keys), rename_files=_keep_dots, **options)
    return samples.compose(_Filter(keys))  # the library's map() would put its own key back


class _Filter:
    """Lets the samples through that a run chose, by their keys; it can be pickled."""

    def __init__(self, keys: Mapping[str, frozenset[str]]) -> None:
        self._keys = keys

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for sample in samples:
            folder, slash, name = sample["__key__"].rpartition("/")
            key, known = f"{folder}{slash}{unquote(name)}", self._keys[sample["__url__"]]
            other = sample.get("img_name", b"")
            if key in known or (isinstance(other, bytes) and other.decode(errors="replace").strip() in known):
                yield sample | {"__key__": key}


def _keep_dots(path: str) -> str:
    """Hide the dots of a key from WebDataset, which ends it at the first."""
    key, field = split_member(path)
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{quote(name, safe=' ').replace('.', '%2E')}{field}"
