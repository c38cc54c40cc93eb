"""Segments: requests grouped by the value of a header, such as a tenant, so that harm to one tenant alone is found.

Values are callers' input, and each segment costs a series and a share of the evidence. So segments are few: those
that a plan lists, or the first values that stable answers well several times. All other values are counted together.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from contract.http import OWN_CALLER

MOST_SEGMENTS = 20
OTHER, ABSENT = "other", "absent"  # the segments of all other values, and of requests without the header
LONGEST_SEGMENT = 64  # characters

_OFTEN = 5  # good answers of stable before a value becomes a segment
_MOST_CANDIDATES = 1000  # values of one caller
_MOST_CALLERS = 100
_TRUSTED = ("", OWN_CALLER)  # a front end with the owner's key, or a gateway without keys, sends all tenants' requests
_REST = "the rest"  # all callers beyond `_MOST_CALLERS`, as one; no key can have this name


@dataclass(frozen=True, slots=True)
class Segments:
    """How a data plane assigns requests to segments."""

    header: str
    names: tuple[str, ...] = ()  # values that are segments of their own
    is_open: bool = False  # further values may become segments


def is_name(value: str) -> bool:
    """Whether a header's value can be a segment's name: short, and only characters that never need quotes."""
    is_plain = len(value) <= LONGEST_SEGMENT and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@:/+-]*", value) is not None
    return is_plain and value not in (OTHER, ABSENT)


class Asked(NamedTuple):
    """A request that was answered well."""

    value: str  # of the header
    caller: str = ""  # the name of the caller's key; empty: not known


class SegmentSearch:
    """Finds frequent values in bounded memory, with the frequent-items algorithm of Misra and Gries for each caller.

    Callers choose the values. So a caller whose key is not the owner's gets at most half of the segments that were free
    when the search began. After that the caller's values are ignored, so that they cannot crowd out other callers'.

    Source: Misra and Gries 1982, Sci. Comput. Program. 2(2), 143-152.
    """

    def __init__(self) -> None:
        self._seen: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by caller who may still get a segment
        self._places: Counter[str] = Counter()  # segments that each caller got
        self._most_by_one = -1  # -1 until the first call, which knows how many are free

    def found(self, asked: Iterable[Asked], *, known: Collection[str]) -> tuple[str, ...]:
        """The values that become segments, the most frequent first.

        Args:
            asked: requests that stable answered well, since the last call.
            known: the present segments.
        """
        room = max(0, MOST_SEGMENTS - len(known))
        if self._most_by_one < 0:
            self._most_by_one = room // 2
        counted = set()  # only these values can have become frequent
        for value, caller in asked:
            if room and value not in known and is_name(value):
                self._count(value, caller)
                counted.add(value)
        new = self._given_places(counted, room) if counted else []
        for caller, seen in self._seen.items() if new else ():
            if not self._may_take(caller):
                seen.clear()
            for value in new:
                del seen[value]
        return tuple(new)

    def _count(self, value: str, caller: str) -> None:
        is_told_apart = caller in self._seen or caller in _TRUSTED or len(self._seen) < _MOST_CALLERS
        caller = caller if is_told_apart else _REST
        if not self._may_take(caller):
            return
        seen = self._seen[caller]
        seen[value] += 1
        if len(seen) > _MOST_CANDIDATES:
            left = {name: times - 1 for name, times in seen.items() if times > 1}
            seen.clear()
            seen.update(left)

    def _given_places(self, values: set[str], room: int) -> list[str]:
        """Those of `values` that came often enough from callers who may get a segment.

        Each new segment counts against the caller who sent its value most often.
        """
        times = Counter[str]()
        for seen in self._seen.values():
            times.update({value: seen[value] for value in values & seen.keys()})
        new: list[str] = []
        for value, most in times.most_common():
            if most < _OFTEN or len(new) == room:
                break
            senders = {caller: seen[value] for caller, seen in self._seen.items() if self._may_take(caller)}
            if sum(senders.values()) >= _OFTEN:
                self._places[max(senders, key=senders.__getitem__)] += 1
                new.append(value)
        return new

    def _may_take(self, caller: str) -> bool:
        return caller in _TRUSTED or self._places[caller] < self._most_by_one
