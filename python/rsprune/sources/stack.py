"""Stacks of images in NumPy files."""

from __future__ import annotations

import errno
import math
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib import format as npy

from rsprune.errors import DtypeError, EmptyInputError, FormatError, RspruneError, ShapeError, SourceError
from rsprune.pixels import DTYPES, EXPECTED, samples
from rsprune.sources.base import Item, Shard, check_rows
from rsprune.sources.container import ContainerSource
from rsprune.sources.filesystem import check_regular, load_array, local_path, open_binary

__all__ = ["StackSource"]

#: About a second of work for one core.
SHARD_IMAGES = 4096
#: An image of more bands than this is taken for something else.
MOST_BANDS = 16
#: Names of the classes in an archive, and how they are made of the images' name.
LABELS = ("labels", "label", "y", "targets")
RENAMED = (("images", "labels"), ("image", "label"), ("x", "y"), ("X", "y"), ("data", "labels"))


class _Stack(NamedTuple):
    """An array of a file: its name in an archive, where its values begin, whether it can be read from any place."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    in_pieces: bool
    fortran: bool

    @property
    def image_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class StackSource(ContainerSource):
    """Stacks of images, (N, H, W) or (N, H, W, C), in ``.npy`` and ``.npz`` files.

    A shard is a part of a stack, and an image is read when it is asked for: the file is never held in memory. A key is
    the number of the image in its file. The part names the array of an archive that has several. An array beside them
    that is called ``labels`` or ``y`` has their classes.
    """

    reads: ClassVar[str] = "a stack of images (.npy, .npz)"
    kind: ClassVar[str] = "stack"
    part_kind: ClassVar[str] = "array"
    extensions: ClassVar[tuple[str, ...]] = (".npy", ".npz")

    def __init__(self, paths: Sequence[str | os.PathLike[str]], part: str | None = None) -> None:
        super().__init__(paths, part)
        self._stacks = {name: _find_stack(path, part) for name, path in self._paths.items()}
        self._files = self._paths
        self._parts: dict[str, tuple[str, range]] = {}  # by shard, the name of its file, and the numbers of its images
        for name, stack in self._stacks.items():
            images = range(stack.shape[0])
            step = SHARD_IMAGES if stack.in_pieces else len(images)
            for start in images[::step]:
                self._parts[f"{name}-{start // step:06d}"] = name, images[start : start + step]
        self._shards = tuple(map(Shard, sorted(self._parts)))
        self._labels: dict[str, list[str] | None] = {}

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard as pixels."""
        name, numbers = self._parts[shard.name]
        path, stack = self._files[name], self._stacks[name]
        rows = check_rows(shard, rows, self.count(shard))
        labels = self._labels_of(name)
        with _opened(path, stack) as file:
            for row in rows:
                number = numbers[row]
                file.seek(stack.offset + number * stack.image_bytes)
                data = _read(file, stack.image_bytes)
                if len(data) < stack.image_bytes:
                    message = f"{path} was cut short while it was read: its image {number} ends too early"
                    raise FormatError(message)
                pixels = np.frombuffer(data, stack.dtype).reshape(stack.shape[1:])
                yield Item(f"{number:08d}", samples(pixels, path), labels[number] if labels else None)

    def read_keys(self, shard: Shard) -> list[str]:
        """Return the numbers of a shard's images."""
        return [f"{number:08d}" for number in self._parts[shard.name][1]]

    def count(self, shard: Shard) -> int:
        """Count the images of a shard; the header of its file has been read."""
        return len(self._parts[shard.name][1])

    def size(self, shard: Shard) -> int:
        """Return how many bytes the pixels of a shard take."""
        return self.count(shard) * self._stacks[self._parts[shard.name][0]].image_bytes

    def file_of(self, shard: Shard) -> str:
        """Return the file that a shard is a part of."""
        return self._files[self._parts[shard.name][0]]

    def fingerprint(self) -> dict[str, Any]:
        """Identify the files by their names, sizes and shapes."""
        files = [
            {"name": name, "bytes": os.path.getsize(local_path(path)), "shape": list(self._stacks[name].shape)}  # noqa: PTH202
            for name, path in self._files.items()
        ]
        return {"kind": self.kind, "shards": files} | ({self.part_kind: self._part} if self._part else {})

    def _labels_of(self, name: str) -> list[str] | None:
        """Read the classes beside a stack, if there are any."""
        if name not in self._labels:
            self._labels[name] = _read_labels(self._files[name], self._stacks[name])
        return self._labels[name]


def _find_stack(path: str, wanted: str | None) -> _Stack:
    """Read the headers of a file, and find the stack of images in it."""
    check_regular(path)
    with _damage(path):
        if not path.lower().endswith(".npz"):
            with open_binary(path) as file:
                stack = _header(file, "", in_pieces=True)
                end = file.seek(0, os.SEEK_END)
            if wanted is not None:
                message = f"{path} is one array, and not an archive of several: leave out '#{wanted}'"
                raise SourceError(message)
            if end < stack.offset + stack.shape[0] * stack.image_bytes:
                message = f"it has {end:,} bytes, and its shape {stack.shape} needs more"
                raise ValueError(message)
            return _check(path, stack)
        with zipfile.ZipFile(local_path(path)) as archive:
            found = {}
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        stored = member.compress_type == zipfile.ZIP_STORED
                        stack = _header(file, member.filename, in_pieces=stored)
                    if stored:  # as in a file of its own, a little further on
                        stack = stack._replace(offset=stack.offset + _start(path, member))
                    found[member.filename.removesuffix(".npy")] = stack
    shapes = ", ".join(f"{name} {stack.shape}" for name, stack in found.items()) or "none"
    if wanted is None:
        stacks = [name for name, stack in found.items() if len(stack.shape) > 2]
        if len(stacks) != 1:
            what = "several stacks of images" if stacks else "no stack of images (N, H, W) or (N, H, W, C)"
            remedy = f". Name one of them: '{path}#{stacks[0]}'" if stacks else ""
            message = f"{path} has {what}; its arrays are {shapes}{remedy}"
            raise SourceError(message)
        wanted = stacks[0]
    if wanted not in found:
        message = f"{path} has no array {wanted!r}; its arrays are {shapes}"
        raise SourceError(message)
    return _check(path, found[wanted])


def _check(path: str, stack: _Stack) -> _Stack:
    """Refuse what is no stack of images, or may be something else."""
    shape, dtype = stack.shape, stack.dtype
    if len(shape) == 2 and dtype.kind == "f":
        message = f"{path} holds {dtype} of shape {shape}: embeddings, which `rsprune select` takes, and no images"
        raise DtypeError(message)
    if dtype.newbyteorder("=") not in (*DTYPES, np.float16):
        message = f"{path} holds {dtype} of shape {shape}; {EXPECTED}"
        raise DtypeError(message)
    problem = ""
    if len(shape) not in (3, 4):
        problem = "expected a stack of images, (N, H, W) or (N, H, W, C)"
    elif len(shape) == 3 and shape[2] <= MOST_BANDS:
        problem = (
            f"this may be one image (H, W, C), or {shape[0]} images of {shape[1]} x {shape[2]} pixels. Save it as "
            f"(1, {', '.join(map(str, shape))}), or as ({', '.join(map(str, shape))}, 1)"
        )
    elif len(shape) == 4 and shape[1] <= MOST_BANDS < shape[3]:
        problem = "the bands seem to come first. Save numpy.moveaxis(images, 1, 3)"
    elif stack.fortran:
        problem = "its values are in the order of Fortran. Save numpy.ascontiguousarray(images)"
    if problem:
        message = f"{path} has the shape {shape}: {problem}"
        raise ShapeError(message)
    if not math.prod(shape):
        message = f"{path} holds no images: its shape is {shape}"
        raise EmptyInputError(message)
    return stack


def _header(file: IO[bytes], name: str, *, in_pieces: bool) -> _Stack:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    return _Stack(name, shape, dtype, file.tell(), in_pieces, fortran)


def _read_labels(path: str, stack: _Stack) -> list[str] | None:
    if not stack.name:
        return None
    name = stack.name.removesuffix(".npy")
    with _damage(path), load_array(path) as archive:
        others = [name.replace(old, new) for old, new in RENAMED if old in name]
        for other in [*others, *LABELS]:
            if other == name or other not in archive.files:
                continue
            with suppress(ValueError):  # Python objects are not unpickled
                values = archive[other]
                if values.size == stack.shape[0]:
                    return [one.decode() if isinstance(one, bytes) else str(one) for one in values.ravel().tolist()]
    return None


def _start(path: str, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin in an archive."""
    with open_binary(path) as file:
        file.seek(member.header_offset)
        header = _read(file, 30)
    name, extra = struct.unpack("<HH", header[26:30])
    return member.header_offset + 30 + int(name) + int(extra)


@contextmanager
def _opened(path: str, stack: _Stack) -> Iterator[IO[bytes]]:
    """Open an array's file, or its member of an archive."""
    with _damage(path):
        if stack.in_pieces:
            with open_binary(path) as file:
                yield file
            return
        check_regular(path)
        with zipfile.ZipFile(local_path(path)) as archive, archive.open(stack.name) as file:
            yield file


def _read(file: IO[bytes], size: int) -> bytes:
    """Read ``size`` bytes, or all that are left."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@contextmanager
def _damage(path: str) -> Iterator[None]:
    """Tell damage from what the system says of a file."""
    try:
        yield
    except RspruneError:
        raise
    except Exception as error:  # damage shows as ValueError, SyntaxError, BadZipFile, zlib.error and more
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is of a place before the file's beginning
            raise
        message = f"{path} is damaged, or no array that NumPy saved: {error}"
        raise FormatError(message) from error
