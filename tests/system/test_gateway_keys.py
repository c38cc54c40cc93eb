"""API keys at a real Envoy: which requests each key allows."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.http import CALLER_HEADER, LABELLER_HEADER
from kanaria.cli import app
from kanaria.settings import Settings
from kanaria.stack.ports import free_port
from kanaria.stack.stack import gateway_settings
from rollout.fleet import Route, Service
from rollout.routers.envoy.api import TYPE
from rollout.routers.envoy.bootstrap import envoy_command
from rollout.routers.router import Refused, Split
from rollout.spec import RolloutSpec
from tests.support.gateway_rig import Gateway, StandIn, eventually


@pytest.fixture(scope="module")
def stable() -> Iterator[StandIn]:
    with StandIn("digits:v1") as stable:
        yield stable


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KANARIA_GATEWAY_PORT", str(free_port()))
    return Settings()


@pytest.fixture
def gateway(settings: Settings, stable: StandIn) -> Iterator[Gateway]:
    """The gateway of the state folder, as `kanaria up` sets it up."""
    settings.root.mkdir(parents=True)
    settings.remember_where_it_listens()
    with Gateway(gateway_settings(settings, free_port())) as running:
        running.router.apply(Split(stable.version))
        yield running


def typed(*words: str) -> str:
    done = CliRunner().invoke(app, ["key", *words], catch_exceptions=False)
    return done.stdout.strip()


def asked(gateway: Gateway, path: str, key: str, **headers: str) -> int:
    return gateway.client.post(path, json={}, headers={"x-api-key": key, **headers}).status_code


def test_a_key_works_for_its_scope_until_it_is_removed(gateway: Gateway, settings: Settings) -> None:
    """A key for predictions cannot send feedback; adding and removing keys takes effect in a running gateway."""
    shop = typed("add", "shop")
    clinic = typed("add", "clinic", "--scope", "feedback")
    both = typed("add", "both", "--scope", "both")
    opened = {
        key: (asked(gateway, "/predict", key), asked(gateway, "/feedback", key), asked(gateway, "/%66eedback", key))
        for key in (shop, clinic, both, settings.api_key)
    }
    assert opened == {
        shop: (200, 401, 401),
        clinic: (401, 200, 200),
        both: (200, 200, 200),
        settings.api_key: (200, 200, 200),
    }
    before = gateway.router.refused()
    refused = gateway.client.post("/feedback", json={}, headers={"x-api-key": shop})
    assert refused.headers["content-type"] == "application/problem+json"
    assert "made for this path" in refused.json()["detail"]
    assert asked(gateway, "/predct", shop) == 404
    assert gateway.client.post("/predict", json={}).status_code == 401
    assert before is not None
    eventually(lambda: (now := gateway.router.refused()) and now.since(before) == Refused(for_key=2, otherwise=1))
    typed("remove", "shop")
    assert [asked(gateway, "/predict", key) for key in (shop, both)] == [401, 200]
    assert [line.partition(",")[0] for line in typed("list").splitlines()] == [
        "default: predictions",
        "clinic: feedback (answers of default)",
        "both: predictions",
    ]


def test_a_version_receives_the_name_of_the_key_but_never_the_key(
    gateway: Gateway, stable: StandIn, settings: Settings
) -> None:
    """A caller cannot pretend to be another."""
    shop = typed("add", "shop")
    told = []
    for key in (shop, settings.api_key):
        assert asked(gateway, "/predict", key, **{CALLER_HEADER: "clinic"}) == 200
        told.append(stable.last_headers())
    assert [headers[CALLER_HEADER] for headers in told] == ["shop", "default"]
    assert not {shop, settings.api_key} & {value for headers in told for value in headers.values()}


def test_a_key_labels_the_answers_of_the_key_that_it_was_made_for(
    gateway: Gateway, stable: StandIn, settings: Settings
) -> None:
    """A version receives the names of the answers' owner, by default the key's own, and of the label's sender."""
    keys = [typed("add", "shop", "--scope", "both")]
    keys += [typed("add", "clinic", "--scope", "feedback", "--of", "shop"), typed("add", "bank", "--scope", "feedback")]
    told = []
    for key in keys:
        assert asked(gateway, "/feedback", key) == 200
        headers = stable.last_headers()
        told.append((headers[CALLER_HEADER], headers[LABELLER_HEADER]))
    assert told == [("shop", "shop"), ("shop", "clinic"), ("default", "bank")]
    assert asked(gateway, "/feedback", keys[1], **{LABELLER_HEADER: "shop", CALLER_HEADER: "bank"}) == 200
    assert (stable.last_headers()[CALLER_HEADER], stable.last_headers()[LABELLER_HEADER]) == ("shop", "clinic")


def test_a_gateway_without_keys_sends_no_name(
    settings: Settings, stable: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers cannot be identified there."""
    monkeypatch.setenv("KANARIA_NEEDS_API_KEY", "false")
    with Gateway(gateway_settings(Settings(), free_port())) as gateway:
        gateway.router.apply(Split(stable.version))
        assert asked(gateway, "/predict", "", **{CALLER_HEADER: "clinic"}) == 200
        assert CALLER_HEADER not in stable.last_headers()
        assert asked(gateway, "/feedback", "", **{LABELLER_HEADER: "clinic"}) == 200
        assert not {CALLER_HEADER, LABELLER_HEADER} & stable.last_headers().keys()


def test_keys_that_are_changed_at_the_same_time_all_take_effect(gateway: Gateway, settings: Settings) -> None:
    """Each command wrote what it had read: some keys were not in force, and a removed key came back."""
    withdrawn = [typed("add", name) for name in ("shop", "bank", "clinic")]
    words = [("remove", "shop"), ("add", "a"), ("remove", "bank"), ("add", "b"), ("remove", "clinic"), ("add", "c")]
    command = [sys.executable, "-m", "kanaria", "key"]
    running = [subprocess.Popen([*command, *each], stdout=subprocess.PIPE, text=True) for each in words]
    printed = [each.communicate()[0].strip() for each in running]
    assert [each.returncode for each in running] == [0] * len(words)
    assert {asked(gateway, "/predict", key) for key in withdrawn} == {401}
    assert {asked(gateway, "/predict", key) for key in printed[1::2]} == {200}


def test_keys_that_the_gateway_accepts_but_the_list_lacks_are_reported(gateway: Gateway, settings: Settings) -> None:
    """The file of keys was lost: its keys stay valid until the next key is made."""
    lost = typed("add", "shop")
    settings.caller_keys.unlink()
    assert asked(gateway, "/predict", lost) == 200
    said = CliRunner().invoke(app, ["key", "list"], catch_exceptions=False).stderr
    assert "not listed, under the name shop" in said
    typed("add", "bank")
    assert asked(gateway, "/predict", lost) == 401
    assert CliRunner().invoke(app, ["key", "list"], catch_exceptions=False).stderr == ""


def test_keys_are_readable_by_their_owner_only(gateway: Gateway, settings: Settings) -> None:
    """This holds for every file that contains them, and no other file does."""
    shop = typed("add", "shop")
    holding = {path for path in settings.root.rglob("*") if path.is_file() and shop in path.read_text(errors="replace")}
    assert {path.name for path in holding} == {"api-keys.json", "filter-predictions_key.json"}
    assert {path.stat().st_mode & 0o777 for path in holding} == {0o600}


def test_keys_survive_a_gateway_that_is_killed(gateway: Gateway, settings: Settings) -> None:
    """A removed key stays removed."""
    shop, clinic = typed("add", "shop"), typed("add", "clinic")
    typed("remove", "shop")
    gateway.kill()
    gateway.settings = gateway_settings(settings, gateway.settings.stats_port)
    gateway.start()
    assert [asked(gateway, "/predict", key) for key in (shop, clinic)] == [401, 200]


def test_a_gateway_started_by_an_earlier_version_still_requires_its_key(
    settings: Settings, gateway: Gateway, stable: StandIn
) -> None:
    """An upgraded controller sends it routes that name filters which it does not have."""
    gateway.kill()
    bootstrap = json.loads(gateway.settings.bootstrap_path.read_text())
    (manager,) = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    filters = manager["typed_config"]["http_filters"]
    found = {"@type": TYPE + "extensions.filters.http.api_key_auth.v3.ApiKeyAuth"}
    found |= {"credentials": [{"key": "old", "client": "key-1"}], "key_sources": [{"header": "x-api-key"}]}
    filters[:2] = [{"name": "api_key", "typed_config": found}]
    gateway.settings.bootstrap_path.write_text(json.dumps(bootstrap))
    with subprocess.Popen(envoy_command(gateway.settings), stderr=subprocess.DEVNULL) as envoy:
        eventually(lambda: gateway.router.observed() is not None)
        gateway.router.apply(Split(stable.version))
        answers = {path: [asked(gateway, path, key) for key in ("", "old")] for path in ("/predict", "/feedback")}
        assert answers == {"/predict": [401, 200], "/feedback": [401, 200]}
        assert {gateway.client.get(path).status_code for path in ("/livez", "/readyz")} == {200}
        envoy.terminate()


def test_a_feedback_path_requires_its_key_for_any_service(gateway: Gateway, settings: Settings) -> None:
    """This also holds if the service lists no such path, or one with a placeholder that matches it."""
    shop, clinic = typed("add", "shop"), typed("add", "clinic", "--scope", "feedback")
    with StandIn("prices:v1") as prices:
        for paths in ((), ("/{page}",), ("/feedback", "/{page}")):
            service = Service(tuple(Route(path) for path in paths), timeout_s=10)
            gateway.router.apply(Split(replace(prices.version, service=service)))
            answers = {path: [asked(gateway, path, key) for key in (shop, clinic)] for path in ("/ask", "/feedback")}
            assert answers == {"/ask": [200, 401], "/feedback": [401, 200]}


def test_callers_are_sticky_by_their_keys(gateway: Gateway, stable: StandIn) -> None:
    """Their own claims do not count. Failed requests are recorded by the name of the key, never with the key.

    With `x-kanaria-caller` each request used to be drawn again, and with `x-api-key` each failure counted as another
    caller's.
    """
    by_header = RolloutSpec.model_validate({"sticky": "header:x-api-key"}).sticky
    assert by_header == CALLER_HEADER
    names = [f"shop-{number}" for number in range(8)]
    keys = {name: typed("add", name) for name in names}
    with StandIn("digits:v2") as canary:
        gateway.router.apply(Split(stable.version, canary.version, 50, sticky=by_header))
        sides = {
            name: {
                gateway.client.post(
                    "/predict", json={}, headers={"x-api-key": key, CALLER_HEADER: f"another-{number}"}
                ).json()["version"]
                for number in range(6)
            }
            for name, key in keys.items()
        }
        assert [len(versions) for versions in sides.values()] == [1] * len(names)
        canary.behave(status=500)
        failed = {name for name, key in keys.items() if asked(gateway, "/predict", key) == 500}
        assert failed == {name for name, versions in sides.items() if versions == {"digits:v2"}}
        written = gateway.settings.failures_path

        def noted() -> set[str]:
            return {json.loads(line)["user"] for line in written.read_text().splitlines()}

        eventually(lambda: noted() == failed)
        assert not [key for key in keys.values() if key in written.read_text()]
