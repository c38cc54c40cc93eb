"""`kanaria processes`: the processes of this state folder."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from contract.terminal import Terminal, say
from kanaria.errors import SetupError, StackError
from kanaria.settings import Settings
from kanaria.stack.bentos import tag_of
from kanaria.stack.locks import one_command
from kanaria.stack.supervision import ProcessInfo, Supervisor
from rollout.ui.cli import explained

app = typer.Typer(help="Show the stack's processes, restart or stop one.", no_args_is_help=True)
console = Terminal()

_LONGEST_STOP_S = 60.0
NameArgument = Annotated[str, typer.Argument(help="Name of a process, as `show` lists it.")]


@app.command()
def show() -> None:
    """List the processes with state, pid and log."""
    with explained():
        supervisor = _supervisor()
        alive = supervisor.alive()
        table = Table.grid(padding=(0, 2))
        for name in sorted({*supervisor.names(), *alive}):
            info = supervisor.info(name)
            pid = info.pid if info and info.pid else alive[name][0].pid if name in alive else None
            table.add_row(name, _state(info), f"pid {pid}" if pid else "", str(info.log) if info else "")
        if table.rows:
            console.print(table, soft_wrap=True)
        else:
            typer.echo("nothing is running")
        if table.rows and not supervisor.is_running:
            typer.echo("there is no keeper, so processes that end are not restarted; `kanaria up` starts one")


@app.command()
def restart(name: NameArgument) -> None:
    """Restart a process. Its requests in progress are finished first."""
    with explained():
        supervisor = _supervisor()
        if supervisor.program(name) is None:
            raise _unknown(supervisor, name)
        # Without the lock, `kanaria up` could see a stack without a controller, and would start everything again.
        with one_command(Settings().root, doing="kanaria processes restart", say=say):
            program = supervisor.program(name)
            if program is None:
                raise _unknown(supervisor, name)
            with _ending_in_order():
                try:
                    _stop(supervisor, name)
                finally:
                    supervisor.add(program)
        typer.echo(f"{name} is restarted")


@app.command()
def stop(name: NameArgument) -> None:
    """Stop a version's process. The controller restarts one that a release or the traffic needs."""
    with explained():
        supervisor = _supervisor()
        if supervisor.info(name) is None:
            raise _unknown(supervisor, name)
        if tag_of(name) is None:
            raise SetupError(
                f"the stack needs the {name}",
                saw=f"`stop {name}`",
                do=f"use `restart {name}`, or `kanaria down` for all",
            )
        _stop(supervisor, name)
        typer.echo(f"{name} is stopped")


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit in the block: by default they end the process without `finally`."""
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]

    def end(number: int, _: object) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)  # a closing terminal may send both
        raise SystemExit(128 + number)

    for each in numbers:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)


def _stop(supervisor: Supervisor, name: str) -> None:
    if not supervisor.is_running:
        raise StackError(
            "there is no keeper to stop the process", saw="no keeper runs", do="run `kanaria up`, which starts one"
        )
    supervisor.stop(name)
    deadline = time.monotonic() + _LONGEST_STOP_S
    while (info := supervisor.info(name)) is not None and info.is_stopping:
        if time.monotonic() > deadline:
            raise StackError(f"{name} does not end", saw=f"pid {info.pid}", do=f"read {info.log}")
        time.sleep(0.1)


def _state(info: ProcessInfo | None) -> str:
    if info is None:
        return "leftover"
    state = "stopping" if info.is_stopping else "runs" if info.is_alive else "ended"
    return f"{state}, has crashed" if info.has_crashed else state


def _unknown(supervisor: Supervisor, name: str) -> SetupError:
    if not (names := supervisor.names()):
        return SetupError(
            f"there is no process {name}", saw="nothing runs here", do="start the stack with `kanaria up TAG`"
        )
    return SetupError(f"there is no process {name}", saw=f"processes: {', '.join(names)}", do="correct the name")


def _supervisor() -> Supervisor:
    settings = Settings()
    return Supervisor(settings.root, settings.logs)
