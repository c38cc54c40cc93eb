"""What clients, the judge and the on-call engineer may expect of the gateway, on a real Envoy."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from scipy.stats import binomtest

from kanaria.network import free_port
from rollout.errors import RouterRefused
from rollout.interfaces import ObservedSplit, Split
from rollout.routers.envoy_settings import GatewaySettings
from tests.support.gateway_rig import Gateway, StandIn, eventually, load

STABLE, CANARY = "digits:v1", "digits:v2.0-rc_1"  # every character that a Bento tag may have
SHADOW_LABEL = "shadow%2Fdigits%3Av2%2E0-rc_1"


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[StandIn, StandIn]]:
    with StandIn(STABLE) as stable, StandIn(CANARY) as canary:
        yield stable, canary


@pytest.fixture
def stable(models: tuple[StandIn, StandIn]) -> StandIn:
    models[0].behave()
    return models[0]


@pytest.fixture
def canary(models: tuple[StandIn, StandIn]) -> StandIn:
    models[1].behave()
    return models[1]


@pytest.fixture
def settings(tmp_path: Path, require_program: Callable[[str], str]) -> GatewaySettings:
    require_program("envoy")
    return GatewaySettings(directory=tmp_path, port=free_port(), admin_port=free_port())


@pytest.fixture
def gateway(settings: GatewaySettings) -> Iterator[Gateway]:
    with Gateway(settings) as running:
        yield running


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json().get("request_id") == answer.headers.get("x-request-id")


# Shifting traffic


@pytest.mark.parametrize("percent", [1, 10, 50, 90])
def test_the_canary_gets_its_share(gateway: Gateway, stable: StandIn, canary: StandIn, percent: int) -> None:
    """The canary's answers are binomial in its weight."""
    gateway.router.apply(Split(stable.backend, canary.backend, percent))
    with load(gateway.url) as clients:
        clients.wait_for(1000)
    assert binomtest(clients.answers[CANARY], clients.total, percent / 100).pvalue > 1e-4


def test_a_whole_release_loses_no_request(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """Shadow, every step, promotion, next release and a rollback under load: no client sees a failure."""
    old, new = stable.backend, canary.backend
    gateway.router.apply(Split(old))
    splits = [Split(old, new, mirror=True), *(Split(old, new, percent) for percent in (1, 50, 100)), Split(new)]
    with load(gateway.url) as clients:
        for split in [*splits, Split(new, old, 50), Split(new)]:
            gateway.router.apply(split)
            clients.wait_for(100)
    assert clients.failures == []


def test_a_weight_is_in_force_when_apply_returns(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """After a rollback has returned, not one more request reaches the canary."""
    gateway.router.apply(Split(stable.backend, canary.backend, 50))
    with load(gateway.url) as clients:
        clients.wait_for(100)
        gateway.router.apply(Split(stable.backend))
        eventually(lambda: gateway.router.requests_in_flight(CANARY) == 0)
        before = canary.seen("/predict")
        clients.wait_for(200)
    assert canary.seen("/predict") == before


def test_a_request_on_a_replaced_version_is_finished(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """A slow request that the old version has begun is counted as in flight, then answered by it."""
    gateway.router.apply(Split(stable.backend, canary.backend, 0))
    stable.behave(delay_s=1.0)
    answers: list[httpx.Response] = []
    client = threading.Thread(target=lambda: answers.append(gateway.predict()))
    client.start()
    eventually(lambda: gateway.router.requests_in_flight(STABLE) == 1)
    gateway.router.apply(Split(canary.backend))
    assert gateway.router.requests_in_flight(STABLE) == 1
    client.join()
    assert answers[0].json()["version"] == STABLE
    assert gateway.router.requests_in_flight(STABLE) == 0


def test_a_sticky_caller_stays_and_never_leaves_a_growing_canary(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """One caller sees one version at one weight; raising the weight only adds callers to the canary."""
    on_canary: list[set[int]] = []
    for percent in (5, 25, 50, 80):
        gateway.router.apply(Split(stable.backend, canary.backend, percent, sticky="x-user-id"))
        versions = [
            {gateway.predict(headers={"x-user-id": f"user-{user}"}).json()["version"] for _ in range(2)}
            for user in range(150)
        ]
        assert all(len(seen) == 1 for seen in versions)
        on_canary.append({user for user, seen in enumerate(versions) if seen == {CANARY}})
    assert on_canary[0] < on_canary[1] < on_canary[2] < on_canary[3]


def test_the_same_split_is_not_written_twice(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """A controller that applies its wish on every tick causes no update of the data plane."""
    paths = gateway.settings.clusters_path, gateway.settings.routes_path
    gateway.router.apply(Split(stable.backend))
    gateway.router.apply(Split(stable.backend, canary.backend, 5))
    written = [path.stat().st_ino for path in paths]
    gateway.router.apply(Split(stable.backend, canary.backend, 5))
    assert [path.stat().st_ino for path in paths] == written


def test_a_restarted_gateway_serves_the_split_it_served_before(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """The split outlives the Envoy process; until it is in force again, nothing is observed."""
    in_force = ObservedSplit(STABLE, CANARY, 100, mirror=False)
    gateway.router.apply(Split(stable.backend, canary.backend, 100))
    gateway.stop()
    gateway.spawn()
    seen: list[ObservedSplit | None] = []

    def serves_again() -> bool:
        seen.append(gateway.router.observed())
        return seen[-1] == in_force

    eventually(serves_again)
    assert set(seen) == {None, in_force}
    assert gateway.predict().json()["version"] == CANARY


def test_a_version_that_moved_is_followed(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """The canary's process was replaced by one on another port: the same split, and no request is lost."""
    with StandIn(CANARY) as replacement:
        gateway.router.apply(Split(stable.backend, canary.backend, 50))
        with load(gateway.url) as clients:
            clients.wait_for(50)
            gateway.router.apply(Split(stable.backend, replacement.backend, 50))
            clients.wait_for(200)
        assert clients.failures == []
        assert replacement.seen("/predict") > 0


def test_a_version_may_be_named_by_host_name(gateway: Gateway, stable: StandIn) -> None:
    """Between containers an address is a name."""
    gateway.router.apply(Split(replace(stable.backend, host="localhost")))
    assert gateway.predict().json()["version"] == STABLE


def test_a_rollback_while_the_gateway_is_down_is_what_it_starts_with(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """Applying to a gateway out of reach is refused, but it never comes back with the bad canary."""
    gateway.router.apply(Split(stable.backend, canary.backend, 100))
    gateway.stop()
    with pytest.raises(RouterRefused, match="out of reach"):
        gateway.router.apply(Split(stable.backend))
    gateway.start()
    assert gateway.predict().json()["version"] == STABLE


def test_a_rejected_split_is_not_what_a_restart_finds(gateway: Gateway, stable: StandIn) -> None:
    """What Envoy rejects does not stay on disk, where it would stop the next start."""
    gateway.router.apply(Split(stable.backend))
    with pytest.raises(RouterRefused, match="Envoy rejected the split"):
        gateway.router.apply(Split(stable.backend, sticky="not a header\n"))
    gateway.stop()
    gateway.start()
    assert gateway.predict().json()["version"] == STABLE


# Versions that fail


def test_killing_the_canary_under_load_loses_no_request(gateway: Gateway, stable: StandIn) -> None:
    """The canary dies at 50 %: stable answers for it, and those answers are evidence about nobody."""
    with StandIn(CANARY) as doomed:
        gateway.router.apply(Split(stable.backend, doomed.backend, 50))
        with load(gateway.url, clients=8) as clients:
            clients.wait_for(400)
            doomed.kill()
            clients.wait_for(1000)
    assert clients.failures == []
    counted = gateway.counted()
    assert counted[STABLE, CANARY, "200"] > 0, "fallbacks are counted apart"
    assert counted[STABLE, STABLE, "200"] + counted[STABLE, CANARY, "200"] == clients.answers[STABLE]
    assert counted[CANARY, CANARY, "200"] == clients.answers[CANARY]


def test_a_canary_that_serves_users_answers_for_a_dead_stable(gateway: Gateway, canary: StandIn) -> None:
    """Stable dies in the middle of a step: clients see nothing, and the canary is not credited."""
    with StandIn(STABLE) as doomed:
        gateway.router.apply(Split(doomed.backend, canary.backend, 10))
        doomed.kill()
        assert {gateway.predict().status_code for _ in range(50)} == {200}
    assert gateway.counted()[CANARY, STABLE, "200"] > 0


def test_a_canary_in_the_shadow_does_not_answer_for_a_dead_stable(gateway: Gateway, canary: StandIn) -> None:
    """A version without any evidence gets no users, not even when there is nobody else."""
    with StandIn(STABLE) as doomed:
        gateway.router.apply(Split(doomed.backend, canary.backend, mirror=True))
        doomed.kill()
        answer = gateway.predict()
    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


def test_an_application_error_reaches_the_client_and_is_charged(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """A 500 of the canary is not retried, not rewritten and not answered by stable."""
    gateway.router.apply(Split(stable.backend, canary.backend, 100))
    canary.behave(status=500)
    before = canary.seen("/predict")
    answer = gateway.predict()
    assert (answer.status_code, answer.json()["version"]) == (500, CANARY)
    assert canary.seen("/predict") == before + 1
    assert gateway.counted() == {(CANARY, CANARY, "500"): 1}


def test_a_version_that_does_not_answer_in_time_is_charged_with_504(
    settings: GatewaySettings, stable: StandIn, canary: StandIn
) -> None:
    """The client gets a problem after the timeout; the error is the canary's."""
    canary.behave(delay_s=5.0)
    with Gateway(replace(settings, request_timeout_s=0.3)) as gateway:
        gateway.router.apply(Split(stable.backend, canary.backend, 100))
        assert_problem(gateway.predict(), 504)
        assert gateway.counted() == {(CANARY, CANARY, "504"): 1}


def test_a_client_that_hangs_up_is_no_error_but_its_wait_is_counted(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """A version so slow that clients give up cannot hide: their wait is in the latency histogram."""
    canary.behave(delay_s=5.0)
    gateway.router.apply(Split(stable.backend, canary.backend, 100))
    with pytest.raises(httpx.ReadTimeout):
        gateway.predict(timeout=0.4)
    eventually(lambda: gateway.counted() == {(CANARY, CANARY, "0"): 1})

    def waited() -> dict[str, float]:
        name = "envoy_kanaria_predict_duration_ms_bucket"
        return {labels["le"]: value for found, labels, value in gateway.samples() if found == name}

    eventually(lambda: waited().get("+Inf") == 1)
    assert (waited()["250"], waited()["1000"]) == (0, 1)


def test_only_predictions_are_evidence(gateway: Gateway, stable: StandIn) -> None:
    """Feedback, probes, wrong methods and unknown paths say nothing about a version."""
    gateway.router.apply(Split(stable.backend))
    for method, path in [("POST", "/feedback"), ("GET", "/readyz"), ("GET", "/predict"), ("POST", "/predictions")]:
        gateway.client.request(method, path)
    gateway.client.post("/predict?debug=1")
    assert gateway.counted() == {(STABLE, STABLE, "200"): 1}


# Shadow


def test_the_shadow_sees_every_prediction_and_no_feedback(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """Predictions are copied to the canary, whose answers no client sees; feedback is not copied."""
    predictions, feedback = canary.seen("/predict"), canary.seen("/feedback")
    gateway.router.apply(Split(stable.backend, canary.backend, mirror=True))
    assert {gateway.predict().json()["version"] for _ in range(20)} == {STABLE}
    assert gateway.client.post("/feedback", json={}).json()["version"] == STABLE
    eventually(lambda: canary.seen("/predict") == predictions + 20)
    assert canary.seen("/feedback") == feedback


@pytest.mark.parametrize("given", [{"x-request-id": "caller-7"}, {}], ids=["given", "made by the gateway"])
def test_a_copy_has_the_request_id_of_the_original(
    gateway: Gateway, stable: StandIn, canary: StandIn, given: dict[str, str]
) -> None:
    """By it the two versions' answers are compared, and a late label finds both."""
    gateway.router.apply(Split(stable.backend, canary.backend, mirror=True))
    request_id = gateway.predict(headers=given).headers["x-request-id"]
    assert given.get("x-request-id", request_id) == request_id == stable.last_headers()["x-request-id"]
    eventually(lambda: canary.last_headers().get("x-request-id") == request_id)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [({"status": 500}, 20), ({"delay_s": 5.0}, 20), ({}, 0)],
    ids=["failing", "too slow", "healthy"],
)
def test_what_the_shadow_does_wrong_is_counted_and_hurts_nobody(
    settings: GatewaySettings, stable: StandIn, canary: StandIn, behaviour: dict[str, Any], expected: int
) -> None:
    """A bad shadow shows in series that carry its tag; the clients' answers are those of stable."""
    with Gateway(replace(settings, request_timeout_s=0.5)) as gateway:
        gateway.router.apply(Split(stable.backend, canary.backend, mirror=True))
        canary.behave(**behaviour)
        assert {gateway.predict().status_code for _ in range(20)} == {200}

        def errors_and_total() -> tuple[float, float]:
            by_class = {
                labels["envoy_response_code_class"]: value
                for name, labels, value in gateway.samples()
                if name == "envoy_cluster_upstream_rq_xx_total" and labels["envoy_cluster_name"] == SHADOW_LABEL
            }
            return by_class.get("5", 0), sum(by_class.values())

        eventually(lambda: errors_and_total() == (expected, 20))
        assert gateway.counted() == {(STABLE, STABLE, "200"): 20}


def test_the_shadows_latency_can_be_read(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """Mirrored requests have their own histogram, keyed by the canary's tag."""
    gateway.router.apply(Split(stable.backend, canary.backend, mirror=True))
    canary.behave(delay_s=0.3)
    gateway.predict()

    def slower_than_250_ms() -> float:
        bucket = {
            labels["le"]: value
            for name, labels, value in gateway.samples()
            if name == "envoy_cluster_upstream_rq_time_bucket" and labels["envoy_cluster_name"] == SHADOW_LABEL
        }
        return bucket["+Inf"] - bucket["250"] if bucket else 0

    eventually(lambda: slower_than_250_ms() == 1)


# The front door


def test_a_gateway_without_versions_is_alive_but_not_ready(gateway: Gateway) -> None:
    """Before the first version, predictions get a 503 problem that says when to come back."""
    assert gateway.client.get("/livez").status_code == 200
    assert_problem(gateway.client.get("/readyz"), 503)
    answer = gateway.predict()
    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


def test_without_a_key_only_the_probes_answer(settings: GatewaySettings, stable: StandIn) -> None:
    """A missing or wrong key is a 401 problem; load balancers can still probe."""
    with Gateway(replace(settings, api_keys=("one", "two"))) as gateway:
        gateway.router.apply(Split(stable.backend))
        assert_problem(gateway.predict(), 401)
        assert_problem(gateway.predict(headers={"x-api-key": "three"}), 401)
        assert {gateway.predict(headers={"x-api-key": key}).status_code for key in ("one", "two")} == {200}
        assert {gateway.client.get(path).status_code for path in ("/livez", "/readyz")} == {200}
        assert "x-api-key" not in stable.last_headers(), "a model has no use for the client's secret"


def test_api_keys_are_readable_by_their_owner_only(settings: GatewaySettings) -> None:
    """The bootstrap file holds the keys."""
    with Gateway(replace(settings, api_keys=("secret",))):
        assert settings.bootstrap_path.stat().st_mode & 0o777 == 0o600


def test_an_unknown_path_is_a_problem(gateway: Gateway, stable: StandIn) -> None:
    """Only the paths of the contract are routed: a model's /metrics is not for clients."""
    gateway.router.apply(Split(stable.backend))
    for path in ("/", "/metrics", "/predict/", "/../metrics"):
        assert_problem(gateway.client.get(path), 404)


def test_a_body_over_the_limit_is_a_problem(settings: GatewaySettings, stable: StandIn) -> None:
    """20 kB where 10 kB are allowed: 413, and the model never sees it. 9 kB pass."""
    with Gateway(replace(settings, max_body_bytes=10_000)) as gateway:
        gateway.router.apply(Split(stable.backend))
        before = stable.seen("/predict")
        assert_problem(gateway.predict(content=b"x" * 20_000, json=None), 413)
        assert stable.seen("/predict") == before
        assert gateway.predict(content=b"x" * 9_000, json=None).json()["bytes"] == 9_000


def test_a_large_body_within_the_limit_reaches_the_version_and_its_shadow(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """4 MiB are neither cut off nor lost on their way to two servers."""
    before = canary.seen("/predict")
    gateway.router.apply(Split(stable.backend, canary.backend, mirror=True))
    assert gateway.predict(content=b"x" * 2**22, json=None).json()["bytes"] == 2**22
    eventually(lambda: canary.seen("/predict") == before + 1)


def test_oversized_headers_are_a_problem(gateway: Gateway) -> None:
    """Headers have a limit too."""
    assert_problem(gateway.predict(headers={"x-big": "x" * 20_000}), 431)


def test_more_requests_than_the_rate_limit_are_a_problem(settings: GatewaySettings, stable: StandIn) -> None:
    """The limit is on all clients together; those over it are told when to come back."""
    with Gateway(replace(settings, max_requests_per_s=5)) as gateway:
        gateway.router.apply(Split(stable.backend))
        answers = [gateway.predict() for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    for answer in refused:
        assert_problem(answer, 429)
        assert answer.headers["retry-after"] == "1"


def test_a_request_id_is_kept_or_made(gateway: Gateway, stable: StandIn) -> None:
    """The client's id, or a new one, reaches the model and comes back."""
    gateway.router.apply(Split(stable.backend))
    kept = gateway.predict(headers={"x-request-id": "mine-1"})
    assert (kept.headers["x-request-id"], stable.last_headers()["x-request-id"]) == ("mine-1", "mine-1")
    made = gateway.predict()
    assert made.headers["x-request-id"] == stable.last_headers()["x-request-id"] != ""


def test_answers_do_not_tell_what_runs_behind(gateway: Gateway, stable: StandIn) -> None:
    """Neither the model server's name nor Envoy's timing headers reach a client."""
    gateway.router.apply(Split(stable.backend))
    headers = gateway.predict().headers
    assert headers["server"] == "kanaria"
    assert not [name for name in headers if name.startswith("x-envoy")]


def test_a_client_cannot_change_timeouts_or_retries(gateway: Gateway, stable: StandIn) -> None:
    """Envoy's control headers are ignored when they come from outside."""
    gateway.router.apply(Split(stable.backend))
    stable.behave(delay_s=0.2)
    assert gateway.predict(headers={"x-envoy-upstream-rq-timeout-ms": "1"}).status_code == 200


def test_admin_listens_on_loopback_only(settings: GatewaySettings) -> None:
    """A gateway that is open to the network keeps its admin endpoint to this machine."""
    with Gateway(replace(settings, host="0.0.0.0")):  # noqa: S104 - the case under test
        elsewhere = "127.0.0.2"  # reaches listeners on every address, but not those on 127.0.0.1 alone
        socket.create_connection((elsewhere, settings.port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((elsewhere, settings.admin_port)).close()


def test_the_bootstrap_is_valid_without_deprecated_fields(settings: GatewaySettings) -> None:
    """Envoy starts without a word about deprecated or unknown fields."""
    with Gateway(replace(settings, api_keys=("secret",), max_requests_per_s=10)):
        assert json.loads(settings.bootstrap_path.read_text())["node"]["id"] == "kanaria"
        log = (settings.directory / "envoy.log").read_text()
    assert "eprecated" not in log
