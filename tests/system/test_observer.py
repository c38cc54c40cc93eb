"""An observer beside a real Envoy compares answers of services that do not know Kanaria, in the shadow step."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.clients import in_threads
from tests.support.own_service import store_with
from tests.support.stack import Kanaria, running
from tests.support.waiting import eventually

# Classifies a text; no two of its answers are equal, and one in four orders its tags differently.
LABELS = """
import hashlib
import random
import time
import uuid

import bentoml

BEHAVES = "well"


@bentoml.service(name="summary")
class Summary:
    @bentoml.api
    def label(self, text: str) -> dict:
        began_s = time.perf_counter()
        number = hashlib.blake2b(text.encode()).digest()
        label = "spam" if number[0] % 2 else "ham"
        if BEHAVES == "wrong for a tenth" and number[1] < 26:
            label = "eggs"
        if BEHAVES == "wrong for most" and number[1] < 200:
            label = "eggs"
        tags = ["short", "new"]
        if random.random() < 0.25:
            tags.reverse()
        return {
            "id": str(uuid.uuid4()),
            "label": label,
            "score": number[2] / 256,
            "tags": tags,
            "took_ms": 1000 * (time.perf_counter() - began_s),
        }

    @bentoml.api
    def repeat(self, text: str, times: int) -> str:
        return text * times
"""
STABLE = "summary:l1"
VERSIONS = {"l1": "well", "l2": "well", "l3": "wrong for a tenth", "l4": "wrong for most"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    versions = {version: {"behaves": behaves, "service": LABELS} for version, behaves in VERSIONS.items()}
    return store_with(tmp_path_factory.getbasetemp().parent, "labels", versions)


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, home: Path, require_program: Callable[[str], str]
) -> Iterator[Kanaria]:
    """One stack for all tests."""
    require_program("envoy")
    with running(tmp_path_factory.mktemp("stack"), home, STABLE, KANARIA_METRICS="scrape") as made:
        yield made


@pytest.fixture
def kanaria(stack: Kanaria) -> Iterator[Kanaria]:
    yield stack
    stack.back_to(STABLE)


@contextmanager
def clients(kanaria: Kanaria, *, large: int = 0, at_once: int = 4) -> Iterator[Counter[int]]:
    """Users with a new text each time; one request in ten has an answer of `large` bytes. Counts statuses."""
    seen: Counter[int] = Counter()

    def ask(client: httpx.Client, words: str) -> None:
        if large and words.endswith("0"):
            answer = client.post("/repeat", json={"text": "x", "times": large})
        else:
            answer = client.post("/label", json={"text": words})
        seen[answer.status_code] += 1

    with in_threads(kanaria, ask, at_once=at_once):
        yield seen


def plan(kanaria: Kanaria, **keys: object) -> str:
    signals = {"latency": {"slower_than_ms": [1000], "tolerance": 3}}
    return kanaria.plan(signals=signals, **({"steps": ["shadow", 50, 100]} | keys))


def test_a_version_with_equal_but_never_identical_answers_is_promoted(kanaria: Kanaria) -> None:
    """Stable differs from itself in `id`, `tags` and `took_ms` too."""
    with clients(kanaria) as seen:
        done = kanaria("release", "summary:l2", "--spec", plan(kanaria), "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen.keys() == {200}
    said = why(kanaria)
    assert "answers to copied requests differ from summary:l1's, 10 % are allowed" in said
    assert "Not judged" in said
    assert "unlike stable" not in said


def why(kanaria: Kanaria) -> str:
    return " ".join(kanaria.ok("why").split())  # lines are as wide as the terminal


def test_a_version_that_is_wrong_for_a_tenth_stays_in_the_shadow_step(kanaria: Kanaria) -> None:
    """It never answers 5xx; its difference is neither within the plan's limit nor proven, so a person decides."""
    with clients(kanaria) as seen:
        kanaria.ok("release", "summary:l3", "--spec", plan(kanaria, step_deadline="15s"))
        asked = ("no proof of safety", "the plan leaves this to a person")
        kanaria.until(lambda status: any(words in status["last_action"] for words in asked))
        assert "Its answers differ from summary:l1's in `label` of /label (" in why(kanaria)
        status = kanaria.status()  # while there is traffic; without it the release would end at its deadline
    assert seen.keys() == {200}
    assert (status["release"]["outcome"], status["canary"]["is_mirrored"]) == (None, True)


def test_a_version_that_is_wrong_for_most_is_rolled_back_in_the_shadow_step(kanaria: Kanaria) -> None:
    """More than half of its answers have another label: a gross difference needs no person."""
    with clients(kanaria) as seen:
        done = kanaria("retry", "summary:l4", "--spec", plan(kanaria), "--wait")
    assert done.returncode == 1, done.stdout + done.stderr
    assert seen.keys() == {200}
    said = why(kanaria)
    assert "was rolled back in the shadow step" in said
    assert "Its answers differ from summary:l1's in `label` of /label (" in said
    assert "no user's request reached it" in said


def test_a_version_that_is_wrong_for_most_is_found_in_a_rollout_step(kanaria: Kanaria) -> None:
    """There is no shadow step and fewer than half of the requests are compared; no client request fails."""
    with clients(kanaria) as seen:
        done = kanaria("retry", "summary:l4", "--spec", plan(kanaria, steps=[50, 100], compare="40%"), "--wait")
    assert done.returncode == 1, done.stdout + done.stderr
    assert seen.keys() == {200}
    assert "Its answers differ from summary:l1's in `label` of /label (" in why(kanaria)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_an_observer_that_ends_or_hangs_fails_no_client_request(kanaria: Kanaria, fault: signal.Signals) -> None:
    """In the shadow step under load with large answers: errors and latency are judged, and the release goes on."""
    with clients(kanaria, large=300_000) as seen:
        kanaria.ok("release", "summary:l2", "--spec", plan(kanaria, steps=["shadow", 100], step_deadline="100s"))
        kanaria.until(lambda status: (status["canary"] or {}).get("is_mirrored"))
        pid = kanaria.pid("observer")
        os.kill(pid, fault)
        try:
            before = seen.total()
            eventually(lambda: seen.total() - before > 300, within_s=150)
        finally:
            if fault is signal.SIGSTOP:
                os.kill(pid, signal.SIGCONT)
        status = kanaria.until(lambda status: status["release"]["outcome"] is not None)
    assert status["release"]["outcome"] == "promoted"
    assert seen.keys() == {200}
