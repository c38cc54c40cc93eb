"""Replays the recorded requests to the canary and to stable before user requests reach the canary.

Stable gets each request several times, which shows how much its own answers vary. Values are then compared as in the
shadow step. A difference that would break callers (an error status, a field that is missing or has another type, no
answer) is confirmed by more requests to both: it counts only if every answer of the canary shows it and no answer of
stable does.
"""

import math
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import httpx

from contract import loopback
from contract.expressions import FieldPath, without
from contract.http import REQUEST_ID_HEADER
from contract.observation import FieldDifference
from contract.own_answers import NO_ANSWERS, OwnAnswers
from contract.plain_text import one_line
from contract.prediction_log import OWN_REQUESTS
from contract.recorded import RecordedRequest
from observer.answers import Answer, Reader
from observer.calibrated import LEAST_REPEATS, RouteComparison
from observer.comparison import BODY, STATUS, differences
from observer.reading import Readers
from observer.shape import Changed, lost
from rollout.control.preflight import Loss
from rollout.fleet import Backend
from rollout.format import count, span
from rollout.sources.observer import said

_CONFIRMED_BY = 6  # answers of each version: at most 1 request in 924 shows this by chance for a harmless canary
_SUCCESS = 2  # first digit of the status
_SLOWER = 5.0  # no answer counts as missing only after 5 times stable's time plus 5 s
_SHOWN = 3  # fields
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay."""

    count: int = 0  # requests that both versions got
    losses: tuple[Loss, ...] = ()
    remarks: tuple[str, ...] = ()
    took_ms: tuple[float, ...] = ()  # of the canary's first answers


@dataclass(slots=True)
class _Route:
    """The findings on one route."""

    path: str
    ignored: tuple[FieldPath, ...]
    values: RouteComparison = field(default_factory=RouteComparison)
    since: RouteComparison = field(default_factory=RouteComparison)  # stable now against the recorded answers
    asked: int = 0
    is_silent: bool = False  # the canary gave no answer to one of its requests
    set_aside: int = 0  # requests that stable itself does not answer with success now
    broken: dict[str, tuple[Changed, list[int]]] = field(default_factory=dict)  # by field: the change and its requests
    own: set[str] = field(default_factory=set)  # fields that some of stable's own answers lack
    contents: list[Any] = field(default_factory=list)  # stable's first answer to each request


class Replayer:
    """One replay. After `budget_s` seconds it sends no request and waits for no answer."""

    def __init__(
        self,
        canary: Backend,
        stable: Backend,
        *,
        limit_s: float,
        budget_s: float,
        answers: OwnAnswers = NO_ANSWERS,
    ) -> None:
        """
        Args:
            limit_s: the service's own timeout for an answer, seconds.
            budget_s: for all requests together, seconds.
            answers: how answers are read; fields that it ignores are not compared.
        """
        self._readers = Readers(answers)
        self._canary, self._stable, self._limit_s = canary, stable, limit_s
        self._ends_s = time.monotonic() + budget_s
        self._run, self._asked = uuid.uuid4().hex, 0
        self._took_ms: list[float] = []

    def run(self, recorded: Sequence[tuple[int, RecordedRequest]]) -> Replayed:
        """Send each numbered request to both versions. Never raises because of an answer."""
        routes = {request.route: _Route(request.route, self._ignored(request.route)) for _, request in recorded}
        numbers = Counter(request.route for _, request in recorded)
        with loopback.client(timeout_s=self._limit_s) as client:
            for number, request in _in_turn(recorded):
                route, of_route = routes[request.route], numbers[request.route]
                if self._left_s > 0 and not route.is_silent:
                    self._one(client, route, number, request, 1 + max(1, math.ceil(LEAST_REPEATS / of_route)))
        found = list(routes.values())
        asked, set_aside = sum(route.asked for route in found), sum(route.set_aside for route in found)
        return Replayed(
            asked,
            tuple(loss for route in found for loss in _losses(route)),
            (
                *_remarks(found, self._stable.tag),
                *_left_out(len(recorded), asked, set_aside, is_late=self._left_s <= 0),
            ),
            tuple(self._took_ms),
        )

    def _ignored(self, route: str) -> tuple[FieldPath, ...]:
        reader = self._readers.of(route)
        return reader.ignored if reader else ()

    @property
    def _left_s(self) -> float:
        return self._ends_s - time.monotonic()

    def _one(self, client: loopback.Client, route: _Route, number: int, request: RecordedRequest, times: int) -> None:
        """Send one request to stable `times` times, and to the canary after the first."""
        began_s = time.monotonic()
        known = self._answers(client, self._stable, request, 1)
        stable_s = time.monotonic() - began_s
        if not known or not _is_success(known[0]):
            route.set_aside += 1
            return
        began_s = time.monotonic()
        own = self._answers(client, self._canary, request, 1)
        took_s = time.monotonic() - began_s
        # After the canary: values that drift with time then show as noise.
        known += self._answers(client, self._stable, request, times - 1)
        route.asked += 1
        if not own:
            is_cut = self._left_s <= 0 and took_s < min(self._limit_s, _SLOWER * (stable_s + 1))
            if not is_cut:
                _add(route, STATUS, Changed(f"one after {span(stable_s)}", f"no answer in {span(took_s)}"), number)
            route.is_silent = True
            return
        self._took_ms.append(1000 * took_s)
        self._compare(route, request, known, own[0])
        if _broken(known, own, route.ignored):
            known += self._answers(client, self._stable, request, _CONFIRMED_BY - len(known))
            own += self._answers(client, self._canary, request, _CONFIRMED_BY - len(own))
            for name, changed in _broken(known, own, route.ignored).items() if len(own) == _CONFIRMED_BY else ():
                _add(route, name, changed, number)
        contents = _contents(known, route.ignored)
        route.contents.append(contents[0])
        for one, other in product(contents, repeat=2):
            route.own.update(lost(one, other))

    @staticmethod
    def _compare(route: _Route, request: RecordedRequest, known: list[Answer], own: Answer) -> None:
        """Compare values as the observer does in the shadow step."""
        for one, other in pairwise(known):
            fields = differences(one, other, ignored=route.ignored)
            list(route.values.repeated(fields))
            list(route.since.repeated(fields))
        list(route.values.copied(differences(known[0], own, ignored=route.ignored)))
        list(route.since.copied(_since_recorded(request, known, route.ignored)))

    def _answers(self, client: loopback.Client, of: Backend, request: RecordedRequest, times: int) -> list[Answer]:
        """Up to `times` answers to a request, one after the other; fewer if one does not come."""
        found: list[Answer] = []
        while len(found) < times and (answer := self._ask(client, of, request)) is not None:
            found.append(answer)
        return found

    def _ask(self, client: loopback.Client, of: Backend, request: RecordedRequest) -> Answer | None:
        limit_s = min(self._limit_s, self._left_s)
        if limit_s <= 0:
            return None
        self._asked += 1
        own = {REQUEST_ID_HEADER: f"{OWN_REQUESTS}{self._run}-{self._asked}", "accept-encoding": "identity"}
        ends_s = time.monotonic() + limit_s
        try:
            with client.stream(
                request.method,
                of.url + request.path,
                content=request.body,
                headers=request.headers | own | of.headers,
                timeout=limit_s,
            ) as answer:
                head = answer.headers
                reader = Reader(answer.status_code, head.get("content-type", ""), head.get("content-encoding", ""))
                for part in answer.iter_raw():
                    reader.add(part)
                    if time.monotonic() > ends_s:
                        return None
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        return reader.answer()


def _in_turn(recorded: Sequence[tuple[int, RecordedRequest]]) -> list[tuple[int, RecordedRequest]]:
    """Take the requests of the routes in turn, so that every route gets some of the time."""
    ranks: Counter[str] = Counter()
    ranked = []
    for number, request in recorded:
        ranks[request.route] += 1
        ranked.append((ranks[request.route], (number, request)))
    return [each for _, each in sorted(ranked, key=lambda ranked: ranked[0])]


def _since_recorded(
    request: RecordedRequest, known: Sequence[Answer], ignored: tuple[FieldPath, ...]
) -> frozenset[str]:
    """The fields in which stable's answer differs from the recorded one. Of a large answer only the hash is known."""
    digest = bytes.fromhex(request.answer_digest)
    if request.answer is None:
        now = {answer.sha256 for answer in known}
        return frozenset((BODY,) if len(now) == 1 and now != {digest} else ())
    then = Answer(request.status, request.media_type.lower(), request.encoding.lower(), request.answer, digest)
    return differences(then, known[0], ignored=ignored)


def _is_success(answer: Answer) -> bool:
    return answer.status // 100 == _SUCCESS


def _contents(answers: Sequence[Answer], ignored: tuple[FieldPath, ...]) -> list[Any]:
    return [without(answer.content(), ignored) for answer in answers if _is_success(answer)]


def _broken(
    stable: Sequence[Answer], canary: Sequence[Answer], ignored: tuple[FieldPath, ...]
) -> Mapping[str, Changed]:
    """By field, what is broken in all answers of the canary and in none of stable's."""
    if all(map(_is_success, stable)) and not any(map(_is_success, canary)):
        return {STATUS: Changed(str(stable[0].status), str(canary[0].status))}
    contents = (_contents(answers, ignored) for answers in (stable, canary))
    found: dict[str, Changed] | None = None
    for one, other in product(*contents):
        between = lost(one, other)
        found = between if found is None else {name: found[name] for name in found.keys() & between.keys()}
        if not found:
            return {}
    return found or {}


def _add(route: _Route, name: str, changed: Changed, number: int) -> None:
    route.broken.setdefault(name, (changed, []))[1].append(number)


def _losses(route: _Route) -> Iterator[Loss]:
    """What breaks callers of a route. A field that some of stable's answers lack cannot be missed."""
    first = route.contents[0] if route.contents else None
    own = route.own.union(*(lost(one, other) for one in (first,) for other in route.contents))
    own |= set().union(*(lost(other, first) for other in route.contents))
    for field_, (changed, numbers) in route.broken.items():
        if field_ in own:
            continue
        name = one_line(field_)[:_LONGEST_NAME]
        of = f"{count(len(numbers))} of {count(route.asked)} recorded requests"
        example = f"{of}; `kanaria record --show {numbers[0]}` shows one"
        if name == STATUS:
            yield Loss(route.path, f"{route.path} gives {changed.is_now}, stable {changed.was} ({example})")
        elif name == BODY:
            was = "JSON" if changed.is_now == "no JSON" else changed.was
            yield Loss(route.path, f"its answers at {route.path} are {changed.is_now}, stable's are {was} ({example})")
        elif changed.is_now:
            types = f"{changed.is_now}; on stable it is {changed.was}"
            yield Loss(f"{route.path} {name}", f"`{name}` of its answers at {route.path} is {types} ({example})")
        else:
            lacks = f"lack `{name}`; on stable it is {changed.was}"
            yield Loss(f"{route.path} {name}", f"its answers at {route.path} {lacks} ({example})")


def _remarks(routes: Sequence[_Route], stable: str) -> Iterator[str]:
    if found := list(_differing(routes, [route.values for route in routes])):
        yield f"its answers to recorded requests differ from {stable}'s in {', '.join(found)}"
    if found := list(_differing(routes, [route.since for route in routes])):
        yield f"since they were recorded, {stable}'s own answers have changed in {', '.join(found)}"


def _differing(routes: Sequence[_Route], of: Sequence[RouteComparison]) -> Iterator[str]:
    found = [
        FieldDifference(
            route=route.path,
            field=one_line(name)[:_LONGEST_NAME],
            different=seen,
            compared=compared.copies,
            own=compared.own_share(name),
        )
        for route, compared in zip(routes, of, strict=True)
        for name, seen in compared.differing()
        if name not in route.broken
    ]
    return map(said, sorted(found, key=lambda each: -each.different)[:_SHOWN])


def _left_out(recorded: int, asked: int, set_aside: int, *, is_late: bool) -> Iterator[str]:
    if set_aside:
        said_nothing = "recorded requests that were not compared, because stable does not answer them with success now"
        yield f"{said_nothing}: {count(set_aside)}"
    if left := recorded - asked - set_aside:
        why = "the time for it was over" if is_late else "an earlier one of the same route got no answer"
        yield f"recorded requests that were not replayed, because {why}: {count(left)}"
