"""What all commands share: exit codes, options, access to the deployment, and how errors are printed.

Exit codes: 0 done, promoted or pass; 1 rolled back or fail; 2 bad input; 3 could not decide.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.terminal import print_error
from rollout.errors import ControllerUnreachable, LedgerError, RolloutError

if TYPE_CHECKING:
    from rollout.ui.client import ControllerClient

EXIT_DONE, EXIT_FAIL, EXIT_BAD_INPUT, EXIT_UNDECIDED = 0, 1, 2, 3

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@dataclass(frozen=True, slots=True)
class Access:
    """How commands reach the deployment."""

    client: Callable[[], "ControllerClient"]
    ledger: Path
    reports: Path
    ledger_copies: int = 24  # how many copies are kept
    nobody_decides: Callable[[], str | None] = lambda: None  # why no controller runs, and what to do; None: one runs
    full_tag: Callable[[str], str] = str  # completes a tag that a person wrote; raises KanariaError for an unknown one


def access_of(context: typer.Context) -> Access:
    """The Access from the composition root. Raises the errors of reading the settings."""
    find = find_access(context)
    if find is None:
        raise TypeError("the composition root puts a function that gives an Access into the context")
    return find()


def find_access(context: typer.Context) -> Callable[[], Access] | None:
    """The function that the composition root put into the context; None where the command runs on its own."""
    found: Callable[[], Access] | None = context.find_root().obj
    return found


def exit_code(error: RolloutError) -> int:
    """The exit code of a command that ends with `error`."""
    return EXIT_UNDECIDED if isinstance(error, ControllerUnreachable | LedgerError) else EXIT_BAD_INPUT


@contextmanager
def explained() -> Iterator[None]:
    """Print a RolloutError to stderr and exit with its code."""
    try:
        yield
    except RolloutError as error:
        print_error(error)
        raise typer.Exit(exit_code(error)) from error


def print_json(data: object) -> None:
    """Print `data` as JSON, for programs."""
    typer.echo(json.dumps(data, indent=2))
