"""The command line: one file a command, each a thin face of a function of the package."""

from rsprune.cli.app import main

__all__ = ["main"]
