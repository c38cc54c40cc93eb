"""What noise does to the judge, and what each treatment of it leaves: needed, and enough?

    nice python -m rollout.simulation.noise > docs/benchmarks/noise.md

The judge is the real one; the noise is simulated and seeded. The unit tests hold small versions of the same.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from rollout.simulation import noisy_counts, noisy_readings, noisy_users
from rollout.simulation.parallel import Workers

_SEED = 1618
_CHAPTERS = {"counts": (noisy_counts, 500), "readings": (noisy_readings, 100), "users": (noisy_users, 100)}

_PREFACE = """\
# Noise

Written by `python -m rollout.simulation.noise`. The mathematics of the judge is proven for requests that are
independent given their rates. Real ones are not, and that matters more than any formula. Here stands what each kind of
noise would do to the judge, and what its treatment leaves of it. Everything is simulated and seeded; the judge is the
real one. A window is 5 s, a release an hour; *the ramp* is 1, 5, 25, 50 % for a quarter of an hour each. In brackets:
95 % confidence intervals, after Clopper and Pearson.

Not covered, because no simulation can: noise slower than the half hour of history, and whatever else a real machine
does. [The same model against itself](same.md) is a release on real parts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page as Markdown."""
    parser = argparse.ArgumentParser(description="Simulate what noise does to the judge.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--releases", type=int, help="of each kind; default: as many as each chapter is worth")
    parser.add_argument("--only", choices=_CHAPTERS, action="append", help="a chapter; more than once for several")
    options = parser.parse_args(arguments)
    began_s = time.monotonic()
    print(_PREFACE)
    with Workers(options.jobs) as workers:
        for name in options.only or _CHAPTERS:
            chapter, usual = _CHAPTERS[name]
            releases = options.releases or usual
            for line in chapter.chapter(workers, releases, [(_SEED, number) for number in range(releases)]):
                print(line, flush=True)
                print(f"{time.monotonic() - began_s:5.0f} s  {line[:100]}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
