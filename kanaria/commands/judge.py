"""`kanaria judge`: only the judge, on a file of counts or as a server."""

from collections.abc import Mapping
from typing import Any, ClassVar

import typer

from kanaria.lazy import LazyGroup, Source

_OF_A_FILE = "file"


class JudgeCommands(LazyGroup):
    """`kanaria judge FILE` is short for `kanaria judge file FILE`. Write `./serve` for a file called `serve`."""

    program: ClassVar[str] = "kanaria judge"
    sources: ClassVar[Mapping[str, Source]] = {
        _OF_A_FILE: Source("rollout.ui.cli.judging:judge", "Judge counts from anywhere: prints the verdict as JSON."),
        "serve": Source(
            "rollout.server.cli:serve",
            "Judge releases that Argo Rollouts or Flagger carries out, from the samples in Prometheus.",
            needs=("judge",),
        ),
        "explain": Source(
            "rollout.server.cli:explain",
            "Show what each query of a metric profile finds in a Prometheus. Exit code 3 if a query finds nothing "
            "to count.",
        ),
    }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Treat arguments that do not begin with a command as those of `file`."""
        is_command = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        parsed: list[str] = super().parse_args(ctx, args if is_command else [_OF_A_FILE, *args])
        return parsed


app = typer.Typer(cls=JudgeCommands, help="Judge counts from anywhere: prints the verdict as JSON.")


@app.callback()
def _root() -> None:
    """Judge counts from anywhere: prints the verdict as JSON."""
