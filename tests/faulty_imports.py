"""What the processes of faulty_system.py have imported when they begin: their calls are those of the work itself."""

import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
import safetensors.numpy  # noqa: F401

import rsprune.cli.app
import rsprune.report
import rsprune.runs.prune
import rsprune.runs.stages  # noqa: F401
import small_runs  # noqa: F401
