"""A plan says how to read the answers of a service that knows nothing of Kanaria; real BentoML, Envoy and observer."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from tests.support.clients import in_threads
from tests.support.example_services import TEXTS, build
from tests.support.stack import Kanaria

READ = {"/detect": {"label": "label", "confidence": "confidence"}}
VERSIONS = {
    "v1": (),
    "v2": ("letters=3",),
    "forgetful": ("letters=12",),
}  # twelve letters in a row are never seen twice


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
    """Callers with texts in four languages. Counts statuses."""
    seen: Counter[int] = Counter()

    def ask(client: httpx.Client, words: str) -> None:
        text = f"{TEXTS[int(words.split()[1]) % 4]} {words}"
        seen[client.post("/detect", json={"text": text}).status_code] += 1

    with in_threads(kanaria, ask):
        yield seen


def test_a_version_that_forgot_its_classes_is_rolled_back_at_a_step(kanaria: Kanaria) -> None:
    """It answers 200, fast, and always with the same language. No copy of a request goes to it: users' answers tell."""
    kanaria.ok("up", "languages:v1")
    signals = {"latency": {"slower_than_ms": [1000], "tolerance": 3}}
    plan = kanaria.plan(steps=[50, 100], answers=READ, signals=signals)
    with users(kanaria) as seen:
        done = kanaria("release", "languages:forgetful", "--spec", plan, "--wait")
    assert done.returncode == 1, done.stdout + done.stderr
    assert seen.keys() == {200}
    said = " ".join(kanaria.ok("why").split())
    assert 'were "' in said, said
