"""What visits to servers add up to: ratios within rounds, and promises that are kept, broken or not measured."""

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
    """One in which every load went alike: p50 1 ms, p99 4 ms."""
    measured = Load(requests=requests_per_s, duration_us=1_000_000, p50_us=1000, p99_us=4000, refused=0, broken=0)
    results = {case.key: Result(measured, cpu_us=100.0) for case in CASES}
    return Visit(number, contender, startup_s=2.0, memory_mb=300.0, worker_mb=200.0, results=results)


# The second round fell on a busy moment: every server was half as fast.
VISITS = [visit(0, OURS, 3000), visit(0, STARLETTE, 2000), visit(1, OURS, 1600), visit(1, STARLETTE, 1000)]


def promise(title: str, visits: list[Visit]) -> Promise:
    (found,) = (one for one in promises(visits) if title in one.title)
    return found


def test_ratios_are_taken_within_a_round() -> None:
    """1.5 and 1.6, although a round's luck moved the rates twofold."""
    _, peer = scores(VISITS)
    assert peer.cases["busy"].advantage == Spread(median=1.55, low=1.5, high=1.6)
    assert peer.cases["busy"].requests_per_s == Spread(median=1500, low=1000, high=2000)


def test_we_come_first_and_peers_in_their_order_whoever_was_visited_first() -> None:
    """The order of visits shifts from round to round."""
    assert [score.contender for score in scores(VISITS[::-1])] == [OURS, STARLETTE]


@pytest.mark.parametrize(("ours", "is_kept"), [(1800, True), (1799, False)])
def test_a_promise_is_kept_from_its_limit_on(ours: int, is_kept: bool) -> None:
    """0.9 times bare Starlette's 2,000 requests per second."""
    assert promise("bare Starlette", [visit(0, OURS, ours), visit(0, STARLETTE, 2000)]).is_kept is is_kept


@pytest.mark.parametrize(("added_ms", "is_kept"), [(1.0, True), (1.1, False)])
def test_a_ceiling_is_kept_up_to_its_limit(added_ms: float, is_kept: bool) -> None:
    """The gateway may add one millisecond."""
    beside = [dataclasses.replace(VISITS[0], gateway_ms=added_ms)]
    assert promise("gateway", beside).is_kept is is_kept


def test_what_was_not_measured_is_neither_kept_nor_broken() -> None:
    """A server that is not installed, a gateway that was left out."""
    for title in ("LitServe", "gateway", "model alone"):
        found = promise(title, VISITS)
        assert (found.measured, found.is_kept) == (None, None)


def test_rows_are_compared_with_the_model_alone() -> None:
    """3,000 requests of 32 rows each beside a model that does 120,000 rows per second: 0.8."""
    beside = [dataclasses.replace(VISITS[0], raw_rows_per_s=3000 * ROWS.rows / 0.8)]
    assert promise("model alone", beside).measured == Spread(0.8, 0.8, 0.8)


def test_the_page_shows_every_promise_and_how_it_was_made() -> None:
    """A reader can run it again, and sees which promises are broken."""
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
    """All but the numbers: every line outside the tables."""
    text = (ROOT / "docs/benchmarks/service.md").read_text("utf-8")
    written = re.search(r"Written by `(python -m benchmarks .+)` on (.+)\.\n", text)
    assert written is not None
    now = page(
        scores(VISITS), promises(VISITS), command=written[1], tag="digits:v2", machine=written[2], rounds=4
    ).splitlines()
    assert [line for line in text.splitlines() if not line.startswith("|")] == [
        line for line in now if not line.startswith("|")
    ]


def test_a_server_that_nobody_knows_is_bad_input() -> None:
    """The error lists those that are known."""
    done = CliRunner().invoke(app, ["service", "x:1", "--peer", "apache"])
    assert isinstance(done.exception, SetupError)
    assert all(word in str(done.exception) for word in ("--peer apache", "starlette"))


class Overloaded(BaseHTTPRequestHandler):
    """Refuses every request, quickly."""

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
