"""Tables for the pages, as Markdown."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its cells unchanged, without a line end after the last row."""
    text: str = tabulate(list(rows), heads, tablefmt="github", disable_numparse=True)
    return text
