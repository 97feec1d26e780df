"""The labelled scene sets that the paper names, and where a public copy of each lies.

An entry is pinned where the commit and the digest of its archive are known; of the others the branch ``main`` is taken,
and the configuration of a run holds the names and sizes of what was read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rsprune.errors import FormatError, MissingDependencyError, SourceError, first_line
from rsprune.io import write_text

__all__ = ["PUBLISHED", "PublishedSet", "fetch_published"]


class PublishedSet(NamedTuple):
    """A copy of a scene set on the Hugging Face Hub.

    Attributes
    ----------
    repository, revision
        The data set on the Hub, and a commit of it.
    archive, md5
        The ZIP file that holds the images, and its digest; empty if the images lie there as they are, or in Parquet
        files.
    images, classes : int
        How many there are.
    size : str
        About how much is fetched.
    licence : str
        What the Hub or the authors say.
    """

    repository: str
    revision: str
    archive: str
    md5: str
    images: int
    classes: int
    size: str
    licence: str


PUBLISHED = {
    "resisc45": PublishedSet(
        "torchgeo/resisc45",
        "a826b44d938a883185f11ebe3d512d38b464312f",
        "NWPU-RESISC45.zip",
        "75206b2e16446591afa88e2628744886",
        31_500,
        45,
        "430 MB",
        "none stated; for research",
    ),
    "ucmerced": PublishedSet(
        "torchgeo/ucmerced",
        "7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a",
        "UCMerced_LandUse.zip",
        "5b7ec56793786b6dc8a908e8854ac0e4",
        2_100,
        21,
        "320 MB",
        "public domain (USGS)",
    ),
    "aid": PublishedSet("blanchon/AID", "main", "", "", 10_000, 30, "2.6 GB", "none stated; for research"),
    "whu-rs19": PublishedSet("jonathan-roberts1/WHU-RS19", "main", "", "", 1_005, 19, "120 MB", "CC BY 4.0"),
    "rsd46-whu": PublishedSet(
        "jonathan-roberts1/RSD46-WHU", "main", "", "", 17_516, 46, "2 GB", "free for education, research, commerce"
    ),
}

#: What is fetched of a set that lies there as it is.
IMAGES = ["*.parquet", "*.arrow", "*.jpg", "*.jpeg", "*.png", "*.tif", "*.tiff"]


def fetch_published(name: str) -> Path:
    """Return the folder of a published set, fetched from the Hub with a progress bar if it is not on this machine.

    Raises
    ------
    SourceError
        It cannot be fetched; the message says how to get it in another way.
    FormatError
        The archive does not have the digest that it should have.
    MissingDependencyError
        ``huggingface_hub`` is not installed.
    """
    entry = PUBLISHED[name]
    folder = _cache() / f"{name}-{entry.md5}"
    if entry.archive and folder.is_dir():
        return folder
    # Where the images lie as they are, a folder of the Hub's cache may hold a part of them: this says that it is whole.
    whole = _cache() / f"{name}.txt"
    if whole.is_file() and Path(whole.read_text("utf-8")).is_dir():
        return Path(whole.read_text("utf-8"))
    command = f"hf download {entry.repository} {entry.archive} --repo-type dataset --revision {entry.revision}"
    instead = f"Where there is a network: `{' '.join(command.split())}`. Give its folder, unpacked, as the reference"
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        message = f'The set {name} is fetched by huggingface_hub: `pip install "rsprune[embed]"`. {instead}'
        raise MissingDependencyError(message) from error
    found = _fetch(huggingface_hub, name, entry, instead)
    if entry.archive:
        return _unpack(found, folder, entry)
    whole.parent.mkdir(parents=True, exist_ok=True)
    write_text(whole, str(found))
    return found


def _fetch(hub: Any, name: str, entry: PublishedSet, instead: str) -> Path:
    where: dict[str, Any] = {"repo_type": "dataset", "revision": entry.revision}

    with suppress(Exception):  # that it is not here, which each version says in its own way
        if entry.archive:
            return Path(hub.hf_hub_download(entry.repository, entry.archive, local_files_only=True, **where))
    what = f"{entry.images:,} images of {entry.classes} classes, about {entry.size}; licence: {entry.licence}"
    print(f"Fetching {name} from {entry.repository} on the Hugging Face Hub: {what}", file=sys.stderr)
    try:
        if entry.archive:
            return Path(hub.hf_hub_download(entry.repository, entry.archive, **where))
        return Path(hub.snapshot_download(entry.repository, allow_patterns=IMAGES, **where))
    except Exception as error:  # of the network, the Hub, the file system: each library's own
        cause = first_line(error.__cause__ or error.__context__ or error)
        message = f"The set {name} is not on this machine, and cannot be fetched ({cause}). {instead}"
        raise SourceError(message) from error


def _unpack(archive: Path, folder: Path, entry: PublishedSet) -> Path:
    """Unpack an archive that has the right digest; the folder is there when it is whole."""
    digest = hashlib.md5(usedforsecurity=False)
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != entry.md5:
        message = (
            f"{archive} is damaged: its MD5 is {digest.hexdigest()}, not {entry.md5}. Delete it and fetch it again"
        )
        raise FormatError(message)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(beside)
        beside.replace(folder)
    except OSError:
        if not folder.is_dir():  # another process was faster
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("RSPRUNE_SETS") or Path.home() / ".cache" / "rsprune" / "sets")
