"""Read the rows of a request that is plainly good, several times as quickly as a validator can.

Called by the body parser, which asks pydantic about every body that this does not take: what is accepted and every
word of a refusal are pydantic's. Knows nothing of what may be refused, and why.
"""

from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

BRACE = ord("{")


class PlainReader:
    """Reads `{"features": [[number, ...], ...]}` with rows of one width, and nothing else.

    Not for two threads at once.
    """

    def __init__(self, width: int, max_rows: int) -> None:
        self._width = width
        self._max_rows = max_rows
        self._parser = simdjson.Parser()  # its memory is used again for the next body

    def rows(self, body: bytes) -> NDArray[np.float64] | None:
        """The rows, shape (rows, width); None when the body is not plainly good."""
        try:
            document: Any = self._parser.parse(body)
            found = document["features"]
            size = len(found)
            # simdjson takes the first of two equal names, skips a byte order mark and flattens lists in lists.
            is_plain = (
                len(document) == 1
                and body[0] == BRACE
                and body.count(b"[") == 1 + size
                and 0 < size <= self._max_rows
                and all(len(row) == self._width for row in found)
            )
            return np.frombuffer(found.as_buffer(of_type="d")).reshape(size, self._width) if is_plain else None
        except (ValueError, TypeError, KeyError, RuntimeError):
            return None
