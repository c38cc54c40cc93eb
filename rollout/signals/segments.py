"""Segments: requests told apart by the value of a header, such as a tenant, so that one that is harmed alone is found.

Values are callers' input, and each that is told apart is a series and a share of the evidence. So there are few: those
that a plan lists, or the first that stable answers well several times. All others are counted together.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

MOST_SEGMENTS = 20
OTHER, ABSENT = "other", "absent"  # the segments of all other values, and of requests without the header
LONGEST_SEGMENT = 64  # characters

_OFTEN = 5  # good answers of stable; a value that never comes twice tells nobody apart
_MOST_CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class Segments:
    """How a data plane tells requests apart."""

    header: str
    names: tuple[str, ...] = ()  # values that are segments of their own
    is_open: bool = False  # values that are none yet are looked for


def is_name(value: str) -> bool:
    """Whether a header's value can be a segment: short, and of characters that need no quotes anywhere."""
    is_plain = len(value) <= LONGEST_SEGMENT and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@:/+-]*", value) is not None
    return is_plain and value not in (OTHER, ABSENT)


class SegmentSearch:
    """Finds the values that come often, in bounded memory: the frequent items of Misra and Gries.

    Source: Misra and Gries 1982, Sci. Comput. Program. 2(2), 143-152.
    """

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def found(self, values: Iterable[str], *, known: Collection[str]) -> tuple[str, ...]:
        """The values that become segments, the most frequent first.

        Args:
            values: of requests that stable answered well, since the last call.
            known: the segments that there are.
        """
        for value in values:
            if value not in known and is_name(value):
                self._seen[value] += 1
                if len(self._seen) > _MOST_CANDIDATES:
                    self._seen = Counter({name: times - 1 for name, times in self._seen.items() if times > 1})
        often = [name for name, times in self._seen.most_common() if times >= _OFTEN]
        new = tuple(often[: max(0, MOST_SEGMENTS - len(known))])
        for name in new:
            del self._seen[name]
        return new
