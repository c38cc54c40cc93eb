"""What a real Envoy tells a real observer: the caller of a request, and which answers belong together."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract import environment
from contract.loopback import answers
from contract.own_answers import OwnAnswers
from kanaria.stack.observer_program import ObserverProgram
from kanaria.stack.ports import free_port
from rollout.fleet import Route, Service, Version
from rollout.routers.envoy.settings import ApiKey, GatewaySettings
from rollout.routers.router import Split
from tests.support.asking import HTTP
from tests.support.endless import MOST, accepted_bytes
from tests.support.gateway_rig import Gateway, StandIn, eventually

STABLE, CANARY = "shop:v1", "shop:v2"
KEYS = tuple(ApiKey(f"key-of-{name}", name) for name in ("bank", "clinic"))
READ = OwnAnswers.model_validate({"/detect": {"label": "version"}})


class Observed:
    """A gateway with two versions that answer with their tag, and an observer."""

    def __init__(self, gateway: Gateway, observer: ObserverProgram) -> None:
        self._gateway, self._observer = gateway, observer

    @property
    def page(self) -> str:
        return f"http://{self._observer.address}"

    def ask(self, caller: str, request: str) -> None:
        assert self._send("/detect", caller, {"x-request-id": request}).status_code == 200

    def label(self, caller: str, request: str, label: str = STABLE) -> httpx.Response:
        return self._send("/feedback", caller, {}, {"request_id": request, "labels": [label]})

    def counts(self, name: str) -> dict[str, int]:
        """The counts by outcome, without zeros."""
        page = HTTP.get(f"http://{self._observer.address}/metrics").text
        samples = (each for family in text_string_to_metric_families(page) for each in family.samples)
        return {each.labels["outcome"]: int(each.value) for each in samples if each.name == name and each.value}

    def _send(self, path: str, caller: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
        return self._gateway.client.post(path, json=body or {}, headers={"x-api-key": f"key-of-{caller}", **headers})


@pytest.fixture
def observed(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Observed]:
    require_program("envoy")
    settings = GatewaySettings(tmp_path / "gateway", free_port(), free_port(), api_keys=KEYS, has_observer=True)
    kept = {
        environment.ANSWERS_DIR: str(tmp_path / "answers"),
        environment.PREDICTIONS_DIR: str(tmp_path / "predictions"),
        environment.PREDICTION_LOG_MB: "1",
        environment.ANSWERS_KEY: "key",
    }
    observer = ObserverProgram.beside(settings, tmp_path / "recorded", kept)
    program, service = observer.program(), Service((Route("/detect"),), 10.0)
    with StandIn(STABLE) as stable, StandIn(CANARY) as canary, Gateway(settings) as gateway:
        process = subprocess.Popen(program.command, env={**os.environ, **program.environment})
        versions = (Version((each.backend,), service) for each in (stable, canary))
        try:
            gateway.router.apply(Split(*versions, mirror=True, answers=READ))
            gateway.client.headers["content-type"] = "application/json"
            eventually(lambda: answers(f"http://{observer.address}/metrics", timeout_s=1.0))
            yield Observed(gateway, observer)
        finally:
            process.terminate()
            process.wait()


def test_a_label_finds_only_answers_of_the_key_that_asked(observed: Observed) -> None:
    """A caller who used another's request id could label its answer, or make its label fail."""
    eventually(lambda: _is_kept(observed))
    observed.ask("bank", "guessed")
    assert observed.label("clinic", "guessed").status_code == 404
    observed.ask("clinic", "guessed")
    eventually(lambda: observed.label("bank", "guessed").json().get("counted") is True)
    eventually(lambda: observed.label("clinic", "guessed", CANARY).json().get("counted") is True)


def _is_kept(observed: Observed) -> bool:
    """Whether the gateway already shows answers to the observer."""
    observed.ask("bank", "first")
    return observed.label("bank", "first").is_success


def test_a_caller_who_reuses_one_request_id_does_not_block_a_release(observed: Observed) -> None:
    """The gateway gives each request and its copies a separate id."""
    eventually(lambda: _is_kept(observed))
    for _ in range(30):
        observed.ask("clinic", "same")
    eventually(lambda: observed.counts("kanaria_observer_answers_total").get("compared", 0) >= 30)
    assert "ambiguous" not in observed.counts("kanaria_observer_answers_total")


@pytest.mark.parametrize("endless", ["headers", "trailer value"])
def test_an_endless_request_does_not_fill_the_observers_memory(observed: Observed, endless: str) -> None:
    """Every user of the machine can reach the port with its counts."""
    assert accepted_bytes(observed.page, endless) < MOST / 2
    assert HTTP.get(f"{observed.page}/metrics").is_success
