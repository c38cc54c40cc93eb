"""A hash chain over all events: no event can be changed, replaced or left out without being noticed.

Whoever can write the file can also recompute all hashes. So the last hash is also shown where it cannot be changed
later: in the metrics and in each report. Source: Haber & Stornetta 1991, How to time-stamp a digital document.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

_SHOWN_BYTES = 6  # metrics are floats, which hold this many bytes exactly


class Head(NamedTuple):
    """The end of a chain."""

    events: int
    hash: bytes

    def then(self, stored: Sequence[float | str | None], packed: bytes | None) -> "Head":
        """The end of the chain after one more event.

        Args:
            stored: its time, release, kind, text and schema number, as in the table.
            packed: its compressed text, if it is stored compressed.
        """
        row = json.dumps([self.events + 1, *stored]).encode()
        return Head(self.events + 1, hashlib.sha256(self.hash + row + (packed or b"")).digest())

    @property
    def shown(self) -> str:
        """The first bytes of the hash in hex, for people to compare."""
        return self.hash[:_SHOWN_BYTES].hex()

    @property
    def as_number(self) -> int:
        """The same bytes as a number, as in the metrics."""
        return int.from_bytes(self.hash[:_SHOWN_BYTES], "big")


START = Head(0, bytes(32))
