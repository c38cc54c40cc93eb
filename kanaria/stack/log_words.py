"""What a process said last, read from the end of its log."""

import re
from pathlib import Path

from contract.plain_text import printable
from kanaria.stack.inherited import NOT_PASSED

_READ_BYTES = 4096
_LONGEST_LINE = 300


def last_words(log: Path) -> str:
    """The end of a log as one line, preferring the line that names an error."""
    lines = last_lines(log)
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
    return (errors or lines or [""])[-1][:_LONGEST_LINE]


def last_line(log: Path) -> str:
    """The last line of a log, whatever it says."""
    return (last_lines(log) or [""])[-1][:_LONGEST_LINE]


def last_lines(log: Path) -> list[str]:
    """The lines at the end of a log that are the process's own; none where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _READ_BYTES))
            lines = map(printable, file.read().decode(errors="replace").splitlines())
            return [line.strip() for line in lines if line.strip() and not line.startswith(NOT_PASSED)]
    except OSError:
        return []
