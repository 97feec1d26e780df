"""`python -m rsprune`: the command line."""

from rsprune.cli import main

main()
