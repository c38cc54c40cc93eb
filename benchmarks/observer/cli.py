"""`python -m benchmarks observer`: what an observer that sees answers costs users and the machine."""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import machine
from benchmarks.markdown import table
from benchmarks.observer.rig import BODY, Result, Rig, Situation, rig
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from benchmarks.service.wrk import find_wrk
from contract.observation import MOST_PER_S
from contract.terminal import Terminal
from rollout import observe
from rollout.observe import Observe

PAGE = "observer.md"
ROUNDS, SECONDS = 6, 2
ALONE, BUSY = 1, 8  # connections
NOTHING, BY_DEFAULT, SHARE, ALL = "nothing", "default", "share", "all"
_SHOWN: Mapping[str, tuple[str, Observe | float | None]] = {
    NOTHING: ("nothing", None),
    BY_DEFAULT: (f"`observe: {observe.BY_DEFAULT}`, the default", observe.BY_DEFAULT),
    SHARE: ("`observe: 10%`", Observe(share=0.1, per_s=MOST_PER_S)),
    ALL: ("everything", 1.0),
}
SITUATIONS = tuple(
    Situation(f"{place}, {key}", f"{place}: {title}", is_shadow=is_shadow, shown=shown)
    for place, is_shadow in (("a step", False), ("the shadow", True))
    for key, (title, shown) in _SHOWN.items()
)
HEADS = (
    "",
    "p50, c=1",
    "requests/s, c=8",
    "CPU us/request, c=8: gateway",
    "observer",
    "all with the versions",
    "answers seen, c=8",
)
RATIO_HEADS = ("over nothing", "p50, c=1", "requests/s, c=8", "CPU/request, c=8", "CPU/request, c=1")
MOST_P50_MS, LEAST_THROUGHPUT = 0.1, 0.98  # of the default; see docs/decisions/0056
MOST_P50_OF_ALL_MS = 0.5

Round = Mapping[str, Mapping[int, Result]]  # by situation and connections


def observer(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each situation is measured.")] = ROUNDS,
    seconds: Annotated[int, typer.Option(min=1, help="How long each load lasts.")] = SECONDS,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Load the gateway in a step and in the shadow, and compare no observer, a share of the answers, and all."""
    find_wrk()
    began, measured = machine(), []
    with tempfile.TemporaryDirectory(prefix="kanaria-") as name, Terminal(stderr=True).status("") as status:
        folder = Path(name)
        (folder / "bodies.jsonl").write_bytes(BODY)
        with rig(folder / "rig") as made:
            for number in range(rounds):
                status.update(f"round {number + 1} of {rounds} ...")
                first = number % len(SITUATIONS)
                turn = (*SITUATIONS[first:], *SITUATIONS[:first])
                measured.append({one.key: _measured(made, one, folder / "bodies.jsonl", seconds) for one in turn})
    show_table(HEADS, rows(measured))
    show_table(RATIO_HEADS, ratio_rows(measured))
    if write:
        command = command_line("observer", ("--rounds", rounds, ROUNDS), ("--seconds", seconds, SECONDS))
        write_files(out, {PAGE: page(measured, command, began)})


def _measured(made: Rig, one: Situation, bodies: Path, seconds: int) -> Mapping[int, Result]:
    return {
        connections: made.measure(one, bodies, connections=connections, seconds=seconds)
        for connections in (ALONE, BUSY)
    }


def rows(rounds: Sequence[Round]) -> Iterator[tuple[str, ...]]:
    """One row for each situation: median (lowest to highest round) of each number."""
    for one in SITUATIONS:
        alone, busy = ([each[one.key][connections] for each in rounds] for connections in (ALONE, BUSY))
        has_observer = one.shown is not None
        yield (
            one.title,
            _spread([result.load.p50_us / 1e3 for result in alone], "{:.2f} ms"),
            _spread([result.load.requests_per_s for result in busy], "{:,.0f}"),
            _spread([result.gateway_cpu_us for result in busy], "{:.0f}"),
            _spread([result.observer_cpu_us for result in busy], "{:.0f}") if has_observer else "",
            _spread([result.cpu_us for result in busy], "{:.0f}"),
            _spread([100 * result.seen for result in busy], "{:.1f} %") if has_observer else "",
        )


def ratio_rows(rounds: Sequence[Round]) -> Iterator[tuple[str, ...]]:
    """One row for each situation with an observer; ratios are taken within a round."""
    for one in SITUATIONS:
        if one.shown is not None:
            yield (
                one.title,
                *(_spread(_over_nothing(rounds, one, of, value), "{:.2f}x") for of, value in _COMPARED),
            )


def _over_nothing(
    rounds: Sequence[Round], one: Situation, connections: int, value: Callable[[Result], float]
) -> list[float]:
    base = f"{one.key.partition(', ')[0]}, {NOTHING}"
    return [value(each[one.key][connections]) / value(each[base][connections]) for each in rounds]


_COMPARED: tuple[tuple[int, Callable[[Result], float]], ...] = (
    (ALONE, lambda result: result.load.p50_us),
    (BUSY, lambda result: result.load.requests_per_s),
    (BUSY, lambda result: result.cpu_us),
    (ALONE, lambda result: result.cpu_us),
)


def limits(rounds: Sequence[Round]) -> Iterator[str]:
    """Each limit with what was measured, and whether it is kept."""
    for place in ("a step", "the shadow"):
        by_default, everything = (f"{place}, {key}" for key in (BY_DEFAULT, ALL))
        slower_ms, all_slower_ms = (_slower_ms(rounds, key, place) for key in (by_default, everything))
        one = next(each for each in SITUATIONS if each.key == by_default)
        cpu = statistics.median(_over_nothing(rounds, one, BUSY, lambda result: result.cpu_us))
        yield _limit(f"{place}, the default: a lone request", slower_ms, MOST_P50_MS, "{:+.2f} ms at p50")
        yield _limit(f"{place}, the default: throughput", 1 - 1 / cpu, 1 - LEAST_THROUGHPUT, "{:+.1%} of the CPU")
        yield _limit(f"{place}, everything: a lone request", all_slower_ms, MOST_P50_OF_ALL_MS, "{:+.2f} ms at p50")


def _slower_ms(rounds: Sequence[Round], key: str, place: str) -> float:
    base = f"{place}, {NOTHING}"
    return statistics.median((each[key][ALONE].load.p50_us - each[base][ALONE].load.p50_us) / 1e3 for each in rounds)


def _limit(what: str, measured: float, most: float, shape: str) -> str:
    verdict = "kept" if measured <= most else "**not kept**"
    return f"- {what}: {shape.format(measured)}, {shape.format(most)} allowed: {verdict}."


def answer_cost_us(rounds: Sequence[Round]) -> float:
    """CPU time of the observer for each answer that it reads, in a situation in which it reads all that it gets."""
    busy = [each[f"a step, {SHARE}"][BUSY] for each in rounds]
    return statistics.median(each.observer_cpu_us / each.seen for each in busy)


def _spread(values: Sequence[float], shape: str) -> str:
    said = [shape.format(value) for value in (statistics.median(values), min(values), max(values))]
    return f"{said[0]} ({said[1]} to {said[2]})"


def page(rounds: Sequence[Round], command: str, began: str) -> str:
    """The whole page, as Markdown.

    Args:
        rounds: what was measured.
        command: the command that wrote it.
        began: the machine before the benchmark, in words.
    """
    newline = "\n"
    return f"""\
# What an observer costs

Written by `{command}`, on {began}.

The gateway has two versions of a service that answers at once. In a step each version gets half of the requests, and
the plan says what answers mean. In the shadow the canary gets a copy of each request, stable gets one in five of the
observed requests twice, and answers are compared. The rows differ in how many requests' answers the observer gets:
by `observe` in the plan, or everything, at any request rate. There were {len(rounds)} rounds of all situations in turn,
with the same processes; ratios are taken within a round. All numbers: median (lowest to highest round).

{table(RATIO_HEADS, ratio_rows(rounds))}

{table(HEADS, rows(rounds))}

The limits, by the medians of the rounds. Throughput is judged by the CPU time of a request, all processes together: wrk
and other work on the machine disturb the requests a second, and CPU time that one request does not need is free for
others.

{newline.join(limits(rounds))}

Reading an answer takes {answer_cost_us(rounds):.0f} us of the observer's CPU, so one core reads about
{1e6 / answer_cost_us(rounds):,.0f} answers a second. The gateway shows it the answers to at most {MOST_PER_S} requests
a second, in the shadow two or three of each. `observe: 10%` is a tenth of the requests, within the same limit.
"""
