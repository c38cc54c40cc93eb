"""`python -m benchmarks lean`: a second version, commands, an idle stack, the gateway's parts, a lone request."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.lean import commands, gateway, idle, lone, page, versions
from benchmarks.machine import machine
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from benchmarks.service.cli import subject_of
from benchmarks.service.contenders import OURS, PEERS
from benchmarks.service.visits import visit_all
from benchmarks.service.wrk import find_wrk
from contract.terminal import Terminal

ROUNDS, SECONDS, IDLE_S = 5, 3, 120
_TURNS = 4  # a round, of one second for each server


def lean(
    stable: Annotated[str, typer.Argument(help="Bento of the first version, `name:version`.")],
    canary: Annotated[str, typer.Argument(help="Bento of the second version, `name:version`.")],
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each thing is measured.")] = ROUNDS,
    seconds: Annotated[int, typer.Option(min=1, help="Duration of each load, seconds.")] = SECONDS,
    idle_s: Annotated[int, typer.Option(min=10, help="How long the stack runs without traffic, seconds.")] = IDLE_S,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Measure what a second version, a command, a stack without traffic and a lone request cost."""
    find_wrk()
    where, subject = machine(), subject_of(canary)
    with tempfile.TemporaryDirectory(prefix="kanaria-") as name, Terminal(stderr=True).status("") as status:
        folders = {part: Path(name, part) for part in ("versions", "commands", "idle", "gateway", "lone", "slowest")}
        for folder in folders.values():
            folder.mkdir()
        tables: dict[str, Iterable[tuple[str, ...]]] = {}
        status.update("a second version ...")
        tables["versions"] = _versions((stable, canary), folders["versions"], rounds)
        status.update("commands ...")
        tables["commands"] = _commands(folders["commands"], rounds)
        status.update("a stack without traffic ...")
        tables["idle"] = list(page.idle_rows(idle.shares(stable, canary, folders["idle"], idle_s)))
        status.update("the gateway ...")
        tables["gateway"] = list(page.gateway_rows([*gateway.rounds(folders["gateway"], rounds, seconds)]))
        status.update("one row ...")
        peers = [peer for peer in PEERS if peer.key in page.KEYS]
        visits = visit_all([OURS, *peers], subject, folders["lone"], rounds=rounds, seconds=seconds)
        tables["lone"] = list(page.lone_rows([*visits]))
        status.update("the slowest of a hundred ...")
        turns = [*lone.turns([OURS, *peers], subject, folders["slowest"], _TURNS * rounds)]
        tables["slowest"] = list(page.slowest_rows(turns, {one.key: one.title for one in (OURS, *peers)}))
    for part, heads in page.HEADS.items():
        show_table(heads, tables[part])
    if write:
        options = [("--rounds", rounds, ROUNDS), ("--seconds", seconds, SECONDS), ("--idle-s", idle_s, IDLE_S)]
        command = command_line(f"lean {stable} {canary}", *options)
        write_files(
            out,
            {page.PAGE: page.page(tables, command=command, machine=where, rounds=rounds, is_ahead=turns[0].is_ahead)},
        )


def _versions(tags: tuple[str, str], folder: Path, rounds: int) -> list[tuple[str, ...]]:
    found = []
    for number in range(rounds):
        first = number % len(versions.WAYS)
        turn = (*versions.WAYS[first:], *versions.WAYS[:first])
        found.append({way.title: versions.second(way, tags, folder) for way in turn})
    return list(page.version_rows(found))


def _commands(folder: Path, rounds: int) -> list[tuple[str, ...]]:
    def both(command: str) -> tuple[float, float]:
        now_s = commands.cpu_s(command, folder, is_now=True)
        return now_s, commands.cpu_s(command, folder, is_now=False)

    for command in commands.COMMANDS:
        both(command)  # not counted
    return list(
        page.command_rows([{command: both(command) for command in commands.COMMANDS} for _ in range(2 * rounds)])
    )
