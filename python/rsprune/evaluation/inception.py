"""The Inception features of FID and KID, by torch-fidelity, from a weights file that the user names."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.encoders.checkpoints import read_state, weights_provenance
from rsprune.errors import WeightsError, needed_by
from rsprune.evaluation.extractors import batches

__all__ = ["Inception"]

FILE = "weights-inception-2015-12-05-6726825d.pth"


class Inception:
    """The 2,048 features before the last layer of the Inception network of FID (TensorFlow, 2015-12-05).

    The network, and its resizing, which is that of TensorFlow 1 to the bit, are torch-fidelity's. Nothing is ever
    downloaded, and no code in the file is run.

    Parameters
    ----------
    weights
        The file that torch-fidelity's release 0.2.0 has: ``weights-inception-2015-12-05-6726825d.pth``. pytorch-fid's
        ``pt_inception-2015-12-05-6726825d.pth`` holds the same tensors.
    device, batch_size
        ``"cpu"`` or ``"cuda"``; images in one forward pass.

    Raises
    ------
    MissingDependencyError
        torch-fidelity is not installed.
    WeightsError
        No such file, or not these weights.
    """

    name = "inception-v3-2015-12-05"
    frechet = "FID"
    kernel = "KID"

    def __init__(self, weights: str | Path, *, device: str = "cpu", batch_size: int = 32) -> None:
        import torch

        with needed_by("FID", "eval"):
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        path = Path(weights)
        if not path.is_file():
            message = f"no Inception weights at {path}: download {FILE} of torch-fidelity's release v0.2.0, and name it"
            raise WeightsError(message)
        state = read_state(path)
        # torch-fidelity runs whatever code a file holds: it is given one that holds tensors alone.
        with tempfile.TemporaryDirectory() as folder:
            clean = Path(folder) / FILE
            torch.save(state, clean)
            try:
                network = FeatureExtractorInceptionV3(self.name, ["2048"], feature_extractor_weights_path=str(clean))
            except RuntimeError as error:
                message = f"{path} does not hold the weights of FID's Inception network: {error}"
                raise WeightsError(message) from error
        self._network = network.to(device)
        self._device, self._batch_size = device, batch_size
        self._weights = weights_provenance(path)

    def provenance(self) -> dict[str, Any]:
        """The weights' SHA-256, the rule of resizing, and the version of torch-fidelity."""
        return {
            "name": self.name,
            "weights": self._weights,
            "resize": "bilinear to 299 x 299 as TensorFlow 1 does, without antialiasing",
            "torch-fidelity": version("torch-fidelity"),
        }

    def features(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32 (N, 2048) of images, uint8 (H, W, 3), of any sizes."""
        import torch

        found = []
        with torch.inference_mode():
            for batch in batches(images, self._batch_size):
                pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self._device)
                found.append(self._network(pixels)[0].cpu().numpy())
        return np.concatenate(found)
