"""Raw samples from servers with Prometheus's API: what is read and what is refused."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest

from contract.deadline import within
from rollout.errors import SourceUnreachable
from rollout.sources import raw_samples
from rollout.sources.raw_samples import RawSamples, Wanted
from tests.support.running_server import running_server
from tests.support.waiting import eventually

WANTED = Wanted(("requests_total",), (("app", ("a",)),))


class Store(ThreadingHTTPServer):
    """Answers every query with the same text."""

    answer = b""
    status = 200
    encoding = ""

    hangs_at = "nothing"  # a query with this word is answered only when the server ends

    def __init__(self) -> None:
        self.ends = threading.Event()
        self.asked: list[dict[str, list[str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        store = self.server
        assert isinstance(store, Store)
        store.asked.append(parse_qs(self.rfile.read(int(self.headers["content-length"])).decode()))
        if store.hangs_at in store.asked[-1]["query"][0]:
            store.ends.wait()
            return
        self.send_response(store.status)
        if store.status == 302:
            self.send_header("location", "https://login.example/")
        if store.encoding:
            self.send_header("content-encoding", store.encoding)
        self.end_headers()
        self.wfile.write(store.answer)

    def log_message(self, *_: object) -> None:
        """Writes no log."""


@pytest.fixture
def store() -> Iterator[Store]:
    with running_server(Store()) as server:
        yield server
        server.ends.set()


@pytest.fixture
def samples(store: Store) -> Iterator[RawSamples]:
    source = RawSamples(f"http://127.0.0.1:{store.server_port}")
    yield source
    source.close()


def matrix(*series: tuple[dict[str, str], list[list[Any]]], **more: Any) -> bytes:
    result = [{"metric": labels, "values": values} for labels, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}, **more}).encode()


def test_samples_are_read_as_they_were_scraped(store: Store, samples: RawSamples) -> None:
    """A label may look like samples, and a store may write spaces or none."""
    wicked = {"__name__": "requests_total", "pod": '"values":[[1,"2"]]'}
    given = matrix((wicked, [[10.5, "3"], [15, "NaN"]]), ({"pod": "q"}, [[11, "1e+06"], [16, "+Inf"]]))
    for text in (given, given.replace(b", ", b",").replace(b": ", b":"), given.replace(b"]]}", b"]\n]}")):
        store.answer = text
        first, second = samples.between(WANTED, 10.0, 20.0)
        assert first.labels["__name__"] == "requests_total"
        assert first.labels["pod"].startswith('"values"')
        np.testing.assert_array_equal(first.times, [10.5, 15.0])
        np.testing.assert_array_equal(first.values, [3.0, np.nan])
        np.testing.assert_array_equal(second.values, [1e6, np.inf])
    assert store.asked[0]["query"] == ['requests_total{app="a"}[10000ms]']


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as in use: numpy reads a part and only warns
@pytest.mark.parametrize(
    "samples_of_series",
    [
        [[1_764_479_000.123, "3"], [1_764_479_005, "40"], [1_764_479_010.007, "41"]],
        [[1_764_479_000.12, "3"], [1_764_479_005.1, "40"]],
        [[1_764_479_000.123, "0.5"], [1_764_479_005, "1.25"]],
        [[1_764_479_000.123, "9223372036854775807"], [1_764_479_005.123, "18446744073709551616"]],
        [[1_764_479_000.123, "-3"], [1_764_479_005.123, "1e+06"]],
        [[1_764_479_000, "3"], [1_764_479_005, "1e+06"]],
        [[1_764_479_000, "1e+06"], [1_764_479_005, "7"]],
        [[1_764_479_000.123, "3"], [1_764_479_005, "0.5"]],
        [[17_644_790.123, "3"], [17_644_795.123, "4"]],
        [[10.5, "3"], [11.5, "4"], [12.5, "5"]],
    ],
    ids=[
        "whole",
        "fewer decimals",
        "not whole",
        "large",
        "signs",
        "power last",
        "power first",
        "one dot each",
        "long ago",
        "very long ago",
    ],
)
def test_each_number_is_read_exactly(store: Store, samples: RawSamples, samples_of_series: list[list[Any]]) -> None:
    """This holds for any notation and for the fast path: in Prometheus's compact form or with spaces."""
    given = matrix(({"pod": "p"}, samples_of_series), ({"pod": "q"}, samples_of_series))
    for text in (given, given.replace(b", ", b",").replace(b": ", b":")):
        store.answer = text
        for series in samples.between(WANTED, 10.0, 20.0):
            assert series.times.tolist() == [float(time_s) for time_s, _ in samples_of_series]
            assert series.values.tolist() == [float(value) for _, value in samples_of_series]


def test_a_series_may_have_more_fields_than_samples(store: Store, samples: RawSamples) -> None:
    """Native histograms or labels come after them; these end in the characters that samples end in, or in others."""
    histograms = b'"histograms":[[11,{"count":"3","sum":"9","buckets":[[0,"0.5","1","3"]]}]]'
    values, labels = b'"values":[[1764479000.123,"3"],[1764479005.123,"40"]]', b'"metric":{"pod":"p"}'
    for parts in ([labels, values], [values, labels], [labels, values, histograms], [labels, histograms, values]):
        each = b"{%s}" % b",".join(parts)
        store.answer = b'{"status":"success","data":{"resultType":"matrix","result":[%s,%s]}}' % (each, each)
        for series in samples.between(WANTED, 10.0, 20.0):
            assert series.labels == {"pod": "p"}
            assert series.values.tolist() == [3.0, 40.0]


def test_the_next_span_is_read_while_the_last_one_is_processed(store: Store, samples: RawSamples) -> None:
    """Each is read once and in order; a caller who stops early causes at most one unneeded query."""
    store.answer = matrix(({"pod": "p"}, [[11, "3"]]))
    spans = [(0.0, 10.0), (10.0, 20.0), (20.0, 30.0), (30.0, 40.0)]
    assert [end_s for end_s, series in samples.ahead(WANTED, spans) if len(series) == 1] == [10.0, 20.0, 30.0, 40.0]
    assert [asked["time"] for asked in store.asked] == [["10.000"], ["20.000"], ["30.000"], ["40.000"]]
    store.asked.clear()
    parts = samples.ahead(WANTED, spans)
    assert next(parts)[0] == 10.0
    parts.close()
    assert len(store.asked) == 2


def test_an_answer_without_series_is_not_an_error(store: Store, samples: RawSamples) -> None:
    """The version was never scraped."""
    store.answer = matrix()
    assert samples.between(WANTED, 10.0, 20.0) == []
    assert samples.began_s(WANTED, until_s=20.0, longest_s=600.0) is None


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (200, matrix(warnings=["store 10.0.0.7 is unavailable"]), "store 10.0.0.7 is unavailable"),
        (422, b'{"status": "error", "error": "too many samples"}', "too many samples"),
        (422, b'{"status": "error", "error": "' + 10_000 * b"x" + b'"}', "xxx"),
        (200, b"<html>please log in</html>", "HTTP 200 '<html>please log in</html>'"),
        (302, b"", "HTTP 302 to https://login.example/"),
        (200, b"[]", "HTTP 200 '[]'"),
        (200, b'{"status": "success", "data": null}', "HTTP 200"),
        (200, b'{"status": "success", "data": {}}', "{}"),
        (200, b'{"status": "success", "data": {"result": [3]}}', "{'result': [3]}"),
        (200, b'{"status": "success", "data": {"result": []}, "warnings": 5}', "HTTP 200"),
        (502, b"", "HTTP 502"),
        (200, matrix(({}, [[1, "many"], [2, "3"]])), "HTTP 200"),
    ],
    ids=[
        "a part is away",
        "refused",
        "refused at length",
        "a login page",
        "a redirect",
        "a list",
        "no data",
        "other data",
        "other series",
        "odd warnings",
        "nothing",
        "no numbers",
    ],
)
def test_an_incomplete_answer_is_refused(
    store: Store, samples: RawSamples, status: int, answer: bytes, words: str
) -> None:
    """A store behind Thanos that is away would look like requests that did not happen."""
    store.status, store.answer = status, answer
    with pytest.raises(SourceUnreachable) as refused:
        samples.between(WANTED, 10.0, 20.0)
    assert words in refused.value.saw
    assert len(refused.value.saw) < 400


def test_null_warnings_and_compression_are_accepted(store: Store, samples: RawSamples) -> None:
    """Some stores write null warnings, and some proxies compress every answer."""
    store.answer, store.encoding = gzip.compress(matrix(({"pod": "p"}, [[11, "3"]]), warnings=None)), "gzip"
    (series,) = samples.between(WANTED, 10.0, 20.0)
    assert series.values.tolist() == [3.0]


@pytest.mark.parametrize(
    "ask",
    [RawSamples.now_s, lambda samples: samples.began_s(WANTED, until_s=20.0, longest_s=600.0)],
    ids=["now", "began"],
)
def test_an_answer_in_another_form_raises_source_unreachable(
    store: Store, samples: RawSamples, ask: Callable[[RawSamples], object]
) -> None:
    """An API gateway answered in place of Prometheus."""
    store.answer = b'{"status": "success", "data": {"result": "none"}}'
    with pytest.raises(SourceUnreachable, match="does not have the form"):
        ask(samples)


def test_the_time_of_a_store_without_scalars_is_read(store: Store, samples: RawSamples) -> None:
    """VictoriaMetrics 1.79 answers `time()` like this."""
    data = {"resultType": "vector", "result": [{"metric": {}, "value": [1796043243, "1796043242.735"]}]}
    store.answer = json.dumps({"status": "success", "data": data}).encode()
    assert samples.now_s() == 1796043242.735


def test_a_large_query_that_times_out_does_not_block_others(store: Store) -> None:
    """It says nothing about the store, so the next question is asked."""
    source = RawSamples(f"http://127.0.0.1:{store.server_port}", timeout_s=0.1)
    store.answer = b'{"status": "success", "data": {"resultType": "scalar", "result": [7, "7"]}}'
    store.hangs_at = "requests_total"
    with pytest.raises(SourceUnreachable, match="does not answer"):
        source.between(WANTED, 10.0, 20.0)
    assert source.now_s() == 7
    source.close()


def test_a_store_that_hangs_gets_one_question_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All other questions are refused at once, until the store answers again."""
    monkeypatch.setattr(raw_samples, "_SOON_S", 0.1)
    monkeypatch.setattr(raw_samples, "_SILENT_S", 3600.0)
    source = RawSamples(f"http://127.0.0.1:{store.server_port}")
    store.answer = b'{"status": "success", "data": {"resultType": "scalar", "result": [7, "7"]}}'
    store.hangs_at = "time()"
    for _ in range(5):
        with pytest.raises(SourceUnreachable, match="does not answer"):
            source.now_s()
    assert len(store.asked) == 1
    monkeypatch.setattr(raw_samples, "_SILENT_S", 0.0)
    source.close()
    source = RawSamples(f"http://127.0.0.1:{store.server_port}")
    with pytest.raises(SourceUnreachable, match="does not answer"):
        source.now_s()
    store.hangs_at = "nothing"
    assert [source.now_s(), source.now_s()] == [7, 7]
    source.close()


def test_a_caller_out_of_time_says_nothing_about_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It let all others wait for a hanging store again. Nor does it mark a store that answers as silent."""
    monkeypatch.setattr(raw_samples, "_SOON_S", 0.1)
    monkeypatch.setattr(raw_samples, "_SILENT_S", 0.0)
    store.answer = b'{"status": "success", "data": {"resultType": "scalar", "result": [7, "7"]}}'
    store.hangs_at = "time()"
    source = RawSamples(f"http://127.0.0.1:{store.server_port}")
    with pytest.raises(SourceUnreachable, match="does not answer"):
        source.now_s()
    monkeypatch.setattr(raw_samples, "_SOON_S", 20.0)
    for left_s in (0.05, 0.0):
        with within(left_s), pytest.raises(SourceUnreachable, match="Timeout"):
            source.now_s()
    with ThreadPoolExecutor(1) as callers:
        asking = callers.submit(source.now_s)
        eventually(lambda: len(store.asked) == 3)
        with pytest.raises(SourceUnreachable, match="a moment ago"):
            source.now_s()
        store.ends.set()
        with pytest.raises(SourceUnreachable):
            asking.result()
    store.hangs_at = "nothing"
    for left_s in (0.0, 60.0):
        with within(left_s), suppress(SourceUnreachable):
            source.now_s()
    assert source.now_s() == 7
    source.close()


def test_an_expression_is_quoted() -> None:
    """It does not use backticks, in which pages and chats show queries, and it may contain any character."""
    wanted = Wanted(("requests_total",), (("app", ("a.b", "c")),), (("path", 'a`b"c\\d'),))
    assert str(wanted) == 'requests_total{app=~"a\\\\.b|c",path!~"a`b\\"c\\\\d"}'


def test_a_label_value_is_quoted() -> None:
    """A user's profile may have any text in `where`; names in questions may not."""
    wanted = Wanted(("requests_total",), (("app", ('a"} or up{x="',)), ("path", ("C:\\new",))))
    assert str(wanted) == 'requests_total{app="a\\"} or up{x=\\"",path="C:\\\\new"}'


@pytest.mark.parametrize("status", [401, 403])
def test_a_proxys_message_about_a_login_is_shown(store: Store, samples: RawSamples, status: int) -> None:
    """It may name the missing right. In a cluster the error does not mention the stack's own Prometheus."""
    store.status, store.answer = status, b"Forbidden (resource=prometheuses)"
    with pytest.raises(SourceUnreachable, match="does not let Kanaria read") as refused:
        samples.now_s()
    assert "resource=prometheuses" in refused.value.saw
    assert refused.value.do == "give a file with a login that may read: --prometheus-login FILE"
