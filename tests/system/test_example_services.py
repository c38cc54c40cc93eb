"""The services in `examples/` that do not know Kanaria: a better version is promoted, a wrong one rolled back."""

import io
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from filelock import FileLock
from PIL import Image

from tests.support.clients import in_threads, is_over
from tests.support.example_services import EXAMPLES, PROGRAMS, TEXTS, build
from tests.support.stack import Kanaria

SLOW = "took longer than 500 ms"


def ask_for_a_language(client: httpx.Client, number: int) -> httpx.Response:
    text = TEXTS[number % 4] * (20 if number % 10 == 0 else 1)
    return client.post("/detect", json={"text": text})


def upload_a_picture(client: httpx.Client, number: int) -> httpx.Response:
    """One picture in ten has no colours."""
    picture = Image.new("RGB", (60, 40), (200, 20, number % 60)).convert("L" if number % 10 == 0 else "RGB")
    picture.save(file := io.BytesIO(), "PNG")
    return client.post("/name", files={"picture": ("picture.png", file.getvalue(), "image/png")})


def ask_for_vectors(client: httpx.Client, number: int) -> httpx.Response:
    return client.post("/encode", json={"sentences": [TEXTS[number % 4], f"sentence {number}"]})


def read_a_story(client: httpx.Client, number: int) -> httpx.Response:
    return client.post("/tell", json={"prompt": "the fish", "words": 5 + number % 10})


def ask_for_a_price(client: httpx.Client, number: int) -> httpx.Response:
    district = "harbour" if number % 10 == 0 else ("centre", "north", "south")[number % 3]
    return client.post("/price", json={"district": district, "area": 40 + number % 60})


@dataclass(frozen=True)
class Example:
    """The versions of an example to release, and the requests of its users."""

    name: str
    ask: Callable[[httpx.Client, int], httpx.Response]
    better: tuple[str, ...] = ()  # arguments of `bentoml build`
    wrong: tuple[str, ...] = ()
    reason: str = ""  # the signal that rolls the wrong one back
    has_shadow: bool = True

    def tag(self, version: str) -> str:
        return f"{self.name}:{version}"


SERVICES = (
    Example("languages", ask_for_a_language, ("letters=3",), ("letters=3", "longest=100"), "rejected"),
    Example("colours", upload_a_picture, ("by=most",), ("by=most", "converts=false"), "failed"),
    Example("sentences", ask_for_vectors, ("letters=3",), ("letters=3", "thinks_s=0.6"), SLOW),
    Example("stories", read_a_story, ("memory=2",), ("memory=2", "thinks_s=0.6"), SLOW, has_shadow=False),
)
PRICES = Example("prices", ask_for_a_price, reason="failed")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All Bentos, built as their READMEs say."""
    shared = tmp_path_factory.getbasetemp().parent
    home = shared / "example-services"
    with FileLock(shared / "example-services.lock"):
        for example in SERVICES if not home.exists() else ():
            for version, arguments in (("v1", ()), ("v2", example.better), ("v3", example.wrong)):
                build(home, example.name, version, arguments)
    return home


@contextmanager
def users(kanaria: Kanaria, example: Example) -> Iterator[Counter[int]]:
    seen: Counter[int] = Counter()

    def ask(client: httpx.Client, words: str) -> None:
        seen[example.ask(client, int(words.split()[1])).status_code] += 1

    with in_threads(kanaria, ask, at_once=2):
        yield seen


def release(kanaria: Kanaria, tag: str, *, has_shadow: bool) -> subprocess.CompletedProcess[str]:
    plan = kanaria.plan(
        steps=["shadow", 50, 100] if has_shadow else [50, 100],
        signals={"latency": {"slower_than_ms": [500], "tolerance": 3}, "disagreement": None},
    )
    return kanaria("release", tag, "--spec", plan, "--wait")


@pytest.mark.parametrize("example", [*SERVICES, PRICES], ids=lambda example: example.name)
def test_the_better_version_is_promoted_and_the_wrong_one_rolled_back(
    example: Example, store: Path, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Users send the same kind of requests throughout, and the better version fails none."""
    require_program("envoy")
    kanaria = Kanaria.at(
        tmp_path,
        store,
        KANARIA_METRICS="scrape",
        KANARIA_VERSIONS=str(EXAMPLES / "prices" / "versions.yaml"),
        PATH=os.pathsep.join((str(PROGRAMS), os.environ["PATH"])),
    )
    try:
        kanaria.ok("up", example.tag("v1"))
        with users(kanaria, example) as seen:
            better = release(kanaria, example.tag("v2"), has_shadow=example.has_shadow)
            assert better.returncode == 0, better.stdout + better.stderr
            kanaria.until(is_over)  # its watch ends only under traffic
            assert seen.keys() == {200}
            wrong = release(kanaria, example.tag("v3"), has_shadow=example.has_shadow)
        assert wrong.returncode == 1, wrong.stdout + wrong.stderr
        status = kanaria.status()
        assert (status["stable"]["tag"], status["release"]["outcome"]) == (example.tag("v2"), "rolled_back")
        assert example.reason in " ".join(kanaria.ok("why").split())
    finally:
        kanaria("down")
