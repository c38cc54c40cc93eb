"""`python -m kanaria`: the same command without an installed console script."""

import sys
from pathlib import Path

# Python imports modules from the working directory first, where a user's `service.py` would hide ours.
if not sys.flags.safe_path and Path.cwd() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from kanaria.cli import main

main()
