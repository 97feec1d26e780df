"""Arrays with a JSON object beside them, in safetensors files that notice damage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError, DamagedFileError
from rsprune.io import atomic_write, canonical_json, check_pointer, parse_json

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(
    path: str | os.PathLike[str], what: str, tensors: Mapping[str, NDArray[Any]], head: Mapping[str, Any]
) -> None:
    """Write arrays and a JSON object as a safetensors file, atomically; ``what`` names their kind in messages.

    The object is completed by a ``content_digest`` of both.

    Raises
    ------
    ArgumentError
        ``head`` holds something that JSON cannot express.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(one) for name, one in tensors.items()}
    try:
        text = json.dumps({**head, "content_digest": _tensors_digest(head, arrays)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"the meta of {what} must be JSON: {error}"
        raise ArgumentError(message) from error
    # One entry: safetensors writes several in an order that changes.
    content = save(arrays, metadata={"rsprune": text})
    with atomic_write(path) as beside:
        beside.write_bytes(content)


def read_tensors(
    path: Path, what: str, names: Sequence[str], optional: Sequence[str] = ()
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays ``names``, all there are but ``optional`` ones, and the object that :func:`write_tensors` wrote.

    Raises
    ------
    DamagedFileError
        It is no such file, or its content does not have the digest that it names.
    """
    from safetensors import SafetensorError, safe_open

    check_pointer(path)
    try:
        with safe_open(path, framework="np") as file:
            head = parse_json((file.metadata() or {})["rsprune"])
            there = [name for name in optional if name in file.keys()]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in [*names, *there]}
        known = head.pop("content_digest")
    # NumPy's TypeError is that of bfloat16, the AttributeError that of JSON that is no object.
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        message = f"{path} is damaged, or not {what} that rsprune saved: {error}"
        raise DamagedFileError(message) from error
    if known != _tensors_digest(head, tensors):
        message = f"{path} is damaged: its content does not have the digest that it names. Make it anew"
        raise DamagedFileError(message)
    return tensors, head


def _tensors_digest(head: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """BLAKE2b-128 of a JSON object and of arrays, in hexadecimal."""
    state = hashlib.blake2b(canonical_json(head).encode(errors="surrogatepass"), digest_size=16)
    for name in sorted(tensors):
        state.update(f"{name} {tensors[name].dtype.str} {tensors[name].shape}".encode())
        state.update(tensors[name].tobytes())
    return state.hexdigest()
