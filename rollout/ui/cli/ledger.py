"""`kanaria ledger`: copy the ledger, check it, restore it from a copy, or start a new one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from contract.terminal import print_error
from rollout.errors import LedgerDamaged, LedgerGone, NoLedger, NotALedger, SpecError
from rollout.explain.format import date
from rollout.ledger.check import Contents
from rollout.ledger.check import check as check_ledger
from rollout.ledger.copies import copy, scheduled_copy
from rollout.ledger.lock import WriterLock
from rollout.ledger.restoring import Restored, start_new_ledger
from rollout.ledger.restoring import restore as restore_ledger
from rollout.ui.cli.conventions import EXIT_BAD_INPUT, EXIT_FAIL, Json, access_of, explained, print_json

app = typer.Typer(no_args_is_help=True, help="Copies of the ledger: make one, check one, restore one.")


@app.command()
def backup(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="File to write. Default: a new one among the copies in the state folder.")
    ] = None,
) -> None:
    """Copy the ledger, even while the controller writes to it, and check the copy."""
    with explained():
        access = access_of(context)
        if file is not None:
            with _bad_input_for(file):
                contents = copy(access.ledger, file)
            typer.echo(f"{file}: {_in_words(contents)}")
            return
        made = scheduled_copy(access.ledger, keep=access.ledger_copies, now_s=time.time())
        typer.echo(
            f"{made.path}: {_in_words(made.contents)}" + ("" if made.is_new else "; it already holds everything")
        )
        for removed in made.removed:
            typer.echo(f"removed {removed}")


@app.command()
def check(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Ledger or copy to read. Default: the ledger of the state folder.")
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(min=1, help="Number of an event: print its hash, to compare with a report's or a metric's."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read all of a ledger. Exit code 0: it is whole; 1: it is damaged, changed or gone; 3: it cannot be read."""
    ledger = access_of(context).ledger
    with explained(), _damage_is_a_failure(), _bad_input_for(file, must_exist=True):
        contents = check_ledger(file or ledger, at=at)
    if as_json:
        print_json({**asdict(contents), "head": contents.head._asdict() | {"hash": contents.head.shown}})
        return
    typer.echo(f"{file or ledger}: {_in_words(contents)}")
    typer.echo(
        f"event {contents.head.events} has the hash {contents.head.shown}, {contents.head.as_number} as the metric "
        "kanaria_ledger_head"
    )


@app.command()
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Copy that `kanaria ledger backup` made.")],
    other_deployment: Annotated[
        bool, typer.Option("--other-deployment", help="Allow a copy of another deployment's ledger.")
    ] = False,
) -> None:
    """Replace the ledger by a copy; the replaced file gets another name. The stack must be down."""
    with explained(), _alone(access_of(context).ledger, "kanaria ledger restore") as ledger:
        with _bad_input_for(file, must_exist=True):
            done = restore_ledger(ledger, file, now_s=time.time(), is_other_allowed=other_deployment)
        typer.echo(f"restored: {_in_words(done.contents)}")
        for line in _lost(done):
            typer.echo(line)
        if done.aborted:
            typer.echo(f"{done.aborted} was running when the copy was made; it is aborted: its end is not known")
        if done.aside:
            typer.echo(f"the previous ledger is kept: {done.aside}")


@app.command()
def new(context: typer.Context) -> None:
    """Start a new ledger without history; the present one gets another name. The stack must be down."""
    with explained(), _alone(access_of(context).ledger, "kanaria ledger new") as ledger:
        aside = start_new_ledger(ledger, now_s=time.time())
        typer.echo(
            "a new ledger begins with `kanaria up TAG`" + (f"; the previous one is kept: {aside}" if aside else "")
        )


@contextmanager
def _alone(ledger: Path, who: str) -> Iterator[Path]:
    """Hold the ledger's lock, so that no controller runs meanwhile. Raises LedgerHeld."""
    lock = WriterLock(ledger, who=who)
    lock.take()
    try:
        yield ledger
    finally:
        lock.release()


@contextmanager
def _bad_input_for(file: Path | None, *, must_exist: bool = False) -> Iterator[None]:
    """Treat a file that the user named and that is not a ledger as bad input, not as a fault of the ledger."""
    if file is None:
        yield
        return
    if must_exist and not file.exists():
        raise SpecError("there is no such file", saw=str(file), do="correct the path")
    if not file.parent.is_dir():
        raise SpecError("there is no such folder", saw=str(file.parent), do="correct the path")
    try:
        yield
    except LedgerDamaged as error:
        if str(file) in error.saw:
            raise LedgerDamaged(error.what, saw=error.saw, do="take another copy") from error
        raise
    except (NoLedger, NotALedger) as error:
        print_error(error)
        raise typer.Exit(EXIT_BAD_INPUT) from error


@contextmanager
def _damage_is_a_failure() -> Iterator[None]:
    try:
        yield
    except (LedgerDamaged, LedgerGone) as error:
        print_error(error)
        raise typer.Exit(EXIT_FAIL) from error


def _lost(done: Restored) -> Iterator[str]:
    """What the previous ledger holds and the restored one does not, one line each."""
    if done.lost is not None:
        yield f"lost: {_counted(done.lost.events, 'later event')}"
        yield from (f"  {decision}" for decision in done.lost.decisions)
    elif done.aside is not None:
        yield "lost: later events are unknown, because the previous ledger cannot be read"
    yield from (f"  it had not been written yet: {decision}" for decision in done.forgotten)


def _in_words(contents: Contents) -> str:
    last = f", the last of {date(contents.last_s)}" if contents.last_s is not None else ""
    running = f", {contents.running} had not ended" if contents.running else ""
    return (
        f"whole, {_counted(contents.events, 'event')}{last}, {_counted(contents.releases, 'release')}, "
        f"stable {contents.stable or 'not chosen yet'}{running}"
    )


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
