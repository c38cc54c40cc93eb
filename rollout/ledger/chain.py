"""A hash for each event that covers all events before it: none can be changed, replaced or left out unseen.

Whoever can write the file can also write all hashes anew, so the last one is shown where that cannot be changed later:
in the metrics and in each report. Source: Haber & Stornetta 1991, How to time-stamp a digital document.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

_SHOWN_BYTES = 6  # as many as a float, which metrics are, holds exactly


class Head(NamedTuple):
    """The end of a chain."""

    events: int
    hash: bytes

    def then(self, stored: Sequence[float | str | None], packed: bytes | None) -> "Head":
        """The end with one more event.

        Args:
            stored: its time, release, kind, text and schema number, as the table has them.
            packed: the text, where that is packed.
        """
        row = json.dumps([self.events + 1, *stored]).encode()
        return Head(self.events + 1, hashlib.sha256(self.hash + row + (packed or b"")).digest())

    @property
    def shown(self) -> str:
        """The beginning of the hash, as people compare it."""
        return self.hash[:_SHOWN_BYTES].hex()

    @property
    def as_number(self) -> int:
        """The same as the metrics have it."""
        return int.from_bytes(self.hash[:_SHOWN_BYTES], "big")


START = Head(0, bytes(32))
