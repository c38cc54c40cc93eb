"""A BentoML service that does not know Kanaria is released in the same way, with real clients and a real Envoy."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from kanaria.stack.temporary_server import TemporaryServer, temporary_server
from tests.support.clients import in_threads
from tests.support.own_service import WITH_TASK, WITHOUT_START, store_with
from tests.support.stack import Kanaria, running

STABLE = "summary:v1"
VERSIONS = {"v1": "well", "v2": "well", "rare": "breaks a rare route", "refusing": "refuses a tenth"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    versions = {version: {"behaves": behaves} for version, behaves in VERSIONS.items()}
    tasks = {version: {"service": WITH_TASK} for version in ("task-1", "task-2")}
    tasks["no-start"] = {"service": WITHOUT_START}
    return store_with(tmp_path_factory.getbasetemp().parent, "own-services", versions | tasks)


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, home: Path, require_program: Callable[[str], str]
) -> Iterator[Kanaria]:
    """One stack for all tests that start with v1."""
    require_program("envoy")
    with running(tmp_path_factory.mktemp("stack"), home, STABLE, KANARIA_METRICS="scrape") as made:
        yield made


@pytest.fixture
def kanaria(stack: Kanaria) -> Iterator[Kanaria]:
    yield stack
    stack.back_to(STABLE)


@contextmanager
def clients(kanaria: Kanaria, *, send_rubbish: bool = False) -> Iterator[Counter[tuple[str, int]]]:
    """Users of all routes, one in ten of the rare one. Yields their answers by path and status.

    With `send_rubbish` one request in ten lacks what its route requires.
    """
    seen: Counter[tuple[str, int]] = Counter()

    def ask(client: httpx.Client, words: str) -> None:
        number, text = int(words.partition(" ")[2]), {"text": words}
        match number % 10:
            case 0:
                answer = client.post("/rare", json=text)
            case 1:
                answer = client.post("/words", json=text)
            case 2:
                answer = client.get(f"/app/hello/{number}")
            case 3:
                answer = client.post("/size", files={"file": ("a", b"x" * 1000)})
            case 4 if send_rubbish:
                answer = client.post("/summarize", json={"words": "of another service"})
            case _:
                answer = client.post("/summarize", json=text)
        seen[answer.request.url.path.rpartition("/")[0] or answer.request.url.path, answer.status_code] += 1

    with in_threads(kanaria, ask):
        yield seen


def release(kanaria: Kanaria, tag: str, **keys: object) -> subprocess.CompletedProcess[str]:
    plan = kanaria.plan(signals={"latency": {"slower_than_ms": [1000], "tolerance": 3}}, **keys)
    return kanaria("release", tag, "--spec", plan, "--wait")


def test_a_good_version_is_promoted(kanaria: Kanaria) -> None:
    """It passes a shadow step, although its answers cannot be compared, and no client sees a failure."""
    up = kanaria.ok("up")
    assert "the gateway passes every path of summary:v1 but /metrics" in up
    assert f"gateway:    {kanaria.gateway}  (" in up
    assert "routes:     /" in up
    with clients(kanaria) as seen:
        done = release(kanaria, "summary:v2", steps=["shadow", 20, 50, 100])
        assert done.returncode == 0, done.stdout + done.stderr
    assert {status for _, status in seen} == {200}
    why = " ".join(kanaria.ok("why").split())  # lines are as wide as the terminal
    assert "It has no golden requests, and its plan has no `golden: recorded`, so its answers are first seen" in why
    assert "Not judged, because only versions that keep the model contract or an `answers` section count them" in why
    assert kanaria.status()["stable"]["tag"] == "summary:v2"


def test_a_version_that_breaks_one_rare_route_is_rolled_back(kanaria: Kanaria) -> None:
    """Nine tenths of the requests are answered as well as before."""
    with clients(kanaria):
        done = release(kanaria, "summary:rare", guards={"error_ratio": "90%"})
    assert done.returncode == 1, done.stdout + done.stderr
    ended = kanaria.status()["release"]
    assert ended["outcome"] == "rolled_back"
    by_route = {each["name"]: each["canary"] for each in ended["signals"] if each["name"].startswith("route:")}
    assert by_route["route:/rare"][0] > 0
    assert by_route["route:/summarize"][0] == 0


def test_a_version_that_rejects_a_tenth_of_the_inputs_is_rolled_back_in_the_shadow_step(kanaria: Kanaria) -> None:
    """It answers 400 where stable accepts, and never 5xx: copies show this before any client is refused."""
    with clients(kanaria) as seen:
        done = release(kanaria, "summary:refusing", steps=["shadow", 20, 50, 100])
    assert done.returncode == 1, done.stdout + done.stderr
    assert kanaria.status()["release"]["outcome"] == "rolled_back"
    assert {status for _, status in seen} == {200}
    why = " ".join(kanaria.ok("why").split())
    assert "was rolled back in the shadow step: " in why
    assert "of its requests were rejected (4xx), 0 % of summary:v1's" in why


def test_a_good_version_is_promoted_although_clients_send_invalid_requests(kanaria: Kanaria) -> None:
    """A tenth of the requests is invalid for both versions."""
    with clients(kanaria, send_rubbish=True) as seen:
        done = release(kanaria, "summary:v2", steps=["shadow", 20, 50, 100])
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen["/summarize", 400] > 0
    assert {status for _, status in seen} == {200, 400}


def test_status_requests_of_tasks_do_not_look_rejected_in_the_shadow_step(
    tmp_path: Path, home: Path, require_program: Callable[[str], str]
) -> None:
    """Each is about a task at stable: a copy would get 404 from a canary that does not know the task."""
    require_program("envoy")
    answers: Counter[int] = Counter()

    def submit_and_ask(client: httpx.Client, text: str) -> None:
        task = client.post("/digest/submit", json={"text": text}).json()["task_id"]
        answers[client.get("/digest/status", params={"task_id": task}).status_code] += 1

    stack = running(tmp_path, home, "summary:task-1", KANARIA_METRICS="scrape")
    with stack as kanaria, in_threads(kanaria, submit_and_ask):
        done = release(kanaria, "summary:task-2", steps=["shadow", 100])
    assert done.returncode == 0, done.stdout + done.stderr
    assert answers[200] > 0


def test_two_versions_started_by_one_command_have_separate_homes(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version identifies its own server by its home: with one home for both, each took the other's for its own."""
    settings = Kanaria.at(tmp_path, home).settings(monkeypatch)

    def home_of(server: TemporaryServer) -> str:
        assert server.pid is not None
        return psutil.Process(server.pid).environ()["BENTOML_HOME"]

    with (
        temporary_server(settings, "summary:v1", say=lambda _: None) as stable,
        temporary_server(settings, "summary:v2", say=lambda _: None) as canary,
    ):
        assert len({home_of(stable), home_of(canary), str(home)}) == 3


def test_a_service_whose_workers_cannot_start_is_not_waited_for(
    tmp_path: Path, home: Path, require_program: Callable[[str], str]
) -> None:
    """BentoML restarts them without end, and both commands waited for two minutes."""
    require_program("envoy")
    kanaria = Kanaria.at(tmp_path, home, KANARIA_METRICS="scrape")
    tried = kanaria("preflight", "summary:no-start")
    assert (tried.returncode, "did not start: RuntimeError: no such table: words" in tried.stdout) == (1, True), tried
    try:
        first = kanaria("up", "summary:no-start")
    finally:
        kanaria("down")
    assert first.returncode == 3
    assert "saw: its workers keep ending; RuntimeError: no such table: words" in first.stderr
