"""Reads the rows of a well-formed request several times as fast as a validator.

This reader never refuses a body. A body that it cannot read is validated with pydantic, which decides and words the
refusal.
"""

from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

BRACE = ord("{")


class FastRowReader:
    """Reads `{"features": [[number, ...], ...]}` with rows of one width, and nothing else. Not thread-safe."""

    def __init__(self, width: int, max_rows: int) -> None:
        self._width = width
        self._max_rows = max_rows
        self._parser = simdjson.Parser()  # reuses its memory for the next body

    def rows(self, body: bytes) -> NDArray[np.float64] | None:
        """The rows, shape (rows, width); None if the body needs the validator."""
        try:
            document: Any = self._parser.parse(body)
            found = document["features"]
            size = len(found)
            # simdjson uses the first of two equal names, skips a byte order mark and flattens nested lists.
            is_well_formed = (
                len(document) == 1
                and body[0] == BRACE
                and body.count(b"[") == 1 + size
                and 0 < size <= self._max_rows
                and all(len(row) == self._width for row in found)
            )
            return np.frombuffer(found.as_buffer(of_type="d")).reshape(size, self._width) if is_well_formed else None
        except (ValueError, TypeError, KeyError, RuntimeError):
            return None
