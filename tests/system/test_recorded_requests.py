"""Users' requests are recorded through a real Envoy, and sent to the next version before any traffic."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep

import httpx
import pytest
from filelock import FileLock

from rollout.routers.envoy import admin
from rollout.routers.envoy.observation import NOT_RECORDED_PERCENT
from rollout.routers.envoy.settings import GatewaySettings
from tests.support.own_service import build
from tests.support.stack import Kanaria
from tests.support.waiting import eventually

# No manifest describes its answers: they are plain dictionaries, and no two are equal.
DETECT = """
import random
import typing
import uuid
from pathlib import Path

import bentoml

BEHAVES = "well"


@bentoml.service(name="summary")
class Summary:
    @bentoml.api
    def detect(self, text: str) -> dict:
        answer = {"id": str(uuid.uuid4()), "took_ms": random.random(), "label": "en" if len(text) % 2 else "de"}
        return answer if BEHAVES == "drops a field" else answer | {"confidence": 0.9}

    @bentoml.api
    def size(self, file: Path) -> int:
        return file.stat().st_size

    @bentoml.api
    def pay(self, order: int) -> str:
        return f"paid {order}"

    @bentoml.api
    async def words(self, text: str) -> typing.AsyncGenerator[str, None]:
        for word in text.split():
            yield word
"""
VERSIONS = {"d1": "well", "d2": "well", "d3": "drops a field"}
PRIVATE = "4711-0815"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = tmp_path_factory.getbasetemp().parent
    store = shared / "detect"
    with FileLock(shared / "detect.lock"):
        built = {folder.name for folder in (store / "bentos" / "summary").glob("*")}
        for version in VERSIONS.keys() - built:
            build(shared / "detect-folder", store, version, behaves=VERSIONS[version], service=DETECT)
    return store


@pytest.fixture
def kanaria(tmp_path: Path, home: Path, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    require_program("envoy")
    made = Kanaria.at(tmp_path, home, KANARIA_METRICS="scrape")
    yield made
    made("down")


@contextmanager
def users(kanaria: Kanaria) -> Iterator[None]:
    """A user who calls all routes in turn, with a cookie."""
    stop = threading.Event()

    def ask() -> None:
        headers = {"x-api-key": kanaria.api_key, "cookie": f"session={PRIVATE}", "authorization": f"Bearer {PRIVATE}"}
        with httpx.Client(base_url=kanaria.gateway, headers=headers, timeout=30) as client:
            number = 0
            while not stop.wait(0.02):
                number += 1
                client.post("/detect", json={"text": "x" * number})
                client.post("/size", files={"file": ("a.bin", bytes([255, number % 256]) * number)})
                client.post("/pay", json={"order": number})
                client.post("/words", json={"text": "one two"})
                client.post("/detect", params={"token": PRIVATE}, json={"text": f"t{number}"})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_version_that_drops_a_field_is_refused_before_traffic_and_a_noisy_one_passes(kanaria: Kanaria) -> None:
    """No manifest names the field: only the recorded requests show it."""
    kanaria.ok("up", "summary:d1")
    nobody = kanaria("record", "--for", "1s")
    assert (nobody.returncode, "no request came; send some while this runs" in nobody.stdout) == (3, True)
    with users(kanaria):
        said = kanaria.ok("record", "--for", "30s", "--leave-out", "/pay")
    assert "16 requests recorded in" in said
    assert "left out, because their answers come in parts: /words" in said
    assert "requests with a key or a token in their path or query: " in said
    files = list((kanaria.home / "recorded").glob("*.json"))
    assert len(files) == 16
    assert not any(PRIVATE in text or kanaria.api_key in text for text in map(Path.read_text, files))
    assert "POST /detect" in kanaria.ok("record", "--list")
    assert all('"x-kanaria-caller":' in text for text in map(Path.read_text, files))

    plan = kanaria.plan(steps=[100], golden={"requests": "recorded", "leave_out": ["/pay"]}, soak="1s", watch="1s")
    refused = kanaria("release", "summary:d3", "--spec", plan, "--wait")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    why = " ".join(kanaria.ok("why").split())
    assert "rolled back before it took any traffic: summary:d3 failed its preflight" in why
    assert "its answers at /detect lack `confidence`; on stable it is a number (8 of 8 recorded requests" in why

    kanaria.ok("release", "summary:d2", "--spec", plan)
    kanaria.until(lambda status: (status["release"] or {}).get("phase") not in ("starting", None))
    why = " ".join(kanaria.ok("why").split())
    assert "It answers 16 recorded requests with the status and the fields of summary:d1's answers." in why
    assert "differ from" not in why
    assert "have changed" not in why


def test_a_recording_whose_command_was_killed_is_ended(kanaria: Kanaria) -> None:
    """The gateway stops showing requests to the observer; a recording that still runs is left alone."""
    kanaria.ok("up", "summary:d1")
    is_begun = kanaria.home / "recorded" / "recording"
    recording = kanaria.begin("record", "--for", "10m")
    eventually(is_begun.exists, within_s=60)
    eventually(lambda: shown_percent(kanaria) == 100)
    sleep(3)  # the controller checks each second
    assert (is_begun.exists(), shown_percent(kanaria)) == (True, 100)
    recording.kill()
    recording.communicate()
    eventually(lambda: (is_begun.exists(), shown_percent(kanaria)) == (False, 0), within_s=120)
    eventually(lambda: "recording_ended" in (kanaria.home / "logs" / "controller.log").read_text())  # logged afterwards


def shown_percent(kanaria: Kanaria) -> int:
    """The share of the requests that the gateway shows for recording."""
    with admin.client(GatewaySettings(directory=kanaria.home / "gateway"), timeout_s=30) as client:
        entries = client.get("/runtime").raise_for_status().json()["entries"]
    return 100 - int(entries.get(NOT_RECORDED_PERCENT, {"final_value": "100"})["final_value"])
