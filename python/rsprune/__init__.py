"""rsprune: choose the few percent of a remote-sensing image collection that a diffusion model should be trained on."""

from rsprune import errors
from rsprune._core import VERSION as __version__
from rsprune._core import cpu_features
from rsprune.entropy import entropy

__all__ = ["__version__", "cpu_features", "entropy", "errors"]
