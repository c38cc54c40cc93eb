"""Custom signals: counters of a user's BentoML service that no code of Kanaria knows."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.clients import in_threads
from tests.support.own_service import WITH_METRICS, store_with
from tests.support.processes import until
from tests.support.stack import Kanaria, running

STABLE = "summary:chat-1"
BEHAVES = {"chat-1": "well", "chat-2": "well", "chat-refusing": "refuses"}
SHARE = {"bad": "chat_refusals_total", "of": "chat_answers_total", "history": "none", "tolerance": 1.5}
BY_LABEL = {"bad": 'chat_answers_total{outcome="refused"}', "of": "chat_answers_total", "history": "none"}
SHORT = {"histogram": "chat_answer_words", "below": 2, "history": "none", "tolerance": 1.5}
WORDS = {
    "histogram": "chat_answer_words",
    "between": [0, 10],
    "worse": "lower",
    "tolerance": 0.1,
    "unit": "words",
    "history": "none",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    versions = {version: {"behaves": behaves, "service": WITH_METRICS} for version, behaves in BEHAVES.items()}
    return store_with(tmp_path_factory.getbasetemp().parent, "own-signals", versions)


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, home: Path, require_program: Callable[[str], str]
) -> Iterator[Kanaria]:
    """One stack for all tests whose counters are read directly."""
    require_program("envoy")
    with running(tmp_path_factory.mktemp("stack"), home, STABLE, KANARIA_METRICS="scrape") as made:
        yield made


@pytest.fixture
def kanaria(stack: Kanaria) -> Iterator[Kanaria]:
    yield stack
    stack.back_to(STABLE)


@pytest.fixture
def without_history(tmp_path: Path, home: Path, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    require_program("envoy")
    with running(tmp_path, home, STABLE, KANARIA_METRICS="scrape") as made:
        yield made


@pytest.fixture
def with_prometheus(tmp_path: Path, home: Path, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    for program in ("envoy", "prometheus"):
        require_program(program)
    with running(tmp_path, home, STABLE, KANARIA_METRICS="prometheus") as made:
        yield made


def chatting(kanaria: Kanaria) -> AbstractContextManager[None]:
    """Four users who ask repeatedly."""
    return in_threads(kanaria, lambda client, words: client.post("/summarize", json={"text": f"question {words}"}))


def plan(kanaria: Kanaria, **custom: object) -> str:
    latency = {"slower_than_ms": [1000], "tolerance": 3}
    return kanaria.plan(signals={"latency": latency, "custom": custom}, steps=["shadow", 20, 50, 100])


def test_a_signal_with_unknown_noise_waits_for_a_person(without_history: Kanaria) -> None:
    """It is not yet known whether refusals come in clusters."""
    path = plan(without_history, refusals={key: value for key, value in SHARE.items() if key != "history"})
    with chatting(without_history):
        without_history.ok("release", "summary:chat-refusing", "--spec", path)
        asking = without_history.until(lambda status: "a person" in (status["release"]["waits_for"] or ""))
    assert asking["release"]["outcome"] is None
    assert "custom.refusals (0 of 10 min of history)" in asking["release"]["not_judged"]


def assert_is_rolled_back_for_its_refusals(kanaria: Kanaria, signal: dict[str, object]) -> None:
    # Otherwise a step could pass before a busy machine has read the canary's counters.
    path = plan(kanaria, refusals=signal | {"required": True})
    with chatting(kanaria):
        done = kanaria("retry", "summary:chat-refusing", "--spec", path, "--wait")
    assert done.returncode == 1, done.stdout + done.stderr
    ended = kanaria.status()["release"]
    assert ended["outcome"] == "rolled_back"
    assert next(each["title"] for each in ended["signals"] if each["name"] == "custom.refusals") == "refusals"
    why = " ".join(kanaria.ok("why").split())
    assert "custom.refusals" in why
    assert "rolled back in the shadow step" in why


@pytest.mark.parametrize(
    "signal",
    [SHARE, BY_LABEL, SHORT, WORDS],
    ids=["two counters", "a label", "a histogram and a bound", "a mean"],
)
def test_a_version_that_refuses_three_times_as_often_is_rolled_back(
    kanaria: Kanaria, signal: dict[str, object]
) -> None:
    """All its answers are fast 200s: only its own counters show it."""
    assert_is_rolled_back_for_its_refusals(kanaria, signal)


def test_a_version_that_refuses_more_often_is_rolled_back_by_counters_in_prometheus(
    with_prometheus: Kanaria,
) -> None:
    """The same counters are read from Prometheus."""
    assert_is_rolled_back_for_its_refusals(with_prometheus, SHARE)


def test_a_healthy_version_is_promoted(kanaria: Kanaria) -> None:
    """It is judged by all its own signals, and passes each."""
    path = plan(kanaria, refusals=SHARE | {"required": True}, words=WORDS)
    with chatting(kanaria):
        done = kanaria("release", "summary:chat-2", "--spec", path, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {each["name"] for each in kanaria.status()["release"]["signals"]}
    assert {"custom.refusals", "custom.words"} <= names


def test_validate_checks_whether_the_series_exist(kanaria: Kanaria) -> None:
    """It names similar series, the existing bounds, and series that are not counters."""
    right = plan(kanaria, refusals=SHARE)
    with chatting(kanaria):
        until(lambda: kanaria("validate", right).returncode == 0)
    wrong = plan(
        kanaria,
        typo={"bad": "chat_refusals_total", "of": "chat_anwsers_total"},
        bound={"histogram": "chat_answer_words", "below": 3},
        gauge={"bad": "chat_waiting", "of": "chat_answers_total"},
        label={"bad": 'chat_answers_total{outcome="refusd"}', "of": "chat_answers_total"},
    )
    said = kanaria("validate", wrong)
    assert said.returncode == 2
    assert "there is no `chat_anwsers_total` on the page" in said.stderr
    assert "similar names: `chat_answers_total`" in said.stderr
    assert "choose one of its bounds: 1, 2, 5, 10, 20" in said.stderr
    assert "`chat_waiting` is a gauge, which may fall" in said.stderr
    assert "outcome is 'answered', 'refused'" in said.stderr
