"""The page about a race, as Markdown. Pure."""

from collections.abc import Iterable, Sequence

from loadtest.benchmarks import tables
from loadtest.benchmarks.race import CASES
from loadtest.benchmarks.results import Bar, Score

PAGE, FIGURE = "service.md", "service.svg"


def page(scores: Sequence[Score], bars: Sequence[Bar], *, command: str, tag: str, machine: str, rounds: int) -> str:
    """The whole page; its chart is expected beside it.

    Args:
        command: what wrote it.
        tag: the Bento that was served.
        machine: cores and system, in words.
        rounds: visits to each contender.
    """
    cases = "\n\n".join(
        f"### {case.title}\n\n{_table(tables.CASE_HEADS, tables.case_rows(scores, case))}" for case in CASES
    )
    return f"""\
# The service beside others

Written by `{command}` on {machine}. All serve the model of `{tag}` with one worker and one model thread; wrk loads them
from the same machine, each connection sending its next request when the last was answered. {rounds} rounds: in each,
every server is started, warmed up, loaded and stopped, one after the other, the order shifted by one. Ratios are taken
within a round. Everywhere: median (lowest-highest round).

![Our requests per second over those of each peer]({FIGURE})

{_table(tables.ADVANTAGE_HEADS, tables.advantage_rows(scores))}

## Promises

{_table(tables.BAR_HEADS, tables.bar_rows(bars))}

The model alone is called in a process without a server, with 32 rows at a time that are arrays already. The gateway is
Envoy as `kanaria up` runs it, with an API key.

Client, gateway and server share the machine's cores. Where these are few, a closed loop of 8 connections keeps all of
them busy, and what the gateway adds is mostly the time that it takes from the server. The slowest of a hundred answers
shows whatever else the machine did meanwhile: compare it with that of the other servers below, not with the bar alone.

## In numbers

Absolute numbers are those of this machine, which client and server share; the ratios are what travels. CPU time, of all
processes of a server, is what least depends on what else the machine did.

{cases}

### Processes

Memory of all processes of a server with one worker, after the load; shared pages are counted once.

{_table(tables.PROCESS_HEADS, tables.process_rows(scores))}

It needs wrk, and the peers: `pip install --constraint constraints.txt -e '.[bench,bench-ray]'`. Whichever is not
installed is left out by name. They are in [loadtest/benchmarks/peers](../../loadtest/benchmarks/peers), each as its
framework's guide writes it. Whoever finds one unfair is asked to open an issue.
"""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
