"""If the system gives no more threads, counters are read one page after another."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from rollout.fleet import Backend
from rollout.judge.types import Pair
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.sources.raw_samples import RawSamples, Wanted
from rollout.sources.scrape import ScrapeSource
from tests.support.running_server import running_server
from tests.support.thread_limit import no_more_threads

STABLE, CANARY = "digits:v1", "digits:v2"
GATEWAY = 'envoy_kanaria_predict_total{version="%s",routed="%s",code="503"} 7\n'
FEEDBACK = 'kanaria_feedback_total{version="%s",outcome="correct"} 3\n'


@contextmanager
def server_of(page: str) -> Iterator[int]:
    """The port of a server with one thread that answers everything with a page."""

    class PageHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.wfile.write(f"HTTP/1.0 200 OK\r\ncontent-length: {len(page)}\r\n\r\n{page}".encode())

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Writes no log."""

    with running_server(HTTPServer(("127.0.0.1", 0), PageHandler)) as made:
        yield made.server_port


def test_pages_are_read_one_after_another() -> None:
    """Each reading failed with an error that did not count as an unreadable source."""
    with (
        server_of(GATEWAY % (CANARY, CANARY)) as gateway,
        server_of(FEEDBACK % STABLE) as stable,
        server_of(FEEDBACK % CANARY) as canary,
        ScrapeSource(EnvoyMetrics(f"127.0.0.1:{gateway}")) as source,
        no_more_threads(),
    ):
        found = source.read((Backend(STABLE, "127.0.0.1", stable), Backend(CANARY, "127.0.0.1", canary))).counters
        assert found[f"127.0.0.1:{gateway}", CANARY, "errors"] == Pair(7, 7)
        assert found[f"127.0.0.1:{stable}", STABLE, "wrong_label"] == Pair(0, 3)
        assert found[f"127.0.0.1:{canary}", CANARY, "wrong_label"] == Pair(0, 3)


def test_spans_are_read_one_after_another() -> None:
    series = {"metric": {"__name__": "asked"}, "values": [[1.0, "2"]]}
    answer = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [series]}})
    with server_of(answer) as port:
        samples = RawSamples(f"http://127.0.0.1:{port}")
        with no_more_threads():
            found = list(samples.ahead(Wanted(("asked",), ()), [(0.0, 10.0), (10.0, 20.0)]))
        samples.close()
    assert [(end_s, len(each)) for end_s, each in found] == [(10.0, 1), (20.0, 1)]
