"""The demo of a text service: its users, and the options that it accepts."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import orjson
import pytest

from contract.terminal import Terminal
from kanaria.demo.environment import Fault
from kanaria.demo.story import run_demo
from kanaria.demo.text import TextDemo
from kanaria.demo.text_users import Phrases, TextUsers
from kanaria.errors import SetupError
from kanaria.settings import Settings
from loadtest.results import Summary
from loadtest.scenario import Scenario, Segment
from rollout.spec import SHADOW
from tests.support.paths import ROOT
from tests.support.running_server import running_server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs("serve"), pytest.mark.needs("loadtest")]
PHRASES = ROOT / "examples" / "languages" / "phrases.tsv"
SCENARIO = Scenario(name="texts", seed=7, shape=(Segment(for_s=600, rate=200),), timeout_s=5)


class Service(BaseHTTPRequestHandler):
    """Calls every text with an `e` English, fails texts with an `x`, and does not answer texts with a `z`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert self.headers["x-api-key"] == "secret"
        text = orjson.loads(self.rfile.read(int(self.headers["content-length"])))["text"]
        assert len(text.split()) == 4
        body = orjson.dumps({"label": "english" if "e" in text else "german"})
        self.send_response(500 if "x" in text else 200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-kanaria-version", "m:v2" if "o" in text else "m:v1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Log nothing."""


@contextmanager
def served() -> Iterator[str]:
    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Service)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def asked(host: str, phrases: Path) -> Summary:
    """What users saw who sent a hundred requests."""
    with TextUsers(SCENARIO, Phrases(phrases), host=host, api_key="secret") as users:
        eventually(lambda: users.live().requests >= 100)
        summary = users.stop()
    assert users.stop().requests == summary.requests
    return summary


def test_users_know_which_answers_are_right(tmp_path: Path) -> None:
    """Right and wrong answers are counted for the version that gave them, with their latency."""
    phrases = tmp_path / "phrases.tsv"
    phrases.write_text("english\tred ten\ngerman\trot\ngerman\tdort\n")
    with served() as host:
        summary = asked(host, phrases)
    assert summary.failures == 0
    assert summary.versions["m:v1"].wrong == 0
    assert summary.versions["m:v1"].correct > 0
    assert summary.versions["m:v2"].correct > 0
    assert sum(counts.answers for counts in summary.versions.values()) == summary.requests == summary.scheduled.count


def test_failures_are_counted_with_their_version(tmp_path: Path) -> None:
    """What the service said is recorded with them."""
    phrases = tmp_path / "phrases.tsv"
    phrases.write_text("english\tbox\n")
    with served() as host:
        summary = asked(host, phrases)
    assert summary.failures == summary.requests
    assert {(one.status, one.version) for one in summary.failure_list} == {(500, "m:v2")}
    assert "HTTP 500" in summary.failure_list[0].message


def test_an_absent_gateway_counts_as_a_failure(tmp_path: Path) -> None:
    """Such a failure belongs to no version."""
    with served() as host:
        pass
    with TextUsers(SCENARIO, Phrases(PHRASES), host=host, api_key=None) as users:
        eventually(lambda: users.live().failures)
    assert {(one.status, one.version) for one in users.stop().failure_list} == {(0, None)}


def test_every_text_is_in_one_language() -> None:
    """Each text has four words of that language."""
    phrases, chance = Phrases(PHRASES), random.Random(7)
    of = {line.partition("\t")[0]: set() for line in PHRASES.read_text().splitlines()}
    for line in PHRASES.read_text().splitlines():
        language, _, phrase = line.partition("\t")
        of[language] |= set(phrase.split())
    for _ in range(200):
        text = phrases.text(chance)
        assert set(text.text.split()) <= of[text.language]


@pytest.mark.parametrize("fault", [fault for fault in get_args(Fault) if fault not in TextDemo.variant_of_v3])
def test_an_unsupported_fault_is_refused_with_the_supported_ones(fault: Fault) -> None:
    """This happens before anything is built."""
    with pytest.raises(SetupError, match=fault) as refused:
        run_demo("text", fault, Terminal(stderr=True))
    assert refused.value.do == "choose one of wrong, crash, or `--service digits`"


def test_outside_the_project_the_demo_says_where_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is in the project's folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SetupError, match=r"no folder examples.languages"):
        TextDemo.of(Settings(home=tmp_path / "state"), Terminal(stderr=True))


def test_the_demo_follows_the_plan_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan reads what the answers mean and starts with the shadow step."""
    monkeypatch.chdir(ROOT)
    plan = TextDemo.of(Settings(home=tmp_path / "state"), Terminal(stderr=True)).plan()
    assert plan.steps[0] == SHADOW
    assert plan.answers.counted(["/detect"]) == {"label"}
