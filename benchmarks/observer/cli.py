"""`python -m benchmarks observer`: what it costs users and the machine that an observer sees answers."""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import machine
from benchmarks.markdown import table
from benchmarks.observer.rig import BODY, Result, Situation, rig
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from benchmarks.service.wrk import find_wrk
from contract.terminal import Terminal

PAGE = "observer.md"
ROUNDS, SECONDS = 5, 3
ALONE, BUSY = 1, 8  # connections
SITUATIONS = (
    Situation("step", "a step", is_shadow=False, has_observer=False),
    Situation("step, observed", "a step, every answer read", is_shadow=False, has_observer=True),
    Situation("shadow", "the shadow", is_shadow=True, has_observer=False),
    Situation("shadow, observed", "the shadow, answers compared", is_shadow=True, has_observer=True),
)
HEADS = ("", "p50, c=1", "requests/s, c=8", "CPU us/request, gateway", "CPU us/request, observer", "answers seen, c=8")
RATIO_HEADS = ("with an observer over without", "p50, c=1", "requests/s, c=8", "gateway's CPU")

Round = Mapping[str, Mapping[int, Result]]  # by situation and connections


def observer(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each situation is measured.")] = ROUNDS,
    seconds: Annotated[int, typer.Option(min=1, help="How long each load lasts.")] = SECONDS,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Load the gateway in a step and in the shadow, with an observer and without, in turn, and compare."""
    find_wrk()
    began, measured = machine(), []
    with tempfile.TemporaryDirectory(prefix="kanaria-") as name, Terminal(stderr=True).status("") as status:
        folder = Path(name)
        (folder / "bodies.jsonl").write_bytes(BODY)
        for number in range(rounds):
            status.update(f"round {number + 1} of {rounds} ...")
            first = number % len(SITUATIONS)
            turn = (*SITUATIONS[first:], *SITUATIONS[:first])
            measured.append({one.key: _measured(one, folder, number, seconds) for one in turn})
    show_table(HEADS, rows(measured))
    show_table(RATIO_HEADS, ratio_rows(measured))
    if write:
        command = command_line("observer", ("--rounds", rounds, ROUNDS), ("--seconds", seconds, SECONDS))
        write_files(out, {PAGE: page(measured, command, began)})


def _measured(situation: Situation, folder: Path, number: int, seconds: int) -> Mapping[int, Result]:
    bodies = folder / "bodies.jsonl"
    with rig(situation, folder / f"{situation.key}-{number}") as made:
        made.measure(bodies, connections=BUSY, seconds=1)  # opens the connections
        return {
            connections: made.measure(bodies, connections=connections, seconds=seconds) for connections in (ALONE, BUSY)
        }


def rows(rounds: Sequence[Round]) -> Iterator[tuple[str, ...]]:
    """One row a situation: median (lowest-highest round) of each number."""
    for one in SITUATIONS:
        alone, busy = ([each[one.key][connections] for each in rounds] for connections in (ALONE, BUSY))
        yield (
            one.title,
            _spread([result.load.p50_us / 1e3 for result in alone], "{:.2f} ms"),
            _spread([result.load.requests_per_s for result in busy], "{:,.0f}"),
            _spread([result.gateway_cpu_us for result in alone], "{:.0f}"),
            _spread([result.observer_cpu_us for result in alone], "{:.0f}") if one.has_observer else "",
            _spread([100 * result.seen for result in busy], "{:.0f} %") if one.has_observer else "",
        )


def ratio_rows(rounds: Sequence[Round]) -> Iterator[tuple[str, ...]]:
    """One row for the step and one for the shadow; ratios are taken within a round."""
    wanted: tuple[tuple[int, Callable[[Result], float]], ...] = (
        (ALONE, lambda result: result.load.p50_us),
        (BUSY, lambda result: result.load.requests_per_s),
        (ALONE, lambda result: result.gateway_cpu_us),
    )
    for without, observed in zip(SITUATIONS[::2], SITUATIONS[1::2], strict=True):
        yield (
            without.title,
            *(
                _spread(
                    [value(each[observed.key][of]) / value(each[without.key][of]) for each in rounds],
                    "{:.2f}x",
                )
                for of, value in wanted
            ),
        )


def _spread(values: Sequence[float], shape: str) -> str:
    said = [shape.format(value) for value in (statistics.median(values), min(values), max(values))]
    return f"{said[0]} ({said[1]} to {said[2]})"


def page(rounds: Sequence[Round], command: str, began: str) -> str:
    """The whole page, as Markdown.

    Args:
        rounds: what was measured.
        command: the command that wrote it.
        began: the machine as it was before.
    """
    return f"""\
# What an observer costs

Written by `{command}`, on {began}.

Two versions of a service that answers at once stand behind the gateway. In a step each has half of the requests, and
with an observer the plan says what answers mean, so every answer is read. In the shadow the canary gets a copy of each
request; with an observer stable is asked one in five of them twice, and answers are compared. There were
{len(rounds)} rounds of all four in turn; ratios are taken within a round. All numbers: median (lowest to highest
round).

{table(RATIO_HEADS, ratio_rows(rounds))}

{table(HEADS, rows(rounds))}

wrk, versions, gateway and observer share the machine's cores, so under full load each takes time from the others:
there the observer costs throughput, and it takes a share of the answers where they are more than it can read. Nothing
waits for it: the p50 of a lone request is what users see.
"""
