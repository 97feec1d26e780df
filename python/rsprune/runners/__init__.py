"""How the work on shards is carried out, and how it is watched."""

from rsprune.runners.local import run_shards
from rsprune.runners.progress import JsonLines, NoProgress, Progress, ProgressBars, show_progress

__all__ = ["JsonLines", "NoProgress", "Progress", "ProgressBars", "run_shards", "show_progress"]
