"""What the judge says about a canary without requests."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from rollout.server.evidence import Evidence, NeverSeen
from rollout.server.questions import Plan
from rollout.signals.profile import Names
from rollout.sources.profiles import built_in
from rollout.sources.raw_samples import RawSamples
from tests.support.running_server import running_server


class _GrpcStore(BaseHTTPRequestHandler):
    """A store in which one canary has only gRPC requests and another has none."""

    def do_POST(self) -> None:
        query = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())["query"][0]
        kind, result = ("matrix", []) if query.startswith("count(") else ("vector", [])
        if query == "time()":
            result = [{"metric": {}, "value": [0, "1700000000"]}]
        elif kind == "vector" and '"v2"' in query and "request_protocol" not in query:
            result = [{"metric": {"request_protocol": "grpc"}, "value": [0, "1"]}]
        text = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Writes no log."""


@pytest.fixture
def samples() -> Iterator[RawSamples]:
    with (
        running_server(ThreadingHTTPServer(("127.0.0.1", 0), _GrpcStore)) as server,
        closing(RawSamples(f"http://127.0.0.1:{server.server_port}")) as read,
    ):
        yield read


@pytest.mark.parametrize(
    ("canary", "words"),
    [("v2", ("`leave_out` leaves out", "`istio-grpc` for gRPC")), ("v3", ("nothing for", "pods are scraped"))],
)
def test_the_error_says_whether_the_profile_leaves_out_all_series(
    samples: RawSamples, canary: str, words: tuple[str, str]
) -> None:
    """For a canary with only gRPC requests it said that its pods might not be scraped."""
    profile = built_in()["istio"]
    names = Names("shop", "digits", canary, "v1")
    evidence = Evidence(samples, profile, names, Plan.of("{}", profile), not_before_s=-float("inf"))
    with pytest.raises(NeverSeen) as never:
        evidence.answer(None, own_clock_s=1_700_000_000.0)
    assert words[0] in never.value.saw
    assert words[1] in never.value.do
