"""Raw samples from what speaks Prometheus's API: what is read, and what is refused."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest

from rollout.errors import SourceUnreachable
from rollout.sources.raw_samples import RawSamples, Wanted

WANTED = Wanted(("requests_total",), (("app", ("a",)),))


class Store(ThreadingHTTPServer):
    """Answers every query with the same text."""

    answer = b""
    status = 200

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        store = self.server
        assert isinstance(store, Store)
        store.asked.append(parse_qs(self.rfile.read(int(self.headers["content-length"])).decode()))
        self.send_response(store.status)
        self.end_headers()
        self.wfile.write(store.answer)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def samples(store: Store) -> Iterator[RawSamples]:
    source = RawSamples(f"http://127.0.0.1:{store.server_port}")
    yield source
    source.close()


def matrix(*series: tuple[dict[str, str], list[list[Any]]], **more: Any) -> bytes:
    result = [{"metric": labels, "values": values} for labels, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}, **more}).encode()


def test_samples_come_as_they_were_scraped(store: Store, samples: RawSamples) -> None:
    """Also where a label looks like samples, and where a store writes spaces or none."""
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


def test_no_series_are_no_error(store: Store, samples: RawSamples) -> None:
    """A version that was never scraped."""
    store.answer = matrix()
    assert samples.between(WANTED, 10.0, 20.0) == []
    assert samples.began_s(WANTED, until_s=20.0, longest_s=600.0) is None


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (200, matrix(warnings=["store 10.0.0.7 is unavailable"]), "store 10.0.0.7 is unavailable"),
        (422, b'{"status": "error", "error": "too many samples"}', "too many samples"),
        (200, b"<html>please log in</html>", "expected"),
        (200, b"[]", "AttributeError"),
        (200, b'{"status": "success", "data": null}', "HTTP 200"),
        (502, b"", "EOF"),
        (200, matrix(({}, [[1, "many"], [2, "3"]])), "ValueError"),
    ],
    ids=["a part is away", "refused", "a login page", "a list", "no data", "nothing", "no numbers"],
)
def test_what_is_not_whole_is_refused(
    store: Store, samples: RawSamples, status: int, answer: bytes, words: str
) -> None:
    """A store behind Thanos that is away would look like requests that did not happen."""
    store.status, store.answer = status, answer
    with pytest.raises(SourceUnreachable) as refused:
        samples.between(WANTED, 10.0, 20.0)
    assert words in refused.value.saw
