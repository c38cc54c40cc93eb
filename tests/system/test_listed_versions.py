"""Versions that are not Bentos are released in the same way: a Flask service, run by Kanaria or by others."""

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from kanaria.stack.ports import free_port
from tests.support.asking import HTTP
from tests.support.clients import in_threads, is_over
from tests.support.stack import Kanaria
from tests.support.waiting import eventually

# A service like the first one in the chapter on deployment. It has no page at `/` or for metrics, and none of ours.
APP = """
import hashlib
import os

from flask import Flask, Response, request

app = Flask("prices")

@app.post("/predict")
def predict():
    text = request.get_json()["text"]
    is_one_in_ten = hashlib.blake2b(text.encode()).digest()[0] < 26
    if os.environ.get("BEHAVES") == "fails a tenth" and is_one_in_ten:
        raise RuntimeError("not thought of")
    return {"price": len(text)}

@app.get("/words")
def words():
    return Response((f"{word} " for word in ("one", "two")), mimetype="text/plain")
"""
FLASK = [sys.executable, "-m", "flask", "--app", "app", "run", "--host", "{host}", "--port", "{port}"]


def listed(folder: Path, **more: dict[str, Any]) -> Path:
    """The file with the versions; JSON is valid YAML."""
    entry = {"command": FLASK, "routes": ["/predict"], "streams": ["/words"]}
    versions = {
        "flask:v1": entry,
        "flask:v2": entry | {"environment": {"BEHAVES": "well"}},
        "flask:failing": entry | {"environment": {"BEHAVES": "fails a tenth"}},
        "flask:missing": {"command": "no-such-program --port {port}"},
        "flask:ends": {"command": [sys.executable, "-c", "raise SystemExit('the model is not here: {port}')"]},
        "flask:deaf": {"command": [*FLASK, "--no-reload"], "ready": "/healthy"},
        "flask:nowhere": {"url": f"http://127.0.0.1:{free_port()}"},
    }
    path = folder / "versions.yaml"
    path.write_text(json.dumps(versions | {f"flask:{version}": given for version, given in more.items()}))
    return path


@contextmanager
def kept_by_others(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The service on its own port, not started by Kanaria."""
    port = free_port()
    command = [word.format(host="127.0.0.1", port=port) for word in FLASK]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return HTTP.get(url).status_code == 404
        except httpx.TransportError:
            return False

    try:
        eventually(answers, within_s=120)
        yield url, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hers")
    (made / "app.py").write_text(APP)
    return made


@pytest.fixture(scope="module")
def kanaria(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kanaria]:
    """A stack whose first version is the Flask service."""
    state = tmp_path_factory.mktemp("state")
    made = Kanaria.at(state, state / "bentoml", KANARIA_VERSIONS=str(listed(folder)))
    up = made.ok("up", "flask:v1")
    assert "the gateway passes every path of flask:v1 but /metrics; its entry names /predict, /words" in up
    yield made
    made("down")


@contextmanager
def clients(kanaria: Kanaria) -> Iterator[Counter[int]]:
    """Users of both routes. Yields the number of answers by status."""
    seen: Counter[int] = Counter()

    def ask(client: httpx.Client, words: str) -> None:
        is_stream = words.endswith("5")
        answer = client.get("/words") if is_stream else client.post("/predict", json={"text": words})
        seen[answer.status_code] += 1

    with in_threads(kanaria, ask):
        yield seen


def release(kanaria: Kanaria, tag: str, **keys: object) -> subprocess.CompletedProcess[str]:
    plan = kanaria.plan(signals={"latency": {"slower_than_ms": [1000], "tolerance": 3}}, **keys)
    done = kanaria("release", tag, "--spec", plan, "--wait")
    kanaria.until(is_over)  # a watch ends only under traffic
    return done


def why(kanaria: Kanaria) -> str:
    return " ".join(kanaria.ok("why").split())  # lines are as wide as the terminal


def test_a_good_version_is_promoted(kanaria: Kanaria) -> None:
    """It passes the shadow step without metrics in a Prometheus; no client sees a failure, and the gateway is ready."""
    with clients(kanaria) as seen:
        done = release(kanaria, "flask:v2", steps=["shadow", 20, 50, 100])
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen.keys() == {200}
    assert "Inputs and answers could not be compared: flask:v2 has no schemas" in why(kanaria)
    assert kanaria.status()["stable"]["tag"] == "flask:v2"
    with httpx.Client(base_url=kanaria.gateway, headers={"x-api-key": kanaria.api_key}, timeout=60) as client:
        answer = client.post("/predict", json={"text": "four"})
        assert (answer.json(), answer.headers["x-kanaria-version"]) == ({"price": 4}, "flask:v2")
        answers = {path: client.get(path).status_code for path in ("/", "/readyz", "/healthz", "/metrics")}
    assert answers == {"/": 404, "/readyz": 200, "/healthz": 200, "/metrics": 404}


def test_a_version_that_fails_a_tenth_is_rolled_back(kanaria: Kanaria) -> None:
    """This happens in the shadow step, so no client gets one of its answers."""
    with clients(kanaria) as seen:
        done = release(kanaria, "flask:failing", steps=["shadow", 20, 50, 100])
    assert done.returncode == 1, done.stdout + done.stderr
    assert kanaria.status()["release"]["outcome"] == "rolled_back"
    assert seen.keys() == {200}


def test_a_version_at_a_url_is_promoted_and_never_stopped(kanaria: Kanaria, folder: Path) -> None:
    """It is released, loses the traffic again, and keeps running. Once it is dead, the preflight reports it."""
    before = kanaria.status()["stable"]["tag"]
    with kept_by_others(folder) as (url, process):
        listed(folder, others={"url": url})
        with clients(kanaria) as seen:
            done = release(kanaria, "flask:others")
            assert done.returncode == 0, done.stdout + done.stderr
            assert kanaria.status()["stable"]["tag"] == "flask:others"
            kanaria.ok("restore", before)
            kanaria.until(lambda status: status["stable"]["tag"] == before and is_over(status))
        assert seen.keys() == {200}
        assert process.is_running()
        kanaria.ok("preflight", "flask:others")
    failed = kanaria("preflight", "flask:others")
    assert failed.returncode == 1
    assert "gives no answer" in failed.stdout
    listed(folder)


@pytest.mark.parametrize(
    ("version", "words", "deadline"),
    [
        ("missing", "No such file or directory", "30s"),
        ("ends", "the model is not here", "30s"),
        ("deaf", "/healthy answers 404", "15s"),  # it must have started by then
        ("nowhere", "gives no answer", "6s"),
    ],
)
def test_a_version_that_cannot_serve_is_rolled_back_at_startup(
    version: str, words: str, deadline: str, kanaria: Kanaria
) -> None:
    """The reason has its last output: a missing program, an early end, or a probe that never succeeds."""
    done = release(kanaria, f"flask:{version}", startup_deadline=deadline)
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in why(kanaria)
    assert kanaria.status()["release"]["outcome"] == "rolled_back"


def test_a_port_that_is_in_use_is_reported(kanaria: Kanaria, folder: Path) -> None:
    """This service insists on a fixed port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        command = [*FLASK[:-1], str(other.getsockname()[1])]
        listed(folder, insists={"command": command, "environment": {"PORT": "{port}"}})
        done = release(kanaria, "flask:insists", startup_deadline="60s")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "in use by another program" in why(kanaria)


def test_running_versions_no_longer_need_the_file(kanaria: Kanaria, folder: Path) -> None:
    """The file is changed and removed during a release and the controller is killed: both versions stay as they are."""
    stable = kanaria.status()["stable"]["tag"]
    canary = "flask:v1" if stable != "flask:v1" else "flask:v2"
    path = listed(folder)
    try:
        with clients(kanaria) as seen:
            kanaria.ok("release", canary, "--spec", kanaria.plan(steps=[50, 100], soak="120s", step_deadline="10m"))
            kanaria.until(lambda status: status["canary"] and status["canary"]["weight_percent"] == 50)
            path.write_text(path.read_text().replace("flask", "other"))
            kanaria.kill("controller")
            kanaria.until(lambda status: status["stable"] and status["stable"]["health"] == "ready")
            path.unlink()
            kanaria.kill("controller")
            kanaria.until(lambda status: status["stable"] and status["stable"]["health"] == "ready")
            refused = kanaria("release", "flask:v3")
            assert refused.returncode == 2
            assert "KANARIA_VERSIONS" in refused.stderr
            kanaria.ok("rollback")
            kanaria.until(lambda status: status["release"]["outcome"] == "rolled_back")
        assert seen.keys() == {200}
    finally:
        listed(folder)


def test_commands_know_the_file_of_versions(kanaria: Kanaria) -> None:
    """`up` has recorded its path; `validate` says what a release would judge."""
    del kanaria.environment["KANARIA_VERSIONS"]
    checked = kanaria.ok("validate", "flask:v1")
    assert "routes: /predict, /words (streamed)" in checked
    assert "ready:  any answer below 500 at /" in checked
    near = kanaria("release", "flask:v11")
    assert (near.returncode, "did you mean `flask:v1`?" in near.stderr) == (2, True)
    broken = kanaria("validate", "flask:missing")
    assert (broken.returncode, "there is no program no-such-program" in broken.stderr) == (2, True)
