"""Does the judge keep what it promises? Every promise is simulated, and what was measured stands beside it.

    nice python -m rollout.simulation.bars > docs/benchmarks/judge-bars.md

Ends with exit code 1 when a promise is broken. The judge's own tests hold small versions of the same.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from rollout.simulation.parallel import Workers
from rollout.simulation.promises import CHAPTERS, Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables as Markdown; returns the exit code."""
    parser = argparse.ArgumentParser(description="Simulate what the judge promises.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every number of releases")
    parser.add_argument("--only", choices=CHAPTERS, action="append", help="a chapter; more than once for several")
    options = parser.parse_args(arguments)
    broken = 0
    with Workers(options.jobs) as workers:
        study = Study(workers, options.scale)
        for name in options.only or CHAPTERS:
            title, rows_of = CHAPTERS[name]
            print(f"\n## {title}\n\n{rows_of.__doc__}\n\n| | promised | measured | |\n|---|---|---|---|")
            began_s = time.monotonic()
            for row in rows_of(study):
                broken += not row.holds
                holds = "holds" if row.holds else "**broken**"
                print(f"| {row.what} | {row.promised} | {row.measured} | {holds} |", flush=True)
                print(f"{time.monotonic() - began_s:6.0f} s  {row.what}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
