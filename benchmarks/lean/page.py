"""Writes the page about what little things cost, as Markdown."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.lean.gateway import DIRECT, PARTS, WHOLE
from benchmarks.lean.gateway import Result as Loaded
from benchmarks.lean.idle import Shares
from benchmarks.lean.lone import TURN_S, Turn
from benchmarks.lean.versions import WAYS, Second
from benchmarks.markdown import table
from benchmarks.service.visits import CASES, Visit

PAGE = "lean.md"
MOST_SLOWEST = 3.0  # p99 over p50 of lone requests
VERSION_HEADS = (
    "a second version beside a running one",
    "PSS, MB",
    "both and the fork server, MB",
    "ready after, s",
    "CPU until then, s",
)
COMMAND_HEADS = ("command", "CPU now, s", "before, s", "now over before")
IDLE_HEADS = ("process", "percent of a core", "beside a paused canary")
GATEWAY_HEADS = ("", "p50 over the whole gateway's", "Envoy's CPU over the whole gateway's", "Envoy's CPU, us/request")
LONE_HEADS = ("ours over bare Starlette", "requests/s", "CPU for each request")
SLOWEST_HEADS = ("", "p50, us", "p99, us", "p99 over p50 (quartiles)", f"turns of at most {MOST_SLOWEST:.0f}")

HEADS = {
    "versions": VERSION_HEADS,
    "commands": COMMAND_HEADS,
    "idle": IDLE_HEADS,
    "gateway": GATEWAY_HEADS,
    "lone": LONE_HEADS,
    "slowest": SLOWEST_HEADS,
}
KEYS = ("kanaria", "starlette")  # the servers of the last two sections
_WHETHER_AHEAD = {
    True: "It was allowed.",
    False: "It was not allowed, so these numbers contain the effect of other work on the machine.",
}


def spread(values: Iterable[float], digits: int = 2, unit: str = "") -> str:
    """Median (lowest-highest)."""
    found = sorted(values)
    median, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(found), found[0], found[-1]))
    return f"{median}{unit} ({low}-{high})"


def version_rows(rounds: Sequence[Mapping[str, Second]]) -> Iterator[tuple[str, ...]]:
    """One row for each way to serve."""
    for way in WAYS:
        found = [one[way.title] for one in rounds]
        yield (
            way.title,
            spread((one.pss_mb for one in found), 0),
            spread((one.both_mb for one in found), 0),
            spread((one.ready_s for one in found), 1),
            spread((one.cpu_s for one in found), 1),
        )


def command_rows(rounds: Sequence[Mapping[str, tuple[float, float]]]) -> Iterator[tuple[str, ...]]:
    """One row for each command; CPU seconds now and before."""
    for command in rounds[0] if rounds else ():
        found = [one[command] for one in rounds]
        yield (
            f"`kanaria {command}`",
            spread(now for now, _ in found),
            spread(before for _, before in found),
            spread((now / before for now, before in found), 2, "x"),
        )


def idle_rows(shares: Shares) -> Iterator[tuple[str, ...]]:
    """One row for each process, and the sum."""
    alone, beside = shares.alone, shares.beside_canary
    for name in sorted(alone, key=lambda name: -alone[name]):
        yield name, f"{alone[name]:.2f}", f"{beside.get(name, 0.0):.2f}"
    yield "all", f"{sum(alone.values()):.2f}", f"{sum(beside.values()):.2f}"


def gateway_rows(rounds: Sequence[Mapping[str, Loaded]]) -> Iterator[tuple[str, ...]]:
    """One row for each gateway that lacks a part."""
    for name in (*PARTS, DIRECT):
        yield (
            name,
            spread((one[name].p50_us / one[WHOLE].p50_us for one in rounds), 2, "x"),
            spread((one[name].cpu_us / one[WHOLE].cpu_us for one in rounds), 2, "x"),
            spread((one[name].cpu_us for one in rounds), 0),
        )


def lone_rows(visits: Sequence[Visit]) -> Iterator[tuple[str, ...]]:
    """One row for each load."""
    rounds = [
        tuple(next(one for one in visits if (one.round, one.contender.key) == (number, key)).results for key in KEYS)
        for number in sorted({visit.round for visit in visits})
    ]
    for case in CASES:
        pairs = [(ours[case.key], theirs[case.key]) for ours, theirs in rounds]
        yield (
            case.title,
            spread((ours.load.requests_per_s / theirs.load.requests_per_s for ours, theirs in pairs), 2, "x"),
            spread((ours.cpu_us / theirs.cpu_us for ours, theirs in pairs), 2, "x"),
        )


def slowest_rows(turns: Sequence[Turn], titles: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """One row for each server; `titles` by its key."""
    for key, title in titles.items():
        loads = [turn.loads[key] for turn in turns]
        ratios = [one.p99_us / one.p50_us for one in loads]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        yield (
            title,
            f"{statistics.median(one.p50_us for one in loads):,.0f}",
            f"{statistics.median(one.p99_us for one in loads):,.0f}",
            f"{median:.1f} ({low:.1f}-{high:.1f})",
            f"{statistics.mean(ratio <= MOST_SLOWEST for ratio in ratios):.0%}",
        )


def page(
    tables: Mapping[str, Iterable[tuple[str, ...]]], *, command: str, machine: str, rounds: int, is_ahead: bool
) -> str:
    """The whole page.

    Args:
        tables: rows by section: versions, commands, idle, gateway, lone, slowest.
        command: the command that wrote it.
        machine: cores and system, in words.
        rounds: how often each thing was measured, in turn with what it is compared to.
        is_ahead: whether the slowest requests were measured with priority over other work.
    """
    return f"""\
# What little things cost

Written by `{command}` on {machine}.

A second version, a command, a stack without traffic, a lone request. Rounds: {rounds}; ratios are taken
within a round. All numbers: median (lowest-highest round). Other work on the machine affects memory and CPU time less
than it affects seconds.

## A second version

PSS divides each page of memory by the number of processes that share it. A keeper started the first version in the same
way, as in a stack. A stack forks versions that run in its own Python from the fork server, one process that has
imported everything. Its imports (1.7 s of CPU) count for the first version
([decision 62](../decisions/0062-fork-server.md)).

{table(VERSION_HEADS, tables["versions"])}

## Commands

"Before" is the same command when Python collects garbage during imports and httpx imports its own command line.

{table(COMMAND_HEADS, tables["commands"])}

## A stack without traffic

One version with one worker, with Prometheus and Alertmanager if they are installed; then the same with a second version
on trial in a paused release. What uses the CPU, and what was done: [decision 70](../decisions/0070-idle-processes.md).

{table(IDLE_HEADS, tables["idle"])}

## The gateway, part by part

One connection and a backend that answers at once. The gateway of each row lacks one part.

{table(GATEWAY_HEADS, tables["gateway"])}

Counting costs most: which version was chosen, which one answered, whose time it was, and what failed. Releases are
judged by these numbers. One filter more or less makes no larger difference than there is between rounds. With few
rounds on a busy machine the same holds for a bare proxy: measure more rounds before you remove a filter.

## One row

{table(LONE_HEADS, tables["lone"])}

A lone client, which sends one request after another on one connection, is answered without the batch queue, in one
write, and is counted without locks: [decision 64](../decisions/0064-lone-requests.md).

## The slowest of a hundred

Both servers run, and each is loaded for {TURN_S} s in turn, over one connection. If the system allows it (Linux, as
root), servers and client get a core whenever they want one (`SCHED_FIFO`): slow requests are then due to the server, or
to the machine below the system. wrk counts slow requests for as long as a pause lasts, so one of 20 ms spoils a turn.
Medians of the turns. {_WHETHER_AHEAD[is_ahead]}

{table(SLOWEST_HEADS, tables["slowest"])}

## What was tried and did not pay

- Collecting garbage before the fork: each worker fills the holes, so 38 MB are copied instead of 26.
- No supervisor for a version with one worker: the supervisor shares all its memory with the worker anyway, and without
  it a crash of the worker would be a crash of the version.
- Returning memory to the system after the imports (`malloc_trim`): 0.2 MB of 88 are free.
- Importing less: of the 200 MB that each version shares, torch's library registers 58 MB when it is loaded. torch's own
  modules take 80 MB, and BentoML's 27 MB, with aiohttp, pyparsing, rich and others that no worker of ours uses. A model
  may need a module that is left out; shared, the modules cost nothing.
- The kernel's merging of equal pages (KSM): it is off unless root switched it on, and addresses, so pages, differ.
- Building pydantic's validators at first use (`defer_build`): 3 % of a command.
- Fewer filters in the gateway: no difference beyond the noise, see above.
- A lone request that only skips its turn of the event loop: 1 %. The queue costs more, so a lone request skips it.
- Named tuples for frozen dataclasses, `count_nonzero` for `any`, heads put together once: 1 % together. They stay,
  because the code is not longer.
- Fewer labels of the gateway's counters, labels with a fixed value, or one logger for all answers: no difference beyond
  the noise of nine manual rounds, which differed by half. In their median, deciding which requests count took some 7 %
  of Envoy's time and counting them 11 %; both are evidence.
"""
