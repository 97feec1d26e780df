"""How the work on shards is carried out, and how it is watched."""

from rsprune.runners.local import run_shards
from rsprune.runners.observer import Bars, JsonLines, Observer, Silent, observe

__all__ = ["Bars", "JsonLines", "Observer", "Silent", "observe", "run_shards"]
