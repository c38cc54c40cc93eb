"""Segments: requests told apart by the value of a header, such as a tenant, so that one that is harmed alone is found.

Values are callers' input, and each that is told apart is a series and a share of the evidence. So there are few: those
that a plan lists, or the first that stable answers well several times. All others are counted together.
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

_OFTEN = 5  # good answers of stable; a value that never comes twice tells nobody apart
_MOST_CANDIDATES = 1000  # of one caller
_MOST_CALLERS = 100
_TRUSTED = ("", OWN_CALLER)  # a front end with the owner's key, or a gateway without keys, brings all tenants
_REST = "the rest"  # all callers beyond those, as one; no key has such a name


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


class Asked(NamedTuple):
    """A request that was answered well."""

    value: str  # of the header
    caller: str = ""  # the name of the key; empty: it is not known


class SegmentSearch:
    """Finds the values that come often, in bounded memory: the frequent items of Misra and Gries, of each caller.

    Callers choose the values. So one whose key is not the owner's gets at most half of the places that were free when
    the search began. From then on his values count for nothing, so they hide none of others.

    Source: Misra and Gries 1982, Sci. Comput. Program. 2(2), 143-152.
    """

    def __init__(self) -> None:
        self._seen: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by caller, of those who may take a place
        self._places: Counter[str] = Counter()  # that a caller took
        self._most_by_one = -1  # until it is known how many are free

    def found(self, asked: Iterable[Asked], *, known: Collection[str]) -> tuple[str, ...]:
        """The values that become segments, the most frequent first.

        Args:
            asked: requests that stable answered well, since the last call.
            known: the segments that there are.
        """
        room = max(0, MOST_SEGMENTS - len(known))
        if self._most_by_one < 0:
            self._most_by_one = room // 2
        counted = set()  # no other value can have become frequent
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
        """Those of `values` that came often enough from callers who may take a place; who sent it most takes it."""
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
