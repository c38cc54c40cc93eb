"""`python -m benchmarks noise`: the effect of noise on the judge, and how much of it each treatment leaves.

The judge is the real one; the noise is simulated and seeded. The unit tests contain small versions of this.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from benchmarks.output import FOLDER, Jobs, Out, Write
from benchmarks.proofs import noisy_blips, noisy_counts, noisy_latency, noisy_readings, noisy_users
from benchmarks.proofs.sections import (
    Only,
    Scale,
    Section,
    chosen_chapters,
    page_command,
    publish,
    simulated,
    workers_for,
)
from rollout.simulate.parallel import Workers
from rollout.simulate.release import Seed

PAGE = "noise.md"
_SEED = 1618
_Sections = Callable[[Workers, Sequence[Seed]], Iterator[Section]]
_CHAPTERS: dict[str, tuple[_Sections, int]] = {  # and the number of releases
    "counts": (noisy_counts.sections, 500),
    "blips": (noisy_blips.sections, 500),
    "latency": (noisy_latency.sections, 100),
    "readings": (noisy_readings.sections, 100),
    "users": (noisy_users.sections, 100),
}


def preface(command: str) -> str:
    """The text above the chapters."""
    return f"""\
# Noise

Written by `{command}`.

The mathematics of the judge is proven for requests that are independent, given their rates. Real requests are not, and
that matters more than any formula. This page shows how each kind of noise affects the judge without its treatment, and
how much of the effect remains with it. Everything is simulated and seeded; the judge is the real one. A window is 5 s,
a release an hour; *the ramp* is 1, 5, 25, 50 % for a quarter of an hour each. In brackets: 95 % confidence intervals,
after Clopper and Pearson.

No simulation covers noise slower than the half hour of history, or everything else that a real machine does.
[The same model against itself](aa-test.md) is a release on a real stack."""


def sections(workers: Workers, name: str, scale: float = 1.0) -> Iterator[Section]:
    """The sections of one chapter."""
    chapter, releases = _CHAPTERS[name]
    return chapter(workers, [(_SEED, number) for number in range(max(1, round(scale * releases)))])


def noise(
    only: Only = None,
    scale: Scale = 1.0,
    jobs: Jobs = None,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Simulate what noise does to the judge, treated and not. Chapters: counts, blips, latency, readings, users.

    Prints the page as Markdown, section by section, without `--write`.
    """
    names = chosen_chapters(_CHAPTERS, only, write=write)
    with workers_for(jobs) as workers:
        found = (simulated(section) for name in names for section in sections(workers, name, scale))
        publish(chain([preface(page_command("noise", scale))], found), PAGE, out, write=write)
