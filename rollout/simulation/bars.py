"""Does the judge keep what it promises? Every promise is simulated, and what was measured stands beside it.

    nice python -m rollout.simulation.bars > docs/benchmarks/judge-bars.md

Ends with exit code 1 when a promise is broken. The judge's own tests hold small versions of the same.
"""

import argparse
import inspect
import os
import sys
import time
from collections.abc import Sequence

from rollout.simulation.parallel import Workers
from rollout.simulation.promises import CHAPTERS, Study

_PREFACE = """\
# What the judge promises, and what it keeps

Written by `python -m rollout.simulation.bars`. Traffic is simulated and seeded; the judge, and in whole releases the
decisions, the steps and the state, are the real ones. 20 requests a second, 2 of them to the canary, unless a row says
otherwise. In brackets: 95 % confidence intervals, of shares after Clopper and Pearson, of quantiles by order
statistics. *Within error*: over the promise, but not by more than chance explains. A chapter that was made with fewer
releases than the command takes says so. Takes some twenty minutes on two cores."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables as Markdown; returns the exit code."""
    parser = argparse.ArgumentParser(description="Simulate what the judge promises.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every number of releases")
    parser.add_argument("--only", choices=CHAPTERS, action="append", help="a chapter; more than once for several")
    options = parser.parse_args(arguments)
    print(_PREFACE)
    broken, began_s = 0, time.monotonic()
    with Workers(options.jobs) as workers:
        for name in options.only or CHAPTERS:
            title, rows_of = CHAPTERS[name]
            fewer = "" if options.scale == 1 else f"\n(`--only {name} --scale {options.scale:g}`)\n"
            print(f"\n## {title}\n\n{inspect.getdoc(rows_of)}\n{fewer}\n| | promised | measured | |\n|---|---|---|---|")
            for row in rows_of(Study(workers, options.scale)):
                broken += row.status == "broken"
                status = f"**{row.status}**" if row.status == "broken" else row.status
                print(f"| {row.what} | {row.promised} | {row.measured} | {status} |", flush=True)
                print(f"{time.monotonic() - began_s:5.0f} s  {row.what}: {row.status}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
