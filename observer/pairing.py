"""Pairs the answers to one request: the user's, and those of stable and the canary to its copies.

Waiting answers are limited in bytes, number and time. Dropped answers are counted; nothing waits for them.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from contract.observation import MOST_PER_S, STABLE_COPY, USERS_REQUEST
from observer.answers import Answer
from observer.records import Asked

MOST_BYTES = 64 * 1024 * 1024  # of answers that wait
MOST_REQUESTS = 20_000
LONGEST_WAIT_S = 90.0

_OVERHEAD = 500  # bytes of an answer besides its body


class Versions(NamedTuple):
    """The two versions that are compared."""

    stable: str
    canary: str


@dataclass(frozen=True, slots=True)
class Met:
    """Two answers to one request."""

    route: str
    role: str  # of the answer to the copy: a key of USERS_REQUEST
    stable: Answer
    other: Answer
    asked: Asked | None = None  # the request
    is_sampled: bool = False  # a request during the steps, of which only some are copied


@dataclass(slots=True)
class _Waiting:
    """The answers to one request so far."""

    since_s: float
    route: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)  # by role
    met: set[str] = field(default_factory=set)  # roles that were compared
    has_copy: bool = False  # true only if it is certain
    is_ambiguous: bool = False


class Pairs:
    """The requests of which some answers have not arrived.

    Args:
        lost: called with the number of requests that were copied and never compared, because an answer or room was
            missing.
        ambiguous: called for an answer to a request whose id another request had within `LONGEST_WAIT_S`: it is
            unknown which answers belong together.
    """

    def __init__(
        self, *, lost: Callable[[int], None] = lambda _: None, ambiguous: Callable[[], None] = lambda: None
    ) -> None:
        self._lost, self._ambiguous = lost, ambiguous
        self._waiting: OrderedDict[tuple[Versions, str], _Waiting] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        versions: Versions,
        request: str,
        role: str,
        answer: Answer,
        *,
        now_s: float,
        route: str = "",
        is_sampled: bool = False,
        asked: Asked | None = None,
    ) -> Iterator[Met]:
        """Add an answer. Yields each pair that it completes.

        Args:
            request: the id by which answers are paired.
            route: the route; known only for users' answers.
            is_sampled: only some requests have copies.
        """
        self.expire(now_s)
        key = (versions, request)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now_s)
        if waiting.is_ambiguous or role in waiting.answers or role in waiting.met:
            # The id stays unusable while answers with it arrive: one of the other request may still be under way.
            self._empty(waiting)
            waiting.is_ambiguous, waiting.since_s = True, now_s
            self._waiting.move_to_end(key)
            self._ambiguous()
            return
        waiting.answers[role] = answer
        self.bytes += answer.size + _OVERHEAD
        waiting.route = route or waiting.route
        waiting.has_copy = waiting.has_copy or role in USERS_REQUEST or not is_sampled
        for copy in [copy for copy in waiting.answers if USERS_REQUEST.get(copy) in waiting.answers]:
            original, answered = waiting.answers[USERS_REQUEST[copy]], self._taken(waiting, copy)
            stable, other = (answered, original) if copy == STABLE_COPY else (original, answered)
            yield Met(waiting.route, copy, stable, other, asked=asked, is_sampled=is_sampled)
        while self._waiting and (self.bytes > MOST_BYTES or len(self._waiting) > MOST_REQUESTS):
            self._drop(next(iter(self._waiting)))

    def expire(self, now_s: float) -> None:
        """Drop answers that have waited too long."""
        while self._waiting:
            key, oldest = next(iter(self._waiting.items()))
            if now_s - oldest.since_s <= LONGEST_WAIT_S:
                return
            self._drop(key)

    def _taken(self, waiting: _Waiting, role: str) -> Answer:
        answer = waiting.answers.pop(role)
        waiting.met.add(role)
        self.bytes -= answer.size + _OVERHEAD
        return answer

    def _drop(self, key: tuple[Versions, str]) -> None:
        waiting = self._waiting.pop(key)
        self._empty(waiting)
        if waiting.has_copy and not (waiting.met or waiting.is_ambiguous):
            self._lost(1)

    def _empty(self, waiting: _Waiting) -> None:
        self.bytes -= sum(answer.size + _OVERHEAD for answer in waiting.answers.values())
        waiting.answers.clear()


class Sampler:
    """Chooses requests by their id, so that all answers to a request are used or none.

    If there are more than `MOST_PER_S` users' requests a second, it takes a share of them, which follows the traffic.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._since_s, self._seen = 0.0, 0

    def takes(self, request: str, *, is_users: bool, now_s: float) -> bool:
        """Whether to use the answers to a request; `is_users`: this answer is to a user's request, not to a copy."""
        self._seen += is_users
        passed_s = now_s - self._since_s
        if passed_s >= 1:
            self.share = min(1.0, MOST_PER_S * passed_s / self._seen) if self._seen else 1.0
            self._since_s, self._seen = now_s, 0
        return zlib.crc32(request.encode()) < self.share * 2**32
