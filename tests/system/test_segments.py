"""Requests segmented by a header on a real Envoy: what is counted, what callers can send, and what is found."""

import socket
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kanaria.stack.ports import free_port
from rollout.control import commands as c
from rollout.explain.timeline import timeline
from rollout.explain.why import why
from rollout.judge import Pair
from rollout.ledger import events as e
from rollout.routers.envoy.metrics import SEGMENT_REQUESTS, EnvoyMetrics
from rollout.routers.envoy.segment_log import GatewaySegments
from rollout.routers.envoy.settings import ApiKey, GatewaySettings
from rollout.routers.router import Split
from rollout.signals.plan import Signals
from rollout.signals.segments import LONGEST_SEGMENT, MOST_SEGMENTS, Asked, Segments
from rollout.sources.scrape import ScrapeSource
from rollout.spec import Guards, RolloutSpec, SegmentsBy
from tests.support.gateway_rig import Gateway, StandIn, eventually
from tests.support.release_rig import ReleaseRig

STABLE, CANARY = "digits:v1", "digits:v2"
# Every kind of character that a segment may have, and the maximum number and length.
NAMES = ("acme", "b.c-d_e@f:g/h+1", *(f"{n:x<{LONGEST_SEGMENT}}" for n in range(MOST_SEGMENTS - 2)))
SPEC = RolloutSpec(
    steps=(50, 100),
    window=0.5,
    step_deadline=3600,
    segments=SegmentsBy(header="x-user-id"),
    signals=Signals().only("errors", "segment"),
    guards=Guards(error_ratio=0.99),
)


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[StandIn, StandIn]]:
    with StandIn(STABLE) as stable, StandIn(CANARY) as canary:
        yield stable, canary


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = GatewaySettings(directory=folder, port=free_port(), stats_port=free_port(), try_timeout_s=1.0)
    with Gateway(settings) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway, models: tuple[StandIn, StandIn]) -> Gateway:
    for model in models:
        model.behave()
    GatewaySegments(running.settings.segments_path).clear()
    return running


@pytest.fixture
def rig(gateway: Gateway, models: tuple[StandIn, StandIn], tmp_path: Path) -> Iterator[ReleaseRig]:
    made = ReleaseRig(gateway, tmp_path / "ledger.db", models)
    yield made
    made.close()


def totals(gateway: Gateway) -> Counter[str]:
    """Requests by segment of both versions, as the gateway shows them; an empty name stands for all others."""
    found: Counter[str] = Counter()
    for name, labels, value in gateway.samples():
        if name == SEGMENT_REQUESTS:
            found[labels["segment"]] += int(value)
    return found


def send(gateway: Gateway, *headers: bytes) -> bytes:
    """Send a prediction as bytes; return the status line."""
    body = b'{"features": [[0.0]]}'
    lines = (b"POST /predict HTTP/1.1", b"host: x", b"connection: close", b"content-length: %d" % len(body), *headers)
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=60) as client:
        client.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        return client.makefile("rb").readline()


def test_only_known_segments_become_series(gateway: Gateway, models: tuple[StandIn, StandIn]) -> None:
    """There are at most two more series than segments. Case matters in a header's value, not in its name."""
    gateway.router.apply(Split(models[0].version, models[1].version, 50, segments=Segments("x-tenant", NAMES)))
    before = totals(gateway)
    sent: dict[str, list[tuple[bytes, ...]]] = {
        "acme": [(b"x-tenant: acme",), (b"X-TENANT:   acme  ",)],
        **{name: [(b"x-tenant: " + name.encode(),)] for name in NAMES[1:]},
        "absent": [(), (b"x_tenant: acme",), (b"x-tenants: acme",)],
        "": [
            (b"x-tenant:",),
            (b"x-tenant: ACME",),
            (b"x-tenant: acme2",),
            (b"x-tenant: 2acme",),
            (b"x-tenant: acme", b"x-tenant: acme"),
            (b"x-tenant: acme", b"x-tenant: beta"),
            (b"x-tenant: b.c-d_e@f:g/h+11",),
            (b"x-tenant: bXc-d_e@f:g/h+1",),
            (b"x-tenant: " + b"a" * 10_000,),
            (b"x-tenant: \xff\xfe acme",),
            (b"x-tenant: t\xc3\xa4st",),
            (b'x-tenant: acme"} 1',),
            (b"x-tenant: a\tb",),
            *((b"x-tenant: %d" % n,) for n in range(300)),
        ],
    }
    for requests in sent.values():
        for headers in requests:
            assert send(gateway, *headers).startswith(b"HTTP/1.1 200"), headers
    for control in (b"\x00", b"\x01", b"\x7f"):
        assert send(gateway, b"x-tenant: ac%bme" % control).startswith(b"HTTP/1.1 400")
    wanted = Counter({segment: len(requests) for segment, requests in sent.items()})
    eventually(lambda: totals(gateway) - before == wanted)
    assert totals(gateway).keys() == wanted.keys()


def test_a_segment_is_counted_for_the_chosen_version(gateway: Gateway, models: tuple[StandIn, StandIn]) -> None:
    """Errors and rejections count, and also answers that stable gave because the canary was too slow."""
    stable, canary = models
    split = Split(stable.version, canary.version, 100, segments=Segments("x-tenant", ("of-canary",)))
    gateway.router.apply(split)

    def ask(times: int) -> None:
        for _ in range(times):
            gateway.predict(headers={"x-tenant": "of-canary"})

    ask(4)
    canary.behave(status=500)
    ask(3)
    canary.behave(status=422)
    ask(2)
    canary.behave(delay_s=5.0)
    ask(1)

    def counted() -> dict[str, Pair]:
        with ScrapeSource(EnvoyMetrics.of(gateway.settings)) as source:
            found = source.read(()).counters
        return {tag: pair for (_, tag, signal), pair in found.items() if signal == "segment:of-canary"}

    eventually(lambda: counted() == {CANARY: Pair(6, 10)})


def test_without_a_plan_nothing_is_segmented_or_recorded(gateway: Gateway, models: tuple[StandIn, StandIn]) -> None:
    """Values that are already segments or listed are not recorded either."""
    for segments in (None, Segments("x-tenant", ("a",)), Segments("x-tenant", ("a",), is_open=True)):
        gateway.router.apply(Split(models[0].version, models[1].version, 50, segments=segments))
        before = totals(gateway)
        gateway.predict(headers={"x-tenant": "a"})
        gateway.predict(headers={"x-tenant": "b" if segments is None or not segments.is_open else "a"})
        gateway.predict()
        eventually(lambda: totals(gateway) - before or segments is None)  # noqa: B023 - called at once
    assert gateway.settings.segments_path.read_bytes() == b""
    assert gateway.settings.segments_path.stat().st_mode & 0o777 == 0o600


def test_the_name_of_a_callers_key_may_be_a_segment(models: tuple[StandIn, StandIn], tmp_path: Path) -> None:
    """The gateway's name for the key is used, and nothing that the caller claims."""
    keys = (ApiKey("one", "shop"), ApiKey("two", "school"))
    settings = GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port(), api_keys=keys)
    with Gateway(settings) as gateway:
        segments = Segments("x-kanaria-caller", ("shop",))
        gateway.router.apply(Split(models[0].version, models[1].version, 50, segments=segments))
        for key in ("one", "two", "wrong"):
            gateway.predict(headers={"x-api-key": key, "x-kanaria-caller": "shop"})
        eventually(lambda: totals(gateway) == {"shop": 1, "": 1})


def test_the_caller_is_recorded_with_the_value(models: tuple[StandIn, StandIn], tmp_path: Path) -> None:
    """The gateway names the caller, whatever the caller claims; this bounds what one caller can use up."""
    keys = (ApiKey("one", "shop"),)
    settings = GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port(), api_keys=keys)
    with Gateway(settings) as gateway:
        gateway.router.apply(Split(models[0].version, segments=Segments("x-tenant", is_open=True)))
        headers = {"x-api-key": "one", "x-tenant": "acme", "x-kanaria-caller": "school"}
        eventually(lambda: gateway.predict(headers=headers).is_success)
        eventually(lambda: b"acme" in settings.segments_path.read_bytes())
    assert GatewaySegments(settings.segments_path).read(STABLE)[0] == Asked("acme", "shop")


def test_values_are_read_from_requests_that_stable_answered_well(
    gateway: Gateway, models: tuple[StandIn, StandIn]
) -> None:
    """Refused requests and those of the canary are ignored; a long value is cut and becomes no segment."""
    stable, canary = models
    log = GatewaySegments(gateway.settings.segments_path)
    gateway.router.apply(Split(stable.version, canary.version, 0, segments=Segments("x-tenant", ("a",), is_open=True)))
    for value in ("a", "b", "b", "c" * 100, 'd"\\'):
        gateway.predict(headers={"x-tenant": value, "x-kanaria-caller": "forged"})
    for status in (404, 500):
        stable.behave(status=status)
        gateway.predict(headers={"x-tenant": "refused"})
    gateway.router.apply(Split(stable.version, canary.version, 100, segments=Segments("x-tenant", is_open=True)))
    gateway.predict(headers={"x-tenant": "of-canary"})
    eventually(lambda: b"of-canary" in gateway.settings.segments_path.read_bytes())
    assert log.read(STABLE) == [Asked("b"), Asked("b"), Asked("c" * 65), Asked('d"\\')]
    assert log.read(STABLE) == []


def test_a_version_that_breaks_one_tenant_of_ten_is_rolled_back(rig: ReleaseRig) -> None:
    """The tenants were not listed: a controller that was killed meanwhile found them in stable's requests."""
    rig.release(SPEC)
    numbers = count()

    def found() -> set[str]:
        return {name for event in rig.events() if isinstance(event, e.SegmentsFound) for name in event.names}

    def ask_for_all() -> None:
        for n in range(10):
            rig.gateway.predict(headers={"x-user-id": f"tenant-{n}"})
        rig.gateway.predict(headers={"x-user-id": f"once-{next(numbers)}"})

    def have_all() -> bool:
        ask_for_all()
        return len(found()) == 10

    rig.until(have_all)
    rig.restart()
    rig.models[1].behave(fails_user="tenant-3")

    def is_decided() -> bool:
        ask_for_all()
        return rig.controller.snapshot.deployment.active is None

    rig.until(is_decided)
    assert found() == {f"tenant-{n}" for n in range(10)}
    release = timeline(rig.controller._ledger.of_release(1))
    assert release.state.outcome == "rolled_back"
    assert release.end is not None
    assert "bad answers were in segment `tenant-3`" in release.end.reason
    explained = why(release)
    assert "bad answers were in segment `tenant-3`" in explained.verdict
    assert "also compared by segment, the value of the header `x-user-id`: tenant-" in str(explained.topics)


def test_ten_thousand_values_give_at_most_twenty_segments(rig: ReleaseRig) -> None:
    """The first values that stable answers often become segments; after twenty the search ends."""
    rig.release(SPEC)
    path = rig.gateway.settings.segments_path
    line = '{{"version":"digits:v1","value":"caller-{}"}}\n'
    with path.open("a") as log:
        log.writelines(line.format(n) for n in range(10_000))
        log.writelines(line.format(n % 30) for n in range(600))

    def segments() -> Segments | None:
        release = rig.controller.snapshot.deployment.active
        return release.segments if release else None

    rig.until(lambda: (now := segments()) and not now.is_open)
    now = segments()
    assert now is not None
    assert len(now.names) == MOST_SEGMENTS
    assert {int(name.removeprefix("caller-")) for name in now.names} <= set(range(30))
    rig.gateway.predict(headers={"x-user-id": "caller-9999"})
    rig.until(lambda: not path.stat().st_size)
    rig.controller.execute(c.Abort("ann"))
