"""How all processes log: lines of JSON. A line that cannot be written is lost; nothing else fails."""

import logging
import os
from contextlib import suppress

import structlog

_STDOUT = 1


class _Output:
    """Standard output; a full disk does not raise an error in the code that logs."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(_STDOUT, text.encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""


def log_as_json() -> None:
    """Set this process to log lines of JSON."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.WriteLogger(_Output()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
