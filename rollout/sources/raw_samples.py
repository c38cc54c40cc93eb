"""Reads raw samples from Prometheus's HTTP API or the same API: never a `rate()`, which counts events repeatedly.

An instant query of `series[range]` returns a range of raw samples.
"""

import json
import math
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from pydantic_core import from_json

from contract.deadline import left_s
from contract.login import Login
from contract.polled import Answer
from contract.threads import begun_or_done
from rollout.errors import SourceUnreachable
from rollout.signals.folding import START_TIME, RawSeries
from rollout.signals.profile import Names, Profile, SeriesOf
from rollout.sources.prometheus_api import PrometheusApi, seen
from rollout.sources.sample_text import Samples, without_samples

_QUERY = "/api/v1/query"
_SHORTEST_S = 60.0  # a span of samples that is not split further
_TOO_MUCH = re.compile("too many samples|err-mimir-max|exceeded.*limit")
_SOON_S = 5.0  # longest wait for a query that costs the store nothing
_SILENT_S = 2.0  # how long a store that did not even answer with its time is not asked again
_STEP_S = 60  # of the search for the start of a release; Prometheus answers at most 11,000 steps


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which series are read."""

    names: tuple[str, ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...]  # each with its allowed values
    left_out: tuple[tuple[str, str], ...] = ()  # labels, with patterns that their values must not match

    @classmethod
    def of(cls, profile: Profile, counters: Sequence[SeriesOf], names: Names, *versions: str) -> Self:
        """The series of these versions of a release."""
        values: dict[str, dict[str, None]] = {}
        for version in versions:
            for label, value in profile.labels(names, version).items():
                values.setdefault(label, {})[value] = None
        series = tuple(dict.fromkeys(name for counter in counters for name in counter.names))
        labels = tuple((label, tuple(given)) for label, given in values.items())
        return cls(series, labels, tuple(profile.leave_out.items()))

    def only_bounds(self, bounds: Collection[str]) -> "Wanted":
        """The same, with only the histogram buckets that have these values of `le`."""
        every = sorted({spelling for bound in bounds for spelling in _spellings(bound)})
        return replace(self, labels=(*self.labels, ("le", ("", *every)))) if bounds else self

    def with_starts(self) -> "Wanted":
        """The same, with the start time of each process, if it exports that."""
        return replace(self, names=(*self.names, START_TIME))

    def __str__(self) -> str:
        """The selector in PromQL."""
        among = [
            f"{label}={json.dumps(values[0])}" if len(values) == 1 else _any(label, values)
            for label, values in self.labels
        ]
        among += [f"{label}!~{json.dumps(expression)}" for label, expression in self.left_out]
        if len(self.names) == 1:
            return f"{self.names[0]}{{{','.join(among)}}}"
        return f"{{{','.join([_any('__name__', self.names), *among])}}}"


class RawSamples:
    """The Prometheus at `url`.

    Args:
        timeout_s: longest wait for one answer, seconds.
        login: used if it requires one.
        trust: the certificates to accept; None: those of the public authorities.
        headers: further headers of each query, such as the name of a tenant.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        login: Login | None = None,
        trust: ssl.SSLContext | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.url = url
        self._silence = _Silence()
        self._api = PrometheusApi(url, timeout_s=timeout_s, login=login, trust=trust, headers=headers)

    def now_s(self) -> float:
        """The time by the store's clock, which the samples use, Unix seconds. Every method raises SourceUnreachable."""
        answer = self._soon("time()")
        with _as_prometheus(answer):
            found = answer["result"]
            return float(found[0]["value"][1] if answer["resultType"] == "vector" else found[0])

    def labels(self, query: str) -> list[dict[str, str]]:
        """The labels of all series that a query finds now."""
        answer = self._soon(query)
        with _as_prometheus(answer):
            return [dict(found["metric"]) for found in answer["result"]]

    def began_s(self, wanted: Wanted, *, until_s: float, longest_s: float) -> float | None:
        """Since when these series have existed without a break, Unix seconds, up to a minute too early.

        Args:
            longest_s: how far to look back, seconds.

        Returns: None if they do not exist at `until_s`; a pod's series continue for five minutes after its end.
        """
        end_s = math.floor(until_s)
        step_s = max(_STEP_S, math.ceil(longest_s / 10_000))
        form = {
            "query": f"count({wanted})",
            "start": f"{end_s - step_s * math.floor(longest_s / step_s)}",  # so that the last step is at `end_s`
            "end": f"{end_s}",
            "step": f"{step_s}",
        }
        answer = self._ask("/api/v1/query_range", form)
        with _as_prometheus(answer):
            times = [float(time_s) for found in answer["result"][:1] for time_s, _ in found["values"]]
        if not times:
            return None
        if times[-1] < end_s - step_s:
            return None
        began_s = times[-1]
        for time_s in reversed(times):
            if began_s - time_s > 1.5 * step_s:
                break
            began_s = time_s
        return began_s - step_s

    def between(self, wanted: Wanted, begin_s: float, end_s: float) -> list[RawSeries]:
        """All samples from `begin_s` to `end_s`, Unix seconds."""
        return self.asked(wanted, begin_s, end_s)()

    def asked(self, wanted: Wanted, begin_s: float, end_s: float) -> Callable[[], list[RawSeries]]:
        """Send the query of `between`. Returns a function that reads the answer.

        If the answer is too large for one query, the function asks for parts.
        """
        span_ms = max(1, math.ceil(1000 * (end_s - begin_s)))
        form = {"query": f"{wanted}[{span_ms}ms]", "time": f"{end_s:.3f}"}
        answer = self._api.ask(_QUERY, form)

        def read() -> list[RawSeries]:
            try:
                return self._series(answer, form)
            except _TooMuch:
                if end_s - begin_s < 2 * _SHORTEST_S:
                    raise
                middle_s = (begin_s + end_s) / 2
                return _joined(self.between(wanted, begin_s, middle_s), self.between(wanted, middle_s, end_s))

        return read

    def _series(self, answer: Answer, form: Mapping[str, str]) -> list[RawSeries]:
        samples: list[Samples] = []
        data = self._data(answer, form, samples)
        with _as_prometheus(data):
            return [
                RawSeries(found["metric"], *samples[found["values"]]) for found in data["result"] if "values" in found
            ]

    def ahead(
        self, wanted: Wanted, spans: Iterable[tuple[float, float]]
    ) -> Generator[tuple[float, list[RawSeries]], None, None]:
        """The end of each span, with all its samples. The next span is requested while one is processed."""
        coming: deque[tuple[float, Future[Callable[[], list[RawSeries]]]]] = deque()
        with ThreadPoolExecutor(1) as asking:
            for begin_s, end_s in spans:
                coming.append((end_s, begun_or_done(asking, partial(self.asked, wanted, begin_s, end_s))))
                if len(coming) > 1:
                    yield _read(*coming.popleft())
            if coming:
                yield _read(*coming.popleft())

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def _soon(self, query: str) -> dict[str, Any]:
        """The data of a query that any store answers quickly. It fails at once while the store is known to hang."""
        before_s = self._silence.begin()
        is_silent = is_over = False
        try:
            return self._ask(_QUERY, {"query": query}, _SOON_S)
        except SourceUnreachable as error:
            is_silent = isinstance(error.__cause__, TimeoutError)
            is_over = is_silent and not left_s()
            raise
        finally:
            if is_over:
                self._silence.give_up(before_s)
            else:
                self._silence.end(is_silent)

    def _ask(self, path: str, form: Mapping[str, str], timeout_s: float | None = None) -> dict[str, Any]:
        """The data of an answer. `timeout_s`: longest wait, seconds; None: the client's limit."""
        return self._data(self._api.ask(path, form, timeout_s=timeout_s), form)

    def _data(self, said: Answer, form: Mapping[str, str], samples: list[Samples] | None = None) -> dict[str, Any]:
        """The data of an answer to a form.

        Args:
            samples: receives the samples of all series, and the data gets their indices; None: they stay in the data.
        """
        try:
            answer = from_json(said.body if samples is None else without_samples(said.body, samples))
            data = answer.get("data")
            faults = [fault for fault in (answer.get("error"), *(answer.get("warnings") or ())) if fault]
        except (ValueError, AttributeError, TypeError) as error:
            raise self._api.no_answer(seen(said)) from error
        # A warning means that the answer may be incomplete, for example if a store behind Thanos is down.
        if answer.get("status") != "success" or faults or not isinstance(data, dict):
            words = "; ".join(map(str, faults))
            raise (_TooMuch if _TOO_MUCH.search(words) else SourceUnreachable)(
                "Prometheus's answer is incomplete",
                saw=f"HTTP {said.status}: {words:.300}",
                do=f"read its log; the query was {form['query']}",
            )
        return data


class _Silence:
    """Remembers whether a store hangs. Then one caller at a time checks it, and the others do not wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until_s = -math.inf  # on the monotonic clock; -inf: it does not hang

    def begin(self) -> float:
        """Call before a request. Returns the argument for `give_up`. Raises SourceUnreachable if it hangs."""
        with self._lock:
            now_s, before_s = time.monotonic(), self._until_s
            if now_s < before_s:
                raise SourceUnreachable(
                    "Prometheus does not answer",
                    saw=f"it did not answer within {_SOON_S:.0f} s a moment ago",
                    do="check whether it hangs; it is asked again in some seconds",
                )
            if not math.isinf(before_s):
                self._until_s = now_s + _SOON_S
            return before_s

    def end(self, is_silent: bool) -> None:
        """Call after a request."""
        with self._lock:
            self._until_s = time.monotonic() + _SILENT_S if is_silent else -math.inf

    def give_up(self, before_s: float) -> None:
        """Call if the request ran out of its own time: nothing new is known, and the next caller checks."""
        with self._lock:
            if not math.isinf(before_s):
                self._until_s = before_s


class _TooMuch(SourceUnreachable):
    """The store's limit of samples in one query."""


@contextmanager
def _as_prometheus(answer: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors from an unexpected form of an answer into SourceUnreachable."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SourceUnreachable(
            "the answer does not have the form of Prometheus's API",
            saw=f"{answer!r:.200}",
            do="check whether --prometheus names the root of Prometheus's HTTP API",
        ) from error


def _read(end_s: float, asked: Future[Callable[[], list[RawSeries]]]) -> tuple[float, list[RawSeries]]:
    """The result of a request for samples up to `end_s`. The text of the answer is freed."""
    return end_s, asked.result()()


def _joined(first: Sequence[RawSeries], second: Sequence[RawSeries]) -> list[RawSeries]:
    """The series of two consecutive spans, joined. A sample on the border may be in both."""
    known = {frozenset(series.labels.items()): series for series in first}
    for series in second:
        key = frozenset(series.labels.items())
        if before := known.get(key):
            is_new = series.times > before.times[-1]
            times = np.concatenate([before.times, series.times[is_new]])
            known[key] = RawSeries(series.labels, times, np.concatenate([before.values, series.values[is_new]]))
        else:
            known[key] = series
    return list(known.values())


def _spellings(bound: str) -> Iterator[str]:
    """The ways to write a bound, `1` or `1.0`, which depend on the pod's library and on Prometheus's release."""
    yield bound
    whole = bound.removesuffix(".0")
    if whole.isdigit():
        yield from (whole, f"{whole}.0")


def _any(label: str, values: Sequence[str]) -> str:
    return f"{label}=~{json.dumps('|'.join(map(re.escape, values)))}"
