"""The terminal: prints text as it is. Rich would read `[a]` as markup, and `:b:` of the tag `a:b:c` as an emoji."""

from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text


class Terminal(Console):
    """Standard output, or standard error, in which every string means itself."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def status(self, status: RenderableType, **settings: Any) -> Status:
        """A spinner; it reads strings as markup, whatever its console says."""
        return super().status(Text(status) if isinstance(status, str) else status, **settings)


def print_error(error: object) -> None:
    """Print an error in red on standard error, with its paths unbroken."""
    Terminal(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
