"""Keys as lines of text, in ``selected.txt``, in list files and on the terminal."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["key_of_line", "line_of_key", "lines_of_keys"]

#: What a key has in it that may have to be quoted; most collections have no such key.
PERHAPS_QUOTED = r'^$|^[#"\s]|\s$|[^ -~]'


def line_of_key(key: str) -> str:
    r"""Write a key as one line: as it is, or as a JSON string in ASCII where it would not be read back as it is.

    That is a key with a line feed or another character that is not printed, one with a blank at an end, one that begins
    with ``#`` or a quotation mark, and an empty one.

    >>> print(line_of_key("a b.jpg"), line_of_key("a\nb.jpg"))
    a b.jpg "a\nb.jpg"
    """
    plain = key.isprintable() and key == key.strip() and not key.startswith(("#", '"')) and key
    return key if plain else json.dumps(key)


def lines_of_keys(keys: pa.ChunkedArray) -> str:
    """Write many keys as :func:`line_of_key` writes each, with a line feed after it."""
    lines: list[str] = keys.to_pylist()
    if pc.any(pc.match_substring_regex(keys, PERHAPS_QUOTED)).as_py():
        lines = list(map(line_of_key, lines))
    return "".join(f"{line}\n" for line in lines)


def key_of_line(line: str) -> str:
    """Read a key that :func:`line_of_key` wrote; a line that is no JSON string of text is the key itself."""
    if line.startswith('"'):
        try:
            key = json.loads(line)
            str(key).encode()  # half a surrogate pair is no text
        except ValueError:
            return line
        if isinstance(key, str):
            return key
    return line
