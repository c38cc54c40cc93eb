"""Every metric profile against a real Prometheus: it counts the requests that happened, whatever the pods do."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rollout.judge import Verdict
from rollout.judge.types import Pair, Window
from rollout.server.absence import why_nothing
from rollout.server.evidence import Evidence
from rollout.server.questions import Plan
from rollout.signals.folding import CountedTwice, Fold, RawSeries, scrape_interval
from rollout.signals.profile import Names, Profile, parse_profile, profile_data
from rollout.sources.profiles import built_in, profiles
from rollout.sources.raw_samples import RawSamples, Wanted
from tests.support.generated_series import SHAPES, Pod, Shape, fill, openmetrics, prometheus_with, running
from tests.support.paths import ROOT

BEGIN_S = 1_700_000_000.0
END_S = BEGIN_S + 600
NAMES = Names("shop", "digits", "canary-7f", "stable-6c")
OWN = """
extends: bentoml
versions: {app: '{version}'}
"""
INTERVAL_S = 5.0
COMMON = {"namespace": "shop"}
NO_REQUESTS_OF_LINKERD = (  # Linkerd's proxies count these like other requests
    {"target_addr": "10.42.0.7:3000", "target_port": "3000", "route_name": "probe"},
    {"target_addr": "0.0.0.0:4191", "target_port": "4191", "route_name": "probe"},
    {"target_addr": "0.0.0.0:4191", "target_port": "4191", "route_name": "default"},  # Prometheus
    {"target_addr": "[::]:4191", "target_port": "4191", "route_name": "default"},
)
OWN_SHAPE = replace(SHAPES["bentoml"], says_start=True)


def pods(profile: Profile) -> list[Pod]:
    """Pods of both versions that stay, start, stop, restart and are renamed by a new ReplicaSet."""
    made = 0

    def pod(version: str, begin: float, end: float, **more: object) -> Pod:
        nonlocal made
        made += 1
        labels = dict.fromkeys(profile.process, f"pod-{profile.name}-{made}")
        versions = {label: text.format(version=version) for label, text in profile.versions.items()}
        return Pod({**labels, **versions}, BEGIN_S + begin, BEGIN_S + end, **more)  # type: ignore[arg-type]

    return [
        pod(NAMES.stable, 0, 600, before=100_000),  # started long before
        pod(NAMES.stable, 2, 302, before=5_000),  # stops: its ReplicaSet is replaced by one more pod
        pod(NAMES.stable, 303, 600),
        pod(NAMES.canary, 61, 600, error_ratio=0.1, restarts=(BEGIN_S + 400,)),
        pod(NAMES.canary, 200, 350, error_ratio=0.1),  # the autoscaler adds and removes it
        pod(NAMES.canary, 302, 600, error_ratio=0.1, before=50_000),  # is first scraped long after its start
        pod("other-9d", 0, 600, error_ratio=0.5),  # belongs to neither version
    ]


def happened(profile: Profile) -> dict[str, int]:
    """Known requests by version. What a pod counted before its first scrape is unknown."""
    says_start = SHAPES.get(profile.name, OWN_SHAPE).says_start
    counted = {NAMES.stable: 0, NAMES.canary: 0}
    for pod in pods(profile):
        version = next(value for label, value in pod.labels.items() if label in profile.versions)
        scrapes = np.arange(pod.begin_s, pod.end_s + 0.1, INTERVAL_S)
        read = int((scrapes > BEGIN_S).sum())
        is_known_as_new = says_start and not pod.before
        if version in counted:
            counted[version] += (read - (not is_known_as_new)) * pod.per_scrape
    return counted


def every_profile() -> dict[str, Profile]:
    own = {"own": parse_profile(OWN, name="own", known={"bentoml": _raw("bentoml")})}
    return built_in() | own


def _raw(name: str) -> Mapping[str, object]:
    return profile_data((ROOT / "rollout/sources/profiles" / f"{name}.yaml").read_text(), name=name)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[RawSamples]:
    """A Prometheus with ten minutes of the pods of every profile, and some pods that were scraped twice."""
    lines = []
    for name, profile in every_profile().items():
        lines += openmetrics(SHAPES.get(name, OWN_SHAPE), pods(profile))
    for replica in ("a", "b"):
        labels = {"pod": "p", "rollouts_pod_template_hash": "twice", "prometheus_replica": replica}
        lines += openmetrics(SHAPES["bentoml"], [Pod(labels, BEGIN_S, BEGIN_S + 60)])
    slow = {"pod": "s", "rollouts_pod_template_hash": "slow"}
    lines += openmetrics(SHAPES["bentoml"], [Pod(slow, BEGIN_S, END_S)], interval_s=60.0)
    older = replace(SHAPES["service"], common={"namespace": "shop", "endpoint": "predict"})
    for name, shape in (("older", older), ("newer", SHAPES["service"])):
        lines += openmetrics(shape, [Pod({"pod": name, "rollouts_pod_template_hash": name}, BEGIN_S, END_S)])
    native = Shape("bentoml_service_request_total", {"http_response_code": "200"}, {}, "other_seconds", "0.1", COMMON)
    own_name = replace(native, requests="bentoml_service_request_duration_seconds", histogram="others_seconds")
    for name in ("native", "native-too"):
        pod = Pod({"pod": name, "rollouts_pod_template_hash": name}, BEGIN_S, END_S)
        lines += [*openmetrics(native, [pod]), *openmetrics(own_name, [pod])]
    grpc = Pod({"pod": "caller", "destination_workload": "of-grpc"}, BEGIN_S, END_S, error_ratio=0.1)
    lines += openmetrics(SHAPES["istio-grpc"], [grpc])
    for number, labels in enumerate(NO_REQUESTS_OF_LINKERD):
        pod = Pod({"pod": "n", "rollouts_pod_template_hash": "unasked", **labels}, BEGIN_S, END_S)
        lines += openmetrics(SHAPES["linkerd"], [pod], seed=number)
    programs = {"prometheus": require_program("prometheus"), "promtool": require_program("promtool")}
    with prometheus_with(tmp_path_factory.mktemp("prometheus"), lines, **programs) as url:
        source = RawSamples(url)
        yield source
        source.close()


def fold_of(profile: Profile, names: Names = NAMES, *, window_s: float = 15.0) -> Fold:
    return Fold(
        profile,
        profile.counters({}),
        names,
        origin_s=BEGIN_S,
        window_s=window_s,
        interval_s=INTERVAL_S,
        from_s=BEGIN_S,
    )


def read(samples: RawSamples, profile: Profile, begin_s: float, end_s: float, names: Names = NAMES) -> list[RawSeries]:
    wanted = Wanted.of(profile, profile.counters({}), names, names.stable, names.canary).with_starts()
    return samples.between(wanted, begin_s, end_s)


def test_a_version_with_the_old_endpoint_label_is_read_beside_a_newer_one(samples: RawSamples) -> None:
    """Older versions call the route label `endpoint`. All requests of both sides are counted."""
    profile, names = built_in()["service"], Names("shop", "digits", "newer", "older")
    windows = fold_of(profile, names).extend(read(samples, profile, BEGIN_S, END_S, names), END_S)
    for signal in ("errors", "latency:100"):
        assert summed(windows, signal, "canary").total == summed(windows, signal, "stable").total > 4_000


def summed(windows: Iterable[Window], signal: str, side: str) -> Pair:
    return sum((getattr(window, side) for window in windows if window.signal == signal), Pair(0, 0))


@pytest.mark.parametrize("name", every_profile())
def test_a_profile_counts_what_happened(samples: RawSamples, name: str) -> None:
    """Pods start, stop, restart and are renamed: every request of the two versions is counted once, and no other."""
    profile = every_profile()[name]
    windows = fold_of(profile).extend(read(samples, profile, BEGIN_S, END_S), END_S)
    expected = happened(profile)
    for signal in ("errors", "latency:100"):
        assert summed(windows, signal, "stable").total == expected[NAMES.stable]
        assert summed(windows, signal, "canary").total == expected[NAMES.canary]
    errors = summed(windows, "errors", "canary")
    assert 0.08 < errors.bad / errors.total < 0.12
    assert summed(windows, "errors", "stable").bad == 0
    assert {window.window_s for window in windows} == {15.0}


@pytest.mark.parametrize("name", every_profile())
def test_samples_give_the_same_windows_at_once_and_in_parts(samples: RawSamples, name: str) -> None:
    """A restarted judge reads everything again and gets the same windows as one that kept running."""
    profile = every_profile()[name]
    at_once = fold_of(profile).extend(read(samples, profile, BEGIN_S, END_S), END_S)
    fold, in_parts = fold_of(profile), []
    for until_s in (BEGIN_S + 40, BEGIN_S + 63, BEGIN_S + 250, BEGIN_S + 402, END_S):
        in_parts += fold.extend(read(samples, profile, fold.cursor_s, until_s), until_s)
    assert in_parts == [*at_once]


def test_probes_and_scrapes_counted_by_linkerd_are_not_requests(samples: RawSamples) -> None:
    """A canary without users used to pass on the answers to its probes and scrapes."""
    profile, names = built_in()["linkerd"], Names("shop", "digits", "unasked", NAMES.stable)
    windows = fold_of(profile, names).extend(read(samples, profile, BEGIN_S, END_S, names), END_S)
    assert summed(windows, "errors", "stable").total == happened(profile)[NAMES.stable]
    for signal in ("errors", "latency:100"):
        assert summed(windows, signal, "canary").total == 0


def test_grpc_failures_are_found_by_the_grpc_status(samples: RawSamples) -> None:
    """All its answers have HTTP status 200, so failures were counted as good answers."""
    names = Names("shop", "digits", "of-grpc", NAMES.stable)
    istio = built_in()["istio"]
    assert summed(
        fold_of(istio, names).extend(read(samples, istio, BEGIN_S, END_S, names), END_S), "errors", "canary"
    ) == Pair(0, 0)
    own = built_in()["istio-grpc"]
    windows = fold_of(own, names).extend(read(samples, own, BEGIN_S, END_S, names), END_S)
    found = summed(windows, "errors", "canary")
    assert 0.08 < found.bad / found.total < 0.12
    assert summed(windows, "latency:100", "canary").total == found.total


def test_a_bucket_bound_is_read_in_either_spelling(samples: RawSamples) -> None:
    """Libraries write bounds differently, and Prometheus may unify them after an upgrade."""
    profile, names = built_in()["linkerd"], NAMES
    wanted = Wanted.of(profile, profile.counters({})[1:], names, names.stable)
    read_of = {
        spelling: {series.labels["le"] for series in samples.between(wanted.only_bounds({spelling}), BEGIN_S, END_S)}
        for spelling in ("100", "100.0", "10", "1000")
    }
    assert read_of == {"100": {"100"}, "100.0": {"100"}, "10": set(), "1000": set()}


def test_the_scrape_interval_is_found(samples: RawSamples) -> None:
    """It is computed from the samples, not from a configuration."""
    profile = built_in()["bentoml"]
    slow = Names("shop", "digits", "slow", "none")
    assert scrape_interval(read(samples, profile, BEGIN_S, END_S), profile.process) == 5.0
    assert scrape_interval(read(samples, profile, BEGIN_S, END_S, slow), profile.process) == 60.0
    assert scrape_interval([], profile.process) is None


def test_two_scrapers_of_the_same_pods_are_refused(samples: RawSamples) -> None:
    """Every event would count twice, and the promised rate of false alarms would not hold."""
    profile = built_in()["bentoml"]
    names = Names("shop", "digits", "twice", "stable-6c")
    with pytest.raises(CountedTwice, match="two scrapers have the same pod") as refused:
        fold_of(profile, names).extend(read(samples, profile, BEGIN_S, END_S, names), END_S)
    assert "prometheus_replica=a and b" in refused.value.saw


def test_the_start_of_a_version_is_found(samples: RawSamples) -> None:
    """It is exact to the minute and never too late."""
    profile = built_in()["bentoml"]
    requests = Wanted.of(profile, profile.counters({})[:1], NAMES, NAMES.canary)
    began_s = samples.began_s(requests, until_s=END_S, longest_s=86_400)
    assert began_s is not None
    assert BEGIN_S <= began_s <= BEGIN_S + 61
    unknown = Wanted.of(profile, profile.counters({})[:1], NAMES, "unknown")
    assert samples.began_s(unknown, until_s=END_S, longest_s=86_400) is None


def test_a_users_own_profile_is_a_file(tmp_path: Path) -> None:
    """It contains only what differs from the profile that it extends."""
    (tmp_path / "mesh.yaml").write_text(OWN)
    known = profiles(tmp_path)
    assert known["mesh"].versions == {"app": "{version}"}
    assert known["mesh"].signals == known["bentoml"].signals


@pytest.mark.parametrize(
    ("names", "verdict"),
    [(NAMES, Verdict.FAIL), (replace(NAMES, canary=NAMES.stable, stable=NAMES.canary), Verdict.PASS)],
    ids=["harmful", "harmless"],
)
def test_a_new_judge_agrees_with_one_that_was_asked_all_the_time(
    samples: RawSamples, names: Names, verdict: Verdict
) -> None:
    """Their answers are identical, through restarts and changing pods: same samples, same verdict."""
    profile = built_in()["bentoml"]
    plan = Plan.of("{}", profile)
    now = _At(samples.url)
    asked_often = Evidence(now, profile, names, plan, not_before_s=-math.inf)
    verdicts = []
    for now.at_s in np.arange(BEGIN_S + 90, END_S, 41.0).tolist():
        fresh = Evidence(now, profile, names, plan, not_before_s=-math.inf)
        one, other = (each.answer(25.0, own_clock_s=now.at_s) for each in (asked_often, fresh))
        assert one == other
        spans_read = now.spans_read
        assert asked_often.answer(25.0, own_clock_s=now.at_s) == one
        assert now.spans_read == spans_read, "no window has ended since, so nothing new is read"
        verdicts.append(one.verdict)
    now.close()
    assert verdicts[-1] is verdict


@pytest.mark.parametrize(
    "names",
    [
        replace(NAMES, canary="native"),
        replace(NAMES, canary=NAMES.stable, stable="native"),
        Names("shop", "digits", "native", "native-too"),
    ],
    ids=["canary", "stable", "both"],
)
def test_a_native_histogram_without_buckets_is_explained(samples: RawSamples, names: Names) -> None:
    """The judge reported no requests, while it counted thousands of errors."""
    profile = built_in()["bentoml"]
    latency = [counter for counter in profile.counters({}) if counter.signal == "latency"]
    with closing(_At(samples.url)) as now:
        now.at_s = END_S
        evidence = Evidence(now, profile, names, Plan.of("{}", profile), not_before_s=-math.inf)
        said = evidence.answer(25.0, own_clock_s=END_S)
        why = why_nothing(now, Wanted.of(profile, latency, names, "native"))
    assert said.verdict is Verdict.NO_DATA
    assert 'no series for `bentoml_service_request_duration_seconds_bucket{namespace="shop",' in said.reason
    assert 'rollouts_pod_template_hash="native"' in said.reason
    assert "as a native histogram, without buckets: let Prometheus also keep" in why


class _At(RawSamples):
    """Reads Prometheus as it was at `at_s`, as if that were now."""

    at_s = 0.0
    spans_read = 0

    def now_s(self) -> float:
        return self.at_s

    def labels(self, query: str) -> list[dict[str, str]]:
        return super().labels(f"last_over_time(({query})[1m:5s] @ {self.at_s})")

    def asked(self, wanted: Wanted, begin_s: float, end_s: float) -> Callable[[], list[RawSeries]]:
        self.spans_read += 1
        return super().asked(wanted, begin_s, end_s)


def test_samples_beyond_the_query_limit_are_read_in_parts(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """A store limits the samples per query: a release with many pods is still judged, with the same counts."""
    fill(tmp_path, openmetrics(SHAPES["bentoml"], pods(built_in()["bentoml"])), require_program("promtool"))
    profile, found = built_in()["bentoml"], []
    for most in (50_000_000, 1_000):
        with running(tmp_path, require_program("prometheus"), most_samples=most) as url:
            source = RawSamples(url)
            found.append([*fold_of(profile).extend(read(source, profile, BEGIN_S, END_S), END_S)])
            wanted = Wanted.of(profile, profile.counters({}), NAMES, NAMES.stable, NAMES.canary)
            fold, middle_s = fold_of(profile), (BEGIN_S + END_S) / 2
            parts = source.ahead(wanted, [(BEGIN_S, middle_s), (middle_s, END_S)])
            found.append([window for end_s, every in parts for window in fold.extend(every, end_s)])
            source.close()
    assert found[0] == found[1] == found[2] == found[3] != []
