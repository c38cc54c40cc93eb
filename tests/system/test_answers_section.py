"""The `answers` section of a plan reads the answers of a service that does not know Kanaria: real BentoML and Envoy."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from tests.support.clients import in_threads, is_over
from tests.support.example_services import TEXTS, build
from tests.support.stack import Kanaria

LANGUAGES = dict(zip(TEXTS, ("english", "german", "french", "spanish"), strict=True))
READ = {
    "/detect": {"label": "label", "confidence": "confidence", "features": {"letters": "length(text)"}},
}
# No sequence of thirty letters was in the training texts.
VERSIONS = {"v2": ("letters=3",), "forgetful": ("letters=30",), "worse": ("letters=31",)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.getbasetemp().parent / "read-answers"
    with FileLock(f"{home}.lock"):
        for version, arguments in VERSIONS.items() if not home.exists() else ():
            build(home, "languages", version, arguments)
    return home


@pytest.fixture
def kanaria(tmp_path: Path, store: Path, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    require_program("envoy")
    made = Kanaria.at(tmp_path, store, KANARIA_METRICS="scrape")
    yield made
    made("down")


@contextmanager
def users(kanaria: Kanaria) -> Iterator[Counter[int]]:
    """Callers with texts in four languages, who send the right one afterwards. Counts statuses."""
    seen: Counter[int] = Counter()

    def ask(client: httpx.Client, words: str) -> None:
        text = TEXTS[int(words.split()[1]) % 4]
        answer = client.post("/detect", json={"text": f"{text} {words}"})
        seen[answer.status_code] += 1
        if answer.is_success:
            truth = {"request_id": answer.headers["x-request-id"], "labels": [LANGUAGES[text]]}
            seen[client.post("/feedback", json=truth).status_code] += 1

    with in_threads(kanaria, ask, pause_s=0.02):  # the drift report needs rows, and the release ends soon
        yield seen


def test_a_plan_reads_the_answers_of_a_service_that_does_not_know_kanaria(kanaria: Kanaria) -> None:
    """A version always answers 200, fast and with one language. No request is copied to it; users' answers show it.

    The first one is found by its classes. The next one is judged only by labels, sent to /feedback, which the service
    does not have. Then the drift report compares the records of both.
    """
    kanaria.ok("up", "languages:v2")
    by_class = kanaria.plan(steps=[50, 100], answers=READ, signals={"latency": None})
    by_label = kanaria.plan(
        steps=[50, 100],
        soak="5s",
        answers=READ,
        observe="300/s",  # the drift report needs rows, and the release ends soon
        signals={"latency": None, "class": None, "low_confidence": None},
    )
    with users(kanaria) as seen:
        done = kanaria("release", "languages:forgetful", "--spec", by_class, "--wait")
        assert done.returncode == 1, done.stdout + done.stderr
        assert 'were "' in why(kanaria)
        kanaria.until(is_over)
        done = kanaria("release", "languages:worse", "--spec", by_label, "--wait")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "were wrong" in why(kanaria)
    assert seen.keys() <= {200, 404, 503}  # before the first release labels are not accepted
    found = json.loads(kanaria("drift", "report", "--release", "2", "--quick", "--json").stdout)
    assert {column["column"] for column in found["columns"]} == {"letters", "label", "confidence", "error"}
    kept = (kanaria.home / "predictions").glob("languages@*/*.jsonl")
    assert not any("train" in path.read_text() for path in kept)


def why(kanaria: Kanaria) -> str:
    return " ".join(kanaria.ok("why").split())  # lines are as wide as the terminal
