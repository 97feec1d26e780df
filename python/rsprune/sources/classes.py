"""The classes of images that lie in folders."""

from __future__ import annotations

__all__ = ["ClassFolders"]

#: Folders of these names hold parts of a collection, and not classes.
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


class ClassFolders:
    """Finds the level of folders that are classes: the first one that is not the same for all images, or their split.

    That is the first for ``Airport/airport_1.jpg``, and the second for ``Images/agricultural/agricultural00.tif`` and
    for ``train/Airport/1.png``. There are none if an image lies outside of any folder.
    """

    def __init__(self) -> None:
        self._last = ""
        self._least: int | None = None  # the fewest folders that an image lies in
        self._names: list[set[str]] = []  # some of the names at each level

    def add(self, path: str) -> None:
        """Look at the path of one more image."""
        folder = path.removeprefix("./").rpartition("/")[0]
        if folder == self._last and self._least is not None:
            return
        self._last = folder
        parts = folder.split("/") if folder else []
        self._least = len(parts) if self._least is None else min(self._least, len(parts))
        self._names += [set() for _ in parts[len(self._names) :]]
        for names, name in zip(self._names, parts, strict=False):
            if len(names) <= len(SPLITS):
                names.add(name)

    def of(self, path: str) -> str | None:
        """Return the class of an image at a path, once all paths are known."""
        if not self._least:
            return None
        level = 0
        while level < self._least - 1 and (len(self._names[level]) == 1 or self._names[level] <= SPLITS):
            level += 1
        return path.removeprefix("./").split("/")[level]
