"""`kanaria demo`: a whole release on this machine."""

from typing import Annotated

import typer

from contract.terminal import Terminal
from kanaria.demo.environment import Fault
from kanaria.demo.story import ServiceName, run_demo
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL, explained


def demo(
    service: Annotated[
        ServiceName,
        typer.Option(help="What is released: a model of the contract, or a service without it."),
    ] = "digits",
    fault: Annotated[Fault, typer.Option(help="The fault of the bad version.")] = "wrong",
) -> None:
    """Show a whole release on this machine: a better version is promoted, a bad one is rolled back."""
    with explained():
        result = run_demo(service, fault, Terminal())
    raise typer.Exit(EXIT_DONE if result.is_as_promised else EXIT_FAIL)
