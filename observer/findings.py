"""The results for each pair of versions: the counts for the metric source, and the fields that differ."""

from collections import OrderedDict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from contract import metrics as m
from contract.observation import REPEAT, STABLE_COPY, FieldDifference
from contract.own_answers import NO_ANSWERS, OwnAnswers
from contract.plain_text import one_line
from observer.answers import Answer
from observer.calibrated import RouteComparison
from observer.comparison import differences
from observer.pairing import MOST_REQUESTS, Met, Versions
from observer.predictions import Predictions
from observer.reading import Readers, Row
from observer.records import Asked, Records

_MOST_VERSIONS = 8  # pairs of versions
_MOST_ROUTES = 100  # the gateway counts 51; an earlier version may have others
_OTHER = "other"
_NAMED_AFTER = 3  # a field is named after so many differing answers: a key that came once may be a person's name
_MOST_NAMED = 5
_LONGEST_NAME = 80


class Findings:
    """Counters and differences since this process was started."""

    def __init__(self, registry: CollectorRegistry | None = None, records: Records | None = None) -> None:
        """Args:
        registry: the registry of its counters; None: its own.
        records: keeps answers; None: nothing is kept.
        """
        self.registry = registry or CollectorRegistry(auto_describe=False)
        self._disagreement = self._counter(m.DISAGREEMENT)
        self._repeats = self._counter(m.OBSERVER_REPEATS)
        self._answers = self._counter(m.OBSERVER_ANSWERS)
        self.waiting_bytes = Gauge(m.OBSERVER_WAITING.name, m.OBSERVER_WAITING.meaning, registry=self.registry)
        for outcome in m.OBSERVED:
            self._answers.labels(outcome=outcome)
        self._predictions = Predictions(self.registry)
        self._recorded = self._counter(m.OBSERVER_RECORDED)
        for outcome in m.RECORDED:
            self._recorded.labels(outcome=outcome)
        self._routes: OrderedDict[Versions, dict[str, RouteComparison]] = OrderedDict()
        self._readers = Readers(NO_ANSWERS)
        self._records = records
        self._rows: OrderedDict[Asked, Row] = OrderedDict()  # by request, used for the answer to its copy

    def seen(self, outcome: str, count: int = 1) -> None:
        """Count answers by their outcome: one of `metrics.OBSERVED`."""
        self._answers.labels(outcome=outcome).inc(count)

    def recorded(self, outcome: str) -> None:
        """Count a request that may be recorded, by its outcome: one of `metrics.RECORDED`."""
        self._recorded.labels(outcome=outcome).inc()

    def met(self, versions: Versions, met: Met) -> None:
        """Compare two answers to one request."""
        reader = self._readers.of(met.route)
        fields = differences(met.stable, met.other, ignored=reader.ignored if reader else ())
        route = self._route(versions, met.route)
        if met.role == REPEAT:
            self._repeats.labels(version=versions.stable, outcome=m.DIFFERENT if fields else m.SAME).inc()
            outcomes = list(route.repeated(fields))
        else:
            outcomes = list(route.copied(fields))
            by, answer = (versions.stable, met.stable) if met.role == STABLE_COPY else (versions.canary, met.other)
            self.answered(by, met.route, answer, asked=met.asked, is_copy=met.is_sampled)
        self.seen(m.COMPARED)
        for outcome in (m.SAME, m.DIFFERENT):
            count = outcomes.count(outcome == m.DIFFERENT)
            self._disagreement.labels(version=versions.canary, outcome=outcome).inc(count)

    def expect(self, answers: OwnAnswers) -> None:
        """Read answers by these expressions from now on."""
        self._readers = Readers(answers)
        self._rows.clear()
        if self._records:
            self._records.expect(answers)

    def reads(self, route: str) -> bool:
        """Whether the plan says what the answers of a route mean."""
        return self._readers.of(route) is not None

    def answered(
        self,
        version: str,
        route: str,
        answer: Answer,
        *,
        asked: Asked | None,
        question: Answer | None = None,
        is_copy: bool = False,
    ) -> None:
        """Count and keep what an answer of `version` says.

        Args:
            asked: the request; None: unknown, and the answer is not kept.
            question: the body of the request; None: it arrived with the answer with which this one is compared.
            is_copy: the answer is to a copy in a step. Its label shows which version was right; nothing else counts.
        """
        reader = self._readers.of(route)
        if reader is None or (said := reader.said(answer)) is None:
            return
        if not is_copy:
            self._predictions.count(version, route, said, names_route=self._readers.are_several)
        if self._records and said.has_class and asked:
            row = self._remembered(asked, reader.row(question)) if question else self._rows.get(asked)
            row = row if row is not None else reader.row(None)
            self._records.record(version, asked, said, row, is_copy=is_copy)

    def differing(self, versions: Versions) -> tuple[FieldDifference, ...]:
        """The fields in which the canary differs most beyond stable's own noise."""
        found = sorted(self._differing(versions), key=lambda each: -each.different)
        return tuple(found[:_MOST_NAMED])

    def page(self) -> bytes:
        """The page that a metric source scrapes."""
        return generate_latest(self.registry)

    def _differing(self, versions: Versions) -> Iterator[FieldDifference]:
        for path, route in self._routes.get(versions, {}).items():
            for field, seen in route.differing():
                if seen >= _NAMED_AFTER:
                    name = one_line(field)[:_LONGEST_NAME]
                    yield FieldDifference(
                        route=path, field=name, different=seen, compared=route.copies, own=route.own_share(field)
                    )

    def _remembered(self, asked: Asked, row: Row) -> Row:
        """Keep the row of a request for the answer to its copy."""
        if self._readers.reads_requests:
            self._rows[asked] = row
            self._rows.move_to_end(asked)
            while len(self._rows) > MOST_REQUESTS:
                self._rows.popitem(last=False)
        return row

    def _route(self, versions: Versions, path: str) -> RouteComparison:
        if versions not in self._routes:
            self._routes[versions] = {}
            while len(self._routes) > _MOST_VERSIONS:
                self._routes.popitem(last=False)
        routes = self._routes[versions]
        if path not in routes and len(routes) >= _MOST_ROUTES:
            path = _OTHER
        return routes.setdefault(path, RouteComparison())

    def _counter(self, metric: m.Metric) -> Counter:
        return Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)
