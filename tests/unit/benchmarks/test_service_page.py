"""The summary of visits to servers: ratios within rounds, and promises that are kept, broken or not measured."""

import dataclasses
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.errors import BenchmarkError
from benchmarks.service.contenders import OURS, PEERS, Contender
from benchmarks.service.page import page
from benchmarks.service.scores import Promise, Spread, promises, scores
from benchmarks.service.visits import CASES, ROWS, Result, Visit
from benchmarks.service.wrk import Load, load
from kanaria.errors import SetupError
from tests.support.paths import ROOT
from tests.support.running_server import running_server

STARLETTE = next(peer for peer in PEERS if peer.key == "starlette")


def visit(number: int, contender: Contender, requests_per_s: int) -> Visit:
    """A visit in which every load gave p50 1 ms and p99 4 ms."""
    measured = Load(requests=requests_per_s, duration_us=1_000_000, p50_us=1000, p99_us=4000, refused=0, broken=0)
    results = {case.key: Result(measured, cpu_us=100.0) for case in CASES}
    return Visit(number, contender, startup_s=2.0, memory_mb=300.0, worker_mb=200.0, results=results)


# The machine was busy in the second round: every server had half its rate.
VISITS = [visit(0, OURS, 3000), visit(0, STARLETTE, 2000), visit(1, OURS, 1600), visit(1, STARLETTE, 1000)]


def promise(title: str, visits: list[Visit]) -> Promise:
    (found,) = (one for one in promises(visits) if title in one.title)
    return found


def test_ratios_are_computed_within_a_round() -> None:
    """They are 1.5 and 1.6, although the rates of the rounds differ twofold."""
    _, peer = scores(VISITS)
    assert peer.cases["busy"].advantage == Spread(median=1.55, low=1.5, high=1.6)
    assert peer.cases["busy"].requests_per_s == Spread(median=1500, low=1000, high=2000)


def test_kanaria_comes_first_and_peers_in_their_order() -> None:
    """The order of visits changes from round to round and does not matter."""
    assert [score.contender for score in scores(VISITS[::-1])] == [OURS, STARLETTE]


@pytest.mark.parametrize(("ours", "is_kept"), [(1800, True), (1799, False)])
def test_a_promise_is_kept_at_its_limit(ours: int, is_kept: bool) -> None:
    """The limit is 0.9 times bare Starlette's 2,000 requests per second."""
    assert promise("bare Starlette", [visit(0, OURS, ours), visit(0, STARLETTE, 2000)]).is_kept is is_kept


@pytest.mark.parametrize(("added_ms", "is_kept"), [(1.0, True), (1.1, False)])
def test_an_upper_limit_is_kept_at_its_value(added_ms: float, is_kept: bool) -> None:
    """The gateway may add one millisecond."""
    beside = [dataclasses.replace(VISITS[0], gateway_ms=added_ms)]
    assert promise("gateway", beside).is_kept is is_kept


def test_a_promise_without_a_measurement_is_neither_kept_nor_broken() -> None:
    """For example, a server is not installed or the gateway was left out."""
    for title in ("LitServe", "gateway", "model alone"):
        found = promise(title, VISITS)
        assert (found.measured, found.is_kept) == (None, None)


def test_rows_per_second_are_compared_with_the_model_alone() -> None:
    """3,000 requests of 32 rows per second and a model with 120,000 rows per second give 0.8."""
    beside = [dataclasses.replace(VISITS[0], raw_rows_per_s=3000 * ROWS.rows / 0.8)]
    assert promise("model alone", beside).measured == Spread(0.8, 0.8, 0.8)


def test_the_page_shows_every_promise_and_its_command() -> None:
    """A reader can run the command again, and sees which promises are broken."""
    text = page(
        scores(VISITS),
        promises(VISITS),
        command="python -m benchmarks service x:1",
        tag="x:1",
        machine="a box",
        rounds=2,
    )
    assert all(one.title in text for one in promises(VISITS))
    assert all(word in text for word in ("`python -m benchmarks service x:1`", "a box", "not measured", "kept"))


def test_the_committed_page_is_what_the_command_writes() -> None:
    """This covers every line outside the tables."""
    text = (ROOT / "docs/benchmarks/service.md").read_text("utf-8")
    written = re.search(r"Written by `(python -m benchmarks .+)` on (.+)\.\n", text)
    assert written is not None
    now = page(
        scores(VISITS), promises(VISITS), command=written[1], tag="digits:v2", machine=written[2], rounds=4
    ).splitlines()
    assert [line for line in text.splitlines() if not line.startswith("|")] == [
        line for line in now if not line.startswith("|")
    ]


def test_an_unknown_server_is_bad_input() -> None:
    """The error lists the known ones."""
    done = CliRunner().invoke(app, ["service", "x:1", "--peer", "apache"])
    assert isinstance(done.exception, SetupError)
    assert all(word in str(done.exception) for word in ("--peer apache", "starlette"))


class Overloaded(BaseHTTPRequestHandler):
    """Refuses every request at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_server_that_refuses_requests_is_not_measured(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Refusals come quickly; counted as answers they would look like speed."""
    require_program("wrk")
    (tmp_path / "bodies").write_text("{}\n")
    with (
        running_server(HTTPServer(("127.0.0.1", 0), Overloaded)) as server,
        pytest.raises(BenchmarkError, match="does not answer every request"),
    ):
        load(f"http://127.0.0.1:{server.server_port}", tmp_path / "bodies", connections=1, seconds=1)
