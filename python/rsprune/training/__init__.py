"""Diffusion transformers: training them on the images that were kept, fine-tuning, sampling.

Importing this package imports no torch; its modules do.
"""

from __future__ import annotations

from importlib.util import find_spec

from rsprune.errors import MissingDependencyError

__all__ = ["check_installed"]


def check_installed() -> None:
    """Fail when what training needs is not installed.

    Raises
    ------
    MissingDependencyError
        Naming what is missing, and the extra that brings it.
    """
    if missing := [name for name in ("torch", "diffusers") if find_spec(name) is None]:
        message = f'{" and ".join(missing)} not installed, which diffusion needs: pip install "rsprune[train]"'
        raise MissingDependencyError(message)
