"""`kanaria demo`: the whole story on this machine."""

from typing import Annotated

import typer

from contract.terminal import Terminal
from kanaria.demo.story import Fault, run_demo
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL, explained


def demo(
    fault: Annotated[Fault, typer.Option(help="How the bad version fails.")] = "wrong",
) -> None:
    """Tell the whole story on this machine: a better version is promoted, a bad one is rolled back."""
    with explained():
        result = run_demo(fault, Terminal())
    raise typer.Exit(EXIT_DONE if result.is_as_promised else EXIT_FAIL)
