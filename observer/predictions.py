"""Counts what answers say, in the same metrics as versions with the model contract.

Both versions share their classes, so that they are counted in the same way. The first labels to arrive get a class
each, all others share one. A number counts in a bin; the bins are chosen from the first numbers to arrive.
"""

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram

from contract import metrics as m
from contract.answer_types import Number, class_name
from contract.own_answers import MOST_CLASSES, NOTHING, OTHER
from observer.reading import Said

NUMBERS_FOR_BINS = 200
_MOST_VERSIONS = 8  # versions whose series are kept


@dataclass(slots=True)
class _Numbers:
    """The numbers of one route."""

    bins: Number | None = None
    waiting: list[tuple[str, float]] = field(default_factory=list)  # versions with numbers that wait for the bins


class Predictions:
    """The counts of all versions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        classes, confidence = m.PREDICTIONS, m.CONFIDENCE
        self._classes = Counter(classes.name, classes.meaning, classes.labels, registry=registry)
        self._confidence = Histogram(
            confidence.name, confidence.meaning, confidence.labels, registry=registry, buckets=confidence.bounds
        )
        self._names: set[str] = set()
        self._numbers: dict[str, _Numbers] = {}
        self._versions: OrderedDict[str, set[str]] = OrderedDict()  # the classes of each version

    def count(self, version: str, route: str, said: Said, *, names_route: bool) -> None:
        """Count what one answer of `version` says.

        Args:
            names_route: put the route into the class's name, because several routes have classes.
        """
        if said.confidence is not None:
            self._confidence.labels(version).observe(said.confidence)
        prefix = f"{route} " if names_route else ""
        if not said.has_class:
            return
        if said.label is None:
            self._add(version, prefix + NOTHING)
        elif isinstance(said.label, str):
            self._add(version, self._bounded(prefix + class_name(said.label)))
        else:
            self._count_number(version, route, said.label, prefix)

    def _count_number(self, version: str, route: str, number: float, prefix: str) -> None:
        numbers = self._numbers.setdefault(route, _Numbers())
        numbers.waiting.append((version, number))
        if numbers.bins is None:
            if len(numbers.waiting) < NUMBERS_FOR_BINS:
                return
            numbers.bins = Number.binned((each for _, each in numbers.waiting), tolerance=0.0)
        for one, value in numbers.waiting:
            self._add(one, prefix + numbers.bins.class_of(value))
        numbers.waiting.clear()

    def _add(self, version: str, name: str) -> None:
        if version not in self._versions:
            self._versions[version] = set()
            while len(self._versions) > _MOST_VERSIONS:
                self._forget(*self._versions.popitem(last=False))
        self._versions.move_to_end(version)
        self._versions[version].add(name)
        self._classes.labels(version, name).inc()

    def _forget(self, version: str, names: set[str]) -> None:
        for name in names:
            self._classes.remove(version, name)
        with suppress(KeyError):  # the version has no such series
            self._confidence.remove(version)

    def _bounded(self, name: str) -> str:
        if name not in self._names and len(self._names) >= MOST_CLASSES:
            return OTHER
        self._names.add(name)
        return name
