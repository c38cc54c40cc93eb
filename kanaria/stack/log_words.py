"""Reads the last message of a process from the end of its log."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from contract.plain_text import printable
from kanaria.stack.inherited import NOT_PASSED, as_reason, withheld

_READ_BYTES = 4096
_LONGEST_LINE = 300
_LED_TO_ANOTHER = (  # lines between the exceptions of one traceback: the last exception ended the process
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


def last_words(log: Path) -> str:
    """The last line of a log that names an error; without one, the last line."""
    lines, errors = last_lines(log), list[str]()
    for line in lines:
        if re.match(r"[\w.]*(Error|Exception|Exit)\b", line):
            errors.append(line)
        elif errors and line in _LED_TO_ANOTHER:  # an ending process may not have written the next exception yet
            errors.pop()
    return (errors or lines or [""])[-1][:_LONGEST_LINE]


def what_it_lacks(listed: Sequence[str] | None, log: Path) -> str:
    """Which variables of this environment the process did not get and may lack, in words; empty: none.

    Args:
        listed: patterns of variables that it gets in addition to the usual ones, see `inherited`; None: it gets all.
        log: its log, which may name such a variable.
    """
    return "" if listed is None else as_reason(withheld(os.environ, listed), "\n".join(last_lines(log)))


def last_line(log: Path) -> str:
    """The last line of a log."""
    return (last_lines(log) or [""])[-1][:_LONGEST_LINE]


def last_lines(log: Path) -> list[str]:
    """The process's own lines at the end of a log; empty if the log cannot be read."""
    try:
        with log.open("rb") as file:
            before = max(0, log.stat().st_size - _READ_BYTES)
            file.seek(before)
            lines = file.read().decode(errors="replace").splitlines()
            whole = lines[1:] if before and len(lines) > 1 else lines  # the first line may be cut off
            own = (printable(line) for line in whole)
            return [line.strip() for line in own if line.strip() and not line.startswith(NOT_PASSED)]
    except OSError:
        return []
