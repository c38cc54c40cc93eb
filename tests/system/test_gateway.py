"""What clients, the judge and the on-call engineer can expect of the gateway, on a real Envoy."""

import http.client
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

from kanaria.stack.ports import free_port
from rollout.errors import RouterRefused
from rollout.fleet import Version
from rollout.judge import Pair
from rollout.routers.envoy.metrics import SHADOW_REQUESTS, EnvoyMetrics
from rollout.routers.envoy.settings import ApiKey, GatewaySettings
from rollout.routers.router import ObservedSplit, Split
from rollout.signals.counters import merge, windows
from rollout.sources.scrape import ScrapeSource
from tests.support.gateway_rig import Gateway, StandIn, eventually, load
from tests.support.small_disk import SmallDisk

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
    return GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port())


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
    """The number of the canary's answers follows a binomial distribution with its weight."""
    gateway.router.apply(Split(stable.version, canary.version, percent))
    with load(gateway.url) as clients:
        clients.wait_for(1000)
    assert binomtest(clients.answers[CANARY], clients.total, percent / 100).pvalue > 1e-4


def test_a_whole_release_loses_no_request(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """Shadow step, rollout steps, promotion, next release and rollback under load: no client sees a failure."""
    old, new = stable.version, canary.version
    gateway.router.apply(Split(old))
    splits = [Split(old, new, mirror=True), *(Split(old, new, percent) for percent in (1, 50, 100)), Split(new)]
    with load(gateway.url) as clients:
        for split in [*splits, Split(new, old, 50), Split(new)]:
            gateway.router.apply(split)
            clients.wait_for(100)
    assert clients.failures == []


def test_a_weight_is_in_force_when_apply_returns(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """After a rollback has returned, no further request reaches the canary."""
    gateway.router.apply(Split(stable.version, canary.version, 50))
    with load(gateway.url) as clients:
        clients.wait_for(100)
        gateway.router.apply(Split(stable.version))
        eventually(lambda: gateway.router.requests_in_flight(CANARY) == 0)
        before = canary.seen("/predict")
        clients.wait_for(200)
    assert canary.seen("/predict") == before


def test_a_request_to_a_replaced_version_is_finished(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """A slow request that the old version has started is counted as in flight, and the old version answers it."""
    gateway.router.apply(Split(stable.version, canary.version, 0))
    stable.behave(delay_s=4.0)
    answers: list[httpx.Response] = []
    client = threading.Thread(target=lambda: answers.append(gateway.predict()))
    client.start()
    eventually(lambda: gateway.router.requests_in_flight(STABLE) == 1)
    gateway.router.apply(Split(canary.version))
    assert gateway.router.requests_in_flight(STABLE) == 1
    client.join()
    assert answers[0].json()["version"] == STABLE
    eventually(lambda: gateway.router.requests_in_flight(STABLE) == 0)


def test_a_sticky_caller_stays_on_its_version_while_the_canary_grows(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """At one weight a caller sees one version; a higher weight only adds callers to the canary."""
    on_canary: list[set[int]] = []
    for percent in (5, 25, 50, 80):
        gateway.router.apply(Split(stable.version, canary.version, percent, sticky="x-user-id"))
        versions = [
            {gateway.predict(headers={"x-user-id": f"user-{user}"}).json()["version"] for _ in range(2)}
            for user in range(150)
        ]
        assert all(len(seen) == 1 for seen in versions)
        on_canary.append({user for user, seen in enumerate(versions) if seen == {CANARY}})
    assert on_canary[0] < on_canary[1] < on_canary[2] < on_canary[3]


def test_the_same_split_is_not_written_twice(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """A controller applies its split on every tick without an update of the data plane."""
    paths = gateway.settings.clusters_path, gateway.settings.routes_path
    gateway.router.apply(Split(stable.version))
    gateway.router.apply(Split(stable.version, canary.version, 5))
    written = [path.stat().st_ino for path in paths]
    gateway.router.apply(Split(stable.version, canary.version, 5))
    assert [path.stat().st_ino for path in paths] == written


def test_a_restarted_gateway_serves_its_previous_split(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """The split survives the Envoy process; until it is in force again, no split is observed."""
    in_force = ObservedSplit(STABLE, CANARY, 100, mirror=False)
    gateway.router.apply(Split(stable.version, canary.version, 100))
    gateway.stop()
    gateway.spawn()
    seen: list[ObservedSplit | None] = []

    def serves_again() -> bool:
        seen.append(gateway.router.observed())
        return seen[-1] == in_force

    eventually(serves_again)
    assert set(seen) == {None, in_force}
    assert gateway.predict().json()["version"] == CANARY


def test_a_killed_gateway_keeps_its_split_and_callers_and_counts_go_on(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """SIGKILL: each sticky caller stays on its version, and new counts are added to the earlier ones."""
    gateway.router.apply(Split(stable.version, canary.version, 50, sticky="x-user-id"))

    def answered(users: int) -> list[str]:
        return [gateway.predict(headers={"x-user-id": f"user-{n}"}).json()["version"] for n in range(users)]

    with ScrapeSource(EnvoyMetrics.of(gateway.settings)) as source:
        before = source.read(())
        first = answered(30)
        known = merge(before, source.read(()))
        gateway.kill()
        gateway.start()
        eventually(gateway.router.observed)
        again = answered(12)  # fewer than before, or the new counts could be taken for the old ones
        assert again == first[:12]
        new = windows(known, source.read(()), stable=STABLE, canary=CANARY)
    (errors,) = [window for window in new if window.signal == "errors"]
    assert (errors.stable, errors.canary) == (Pair(0, again.count(STABLE)), Pair(0, again.count(CANARY)))


def test_a_version_with_a_new_address_is_followed(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """The canary's process was replaced by one on another port: the same split, and no request is lost."""
    with StandIn(CANARY) as replacement:
        gateway.router.apply(Split(stable.version, canary.version, 50))
        with load(gateway.url) as clients:
            clients.wait_for(50)
            gateway.router.apply(Split(stable.version, replacement.version, 50))
            clients.wait_for(200)
        assert clients.failures == []
        assert replacement.seen("/predict") > 0


def test_a_version_may_be_named_by_host_name(gateway: Gateway, stable: StandIn) -> None:
    """Between containers an address is a name."""
    gateway.router.apply(Split(Version((replace(stable.backend, host="localhost"),))))
    assert gateway.predict().json()["version"] == STABLE


def test_a_rollback_while_the_gateway_is_down_is_in_force_at_its_start(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """Applying to an unreachable gateway is refused, but it never comes back with the bad canary."""
    gateway.router.apply(Split(stable.version, canary.version, 100))
    gateway.stop()
    with pytest.raises(RouterRefused, match="cannot be reached"):
        gateway.router.apply(Split(stable.version))
    gateway.start()
    assert gateway.predict().json()["version"] == STABLE


def test_a_rejected_split_is_not_kept_for_the_next_start(gateway: Gateway, stable: StandIn) -> None:
    """A split that Envoy rejects does not stay on disk, where it would prevent the next start."""
    gateway.router.apply(Split(stable.version))
    with pytest.raises(RouterRefused, match="Envoy rejected the split"):
        gateway.router.apply(Split(stable.version, sticky="not a header\n"))
    gateway.stop()
    gateway.start()
    assert gateway.predict().json()["version"] == STABLE


@pytest.mark.parametrize("left", [b"", b"{", b"[]"])
def test_a_gateway_with_damaged_files_still_serves_the_split(
    gateway: Gateway, stable: StandIn, canary: StandIn, left: bytes
) -> None:
    """It starts with the spare files; with the damaged ones it would answer 404. The router rewrites them."""
    split = Split(stable.version, canary.version, 100)
    gateway.router.apply(split)
    gateway.settings.routes_path.write_bytes(left)
    gateway.settings.clusters_path.write_bytes(left)
    assert gateway.router.observed() is None
    gateway.router.apply(split)
    assert gateway.router.observed() == ObservedSplit(STABLE, CANARY, 100, mirror=False)
    gateway.stop()
    gateway.settings.routes_path.write_bytes(left)
    gateway.settings.clusters_path.write_bytes(left)
    gateway.start()
    assert gateway.predict().json()["version"] == CANARY


def test_a_full_disk_does_not_prevent_a_change_of_the_split(
    small_disk: SmallDisk, stable: StandIn, canary: StandIn, require_program: Callable[[str], str]
) -> None:
    """Every later split comes into force without new disk space, and no request is lost."""
    require_program("envoy")
    with Gateway(GatewaySettings(small_disk.folder, port=free_port(), stats_port=free_port())) as gateway:
        gateway.router.apply(Split(stable.version))
        small_disk.fill()
        with load(gateway.url) as clients:
            for percent in (5, 50, 100):
                gateway.router.apply(Split(stable.version, canary.version, percent))
                clients.wait_for(20)
            gateway.router.apply(Split(stable.version))
            clients.wait_for(20)
        assert clients.failures == []
        assert gateway.router.observed() == ObservedSplit(STABLE, None, 0, mirror=False)


# Versions that fail


def test_killing_the_canary_under_load_loses_no_request(gateway: Gateway, stable: StandIn) -> None:
    """The canary dies at 50 %: stable answers for it and gets no credit, and the failed tries are charged."""
    with StandIn(CANARY) as doomed:
        gateway.router.apply(Split(stable.version, doomed.version, 50))
        with load(gateway.url, clients=8) as clients:
            clients.wait_for(400)
            doomed.kill()
            clients.wait_for(1000)
    assert clients.failures == []
    counted = gateway.counted()
    assert counted[STABLE, CANARY, "200"] > 0, "fallbacks are counted apart"
    assert counted[STABLE, STABLE, "200"] + counted[STABLE, CANARY, "200"] == clients.answers[STABLE]
    assert counted[CANARY, CANARY, "200"] == clients.answers[CANARY]
    charged = gateway.errors(stable=STABLE, canary=CANARY)
    assert charged[0] == Pair(0, counted[STABLE, STABLE, "200"])
    assert 0 < charged[1].bad <= counted[STABLE, CANARY, "200"]


@pytest.mark.parametrize("doomed_is_stable", [True, False], ids=["stable", "canary"])
def test_a_hung_version_at_50_percent_loses_no_request_and_is_charged(
    settings: GatewaySettings, stable: StandIn, doomed_is_stable: bool
) -> None:
    """It accepts connections without answering: the other version answers, before and after a probe detects it."""
    with Gateway(replace(settings, try_timeout_s=0.3)) as gateway, StandIn(CANARY) as doomed:
        both = (doomed, stable) if doomed_is_stable else (stable, doomed)
        gateway.router.apply(Split(both[0].version, both[1].version, 50))
        doomed.hang()  # with no request in flight: an answer that has started cannot be started again
        with load(gateway.url, clients=8) as clients:
            clients.wait_for(100)
        charged, other = gateway.errors(stable=CANARY, canary=STABLE)
    assert clients.failures == []
    assert charged.bad > 0
    assert other.bad == 0


def test_the_first_answer_counts_even_if_it_is_late(
    settings: GatewaySettings, stable: StandIn, canary: StandIn
) -> None:
    """Both versions take longer than a try: no request is cut off or charged, and no version loses its traffic."""
    with Gateway(replace(settings, try_timeout_s=0.1)) as gateway:
        gateway.router.apply(Split(stable.version, canary.version, 100))
        canary.behave(delay_s=0.3)
        stable.behave(delay_s=5.0)
        with load(gateway.url, clients=8) as clients:
            clients.wait_for(60)
        assert clients.failures == []
        assert set(clients.answers) == {CANARY}
        assert gateway.errors(stable=STABLE, canary=CANARY)[1] == Pair(0, clients.total)


def test_a_late_error_of_the_application_is_its_answer(
    settings: GatewaySettings, stable: StandIn, canary: StandIn
) -> None:
    """A slow 500 counts for the canary, even if stable was asked in the meantime."""
    with Gateway(replace(settings, try_timeout_s=0.1)) as gateway:
        gateway.router.apply(Split(stable.version, canary.version, 100))
        canary.behave(delay_s=0.3, status=500)
        stable.behave(delay_s=5.0)
        assert gateway.predict().status_code == 500
        assert gateway.errors(stable=STABLE, canary=CANARY)[1] == Pair(1, 1)


def test_feedback_is_sent_to_only_one_version_however_slow(
    settings: GatewaySettings, stable: StandIn, canary: StandIn
) -> None:
    """Only predictions may be computed twice."""
    with Gateway(replace(settings, try_timeout_s=0.1)) as gateway:
        gateway.router.apply(Split(stable.version, canary.version, 50))
        before = stable.seen("/feedback"), canary.seen("/feedback")
        stable.behave(delay_s=0.5)
        assert gateway.client.post("/feedback", json={}).json()["version"] == STABLE
        assert (stable.seen("/feedback"), canary.seen("/feedback")) == (before[0] + 1, before[1])


@pytest.mark.parametrize("is_alone", [True, False], ids=["of two processes", "in a release"])
def test_feedback_to_a_process_that_dies_is_sent_to_another(gateway: Gateway, canary: StandIn, is_alone: bool) -> None:
    """It was killed after it received the label. The file of answers knows whether it counted the label."""
    with StandIn(STABLE) as doomed, StandIn(STABLE) as twin:
        for one in (doomed, twin):
            one.behave(delay_s=2.0)
        both = Version((doomed.backend, twin.backend))
        gateway.router.apply(Split(both) if is_alone else Split(doomed.version, canary.version, 50))
        answers: list[httpx.Response] = []
        clients = [
            threading.Thread(target=lambda: answers.append(gateway.client.post("/feedback", json={}, timeout=20)))
            for _ in range(2)
        ]
        for client in clients:
            client.start()
        eventually(lambda: doomed.seen("/feedback") + twin.seen("/feedback") == 2)
        doomed.kill()
        for client in clients:
            client.join()
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize("is_stable", [True, False], ids=["stable", "canary"])
def test_answers_in_place_of_a_version_known_to_be_down_count_for_neither(
    gateway: Gateway, stable: StandIn, canary: StandIn, is_stable: bool
) -> None:
    """None of its own tries failed. However long stable is down, that must not excuse a failing canary."""
    away = stable if is_stable else canary
    gateway.router.apply(Split(stable.version, canary.version, 50))
    away.behave(ready=False)
    # 40 requests: with half of them going to it, chance does not leave it out of all of them.
    eventually(lambda: away.tag not in {gateway.predict().json()["version"] for _ in range(40)})
    before = gateway.errors(stable=away.tag, canary="another")
    for _ in range(30):
        gateway.predict()
    assert gateway.errors(stable=away.tag, canary="another") == before
    assert before[0].bad == 0


@pytest.mark.parametrize("end", [StandIn.kill, StandIn.hang], ids=["killed", "hung"])
def test_the_previous_version_answers_for_a_promoted_one(
    settings: GatewaySettings, stable: StandIn, end: Callable[[StandIn], None]
) -> None:
    """During the watch the old version is warm: clients see no failure, and the promoted version is charged."""
    with Gateway(replace(settings, try_timeout_s=0.3)) as gateway, StandIn(CANARY) as promoted:
        gateway.router.apply(Split(promoted.version, fallback=stable.version))
        assert {gateway.predict().json()["version"] for _ in range(20)} == {CANARY}
        end(promoted)
        with load(gateway.url) as clients:
            clients.wait_for(50)
        watched = gateway.errors(stable=STABLE, canary=CANARY)[1]
    assert clients.failures == []
    assert set(clients.answers) == {STABLE}
    assert 0 < watched.bad <= clients.total


@pytest.mark.parametrize("end", [StandIn.kill, StandIn.hang], ids=["killed", "hung"])
@pytest.mark.parametrize("is_alone", [True, False], ids=["stable alone", "canary"])
def test_losing_one_of_two_processes_of_a_version_fails_no_request(
    settings: GatewaySettings, stable: StandIn, end: Callable[[StandIn], None], is_alone: bool
) -> None:
    """Its other process answers: no client sees a failure, and the version is not charged."""
    with Gateway(replace(settings, try_timeout_s=0.3)) as gateway, StandIn(CANARY) as doomed, StandIn(CANARY) as twin:
        version = Version((doomed.backend, twin.backend))
        gateway.router.apply(Split(version) if is_alone else Split(stable.version, version, 100))
        # What another version answers before both are known to be up counts for neither.
        eventually(lambda: gateway.predict().is_success and all(one.seen("/predict") for one in (doomed, twin)))
        before = gateway.errors(stable=STABLE, canary=CANARY)[1]
        end(doomed)
        with load(gateway.url) as clients:
            clients.wait_for(100)
        charged = gateway.errors(stable=STABLE, canary=CANARY)[1]
    assert clients.failures == []
    assert charged == Pair(0, before.total + clients.total)


def test_a_canary_with_users_answers_for_a_dead_stable(gateway: Gateway, canary: StandIn) -> None:
    """Stable dies in the middle of a step: clients see no failure, and the canary gets no credit."""
    with StandIn(STABLE) as doomed:
        gateway.router.apply(Split(doomed.version, canary.version, 10))
        doomed.kill()
        assert {gateway.predict().status_code for _ in range(50)} == {200}
    assert gateway.counted()[CANARY, STABLE, "200"] > 0


def test_a_canary_in_the_shadow_step_does_not_answer_for_a_dead_stable(gateway: Gateway, canary: StandIn) -> None:
    """A version without evidence gets no users, even if no other version is left."""
    with StandIn(STABLE) as doomed:
        gateway.router.apply(Split(doomed.version, canary.version, mirror=True))
        doomed.kill()
        answer = gateway.predict()
    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


def test_an_application_error_reaches_the_client_and_is_charged(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """A 500 from the canary is not retried, rewritten or answered by stable."""
    gateway.router.apply(Split(stable.version, canary.version, 100))
    canary.behave(status=500)
    before = canary.seen("/predict")
    answer = gateway.predict()
    assert (answer.status_code, answer.json()["version"]) == (500, CANARY)
    assert canary.seen("/predict") == before + 1
    assert gateway.counted() == {(CANARY, CANARY, "500"): 1}


def test_a_version_that_does_not_answer_in_time_is_charged_with_504(settings: GatewaySettings, canary: StandIn) -> None:
    """There is no other version: the client gets a problem after the timeout, and the error counts for the version."""
    canary.behave(delay_s=5.0)
    with Gateway(replace(settings, request_timeout_s=0.3)) as gateway:
        gateway.router.apply(Split(canary.version))
        assert_problem(gateway.predict(), 504)
        assert gateway.counted() == {(CANARY, CANARY, "504"): 1}


def test_a_client_that_hangs_up_is_no_error_but_its_wait_is_counted(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """A version so slow that clients give up is visible in the latency histogram."""
    canary.behave(delay_s=9.0)
    gateway.router.apply(Split(stable.version, canary.version, 100))
    with pytest.raises(httpx.ReadTimeout):
        gateway.predict(timeout=1.0)
    eventually(lambda: gateway.counted() == {(CANARY, CANARY, "0"): 1})

    def waited() -> dict[str, float]:
        name = "envoy_kanaria_predict_duration_ms_bucket"
        return {labels["le"]: value for found, labels, value in gateway.samples() if found == name}

    eventually(lambda: waited().get("+Inf") == 1)
    assert (waited()["250"], waited()["5000"]) == (0, 1)


def test_clients_that_hang_up_write_no_line_to_the_gateways_log(gateway: Gateway, canary: StandIn) -> None:
    """Each wrote a line without a valid time: anyone could fill the log, and its disk delayed requests."""
    canary.behave(delay_s=9.0)
    gateway.router.apply(Split(canary.version))
    log = gateway.settings.directory / "envoy.log"
    before = log.read_text()
    with pytest.raises(httpx.ReadTimeout):
        gateway.predict(timeout=0.5)
    eventually(lambda: gateway.counted() == {(CANARY, CANARY, "0"): 1})
    assert log.read_text() == before


def test_only_predictions_are_evidence(gateway: Gateway, stable: StandIn) -> None:
    """Feedback, probes, wrong methods and unknown paths are not evidence about a version."""
    gateway.router.apply(Split(stable.version))
    for method, path in [("POST", "/feedback"), ("GET", "/readyz"), ("GET", "/predict"), ("POST", "/predictions")]:
        gateway.client.request(method, path)
    gateway.client.post("/predict?debug=1")
    assert gateway.counted() == {(STABLE, STABLE, "200"): 1}


# Shadow step


def test_the_shadow_sees_every_prediction_and_no_feedback(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """Predictions are copied to the canary, whose answers no client sees; feedback is not copied."""
    predictions, feedback = canary.seen("/predict"), canary.seen("/feedback")
    gateway.router.apply(Split(stable.version, canary.version, mirror=True))
    assert {gateway.predict().json()["version"] for _ in range(20)} == {STABLE}
    assert gateway.client.post("/feedback", json={}).json()["version"] == STABLE
    eventually(lambda: canary.seen("/predict") == predictions + 20)
    assert canary.seen("/feedback") == feedback


@pytest.mark.parametrize("given", [{"x-request-id": "caller-7"}, {}], ids=["given", "made by the gateway"])
def test_a_copy_has_the_request_id_of_the_original(
    gateway: Gateway, stable: StandIn, canary: StandIn, given: dict[str, str]
) -> None:
    """The versions' answers are compared by it, and a late label finds both."""
    gateway.router.apply(Split(stable.version, canary.version, mirror=True))
    request_id = gateway.predict(headers=given).headers["x-request-id"]
    assert given.get("x-request-id", request_id) == request_id == stable.last_headers()["x-request-id"]
    eventually(lambda: canary.last_headers().get("x-request-id") == request_id)


def copies_by_code(gateway: Gateway) -> dict[str, float]:
    """The number of copies by the status of the shadow's answer."""
    return {
        labels["envoy_response_code"]: value
        for name, labels, value in gateway.samples()
        if name.removesuffix("_total") == SHADOW_REQUESTS
        and labels.get("envoy_cluster_name") == SHADOW_LABEL
        and "envoy_response_code" in labels
    }


def test_copies_that_the_shadow_rejects_are_counted_by_status(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """A copy answered with 422 is rejected, one with 401 or 429 is not, and none of them is an error."""
    gateway.router.apply(Split(stable.version, canary.version, mirror=True))
    for status in (200, 401, 422, 429):
        canary.behave(status=status)
        assert gateway.predict().status_code == 200
        eventually(lambda status=status: str(status) in copies_by_code(gateway))
    found = gateway.judged(stable=STABLE, canary=CANARY, mirrored=CANARY)
    assert (found["rejected"], found["errors"]) == ((Pair(0, 4), Pair(1, 4)), (Pair(0, 4), Pair(0, 4)))


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [({"status": 500}, 20), ({"delay_s": 9.0}, 20), ({}, 0)],
    ids=["failing", "too slow", "healthy"],
)
def test_failures_of_the_shadow_are_counted_and_reach_no_client(
    settings: GatewaySettings, stable: StandIn, canary: StandIn, behaviour: dict[str, Any], expected: int
) -> None:
    """A bad shadow is visible in series with its tag; clients get stable's answers."""
    with Gateway(replace(settings, request_timeout_s=2.0)) as gateway:
        gateway.router.apply(Split(stable.version, canary.version, mirror=True))
        canary.behave(**behaviour)
        assert {gateway.predict().status_code for _ in range(20)} == {200}

        def errors_and_total() -> tuple[float, float]:
            by_code = copies_by_code(gateway)
            return sum(count for code, count in by_code.items() if code.startswith("5")), sum(by_code.values())

        eventually(lambda: errors_and_total() == (expected, 20))
        assert gateway.counted() == {(STABLE, STABLE, "200"): 20}


def test_copies_still_waiting_when_the_shadow_ends_are_no_evidence(
    settings: GatewaySettings, stable: StandIn, canary: StandIn
) -> None:
    """Envoy gives them up in time, but only copies in a shadow step are read, so the step waits for its first ones."""
    with Gateway(replace(settings, request_timeout_s=2.0)) as gateway:
        gateway.router.apply(Split(stable.version, canary.version, mirror=True))
        before = canary.seen("/predict")
        canary.behave(delay_s=9.0)
        assert {gateway.predict().status_code for _ in range(20)} == {200}
        eventually(lambda: canary.seen("/predict") == before + 20)
        gateway.router.apply(Split(stable.version, canary.version, 1))
        stable.behave(delay_s=9.0)
        assert {gateway.predict().status_code for _ in range(2)} == {504}  # by then each copy has timed out
        eventually(lambda: copies_by_code(gateway) == {"504": 20})
        users = sum(gateway.errors(stable=STABLE, canary=CANARY), Pair(0, 0))
        assert users == Pair(2, 22)


def test_the_shadows_latency_can_be_read(gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
    """Mirrored requests have a separate histogram with the canary's tag."""
    gateway.router.apply(Split(stable.version, canary.version, mirror=True))
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


# Requests from clients


def test_a_gateway_without_versions_is_alive_but_not_ready(gateway: Gateway) -> None:
    """Before the first version, predictions get a 503 problem with a Retry-After header."""
    assert gateway.client.get("/livez").status_code == 200
    assert_problem(gateway.client.get("/readyz"), 503)
    answer = gateway.predict()
    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


def test_without_a_key_only_the_probes_answer(settings: GatewaySettings, stable: StandIn) -> None:
    """A missing or wrong key is a 401 problem; load balancers can still probe."""
    with Gateway(replace(settings, api_keys=(ApiKey("one", "ann"), ApiKey("two", "bob")))) as gateway:
        gateway.router.apply(Split(stable.version))
        assert_problem(gateway.predict(), 401)
        assert_problem(gateway.predict(headers={"x-api-key": "three"}), 401)
        assert {gateway.predict(headers={"x-api-key": key}).status_code for key in ("one", "two")} == {200}
        assert {gateway.client.get(path).status_code for path in ("/livez", "/readyz")} == {200}
        assert "x-api-key" not in stable.last_headers(), "a model must not receive the client's key"


def test_an_unknown_path_is_a_problem(gateway: Gateway, stable: StandIn) -> None:
    """Only the paths of the contract are routed: a model's /metrics is not for clients."""
    gateway.router.apply(Split(stable.version))
    for path in ("/", "/metrics", "/predict/", "/../metrics"):
        assert_problem(gateway.client.get(path), 404)


def test_reserved_request_ids_are_refused(gateway: Gateway, stable: StandIn) -> None:
    """Drift reports leave out preflight requests, so a caller that used such ids would be left out too."""
    gateway.router.apply(Split(stable.version))
    before = stable.seen("/predict")
    for path in ("/predict", "/feedback"):
        answer = gateway.client.post(path, json={}, headers={"x-request-id": "preflight-1"})
        assert_problem(answer, 422)
        assert "begin with preflight-" in answer.json()["detail"]
    assert gateway.predict(headers={"x-request-id": "my-preflight-1"}).is_success
    assert stable.seen("/predict") == before + 1


def test_a_body_over_the_limit_is_a_problem(settings: GatewaySettings, stable: StandIn) -> None:
    """20 kB where 10 kB are allowed give a 413, and the model never sees the body; 9 kB pass."""
    with Gateway(replace(settings, max_body_bytes=10_000)) as gateway:
        gateway.router.apply(Split(stable.version))
        before = stable.seen("/predict")
        assert_problem(gateway.predict(content=b"x" * 20_000, json=None), 413)
        assert stable.seen("/predict") == before
        assert gateway.predict(content=b"x" * 9_000, json=None).json()["bytes"] == 9_000


def test_a_large_body_within_the_limit_reaches_the_version_and_its_shadow(
    gateway: Gateway, stable: StandIn, canary: StandIn
) -> None:
    """A body of 4 MiB arrives complete at both servers."""
    before = canary.seen("/predict")
    gateway.router.apply(Split(stable.version, canary.version, mirror=True))
    assert gateway.predict(content=b"x" * 2**22, json=None).json()["bytes"] == 2**22
    eventually(lambda: canary.seen("/predict") == before + 1)


def raw(gateway: Gateway, request: bytes) -> tuple[str, str, dict[str, Any]]:
    """Send bytes that no HTTP library would. Returns the first line, the content type and the JSON of the answer."""
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=10) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        version = f"HTTP/1.{answer.version % 10}"
        body = answer.read()
        kind = answer.headers["content-type"]
        return f"{version} {answer.status}", kind, json.loads(body) if kind.endswith("json") else {}


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET /predict HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 403, "upgrade"),
        (b"POST /predict HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501, "transfer coding"),
        (b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400, "not valid HTTP"),
        (b"GET /predict HTTP/1.1\r\n\r\n", 400, "not valid HTTP"),
        (b"G@T /predict HTTP/1.1\r\nhost: a\r\n\r\n", 400, "not valid HTTP"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(150)) + b"\r\n", 431, "headers"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "not valid HTTP"),
    ],
)
def test_every_refusal_of_the_gateway_is_a_problem(gateway: Gateway, request_: bytes, status: int, words: str) -> None:
    """This holds for every input; the last one is from a client that speaks TLS."""
    line, kind, problem = raw(gateway, request_)
    assert (line, kind) == (f"HTTP/1.1 {status}", "application/problem+json")
    assert (problem["status"], words in problem["detail"]) == (status, True)


def test_a_client_of_http_1_0_is_served(gateway: Gateway, stable: StandIn) -> None:
    """Old health checks and `ab` use it, often without a host header."""
    gateway.router.apply(Split(stable.version))
    assert raw(gateway, b"GET /livez HTTP/1.0\r\n\r\n")[0] == "HTTP/1.0 200"
    line, _, answer = raw(gateway, b"POST /predict HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}")
    assert (line, answer["bytes"]) == ("HTTP/1.0 200", 2)


def test_headers_with_underscores_are_dropped_or_passed_on(settings: GatewaySettings, stable: StandIn) -> None:
    """The request is served in both cases."""
    for underscores, arrived in (("drop", None), ("accept", "7")):
        with Gateway(replace(settings, underscore_headers=underscores)) as gateway:
            gateway.router.apply(Split(stable.version))
            assert gateway.predict(headers={"user_id": "7"}).status_code == 200
            assert stable.last_headers().get("user_id") == arrived


def test_a_cors_preflight_request_needs_no_key(settings: GatewaySettings, stable: StandIn) -> None:
    """It reaches no version and is not counted as a prediction; an origin that is not listed is not allowed."""
    ask = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    refused = ask | {"origin": "https://shop.example.evil"}
    with Gateway(replace(settings, api_keys=(ApiKey("k"),), cors_origins=("https://shop.example",))) as gateway:
        gateway.router.apply(Split(stable.version))
        before = stable.seen("/predict")
        for path in ("/predict", "/feedback", "/docs.json", "/readyz"):
            answer = gateway.client.options(path, headers=ask)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
            assert answer.headers["access-control-allow-methods"] == "GET, POST"
            assert "access-control-allow-credentials" not in answer.headers
            assert "access-control-allow-origin" not in gateway.client.options(path, headers=refused).headers
        assert (stable.seen("/predict"), gateway.counted()) == (before, {})
    with Gateway(replace(settings, cors_origins=("*",))) as gateway:
        gateway.router.apply(Split(stable.version))
        assert gateway.predict(headers={"origin": "https://any.example"}).headers["access-control-allow-origin"]


def test_oversized_headers_are_a_problem(gateway: Gateway) -> None:
    """Headers have a limit too."""
    assert_problem(gateway.predict(headers={"x-big": "x" * 20_000}), 431)


def test_more_requests_than_the_rate_limit_are_a_problem(settings: GatewaySettings, stable: StandIn) -> None:
    """The limit is for all clients together; refused clients get a Retry-After header."""
    with Gateway(replace(settings, max_requests_per_s=1)) as gateway:
        gateway.router.apply(Split(stable.version))
        answers = [gateway.predict() for _ in range(20)]
        assert {gateway.client.get(path).status_code for path in ("/livez", "/readyz")} == {200}
        counted = gateway.counted()
    assert set(counted) <= {(STABLE, STABLE, "200"), ("", STABLE, "429")}
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    for answer in refused:
        assert_problem(answer, 429)
        assert answer.headers["retry-after"] == "1"


def test_a_request_id_is_kept_or_created(gateway: Gateway, stable: StandIn) -> None:
    """The client's id, or a new one, reaches the model and is returned."""
    gateway.router.apply(Split(stable.version))
    kept = gateway.predict(headers={"x-request-id": "mine-1"})
    assert (kept.headers["x-request-id"], stable.last_headers()["x-request-id"]) == ("mine-1", "mine-1")
    made = gateway.predict()
    assert made.headers["x-request-id"] == stable.last_headers()["x-request-id"] != ""


def test_answers_do_not_reveal_what_runs_behind_the_gateway(gateway: Gateway, stable: StandIn) -> None:
    """Neither the model server's name nor Envoy's timing headers reach a client."""
    gateway.router.apply(Split(stable.version))
    headers = gateway.predict().headers
    assert headers["server"] == "kanaria"
    assert not [name for name in headers if name.startswith("x-envoy")]


def test_a_client_cannot_change_timeouts_or_retries(gateway: Gateway, stable: StandIn) -> None:
    """Envoy's control headers from clients are ignored."""
    gateway.router.apply(Split(stable.version))
    stable.behave(delay_s=0.2)
    assert gateway.predict(headers={"x-envoy-upstream-rq-timeout-ms": "1"}).status_code == 200


def test_metrics_are_on_loopback_only(settings: GatewaySettings) -> None:
    """A gateway that is open to the network serves its metrics page only to this machine."""
    with Gateway(replace(settings, host="0.0.0.0")):  # noqa: S104 - the case under test
        elsewhere = "127.0.0.2"  # reaches listeners on every address, but not those on 127.0.0.1 alone
        socket.create_connection((elsewhere, settings.port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((elsewhere, settings.stats_port)).close()


def test_the_bootstrap_is_valid_without_deprecated_fields(settings: GatewaySettings) -> None:
    """Envoy starts without a warning about deprecated or unknown fields."""
    with Gateway(replace(settings, api_keys=(ApiKey("secret"),), max_requests_per_s=10)):
        assert json.loads(settings.bootstrap_path.read_text())["node"]["id"] == "kanaria"
        log = (settings.directory / "envoy.log").read_text()
    assert "eprecated" not in log
