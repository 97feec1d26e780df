"""Diffusion transformers: training on the selected images, fine-tuning, sampling.

Importing this package, or its options in :mod:`rsprune.training.config`, imports no torch.
"""

from __future__ import annotations

from importlib.util import find_spec

from rsprune.errors import MissingDependencyError

__all__ = ["check_installed"]


def check_installed() -> None:
    """Check that the packages that training needs are installed.

    A :class:`MissingDependencyError` names those that are missing, and the extra that brings them.
    """
    if missing := [name for name in ("torch", "diffusers") if find_spec(name) is None]:
        message = f'{" and ".join(missing)} not installed, which training needs: pip install "rsprune[train]"'
        raise MissingDependencyError(message)
