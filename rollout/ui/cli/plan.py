"""The plan of a command: its option, reading it, and warnings about it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.terminal import say
from rollout.errors import CommandRefused, ControllerUnreachable, SpecError

if TYPE_CHECKING:
    from rollout.spec import RolloutSpec
    from rollout.ui.client import ControllerClient

DEFAULT_SPEC = Path("rollout.yaml")
SpecOption = Annotated[
    Path | None, typer.Option("--spec", help="Plan of the release. Default: ./rollout.yaml if it exists.")
]


def warn(plan: "RolloutSpec") -> None:
    """Print on stderr what a plan gives up."""
    if plan.remark:
        typer.secho(f"note: {plan.remark}", fg="yellow", err=True)


def look_at_stable(plan: "RolloutSpec", client: "Callable[[], ControllerClient]") -> bool:
    """Print on stderr which of the plan's own signals cannot be counted on stable now. Returns whether all can."""
    if not plan.signals.own:
        return True
    try:
        check = client().check(plan)
    except (ControllerUnreachable, CommandRefused) as error:
        typer.secho(f"note: it was not checked whether your own signals can be counted: {error.what}", err=True)
        return True
    if check.stable is None:
        typer.secho("note: no version is running, so your own signals could not be checked on a metrics page", err=True)
    for found in check.findings:
        text = f"signals.{found.signal}: on {check.stable} {found.saw}\n  do:  {found.do}"
        say(text, colour="red" if found.is_certain else "yellow", err=True)
    return not any(found.is_certain for found in check.findings)


def read_spec(path: Path | None) -> "RolloutSpec":
    """The plan in `path`, or in ./rollout.yaml, or the default one. Raises SpecError."""
    from rollout.spec import RolloutSpec, parse_spec  # noqa: PLC0415 - slow, and not all commands need a plan

    if path is None and not DEFAULT_SPEC.exists():
        return RolloutSpec()
    path = path or DEFAULT_SPEC
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read", saw=str(error), do="give the path of a rollout.yaml") from error
    return parse_spec(text, name=str(path))
