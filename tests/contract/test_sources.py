"""The contract of every metric source, tested with real HTTP servers and a real Prometheus."""

import itertools
import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from contract.answer_types import class_name
from contract.login import Login
from kanaria.stack.ports import free_port
from kanaria.stack.web_config import web_config
from monitoring.errors import PrometheusUnreachable
from monitoring.prometheus.api import PrometheusApi, QueryRefused
from monitoring.prometheus.configuration import (
    JOBS,
    PrometheusSettings,
    Target,
    file_sd,
    prometheus_command,
    prometheus_config,
)
from monitoring.prometheus.user import USER
from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.judge.types import Pair
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.signals.counters import Reading, merge, windows
from rollout.signals.custom import CustomSignal, OwnCounter
from rollout.signals.options import CONFIDENCE_BOUNDS, LATENCY_BOUNDS_MS, Latency
from rollout.signals.plan import Signals
from rollout.sources.failover import FailoverSource
from rollout.sources.firing import FiringAlerts
from rollout.sources.prometheus import PrometheusSource
from rollout.sources.raw_samples import RawSamples
from rollout.sources.scrape import ScrapeSource
from rollout.sources.source import MetricSource
from tests.support.running_server import running_server

STABLE, CANARY = "digits:v1", "digits:v2"
SELECTION = Signals({"latency": Latency(slower_than_ms=(100,))}).selection()
NOTHING = Pair(0, 0)
SCRAPE_INTERVAL_S = 0.25
DEADLINE_S = 120.0  # Prometheus takes up to 5 s to find its targets


class Exporter:
    """A real metrics page that keeps its port when it simulates a new process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.is_serving = False
        self.replace()

    def replace(self) -> None:
        """Simulate a new process: every counter starts from 0."""
        self.registry = CollectorRegistry()

    def start(self) -> None:
        self._server, self._thread = start_http_server(self.port, "127.0.0.1", self.registry)
        self.is_serving = True

    def stop(self) -> None:
        if self.is_serving:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self.is_serving = False


class Gateway(Exporter):
    """Exports Envoy's metrics, with its names and labels."""

    def replace(self) -> None:
        super().replace()
        which = ["version", "routed"]
        self._requests = Counter("envoy_kanaria_predict", "-", [*which, "code"], registry=self.registry)
        self._durations = Histogram(
            "envoy_kanaria_predict_duration_ms", "-", which, buckets=LATENCY_BOUNDS_MS, registry=self.registry
        )
        copy = ["envoy_cluster_name"]
        self._copies = Gauge("envoy_cluster_upstream_rq", "-", [*copy, "envoy_response_code"], registry=self.registry)
        self._copy_durations = Histogram(
            "envoy_cluster_upstream_rq_time", "-", copy, buckets=LATENCY_BOUNDS_MS, registry=self.registry
        )

    def answer(self, version: str, code: int = 200, *, ms: float = 20, routed: str | None = None) -> None:
        self._requests.labels(version, routed or version, str(code)).inc()
        self._durations.labels(version, routed or version).observe(ms)

    def copy(self, version: str, code: int = 200, *, ms: float = 20) -> None:
        cluster = f"shadow%2F{version.replace(':', '%3A')}"
        self._copies.labels(cluster, str(code)).inc()
        self._copy_durations.labels(cluster).observe(ms)


class Version(Exporter):
    """Exports the service's metrics, with its names and labels."""

    def replace(self) -> None:
        super().replace()
        self._predictions = Counter("kanaria_predictions", "-", ["version", "label"], registry=self.registry)
        self._confidence = Histogram(
            "kanaria_confidence", "-", ["version"], buckets=(*CONFIDENCE_BOUNDS, 1.0), registry=self.registry
        )
        self._feedback = Counter("kanaria_feedback", "-", ["version", "outcome"], registry=self.registry)
        self._labels = Counter("kanaria_labels", "-", ["version", "age_s", "outcome", "caller"], registry=self.registry)
        self._disagreement = Counter("kanaria_disagreement", "-", ["version", "outcome"], registry=self.registry)
        self._chat = Counter("chat:answers", "-", ["outcome", "user"], registry=self.registry)
        self._chat_seconds = Histogram("chat_seconds", "-", buckets=(0.5, 1, 2), registry=self.registry)

    def predict(self, version: str, label: str, confidence: float = 0.97) -> None:
        self._predictions.labels(version, label).inc()
        self._confidence.labels(version).observe(confidence)

    def feedback(self, version: str, outcome: str) -> None:
        self._feedback.labels(version, outcome).inc()

    def label(self, version: str, age_s: str, outcome: str, caller: str = "") -> None:
        self._labels.labels(version, age_s, outcome, caller).inc()

    def chat(self, outcome: str, *, user: str = "ann", seconds: float = 0.1) -> None:
        """Count as a user's own service does, which does not know about versions."""
        self._chat.labels(outcome, user).inc()
        self._chat_seconds.observe(seconds)

    def compare(self, version: str, outcome: str) -> None:
        self._disagreement.labels(version, outcome).inc()


@dataclass(frozen=True)
class Stack:
    """The processes whose metrics are read."""

    gateway: Gateway
    stable: Version
    canary: Version
    observer: Version  # counts for versions that do not

    @property
    def backends(self) -> tuple[Backend, ...]:
        return (Backend(STABLE, "127.0.0.1", self.stable.port), Backend(CANARY, "127.0.0.1", self.canary.port))


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """The ports of gateway, stable, canary and observer; the same in all tests: Prometheus finds them only once."""
    return [free_port() for _ in range(4)]


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Login:
    """The login that this Prometheus requires."""
    path = tmp_path_factory.mktemp("login") / "login"
    path.write_text(f"{USER}:secret")
    return Login(path)


@pytest.fixture(scope="module")
def prometheus(
    ports: list[int], login: Login, tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]
) -> Iterator[str]:
    """The address of a Prometheus that scrapes those ports and requires a login, as the stack's does."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "web.yml").write_text(web_config("secret"))
    gateway, *versions, observer = (Target(f"127.0.0.1:{port}") for port in ports)
    for job, targets in zip(JOBS, ([gateway], [], versions, [observer]), strict=True):
        (folder / f"{job}.json").write_text(file_sd(targets))
    config = folder / "prometheus.yml"
    config.write_text(prometheus_config(PrometheusSettings(targets_dir=folder, scrape_interval_s=SCRAPE_INTERVAL_S)))
    address = f"127.0.0.1:{free_port()}"
    command = prometheus_command(
        require_program("prometheus"),
        config=config,
        data_dir=folder / "data",
        listen=address,
        web_config=folder / "web.yml",
    )
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        yield f"http://{address}"
        process.terminate()


@pytest.fixture
def stack(ports: list[int]) -> Iterator[Stack]:
    stack = Stack(Gateway(ports[0]), *(Version(port) for port in ports[1:]))
    processes = (stack.gateway, stack.stable, stack.canary, stack.observer)
    for process in processes:
        process.start()
    yield stack
    for process in processes:
        process.stop()


AnySource = ScrapeSource | PrometheusSource | FailoverSource


@pytest.fixture(params=["scrape", "prometheus", "failover", "failover without its store"])
def new_source(request: pytest.FixtureRequest, stack: Stack, login: Login) -> Callable[[], AnySource]:
    """A function that creates a source which has read nothing yet."""
    gateway, observer = EnvoyMetrics(stack.gateway.address), stack.observer.address
    if request.param == "scrape":
        return lambda: ScrapeSource(gateway, observer=observer)
    if request.param == "failover without its store":
        nobody = f"http://127.0.0.1:{free_port()}"
        return lambda: FailoverSource(
            PrometheusSource(nobody, gateway, observer=observer), ScrapeSource(gateway, observer=observer)
        )
    url = request.getfixturevalue("prometheus")
    if request.param == "failover":
        return lambda: FailoverSource(
            PrometheusSource(url, gateway, observer=observer, max_age_s=5, login=login),
            ScrapeSource(gateway, observer=observer),
        )
    return lambda: PrometheusSource(url, gateway, observer=observer, max_age_s=5, login=login)


@pytest.fixture
def source(new_source: Callable[[], AnySource]) -> Iterator[MetricSource]:
    with new_source() as made:
        yield made


def read_until(read: Callable[[], Reading], is_right: Callable[[Reading], bool]) -> Reading:
    """Read until Prometheus has scraped the change."""
    deadline_s = time.monotonic() + DEADLINE_S
    last: object = None
    while time.monotonic() < deadline_s:
        try:
            last = reading = read()
            if is_right(reading):
                return reading
        except SourceUnreachable as error:
            last = error
        time.sleep(SCRAPE_INTERVAL_S / 2)
    raise AssertionError(f"not seen in {DEADLINE_S:g} s; last: {last}")


def refused(read: Callable[[], Reading]) -> SourceUnreachable:
    """Read until the source refuses."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        try:
            read()
        except SourceUnreachable as error:
            return error
        time.sleep(SCRAPE_INTERVAL_S / 2)
    raise AssertionError(f"still read after {DEADLINE_S:g} s")


def events(previous: Reading | None, current: Reading, *, has_pairs: bool = False) -> dict[str, tuple[Pair, Pair]]:
    """New events of stable and of the canary by signal; without `previous`, all events."""
    since = previous or Reading(at_s=0.0, counters={})
    found = SELECTION.of(windows(since, current, stable=STABLE, canary=CANARY, has_pairs=has_pairs))
    return {window.signal: (window.stable, window.canary) for window in found}


def test_a_users_own_counters_belong_to_the_version_that_exports_them(source: MetricSource, stack: Stack) -> None:
    """Their series name no version; labels are matched, and the series of a thousand users are summed."""
    own = {
        "of a label": CustomSignal(bad='chat:answers_total{outcome=~"refus.*"}', of="chat:answers_total"),
        "above": CustomSignal(histogram="chat_seconds", above=1),
        "mean": CustomSignal(histogram="chat_seconds", between=(0, 4), worse="higher"),
        "nowhere": CustomSignal(bad="nowhere_total", of="nothing_total"),
    }
    counters = tuple(options.counter for options in own.values())
    for number in range(1000):
        stack.canary.chat("refused" if number % 4 == 0 else "answered", user=f"user {number}", seconds=1.5)
    stack.stable.chat("answered")
    where = (stack.stable.address, STABLE), (stack.canary.address, CANARY)
    expected = {
        (*where[0], counters[0].name): Pair(0, 1),
        (*where[1], counters[0].name): Pair(250, 1000),
        (*where[0], counters[1].name): Pair(0, 1),
        (*where[1], counters[1].name): Pair(1000, 1000),
        (*where[0], f"{counters[2].name}:sum"): Pair(62, 1000),
        (*where[1], f"{counters[2].name}:sum"): Pair(375_000, 1_000_000),
    }

    def read() -> Reading:
        return source.read(stack.backends, own=counters)

    found = read_until(read, lambda reading: expected.items() <= dict(reading.counters).items())
    assert not any(signal == counters[3].name for _, _, signal in found.counters)
    assert all(not signal.startswith("custom.") for _, _, signal in source.read(stack.backends).counters)


def test_a_reading_holds_every_signal_of_every_version(source: MetricSource, stack: Stack) -> None:
    """Errors and latency come from the gateway, and everything else from the version itself."""
    for code, ms in ((200, 20), (200, 300), (503, 5), (422, 5), (401, 5)):
        stack.gateway.answer(CANARY, code, ms=ms)
    stack.gateway.answer(STABLE, routed=CANARY)
    stack.gateway.answer(STABLE)
    stack.canary.predict(CANARY, "7", confidence=0.3)
    stack.canary.predict(CANARY, "1")
    stack.canary.feedback(CANARY, "wrong")
    stack.stable.feedback(CANARY, "wrong")  # ignored: a page may count only for its own version
    expected = {
        "errors": (Pair(0, 1), Pair(1, 5)),
        "rejected": (Pair(0, 1), Pair(1, 5)),
        "latency:100": (Pair(0, 1), Pair(1, 5)),
        "class:7": (NOTHING, Pair(1, 2)),
        "class:1": (NOTHING, Pair(1, 2)),
        "low_confidence": (NOTHING, Pair(1, 2)),
        "wrong_label": (NOTHING, Pair(1, 1)),
    }
    read_until(lambda: source.read(stack.backends), lambda reading: events(None, reading) == expected)


def test_versions_without_a_metrics_page_do_not_prevent_a_reading(source: MetricSource, stack: Stack) -> None:
    """Only the gateway counts their requests; nothing listens on their ports."""
    backends = tuple(Backend(tag, "127.0.0.1", free_port(), has_metrics=False) for tag in (STABLE, CANARY))
    stack.gateway.answer(CANARY, 503)
    stack.gateway.answer(STABLE)

    def is_right(reading: Reading) -> bool:
        return events(None, reading).get("errors") == (Pair(0, 1), Pair(1, 1))

    read_until(lambda: source.read(backends), is_right)


def test_labels_are_read_by_the_age_of_their_answers(source: MetricSource, stack: Stack) -> None:
    """Of three labels in time, one is wrong and one right at ten minutes, and one waits; a fourth came too late."""
    for outcome in ("came", "came", "came", "late"):
        stack.canary.label(CANARY, "600", outcome)
    stack.canary.label(CANARY, "600", "wrong", "clinic")
    stack.canary.label(CANARY, "600", "correct", "bank")
    stack.canary.label(CANARY, "3600", "came")
    expected = {
        (stack.canary.address, CANARY, "labels_of_age:600"): Pair(1, 2),
        (stack.canary.address, CANARY, "labels_of_age_by_caller:600,clinic"): Pair(1, 1),
        (stack.canary.address, CANARY, "labels_of_age_by_caller:600,bank"): Pair(0, 1),
        (stack.canary.address, CANARY, 'labels_of_age_by_caller:600,""'): Pair(0, 0),
        (stack.canary.address, CANARY, 'labels_of_age_by_caller:3600,""'): Pair(0, 0),
        (stack.canary.address, CANARY, "labels_came:600"): Pair(1, 4),
        (stack.canary.address, CANARY, "labels_of_age:3600"): Pair(0, 0),
        (stack.canary.address, CANARY, "labels_came:3600"): Pair(0, 1),
    }
    read_until(lambda: source.read(stack.backends), lambda reading: dict(reading.counters) == expected)


def test_labels_with_any_text_are_read_by_every_source(source: MetricSource, stack: Stack) -> None:
    """Prometheus drops an empty label and some parsers split at U+2028: neither a class nor the reading is lost."""
    labels = ["", "a\u2028b", "a\nb", "a\x0bb", "a\x85b", "\\", '"', "can't tell", "{x=1} # 5", "50%s", " ", "猫"]
    for label in labels:
        stack.canary.predict(CANARY, label)
    expected = {f"class:{class_name(label)}": (NOTHING, Pair(1, len(labels))) for label in labels}
    expected["low_confidence"] = (NOTHING, Pair(0, len(labels)))
    read_until(lambda: source.read(stack.backends), lambda reading: events(None, reading) == expected)


def test_a_mirrored_version_is_judged_by_copied_requests(source: MetricSource, stack: Stack) -> None:
    """One of three copies failed and was slow, and one was rejected; one of three compared rows differs."""
    stack.gateway.copy(CANARY)
    stack.gateway.copy(CANARY, 504, ms=2000)
    stack.gateway.copy(CANARY, 400)
    for outcome in ("same", "different", "same"):
        stack.stable.compare(STABLE, outcome)
        stack.canary.compare(CANARY, outcome)
    expected = {
        "errors": (NOTHING, Pair(1, 3)),
        "rejected": (NOTHING, Pair(1, 3)),
        "latency:100": (NOTHING, Pair(1, 3)),
        "disagreement": (Pair(0, 3), Pair(1, 3)),
    }
    read_until(
        lambda: source.read(stack.backends, mirrored=CANARY),
        lambda reading: events(None, reading, has_pairs=True) == expected,
    )


def test_the_observers_counts_are_read_but_not_required(source: MetricSource, stack: Stack) -> None:
    """It counts for versions that do not. While it is unreachable everything else is read, and this is reported."""
    away = "the observer gives no counts: answers are not compared"
    stack.observer.compare(CANARY, "different")
    stack.gateway.copy(CANARY)
    counted = (stack.observer.address, CANARY, "disagreement")
    read_until(lambda: source.read(stack.backends), lambda reading: reading.counters.get(counted) == Pair(1, 1))
    assert source.trouble is None or away not in source.trouble
    stack.observer.stop()
    reading = read_until(lambda: source.read(stack.backends), lambda reading: counted not in reading.counters)
    assert (stack.gateway.address, CANARY, "errors") not in reading.counters  # a copy is not a user's request
    assert source.trouble == away
    mirrored = source.read(stack.backends, mirrored=CANARY)
    assert mirrored.counters[stack.gateway.address + "/shadow", CANARY, "errors"] == Pair(0, 1)


def test_a_first_reading_without_the_observer_succeeds(new_source: Callable[[], AnySource], stack: Stack) -> None:
    stack.observer.stop()
    stack.gateway.answer(STABLE)
    with new_source() as source:
        read_until(lambda: source.read(stack.backends), lambda reading: bool(reading.counters))


def test_reading_again_without_new_events_gives_no_window(source: MetricSource, stack: Stack) -> None:
    """Unchanged counters are not new evidence."""
    stack.gateway.answer(STABLE)
    first = read_until(lambda: source.read(stack.backends), lambda reading: bool(reading.counters))
    assert events(first, source.read(stack.backends)) == {}


def later_than(at_s: float, reading: Reading) -> bool:
    return reading.at_s > at_s


def test_a_reading_includes_everything_counted_before_its_time(source: MetricSource, stack: Stack) -> None:
    """The time decides at which weight a request counts; pages read one by one are as old as the oldest."""
    for answers in range(1, 9):
        stack.gateway.answer(STABLE)
        stack.canary.predict(CANARY, "7")
        is_later = partial(later_than, time.time())
        seen = events(None, read_until(lambda: source.read(stack.backends), is_later))
        assert (seen["errors"][0].total, seen["class:7"][1].total) == (answers, answers)


def test_counting_continues_after_a_version_page_was_missing(source: MetricSource, stack: Stack) -> None:
    """The page is missing for a while and the counters go on: nothing is counted twice or lost."""
    key = (stack.canary.address, CANARY, "class:7")
    for _ in range(10):
        stack.canary.predict(CANARY, "7")
    first = read_until(lambda: source.read(stack.backends), lambda reading: key in reading.counters)
    stack.canary.stop()
    gone = read_until(lambda: source.read(stack.backends), lambda reading: key not in reading.counters)
    stack.canary.predict(CANARY, "7")
    stack.canary.start()
    back = read_until(lambda: source.read(stack.backends), lambda reading: key in reading.counters)
    away = merge(first, gone)
    assert events(first, gone) == {}
    assert events(away, back) == {"class:7": (NOTHING, Pair(1, 1)), "low_confidence": (NOTHING, Pair(0, 1))}


def test_a_restarted_version_is_counted_from_zero(source: MetricSource, stack: Stack) -> None:
    """Ten predictions before the crash and two after it give two new ones."""
    key = (stack.canary.address, CANARY, "class:7")
    for _ in range(10):
        stack.canary.predict(CANARY, "7")
    first = read_until(lambda: source.read(stack.backends), lambda reading: key in reading.counters)
    stack.canary.stop()
    stack.canary.replace()
    for _ in range(2):
        stack.canary.predict(CANARY, "7")
    stack.canary.start()
    second = read_until(lambda: source.read(stack.backends), lambda reading: reading.counters.get(key) == Pair(2, 2))
    assert events(first, second)["class:7"] == (NOTHING, Pair(2, 2))


def test_without_the_gateway_there_is_no_reading(source: MetricSource, stack: Stack) -> None:
    """The versions alone do not show errors, so nothing can be concluded."""
    read_until(lambda: source.read(stack.backends), lambda reading: not reading.counters)
    stack.gateway.stop()
    assert stack.gateway.address in refused(lambda: source.read(stack.backends)).saw


def test_without_any_version_there_is_no_reading(source: MetricSource, stack: Stack) -> None:
    """If one version is missing, that version is down; if all are missing, their metrics are."""
    read_until(lambda: source.read(stack.backends), lambda reading: not reading.counters)
    stack.stable.stop()
    stack.canary.stop()
    assert stack.stable.address in refused(lambda: source.read(stack.backends)).saw


def test_the_first_reading_must_be_complete(new_source: Callable[[], AnySource], stack: Stack) -> None:
    """If a version were missing in it, its whole history would later look new."""

    def first() -> Reading:
        with new_source() as source:
            return source.read(stack.backends)

    stack.stable.stop()
    assert stack.stable.address in refused(first).saw


class Switched(PrometheusSource):
    """A Prometheus that a test can make unreachable."""

    is_there = True

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        if not self.is_there:
            raise SourceUnreachable("Prometheus gives no answer", saw="connection refused", do="wait")
        return super().read(backends, mirrored=mirrored, own=own)


def test_a_request_is_counted_once_across_failovers(prometheus: str, stack: Stack, login: Login) -> None:
    """Prometheus goes and returns, often with samples older than the last direct reading."""
    gateway = EnvoyMetrics(stack.gateway.address)
    store = Switched(prometheus, gateway, max_age_s=5, login=login)
    steady = itertools.count(step=10)  # so the store is asked again at each reading
    seen, troubles, sent, switched = Pair(0, 0), [], 0, 0
    with FailoverSource(
        store, ScrapeSource(gateway), silent_s=math.inf, steady_clock=lambda: float(next(steady))
    ) as source:
        known = read_until(lambda: source.read(stack.backends), lambda reading: not reading.counters)

        def read_on() -> Reading:
            nonlocal known, seen
            reading = source.read(stack.backends)
            if reading.at_s > known.at_s:
                seen += events(known, reading).get("errors", (NOTHING, NOTHING))[1]
                known = merge(known, reading)
            troubles.append(source.trouble is not None)
            return reading

        read_until(read_on, lambda _: source.trouble is None)
        for turn in range(6):
            store.is_there = turn % 2 == 1
            for number in range(40):
                stack.gateway.answer(CANARY, 503 if number % 4 == 0 else 200)
                sent += 1
                if number % 10 == 0:
                    read_on()
            read_until(read_on, lambda _: (source.trouble is None) is store.is_there)
            switched += 1
        read_until(read_on, lambda _: seen.total == sent)
    assert (seen, switched) == (Pair(60, 240), 6)
    assert {True, False} <= set(troubles)


def test_samples_that_are_too_old_are_refused(prometheus: str, stack: Stack, login: Login) -> None:
    """With a limit of 0 s every sample is too old."""
    with PrometheusSource(prometheus, EnvoyMetrics(stack.gateway.address), max_age_s=0, login=login) as source:
        assert "no successful scrape" in refused(lambda: source.read(stack.backends)).saw


@pytest.mark.parametrize("given", [None, f"{USER}:wrong", "a-bearer-token"])
def test_prometheus_refuses_every_client_without_its_login(
    prometheus: str, stack: Stack, tmp_path: Path, login: Login, given: str | None
) -> None:
    """Neither samples nor alerts are readable, and the error names the option. With the login all clients can read."""
    other = None
    if given is not None:
        (tmp_path / "login").write_text(given)
        other = Login(tmp_path / "login")
    with PrometheusSource(prometheus, EnvoyMetrics(stack.gateway.address), login=other) as source:
        error = refused(lambda: source.read(stack.backends))
    assert ("401" in error.saw, "--prometheus-login" in error.do) == (True, True)
    refusing, opened = (RawSamples(prometheus, login=one) for one in (other, login))
    with closing(refusing), closing(opened):
        for ask in (FiringAlerts(prometheus, login=other).now, refusing.now_s):
            assert "401" in refused(ask).saw
        assert abs(opened.now_s() - time.time()) < 3600
    FiringAlerts(prometheus, login=login).now()
    with PrometheusApi(prometheus, login=other) as api, pytest.raises(PrometheusUnreachable, match="401"):
        api.scrape_interval()
    with PrometheusApi(prometheus, login=login) as api:
        assert api.scrape_interval() == "250ms"


def test_a_query_for_too_many_samples_is_refused(prometheus: str, login: Login) -> None:
    """It asks for 22 million samples at once; Prometheus's own limit is 50 million."""
    with PrometheusApi(prometheus, login=login) as api, pytest.raises(QueryRefused, match="too many samples"):
        api.query("sum_over_time(vector(1)[260d:1s])", time.time())


def test_an_unreachable_prometheus_gives_no_reading(stack: Stack) -> None:
    """The error names the address that did not answer."""
    url = f"http://127.0.0.1:{free_port()}"
    with (
        PrometheusSource(url, EnvoyMetrics(stack.gateway.address), max_age_s=5) as source,
        pytest.raises(SourceUnreachable, match=url),
    ):
        source.read(stack.backends)


@contextmanager
def http_server(status: int, body: str, asked: list[Message] | None = None) -> Iterator[str]:
    """The URL of a server that gives the same answer to every POST and stores the request heads in `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if asked is not None:
                asked.append(self.headers)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with running_server(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (503, json.dumps({"status": "error", "errorType": "timeout", "error": "query timed out"}), "query timed out"),
        (200, json.dumps({"status": "success", "data": {"result": []}, "warnings": ["remote read"]}), "remote read"),
        (502, "<html>Bad Gateway</html>", "<html>Bad Gateway"),
    ],
)
def test_the_message_contains_prometheus_own_error(stack: Stack, status: int, body: str, words: str) -> None:
    """This holds for an error, a warning (data may be missing) and an answer that is not from Prometheus."""
    with (
        http_server(status, body) as url,
        PrometheusSource(url, EnvoyMetrics(stack.gateway.address), max_age_s=5) as source,
        pytest.raises(SourceUnreachable, match=words),
    ):
        source.read(stack.backends)


def test_prometheus_is_asked_not_to_compress_its_answers(stack: Stack) -> None:
    """Each compression takes a megabyte of memory, every two seconds, and saves nothing."""
    asked: list[Message] = []
    with (
        http_server(200, json.dumps({"status": "success", "data": {"result": []}}), asked) as url,
        PrometheusSource(url, EnvoyMetrics(stack.gateway.address), max_age_s=5) as source,
        pytest.raises(SourceUnreachable),
    ):
        source.read(stack.backends)
    assert [head["accept-encoding"] for head in asked] == ["identity"]
