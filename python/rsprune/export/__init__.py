"""What a run chose, written out where it is used: `rsprune export`, and data sets for training."""

from rsprune.export.options import ExportOptions
from rsprune.export.run import Export, export_run

__all__ = ["Export", "ExportOptions", "export_run"]
