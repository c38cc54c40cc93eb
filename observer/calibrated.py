"""How often a canary differs from stable on one route, less what stable differs from itself.

Some requests are asked of stable twice. A field in which its two answers differ now and then says little when the
canary's differs there too. So a difference counts

* in full in a field in which stable agrees with itself, but for at most one time in fifty;
* in any other field by the share of its differences that stable's own noise does not explain: by how much the canary
  differs more often than stable does from itself, at least, as far as both can be known from the counts.

Nothing is counted before stable was asked twice `LEAST_REPEATS` times; until then differences wait.
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Iterator

LEAST_REPEATS = 10
STEADY = 0.02  # a field in which stable differs from itself no more often counts in full
_MOST_WAITING = 1000  # comparisons before the calibration is done
_MOST_FIELDS = 256
_OTHER = "(other)"
_SURE = 3.0  # standard deviations of each of the two shares


class RouteComparison:
    """The comparisons of one route of two versions."""

    def __init__(self) -> None:
        self.repeats = self.copies = 0
        self._own: Counter[str] = Counter()  # requests in which stable differed from itself, by field
        self._seen: Counter[str] = Counter()  # those in which the canary differed from it
        self._waiting: deque[frozenset[str]] = deque(maxlen=_MOST_WAITING)
        self._owed = 0.0  # parts of differences that have not made a whole one yet

    def repeated(self, fields: Collection[str]) -> Iterator[bool]:
        """Stable was asked twice and differed from itself in `fields`. Gives what can be counted now: see `copied`."""
        self.repeats += 1
        self._own.update(self._bounded(fields))
        yield from self._counted()

    def copied(self, fields: Collection[str]) -> Iterator[bool]:
        """The canary differed from stable in `fields`. Gives for each answer that counts now whether it differs."""
        self.copies += 1
        bounded = self._bounded(fields)
        self._seen.update(bounded)
        self._waiting.append(bounded)
        yield from self._counted()

    def own_share(self, field: str) -> float:
        """The share of requests in which stable differs from itself in `field`."""
        return self._own[field] / self.repeats if self.repeats else 0.0

    def differing(self) -> list[tuple[str, int]]:
        """The fields in which the canary differs beyond stable's own noise, and how often; the most frequent first."""
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
    """Wilson's limit of a share, so many standard deviations above (positive) or below it; 1927, JASA 22, 209-212."""
    share, square = bad / total, deviations * deviations
    middle = share + square / (2 * total)
    spread = deviations * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return (middle + spread) / (1 + square / total)
