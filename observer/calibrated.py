"""Counts how often a canary differs from stable on one route, corrected for how often stable differs from itself.

Some requests are sent to stable twice. If stable's two answers sometimes differ in a field, a difference of the canary
in that field says little. So a difference counts

* in full in a field in which stable differs from itself at most one time in fifty;
* in any other field by the share of the canary's differences that stable's own noise does not explain. That share is
  computed from the least rate at which the canary may differ and the highest at which stable may differ from itself.

Nothing is counted until stable has answered `LEAST_REPEATS` requests twice; until then, differences wait.
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Iterator

LEAST_REPEATS = 10
STEADY = 0.02  # a field in which stable differs from itself at most this often counts in full
_MOST_WAITING = 1000  # comparisons that wait for the calibration to finish
_MOST_FIELDS = 256
_OTHER = "(other)"
_SURE = 3.0  # standard deviations, for the limit of each of the two shares


class RouteComparison:
    """The comparisons of two versions on one route."""

    def __init__(self) -> None:
        self.repeats = self.copies = 0
        self._own: Counter[str] = Counter()  # requests in which stable differed from itself, by field
        self._seen: Counter[str] = Counter()  # requests in which the canary differed from stable, by field
        self._waiting: deque[frozenset[str]] = deque(maxlen=_MOST_WAITING)
        self._owed = 0.0  # fractions of differences that do not add up to a whole one yet

    def repeated(self, fields: Collection[str]) -> Iterator[bool]:
        """Record that stable's two answers differed in `fields`. Yields what can be counted now, as `copied` does."""
        self.repeats += 1
        self._own.update(self._bounded(fields))
        yield from self._counted()

    def copied(self, fields: Collection[str]) -> Iterator[bool]:
        """Record that the canary differed from stable in `fields`. Yields if each answer that counts now differs."""
        self.copies += 1
        bounded = self._bounded(fields)
        self._seen.update(bounded)
        self._waiting.append(bounded)
        yield from self._counted()

    def own_share(self, field: str) -> float:
        """The share of requests in which stable differs from itself in `field`."""
        return self._own[field] / self.repeats if self.repeats else 0.0

    def differing(self) -> list[tuple[str, int]]:
        """The fields in which the canary differs beyond stable's own noise, with counts; the most frequent first."""
        return [(field, seen) for field, seen in self._seen.most_common() if self._beyond_noise(field) > 0]

    def _counted(self) -> Iterator[bool]:
        while self._waiting and self.repeats >= LEAST_REPEATS:
            fields = self._waiting.popleft()
            self._owed += max(map(self._beyond_noise, fields), default=0.0)
            is_different = self._owed >= 1
            self._owed -= is_different
            yield is_different

    def _beyond_noise(self, field: str) -> float:
        """The share of the canary's differences in `field` that stable's own noise does not explain, 0 to 1."""
        own, seen = self._own[field], self._seen[field]
        if own <= STEADY * self.repeats:
            return 1.0
        more = _limit(seen, self.copies, -_SURE) - _limit(own, self.repeats, _SURE)
        return max(0.0, more) * self.copies / seen

    def _bounded(self, fields: Collection[str]) -> frozenset[str]:
        known = self._own.keys() | self._seen.keys()
        room = _MOST_FIELDS - len(known)
        if room >= len(fields):
            return frozenset(fields)
        return frozenset(field if field in known else _OTHER for field in fields)


def _limit(bad: int, total: int, deviations: float) -> float:
    """Wilson's limit of a share, `deviations` standard deviations above or (negative) below; 1927, JASA 22, 209-212."""
    share, square = bad / total, deviations * deviations
    middle = share + square / (2 * total)
    spread = deviations * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return (middle + spread) / (1 + square / total)
