"""Writes the page about a comparison of servers, as Markdown."""

from collections.abc import Sequence

from benchmarks.markdown import table
from benchmarks.service import tables
from benchmarks.service.scores import Promise, Score
from benchmarks.service.visits import CASES

PAGE, CHART = "service.md", "service.svg"


def page(
    scores: Sequence[Score], promises: Sequence[Promise], *, command: str, tag: str, machine: str, rounds: int
) -> str:
    """The whole page; its chart is expected beside it.

    Args:
        command: the command that wrote it.
        tag: the Bento that was served.
        machine: cores and system, in words.
        rounds: visits to each contender.
    """
    cases = "\n\n".join(
        f"### {case.title}\n\n{table(tables.CASE_HEADS, tables.case_rows(scores, case))}" for case in CASES
    )
    return f"""\
# The service beside others

Written by `{command}` on {machine}.

Every server serves the model of `{tag}` with one worker and one model thread. wrk loads it from the same machine; each
connection sends its next request when the last one was answered. There were {rounds} rounds. In each round every server
is started, warmed up, loaded and stopped in turn; the order shifts by one from round to round. Ratios are taken within
a round. All numbers: median (lowest-highest round).

![Our requests per second divided by those of each peer]({CHART})

{table(tables.ADVANTAGE_HEADS, tables.advantage_rows(scores))}

## Promises

{table(tables.PROMISE_HEADS, tables.promise_rows(promises))}

The model alone is called in a process without a server, with 32 rows at a time that are already arrays. The gateway is
Envoy as `kanaria up` runs it, with an API key.

Client, gateway and server share the machine's cores. If there are few cores, a closed loop of 8 connections keeps all
of them busy, and what the gateway adds is mostly the time that it takes from the server. Other work on the machine
affects the slowest of a hundred answers: compare it with that of the other servers below, not only with its limit.

## In numbers

Absolute numbers hold for this machine, which client and server share; the ratios hold elsewhere. Other work on the
machine affects the CPU time of all processes of a server least.

{cases}

### Processes

Memory of all processes of a server with one worker, after the load; shared pages are counted once.

{table(tables.PROCESS_HEADS, tables.process_rows(scores))}

The comparison needs wrk and the peers: `pip install --constraint constraints.txt -e '.[bench,bench-ray]'`. A peer that
is not installed is named and left out. The peers are in
[benchmarks/service/peers](../../benchmarks/service/peers), each written as its framework's guide shows it. If you find
one unfair, please open an issue.
"""
