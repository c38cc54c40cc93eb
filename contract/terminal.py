"""Prints text on the terminal as it is, without sequences that control the terminal.

Rich would read `[a]` as markup, and `:b:` of the tag `a:b:c` as an emoji.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from contract.plain_text import printable

if TYPE_CHECKING:  # most commands show no spinner
    from rich.status import Status


class Terminal(Console):
    """Standard output, or standard error, in which every string means itself."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As Rich does, but untrusted text cannot control the terminal."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def status(self, status: RenderableType, **settings: Any) -> "Status":
        """A spinner. Rich would read a plain string as markup here, whatever the console's setting."""
        return super().status(Text(status) if isinstance(status, str) else status, **settings)


def print_error(error: object) -> None:
    """Print an error in red on standard error, with its paths unbroken."""
    Terminal(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)


def say(text: str, *, err: bool = False, colour: str | None = None) -> None:
    """Print a line as `typer` does; some of it may be untrusted text."""
    typer.secho(printable(text), err=err, fg=colour)
