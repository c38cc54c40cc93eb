"""`python -m kanaria`: the same command, where no console script is installed."""

import sys
from pathlib import Path

# Python looks for modules in the present folder first, where a user's `service.py` would hide ours.
if not sys.flags.safe_path and Path.cwd() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from kanaria.cli import main

main()
