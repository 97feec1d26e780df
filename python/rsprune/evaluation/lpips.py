"""LPIPS by its own library, from a backbone file that the user names."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsprune.encoders.checkpoints import read_state, weights_provenance
from rsprune.errors import WeightsError, needed_by

__all__ = ["Lpips", "Net"]

Net = Literal["alex", "vgg", "squeeze"]

FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class Lpips:
    """Learned perceptual distance of pairs of images (Zhang et al., 2018), version 0.1 of its authors.

    The heads come with the library, the backbone from a file of torchvision's. Nothing is ever downloaded.

    Parameters
    ----------
    backbone
        torchvision's weights of the network: one of :data:`FILES`.
    net
        ``"alex"``, by which the authors compare, ``"vgg"`` or ``"squeeze"``.
    device
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    MissingDependencyError
        lpips is not installed.
    WeightsError
        No such file, or not this network's weights.
    """

    def __init__(self, backbone: str | Path, *, net: Net = "alex", device: str = "cpu") -> None:
        with needed_by("LPIPS", "eval"):
            import lpips
        path = Path(backbone)
        if not path.is_file():
            message = f"no weights of {net} at {path}: download torchvision's {FILES[net]}, and name it"
            raise WeightsError(message)
        state = read_state(path)
        # It prints what it loads, and asks torchvision for an untrained network in a way that warns.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            model = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
        # `slice2.3.weight` is `features.3.weight` of torchvision.
        wanted = {name: re.sub(r"^slice\d+", "features", name) for name in model.net.state_dict()}
        try:
            model.net.load_state_dict({name: state[theirs] for name, theirs in wanted.items()})
        except (KeyError, RuntimeError) as error:
            message = f"{path} does not hold torchvision's weights of {net}: {error}"
            raise WeightsError(message) from error
        self._model, self._device, self._net = model.to(device).eval(), device, net
        heads = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
        self._weights = {"backbone": weights_provenance(path), "heads": weights_provenance(heads)}

    def provenance(self) -> dict[str, Any]:
        """The SHA-256 of backbone and heads, and the version of the library."""
        return {"name": f"lpips-{self._net}", "weights": self._weights, "resize": "none", "lpips": version("lpips")}

    def __call__(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        """The distance of two images, uint8 (H, W, 3) of one size."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack([a, b])).permute(0, 3, 1, 2).to(self._device).float() / 127.5 - 1
            return float(self._model(*pixels[:, None]))
