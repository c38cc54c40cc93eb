"""The page about what little things cost, as Markdown."""

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
KEYS = ("kanaria", "starlette")  # the servers of the last two
_WHETHER_AHEAD = {
    True: "It was allowed.",
    False: "It was not allowed: whatever else the machine did is in these numbers.",
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
        rounds: how often each thing was measured, in turn with what it is compared with.
        is_ahead: whether the slowest requests were measured ahead of all other work.
    """
    return f"""\
# What little things cost

Written by `{command}` on {machine}.

A second version, a command, a stack that nobody asks, a lone request. Rounds: {rounds}; ratios are taken
within a round. All numbers: median (lowest-highest round). Memory and processor time depend less on what else the
machine did than seconds do.

## A second version

PSS divides each page of memory by the number of processes that have it. The first version was started in the same way,
by a keeper as in a stack. A stack forks the versions of its own Python from one process that has imported everything,
the fork server, whose imports (1.7 s of CPU) are paid with the first version
([decision 62](../decisions/0062-what-a-version-costs.md)).

{table(VERSION_HEADS, tables["versions"])}

## Commands

"Before" is the same command while Python collects garbage during imports and httpx imports its own command line.

{table(COMMAND_HEADS, tables["commands"])}

## A stack without traffic

One version with one worker, Prometheus and Alertmanager where they are installed; then the same with a second version
on trial, which a person has paused. What takes it, and what was done: [decision 70](../decisions/0070-nobody-asks.md).

{table(IDLE_HEADS, tables["idle"])}

## The gateway, part by part

One connection, a backend that answers at once, a gateway for each row that lacks one part.

{table(GATEWAY_HEADS, tables["gateway"])}

What costs most is counting: which version was chosen and which one answered, whose time it was, what failed. Releases
are judged by these numbers. A filter more or less is within what rounds differ by, with few rounds on a busy machine
even a bare proxy is: measure with more before one is taken out.

## One row

{table(LONE_HEADS, tables["lone"])}

Who asks alone, one request after the other on one connection, is answered without the queue of batches, in one write,
and counted without locks: [decision 64](../decisions/0064-a-lone-request.md).

## The slowest of a hundred

Both servers run, and each is asked for {TURN_S} s in turn, over one connection. Where the system allows it (Linux, as
root), servers and client have a core whenever they want one (`SCHED_FIFO`): what is slow then is the server, or the
machine below the system. wrk counts a pause as slow requests for as long as it lasts, so one of 20 ms spoils a turn.
Medians of the turns. {_WHETHER_AHEAD[is_ahead]}

{table(SLOWEST_HEADS, tables["slowest"])}

## What was tried and did not pay

- Collecting garbage before the fork: the holes are filled by each worker, 38 MB copied instead of 26.
- No supervisor at all where there is one worker: it would share all it has with the worker anyway, and a crash of
  the worker would be a crash of the version.
- Returning memory to the system after the imports (`malloc_trim`): 0.2 MB of 88 are free.
- Importing less: 58 MB of the 200 that each version shares are registered when torch's library is loaded, 80 are
  torch's own modules, 27 BentoML's with aiohttp, pyparsing, rich and others that no worker of ours uses. Modules that
  are left out may be a model's; shared, they cost nothing.
- The kernel's merging of equal pages (KSM): off where nobody switched it on as root, and addresses, so pages, differ.
- Building pydantic's validators at first use (`defer_build`): 3 % of a command.
- Fewer filters in the gateway: nothing that stands out of the noise, see above.
- A lone request that only skips its turn of the event loop: 1 %. What costs is the queue, so it is left out as a whole.
- Named tuples for frozen dataclasses, `count_nonzero` for `any`, heads put together once: 1 % together; they stay, for
  they are no longer than what they replaced.
- Fewer labels of the gateway's counters, or such with a fixed value, or one logger for all answers: nothing that stands
  out of nine rounds by hand, which differed by half. In their median, to ask which requests count took some 7 % of
  Envoy's time and to count them 11 %; both are evidence.
"""
