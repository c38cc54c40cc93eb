"""Services in forms that BentoML has besides its current one: real Bentos, served as in a stack."""

from collections.abc import Callable
from pathlib import Path

import pytest

from contract.http import READY_PATH
from kanaria.settings import Settings
from kanaria.stack.bentos import service_of
from kanaria.stack.ports import free_port
from kanaria.stack.temporary_server import temporary_server
from rollout.fleet import Route, Version
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from tests.support.asking import HTTP
from tests.support.certificates import pair
from tests.support.gateway_rig import Gateway
from tests.support.own_service import build

LEGACY = """
import bentoml
from bentoml.io import JSON, Text


class Doubled(bentoml.legacy.Runnable):
    SUPPORTED_RESOURCES = ("cpu",)
    SUPPORTS_CPU_MULTI_THREADING = True

    @bentoml.legacy.Runnable.method(batchable=False)
    def twice(self, text):
        return 2 * text


RUNNER = bentoml.legacy.Runner(Doubled, name="doubled")
Summary = bentoml.legacy.Service("summary", runners=[RUNNER])


@Summary.api(input=Text(), output=JSON(), route="v1/double")
async def double(text):
    return {"text": await RUNNER.twice.async_run(text)}


@Summary.api(input=Text(), output=Text())
def length(text):
    return str(len(text))
"""
WITH_TLS = """
import bentoml

@bentoml.service(name="summary", ssl={{"enabled": True, "certfile": "{certificate}", "keyfile": "{key}"}})
class Summary:
    @bentoml.api
    def summarize(self, text: str) -> str:
        return text[:3]
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a stack with its own store."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return Settings(home=tmp_path / ".kanaria")


def test_a_legacy_service_is_served_and_counted_by_its_routes(
    tmp_path: Path, settings: Settings, require_program: Callable[[str], str]
) -> None:
    """The routes come from its description, one of them differs from its method's name, and its runner answers too."""
    require_program("envoy")
    tag = build(tmp_path / "legacy", tmp_path / "bentoml", "legacy", service=LEGACY)
    service = service_of(tag)
    assert service.routes == (Route("/length", may_stream=True), Route("/v1/double"))
    (tmp_path / "gateway").mkdir()
    of_gateway = GatewaySettings(tmp_path / "gateway", port=free_port(), stats_port=free_port())
    with temporary_server(settings, tag, say=lambda _: None) as server, Gateway(of_gateway) as gateway:
        gateway.router.apply(Split(Version((server.backend,), service)))
        for text in ("one", "two"):
            assert gateway.client.post("/v1/double", content=text).json() == {"text": 2 * text}
        assert gateway.client.post("/length", content="three").text == "5"
        counted = {
            (labels["route"], labels["code"]): value
            for name, labels, value in gateway.samples()
            if name == "envoy_kanaria_predict_total"
        }
    assert counted == {("/v1/double", "200"): 2, ("/length", "200"): 1}


def test_a_service_with_a_certificate_is_ready_over_http_and_still_guarded(tmp_path: Path, settings: Settings) -> None:
    """It used to be never ready. Callers see the gateway's certificate, and requests past the gateway are refused."""
    own = pair(tmp_path / "certificate")
    code = WITH_TLS.format(certificate=own.certificate, key=own.key)
    tag = build(tmp_path / "tls", tmp_path / "bentoml", "tls", service=code)
    assert service_of(tag).has_tls
    with temporary_server(settings, tag, say=lambda _: None) as server:
        url, secret = server.backend.url, server.backend.headers
        assert url.startswith("http://")
        assert HTTP.get(url + READY_PATH, headers=secret).status_code == 200
        assert HTTP.post(f"{url}/summarize", json={"text": "abcdef"}, headers=secret).text == "abc"
        assert HTTP.post(f"{url}/summarize", json={"text": "abcdef"}).status_code == 403
