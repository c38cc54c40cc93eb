"""The plan of a command: its option, and how it is read."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.errors import SpecError
from rollout.spec import RolloutSpec, parse_spec

DEFAULT_SPEC = Path("rollout.yaml")
SpecOption = Annotated[
    Path | None, typer.Option("--spec", help="Plan of the release. Default: ./rollout.yaml where it exists.")
]


def warn(plan: RolloutSpec) -> None:
    """Say on stderr what a plan gives up."""
    if plan.remark:
        typer.secho(f"note: {plan.remark}", fg="yellow", err=True)


def read_spec(path: Path | None) -> RolloutSpec:
    """The plan in `path`, or in ./rollout.yaml, or the default one. Raises SpecError."""
    if path is None and not DEFAULT_SPEC.exists():
        return RolloutSpec()
    path = path or DEFAULT_SPEC
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read", saw=str(error), do="give the path of a rollout.yaml") from error
    return parse_spec(text, name=str(path))
