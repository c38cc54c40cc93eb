"""From raw samples to windows of events, including samples that Prometheus scraped late, twice or not at all."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge.types import Pair, Window
from rollout.signals.folding import START_TIME, CountedTwice, Fold, RawSeries, Uncountable, scrape_interval
from rollout.signals.profile import Names, parse_profile

PROFILE = parse_profile(
    """
versions: {version: '{version}'}
signals:
  errors: {of: 'requests_total', bad: 'requests_total{code="500"}'}
  class: {of: predictions_total, each: label}
  latency: {histogram: seconds, unit: s}
""",
    name="test",
)
NAMES = Names("shop", "digits", "b", "a")


def fold(from_s: float = 0.0) -> Fold:
    return Fold(PROFILE, PROFILE.counters({}), NAMES, origin_s=100.0, window_s=15.0, interval_s=5.0, from_s=from_s)


def series(name: str, version: str, pod: str, samples: dict[float, float], **labels: str) -> RawSeries:
    times, values = np.array(list(samples), dtype=float), np.array(list(samples.values()), dtype=float)
    return RawSeries({"__name__": name, "version": version, "pod": pod, **labels}, times, values)


def requests(version: str, pod: str, samples: dict[float, float], code: str = "200") -> RawSeries:
    return series("requests_total", version, pod, samples, code=code)


def total(windows: Iterable[Window], signal: str, side: str = "stable") -> Pair:
    return sum((getattr(window, side) for window in windows if window.signal == signal), Pair(0, 0))


def buckets(version: str, pod: str, samples: dict[float, float], *bounds: str) -> list[RawSeries]:
    """A pod's histogram with these bounds: a quarter of the events, rounded down, is within each bound but the last."""
    counts = {at_s: float(value // 4) for at_s, value in samples.items()}
    of_bounds = [series("seconds_bucket", version, pod, counts, le=bound) for bound in bounds]
    return [*of_bounds, series("seconds_bucket", version, pod, samples, le="+Inf")]


def steady(begin_s: int, end_s: int) -> dict[float, float]:
    return {float(at_s): 10.0 * at_s for at_s in range(begin_s, end_s + 1, 5)}


def test_an_event_is_in_the_window_of_the_first_sample_that_has_it() -> None:
    """Windows lie on a grid, and no event is in two."""
    windows = fold().extend([requests("a", "p", steady(100, 145))], 145.0)
    assert [(window.end_s, window.stable) for window in windows] == [
        (115.0, Pair(0, 150)),
        (130.0, Pair(0, 150)),
        (145.0, Pair(0, 150)),
    ]


def started(version: str, pod: str, start_s: float, *times: float) -> RawSeries:
    return series(START_TIME, version, pod, dict.fromkeys(times, start_s))


def test_a_newly_started_pod_counts_from_zero() -> None:
    """Its first scrape gives its start time, even after a gap of Prometheus."""
    known = requests("a", "p", steady(100, 105) | steady(160, 175))
    new = [requests("b", "q", {160.0: 7.0, 165.0: 9.0}), started("b", "q", 158.0, 160.0, 165.0)]
    assert total(fold().extend([known, *new], 175.0), "errors", "canary") == Pair(0, 9)


@pytest.mark.parametrize(
    "starts",
    [
        [],
        [started("b", "q", -470.0, 130.0, 135.0)],
        [started("b", "q", 190.0, 130.0, 135.0)],
        [started("b", "q", 129.0, 135.0)],
        [started("b", "q", -470.0, 130.0), series(START_TIME, "b", "q", {130.0: 129.0}, container="proxy")],
    ],
    ids=["no start time", "long ago", "in the future", "start time only later", "another container"],
)
def test_a_pod_that_is_first_scraped_late_starts_at_its_first_value(starts: list[RawSeries]) -> None:
    """Its earlier counts are not events of this window. Once it got 50,000 requests that came before it."""
    late = requests("b", "q", {130.0: 50_000.0, 135.0: 50_002.0})
    windows = fold().extend([requests("a", "p", steady(100, 145)), late, *starts], 145.0)
    assert total(windows, "errors", "canary") == Pair(0, 2)
    assert total(windows, "errors", "stable") == Pair(0, 450)


def test_a_pod_counts_the_same_at_once_and_in_parts() -> None:
    """Its container restarts later and then has another start time."""
    every = [
        requests("a", "p", steady(100, 175)),
        requests("b", "q", {130.0: 7.0, 135.0: 9.0, 160.0: 2.0, 165.0: 3.0}),
        series(START_TIME, "b", "q", {130.0: 128.0, 135.0: 128.0, 160.0: 159.0, 165.0: 159.0}),
    ]
    at_once = fold().extend(every, 175.0)
    in_parts, part_by_part = fold(), []
    for until_s in (115.0, 130.0, 145.0, 160.0, 175.0):
        part_by_part += in_parts.extend(every, until_s)
    assert part_by_part == [*at_once]
    assert total(at_once, "errors", "canary") == Pair(0, 12)


def test_a_restart_resets_all_counters_of_a_pod() -> None:
    """This includes a counter that exceeds its old value between two scrapes."""
    answered = requests("a", "p", {100.0: 900.0, 105.0: 1000.0, 110.0: 60.0})
    failed = requests("a", "p", {100.0: 2.0, 105.0: 2.0, 110.0: 5.0}, code="500")
    windows = fold().extend([answered, failed, requests("a", "r", steady(100, 115))], 115.0)
    assert total(windows, "errors") == Pair(5, 165 + 150)


def test_one_falling_counter_is_not_a_restart() -> None:
    """The others continue where they were."""
    answered = requests("a", "p", {100.0: 900.0, 105.0: 1000.0, 110.0: 1100.0})
    failed = requests("a", "p", {100.0: 9.0, 105.0: 9.0, 110.0: 3.0}, code="500")
    windows = fold().extend([answered, failed], 115.0)
    assert total(windows, "errors") == Pair(3, 203)


def test_a_class_predicted_for_the_first_time_counts_from_then_on() -> None:
    """Every prediction has one class, so all predictions are the total of each class."""
    cats = series("predictions_total", "a", "p", steady(100, 130), label="cat")
    dogs = series("predictions_total", "a", "p", {120.0: 5.0, 130.0: 5.0}, label="dog")
    windows = fold().extend([cats, dogs], 130.0)
    assert total(windows, "class:dog") == Pair(5, 155)
    assert total(windows, "class:cat") == Pair(300, 305)


def test_only_bounds_that_both_versions_have_are_compared() -> None:
    """They are in milliseconds, whatever the unit of the histogram."""
    both = []
    for version, bounds in (("a", ("0.1", "0.25", "+Inf")), ("b", ("0.1", "+Inf"))):
        both += [series("seconds_bucket", version, version, steady(100, 115), le=bound) for bound in bounds]
    windows = fold().extend(both, 115.0)
    assert {window.signal for window in windows} == {"latency:100"}


def test_a_value_that_is_not_a_number_is_ignored() -> None:
    """The series is a gauge that was configured as a counter."""
    assert [*fold().extend([requests("a", "p", {100.0: 1.0, 105.0: float("nan")})], 115.0)] == []


@pytest.mark.parametrize(("gaps", "interval_s"), [((5.0, 5.01, 4.98), 5.0), ((30.0, 29.9), 30.0), ((5.0,), None)])
def test_the_scrape_interval_is_the_median_gap(gaps: tuple[float, ...], interval_s: float | None) -> None:
    """It is rounded to half a second; one gap is not enough."""
    times = 100.0 + np.cumsum([0.0, *gaps])
    samples = {float(at_s): float(number) for number, at_s in enumerate(times)}
    assert scrape_interval([requests("a", "p", samples)], ("pod",)) == interval_s


def test_pods_of_one_version_may_write_a_bound_differently() -> None:
    """`1` and `1.0` are the same bound. All requests of a pod whose bound was overlooked counted as slow."""
    pods = [
        series("seconds_bucket", "a", pod, steady(100, 130), le=le)
        for pod, bound in (("p", "1"), ("q", "1.0"))
        for le in (bound, "+Inf")
    ]
    assert total(fold().extend(pods, 130.0), "latency:1000") == Pair(0, 600)


@pytest.mark.parametrize("until_s", [(160.0,), (115.0, 130.0, 145.0, 160.0)], ids=["at once", "in parts"])
def test_pods_of_one_version_may_have_different_bounds(until_s: tuple[float, ...]) -> None:
    """Mesh proxies may be configured differently. A request of a pod without the bound counted as slow."""
    pods = [
        series("seconds_bucket", "a", pod, {at_s: value * share for at_s, value in steady(100, 160).items()}, le=le)
        for pod, bounds in (
            ("p", {"1": 0.9, "+Inf": 1}),
            ("q", {"2": 0.8, "+Inf": 1}),
            ("r", {"1": 0.5, "2": 1, "+Inf": 1}),
        )
        for le, share in bounds.items()
    ]
    folded = fold()
    windows = [window for end_s in until_s for window in folded.extend(pods, end_s)]
    assert total(windows, "latency:1000") == Pair(60 + 300, 1200)
    assert total(windows, "latency:2000") == Pair(120, 1200)


PODMONITOR = {"job": "shop/digits", "instance": "10.0.0.1:3000", "container": "model", "endpoint": "http"}


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        ({**PODMONITOR, "job": "digits", "service": "digits"}, "job=digits and shop/digits, service="),
        ({**PODMONITOR, "job": "mesh", "instance": "10.0.0.1:15020", "container": "proxy"}, "instance=10.0.0.1:15020"),
        ({**PODMONITOR, "job": "pods", "exported_endpoint": "/predict"}, "exported_endpoint=(none) and /predict"),
        ({**PODMONITOR, "cluster": "us"}, "cluster=(none) and us"),
        ({**PODMONITOR, "prometheus_replica": "b"}, "prometheus_replica=(none) and b"),
    ],
    ids=["a service", "a mesh", "labels not honoured", "another cluster", "another replica"],
)
def test_a_pod_with_two_scrapers_is_refused(other: dict[str, str], differing: str) -> None:
    """Each event would count twice, whatever else the two say about their target."""
    both = [
        series("requests_total", "b", "p", steady(100, 130), code="200", **labels) for labels in (PODMONITOR, other)
    ]
    with pytest.raises(CountedTwice) as refused:
        fold().extend(both, 130.0)
    assert differing in refused.value.saw


SERVICES = [{"job": name, "service": name} for name in ("digits-stable", "digits-canary")]


def scraped_by(labels: dict[str, str], begin_s: int, end_s: int) -> RawSeries:
    return series("requests_total", "a", "p", steady(begin_s, end_s), code="200", **labels)


@pytest.mark.parametrize("until_s", [(160.0,), (70.0, 130.0, 160.0)], ids=["at once", "in parts"])
@pytest.mark.parametrize("first", [0, 1], ids=["stable's service first", "the canary's service first"])
def test_duplicates_from_before_the_release_count_once_and_are_not_refused(
    first: int, until_s: tuple[float, ...]
) -> None:
    """Both services of Argo Rollouts have stable's pods until there is a canary; such releases were never judged."""
    both = [scraped_by(SERVICES[0], 0, 160), scraped_by(SERVICES[1], 0, 95)]
    canary = series("requests_total", "b", "q", steady(100, 160), code="200", **SERVICES[1])
    folded = fold()
    windows = [window for end_s in until_s for window in folded.extend([both[first], both[1 - first], canary], end_s)]
    release = [window for window in windows if window.end_s > 100.0]
    assert total(release, "errors") == Pair(0, 600)
    assert total(release, "errors", "canary") == Pair(0, 600)
    assert total(windows, "errors") == Pair(0, 1600)


@pytest.mark.parametrize("until_s", [(160.0,), (85.0, 130.0, 160.0)], ids=["at once", "in parts"])
@pytest.mark.parametrize(("ends_s", "begins_s"), [(50, 55), (125, 130), (115, 140)])
def test_a_job_that_follows_another_continues_its_count(ends_s: int, begins_s: int, until_s: tuple[float, ...]) -> None:
    """The job was renamed: nothing counts twice, and nothing that the old job counted is counted again."""
    both = [scraped_by(SERVICES[1], begins_s, 160), scraped_by(SERVICES[0], 0, ends_s)]
    folded = fold()
    windows = [window for end_s in until_s for window in folded.extend(both, end_s)]
    assert total(windows, "errors") == Pair(0, 10 * (160 - (begins_s - ends_s)))


def test_a_pod_with_two_scrapers_in_the_release_is_refused_until_a_lift() -> None:
    """The duplicates stay in the evidence of the release; after a lift they are history."""
    both = [scraped_by(SERVICES[0], 0, 160), scraped_by(SERVICES[1], 0, 110)]
    for end_s in (130.0, 160.0):
        with pytest.raises(CountedTwice) as refused:
            fold().extend(both, end_s)
        assert "lift the version (POST /v1/lift)" in refused.value.do
    lifted = Fold(PROFILE, PROFILE.counters({}), NAMES, origin_s=115.0, window_s=15.0, interval_s=5.0, from_s=0.0)
    assert total([each for each in lifted.extend(both, 160.0) if each.end_s > 115.0], "errors") == Pair(0, 450)


def test_two_of_three_successive_scrapers_at_the_same_time_are_refused() -> None:
    """Each scraper is compared with all others, not only with the first."""
    jobs = [{"job": name} for name in ("one", "two", "three")]
    every = [scraped_by(labels, *span) for labels, span in zip(jobs, [(0, 60), (65, 160), (120, 160)], strict=True)]
    with pytest.raises(CountedTwice, match="two scrapers") as refused:
        fold().extend(every, 160.0)
    assert refused.value.saw.endswith("job=three and two")


def test_duplicates_with_several_containers_are_left_out_before_the_release() -> None:
    """One of the two complete sets counts."""
    containers = ({"container": "m", "instance": "1"}, {"container": "n", "instance": "2"})
    every = [
        scraped_by({**who, **container}, 0, end_s)
        for who, end_s in zip(SERVICES, (160, 95), strict=True)
        for container in containers
    ]
    windows = fold().extend(every, 160.0)
    assert total([each for each in windows if each.end_s > 100.0], "errors") == Pair(0, 1200)
    assert total([each for each in windows if each.end_s <= 100.0], "errors") == Pair(0, 2000)


@pytest.mark.parametrize(
    "other",
    [
        {**PODMONITOR, "instance": "10.0.0.1:3001", "container": "second"},
        {**PODMONITOR, "endpoint": "/feedback"},
        {**PODMONITOR, "service": "b"},
        {**PODMONITOR, "job": "other", "pod": "q"},
    ],
    ids=["two containers", "two routes", "two labels of its own", "two pods"],
)
def test_two_targets_of_one_job_are_counted_separately(other: dict[str, str]) -> None:
    """Two containers of a pod count different requests."""
    one = {"pod": "p", "code": "200", **PODMONITOR}
    both = [series("requests_total", "b", **{"samples": steady(100, 130), **one, **labels}) for labels in ({}, other)]
    assert total(fold().extend(both, 130.0), "errors", "canary") == Pair(0, 600)


def test_two_jobs_that_count_different_things_may_scrape_one_pod() -> None:
    """A mesh's proxy also reports its start time."""
    proxy = series(START_TIME, "a", "p", dict.fromkeys(steady(100, 130), 1.0), job="mesh", container="proxy")
    own = series(START_TIME, "a", "p", dict.fromkeys(steady(100, 130), 2.0), **PODMONITOR)
    assert total(fold().extend([requests("a", "p", steady(100, 130)), proxy, own], 130.0), "errors") == Pair(0, 300)


def test_series_without_a_pod_label_are_refused() -> None:
    """They were taken for one pod, and what the second had counted before became a burst of this canary."""
    nameless = [requests("b", "", samples) for samples in (steady(100, 145), {130.0: 100_000.0, 135.0: 100_002.0})]
    with pytest.raises(Uncountable, match="which pod") as refused:
        fold().extend([requests("a", "p", steady(100, 145)), *nameless], 145.0)
    assert refused.value.saw.startswith("requests_total without pod, with code=200")


def test_a_rate_is_refused() -> None:
    """A counter never has a fraction of an event. A rate that rose and fell was taken for requests."""
    rates = {at_s: value / 7 for at_s, value in steady(100, 145).items()}
    with pytest.raises(Uncountable, match="not counts of events") as refused:
        fold().extend([requests("a", "p", rates)], 145.0)
    assert refused.value.saw.startswith("142.857 of requests_total")


@pytest.mark.parametrize(
    "bad", ["failure_total", 'success_total{kind="late"}'], ids=["another metric", "the same metric"]
)
def test_good_and_bad_events_may_have_separate_counters(bad: str) -> None:
    """Triton has such counters: no series counts all requests."""
    counted = f"{{good: 'success_total{{kind!=\"late\"}}', bad: '{bad}'}}"
    profile = parse_profile(f"{{versions: {{version: '{{version}}'}}, signals: {{errors: {counted}}}}}", name="apart")
    folded = Fold(profile, profile.counters({}), NAMES, origin_s=100.0, window_s=15.0, interval_s=5.0, from_s=0.0)
    name, kind = ("failure_total", "") if bad == "failure_total" else ("success_total", "late")
    good = series("success_total", "a", "p", steady(100, 145))
    failed = series(name, "a", "p", {at_s: value / 10 for at_s, value in steady(100, 145).items()}, kind=kind)
    assert total(folded.extend([good, failed], 145.0), "errors") == Pair(45, 495)


pods = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sets(st.sampled_from(["0.025", "0.05", "0.1"])),
        st.integers(16, 40),
        st.integers(0, 12),
    ),
    min_size=1,
    max_size=4,
)


@given(pods=pods, cuts=st.sets(st.integers(101, 229)))
def test_a_bound_is_used_the_same_at_once_and_in_parts(
    pods: list[tuple[str, set[str], int, int]], cuts: set[int]
) -> None:
    """In parts, a bound that the canary lacks was used until the canary's first sample; at once, never."""
    every = [
        one
        for number, (version, bounds, first, length) in enumerate(pods)
        for one in buckets(version, f"p{number}", steady(5 * first, 5 * (first + length)), *sorted(bounds))
    ]
    at_once = list(fold().extend(every, 230.0))
    folded = fold()
    assert [
        window for until_s in (*sorted(cuts), 230) for window in folded.extend(_until(every, until_s), until_s)
    ] == (at_once)


def _until(every: Iterable[RawSeries], until_s: float) -> list[RawSeries]:
    return [RawSeries(one.labels, one.times[one.times <= until_s], one.values[one.times <= until_s]) for one in every]


def test_a_bound_that_the_canary_lacks_is_used_until_the_canary_appears() -> None:
    """Until then it is stable's history. From then on it allows no comparison, and no event is invented."""
    every = [
        *buckets("a", "p", steady(100, 190), "0.025", "0.05"),
        *buckets("b", "q", steady(145, 190), "0.05"),
    ]
    windows = list(fold().extend(every, 190.0))
    ends_s = {
        signal: [each.end_s for each in windows if each.signal == signal] for signal in ("latency:25", "latency:50")
    }
    assert ends_s == {"latency:25": [115.0, 130.0], "latency:50": [115.0, 130.0, 145.0, 160.0, 175.0, 190.0]}
    assert total(windows, "latency:25", "canary") == Pair(0, 0)
