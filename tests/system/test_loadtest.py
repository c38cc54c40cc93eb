"""The load generator against a real HTTP server in a separate process, with faults switched on and off."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from kanaria.stack.ports import free_port
from loadtest.cli import app
from loadtest.errors import GeneratorError
from loadtest.process import RunningLoad, run, start
from loadtest.results import ExitCode, Live, Summary
from loadtest.scenario import Scenario, Task
from tests.support.asking import HTTP
from tests.support.children import children_with, started
from tests.support.paths import ROOT
from tests.support.waiting import eventually

TARGET = ROOT / "tests" / "support" / "loadtest_target.py"
LOCUSTFILE = ROOT / "loadtest" / "locustfile.py"
LOCUST = (sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary")


class Target:
    """Controls the server that replaces the service."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def break_by(self, **faults: float) -> None:
        HTTP.put(f"{self.url}/faults", json=faults).raise_for_status()

    def stall(self, seconds: float) -> None:
        """Answer no prediction before `seconds` from now."""
        self.break_by(stall_until=time.time() + seconds)

    def seen(self) -> dict[str, int]:
        return {name: int(count) for name, count in HTTP.get(f"{self.url}/seen").json().items()}


def references(page: str) -> list[str]:
    """Everything that the tags of `page` would load. Text inside a script is not a tag."""
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(f"{tag} {name}={value}" for name, value in attrs if name in {"src", "href"})

    Tags().feed(page)
    return found


@contextmanager
def serve() -> Iterator[Target]:
    with subprocess.Popen([sys.executable, str(TARGET)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Target(int(process.stdout.readline()))
        finally:
            process.terminate()


@pytest.fixture
def target() -> Iterator[Target]:
    with serve() as target:
        yield target


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    rows = ({"features": [number % 10, 1, 2, 3], "label": str(number % 10)} for number in range(50))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def scenario(*, for_s: float = 2, rate: float = 60, **changes: object) -> Scenario:
    """Evenly spread arrivals. A slip is over 1 s, so a busy test machine causes none."""
    base = {"name": "test", "seed": 1, "arrivals": "constant", "shape": [{"for_s": for_s, "rate": rate}]}
    return Scenario.model_validate(base | {"late_after_ms": 1000} | changes)


def closed_port() -> int:
    """A port on which nothing listens, and that no other test gets."""
    return free_port()


def wait_for(condition: Callable[[Live], bool], load: RunningLoad, timeout_s: float = 60) -> Live:
    """Poll the live counters until they meet `condition`."""
    deadline = time.monotonic() + timeout_s
    while not condition(live := load.live()):
        assert time.monotonic() < deadline, f"still {live}"
        time.sleep(0.05)
    return live


@dataclass(frozen=True, slots=True)
class Outcome:
    summary: Summary
    seen: dict[str, int]  # counts of the target
    out_dir: Path


class TestAHealthyService:
    """One run of every task against a service without faults; each test checks one promise."""

    @pytest.fixture(scope="class")
    def outcome(self, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
        out_dir = tmp_path_factory.mktemp("healthy")
        mix = {"one_row": 70, "many_rows": 10, "bad_input": 20}
        plan = scenario(for_s=3, rate=80, mix=mix, labelled_ratio=0.5, rows=8)
        with serve() as target:
            summary = run(plan, host=target.url, samples=samples, out_dir=out_dir, api_key="the-key")
            return Outcome(summary, target.seen(), out_dir)

    def test_the_rate_is_held(self, outcome: Outcome) -> None:
        """3 s at 80 requests/s are 240 requests, sent in the seconds in which they were due."""
        summary = outcome.summary
        assert (summary.offered, summary.requests, summary.not_sent) == (240, 240, 0)
        assert [window.offered for window in summary.windows[:3]] == pytest.approx([80, 80, 80], abs=1)

    def test_every_gate_holds(self, outcome: Outcome) -> None:
        """There is no failure: refused bad input is a success of that task."""
        summary = outcome.summary
        assert (summary.exit_code, summary.failures, summary.stopped_early) == (ExitCode.PASSED, 0, False)
        assert summary.tasks[Task.BAD_INPUT].requests == outcome.seen["bad_input"] > 0

    def test_feedback_matches_the_answers(self, outcome: Outcome) -> None:
        """Every feedback names an answer of the service without labels, and the requested share gets feedback."""
        seen = outcome.seen
        assert seen["feedback"] == seen["joined"] == outcome.summary.tasks[Task.FEEDBACK].requests
        assert seen["joined"] / seen["good"] == pytest.approx(0.5, abs=0.15)

    def test_versions_are_counted_with_their_right_and_wrong_rows(self, outcome: Outcome) -> None:
        """The target's v1 is always right and its v2, every fourth answer, always wrong: the client counts both."""
        v1, v2 = outcome.summary.versions["toy:v1"], outcome.summary.versions["toy:v2"]
        answers = outcome.seen["good"]
        assert (v1.answers + v2.answers, v2.answers) == (answers, answers // 4)
        assert v1.wrong == v2.correct == 0 < v1.correct

    def test_every_request_carries_the_api_key(self, outcome: Outcome) -> None:
        """The key is sent as x-api-key."""
        assert outcome.seen["key:the-key"] == outcome.seen["predict"]

    def test_the_report_is_one_page_that_needs_no_network(self, outcome: Outcome) -> None:
        """The page contains plotly and the pictures, and no tag that loads anything."""
        page = (outcome.out_dir / "report.html").read_text("utf-8")
        assert "Plotly.newPlot" in page
        assert "Answers by version" in page
        assert references(page) == []


def test_a_stall_shows_in_the_latency_of_every_request_due_in_it(target: Target, samples: Path, tmp_path: Path) -> None:
    """A service that answers nothing in the first second has a p99 near 1 s, and still gets every request."""
    with start(scenario(for_s=3), host=target.url, samples=samples, out_dir=tmp_path) as load:
        target.stall(1.3)  # the schedule starts 0.3 s after the start
        summary = load.wait()
    assert summary.requests == 180
    assert summary.scheduled.p99_ms > 800
    assert summary.scheduled.p50_ms < summary.scheduled.p99_ms / 2


def test_the_wait_of_arrivals_that_found_every_user_busy_is_latency(
    target: Target, samples: Path, tmp_path: Path
) -> None:
    """With 2 users and a stall, 2 requests are slow for the server; all that were due meanwhile are slow for users."""
    plan = scenario(for_s=3, users=2, late_after_ms=100, gates={"slip_ratio": 0.1})
    with start(plan, host=target.url, samples=samples, out_dir=tmp_path) as load:
        target.stall(1.5)
        summary = load.wait()
    assert summary.scheduled.p90_ms > 500 > summary.service.p90_ms
    assert summary.slipped >= 30
    assert [gate.name for gate in summary.gates if not gate.passed] == ["slip_ratio"]
    assert summary.exit_code is ExitCode.GATE_BROKEN


def test_failures_fail_the_gate_and_are_listed_with_their_reason(target: Target, samples: Path, tmp_path: Path) -> None:
    """One answer in ten fails, and bad input breaks the service: each failure has its task, status and text."""
    target.break_by(fail_every=10, bad_input_is_500=1)
    plan = scenario(for_s=1.5, mix={"one_row": 80, "many_rows": 0, "bad_input": 20}, gates={"error_ratio": 0.01})
    summary = run(plan, host=target.url, samples=samples, out_dir=tmp_path)
    assert summary.exit_code is ExitCode.GATE_BROKEN
    assert summary.failures == len(summary.failure_list) == target.seen()["good"] // 10 + target.seen()["bad_input"]
    assert {(failure.task, failure.status) for failure in summary.failure_list} == {
        (Task.ONE_ROW, 500),
        (Task.BAD_INPUT, 500),
    }
    assert any("it broke" in failure.message for failure in summary.failure_list)


def test_a_stop_lets_requests_in_flight_finish(target: Target, samples: Path, tmp_path: Path) -> None:
    """A dozen requests are in flight: all are answered, none fails, and the summary says that the run stopped early."""
    target.break_by(slow_s=0.2)
    with start(scenario(for_s=300), host=target.url, samples=samples, out_dir=tmp_path) as load:
        live = wait_for(lambda live: live.requests > 30 and live.in_flight > 0, load)
        summary = load.stop()
        assert load.live().requests == summary.requests > live.requests
    seen = target.seen()
    assert (summary.failures, summary.stopped_early, summary.exit_code) == (0, True, ExitCode.PASSED)
    assert summary.offered == summary.requests == seen["predict"] + seen["feedback"]


def test_a_run_that_sent_nothing_measured_nothing(target: Target, samples: Path, tmp_path: Path) -> None:
    """The run was stopped before its first request: exit code 3, not a pass."""
    with start(scenario(for_s=200, rate=0.01), host=target.url, samples=samples, out_dir=tmp_path) as load:
        assert load.stop().exit_code is ExitCode.NOTHING_MEASURED


def test_a_generator_that_dies_is_an_error_with_the_end_of_its_log(
    target: Target, samples: Path, tmp_path: Path
) -> None:
    """A missing summary is never reported as a summary of zeros."""
    with start(scenario(for_s=300), host=target.url, samples=samples, out_dir=tmp_path) as load:
        (generator,) = children_with("locust")
        generator.kill()
        with pytest.raises(GeneratorError, match="left no summary"):
            load.stop()


def test_the_command_ends_with_the_gates_exit_code(samples: Path, tmp_path: Path) -> None:
    """The port is closed: every request fails, the failures say why, and the command exits with 1."""
    plan = tmp_path / "plan.json"
    plan.write_text(scenario(for_s=1, rate=20).model_dump_json(), "utf-8")
    options = ["--host", f"http://127.0.0.1:{closed_port()}", "--samples", str(samples), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [str(plan), *options, "--json"])
    assert result.exit_code == ExitCode.GATE_BROKEN
    summary = Summary.model_validate_json(result.stdout)
    assert summary.failures == summary.requests == 20
    assert "refused" in summary.failure_list[0].message


def test_sigterm_to_the_command_stops_the_traffic_and_writes_the_summary(
    target: Target, samples: Path, tmp_path: Path
) -> None:
    """After `kanaria loadtest ... &` and `kill`, no generator is left."""
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    plan.write_text(scenario(for_s=300).model_dump_json(), "utf-8")
    command = [sys.executable, "-m", "kanaria", "loadtest", str(plan), "--host", target.url]
    with started([*command, "--samples", str(samples), "--out", str(out)], cwd=ROOT) as process:
        eventually(lambda: sum(target.seen().values()) > 0)
        generators = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(timeout=120)
    assert generators
    assert psutil.wait_procs(generators, timeout=0)[1] == []
    assert Summary.model_validate_json((out / "summary.json").read_bytes()).requests > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-scenario"], "scenario was not found"),
        (["steady", "--host", "http://example.com"], "another machine"),
        (["steady", "--samples", "absent.jsonl"], "samples file"),
        (["steady", "--api-key-file", "absent.key"], "API key file"),
    ],
)
def test_bad_input_to_the_command_exits_with_2_before_anything_is_sent(arguments: list[str], message: str) -> None:
    """Each mistake gives one message: what happened, what was seen, what to do."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert message in result.stderr
    assert "do:" in result.stderr


def test_the_locust_file_works_without_the_command(target: Target, samples: Path, tmp_path: Path) -> None:
    """`locust -f loadtest/locustfile.py --host URL --headless` runs the steady scenario until -t ends it."""
    result = subprocess.run(
        [*LOCUST, "--host", target.url, "--samples", str(samples), "--out-dir", str(tmp_path), "-t", "3s"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    summary = Summary.model_validate_json((tmp_path / "summary.json").read_bytes())
    assert (summary.scenario.name, summary.failures) == ("steady", 0)
    assert [gate.name for gate in summary.gates if not gate.passed] == ["min_requests"]
    assert result.returncode == ExitCode.GATE_BROKEN
    assert "min_requests" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "http://10.0.0.1"], "another machine"),
        (["--host", "http://127.0.0.1", "--samples", "absent.jsonl"], "samples file"),
    ],
)
def test_bad_input_to_the_locust_file_exits_with_2(arguments: list[str], message: str, samples: Path) -> None:
    """The same checks apply without the command."""
    environment = {**os.environ, "KANARIA_SAMPLES": str(samples)}
    result = subprocess.run(
        [*LOCUST, *arguments], capture_output=True, text=True, timeout=200, check=False, env=environment
    )
    assert result.returncode == ExitCode.BAD_INPUT
    assert message in result.stderr


def test_starting_a_load_test_does_not_patch_the_callers_process() -> None:
    """A process that imports the command or the process API does not load gevent."""
    code = "import sys, loadtest.cli, loadtest.process; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_without_a_stack_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    """It used to complain about a samples file."""
    command = [sys.executable, "-m", "kanaria", "--home", str(tmp_path), "loadtest", "demo"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KANARIA_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "start one with `kanaria up TAG`" in done.stderr) == (2, True), done.stderr


def test_the_command_knows_the_running_stack(target: Target, samples: Path, tmp_path: Path) -> None:
    """It uses the stack's port, key and samples; a host given by option does not get that key. A log shows progress."""
    (tmp_path / "samples.jsonl").write_bytes(samples.read_bytes())
    (tmp_path / "api-key").write_text("the-key\n")
    (tmp_path / "listening.json").write_text(json.dumps({"gateway_port": int(target.url.rpartition(":")[2])}))
    plan = tmp_path / "plan.json"
    plan.write_text(scenario(for_s=1, rate=20, gates={"error_ratio": 0}).model_dump_json(), "utf-8")
    command = [sys.executable, "-m", "kanaria", "--home", str(tmp_path), "loadtest", str(plan)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KANARIA_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.PASSED, done.stdout + done.stderr
    seen = target.seen()
    assert seen["key:the-key"] == seen["predict"] > 0
    assert "test: " in done.stderr
    assert "0 failed" in done.stderr
    elsewhere = [*command, "--host", target.url]
    assert subprocess.run(elsewhere, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 0
    assert target.seen()["key:the-key"] == seen["key:the-key"] < target.seen()["predict"]
