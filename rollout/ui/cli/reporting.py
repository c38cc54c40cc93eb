"""`kanaria report`: a release with pictures, as one file."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from contract.files import write_whole
from rollout.ledger.ledger import Ledger
from rollout.ui.cli.conventions import access_of, explained
from rollout.ui.cli.reading import ReleaseArgument, find_release
from rollout.ui.report import of_ledger, render_report


def report(
    context: typer.Context,
    which: ReleaseArgument = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: in the state folder.")] = None,
) -> None:
    """Write a release's report with pictures as one HTML file, and print its path."""
    with explained():
        found = find_release(access_of(context).ledger, which)
        path = out or access_of(context).reports / f"release-{found.number}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(Ledger(access_of(context).ledger, read_only=True)) as ledger:
            extra = [of_ledger(ledger.head())]
        write_whole(path, render_report([found], title=f"Release {found.number}: {found.canary}", extra=extra))
        typer.echo(path)
