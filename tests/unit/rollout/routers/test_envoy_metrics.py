"""For which version each of Envoy's counts is evidence."""

from itertools import pairwise

import pytest

from rollout.judge import Pair
from rollout.routers.envoy.metrics import (
    DURATION,
    REQUESTS,
    SEGMENT_REQUESTS,
    SHADOW_CLASSES,
    SHADOW_REQUESTS,
    EnvoyMetrics,
)
from rollout.signals.catalogue import ANSWERED_ELSEWHERE
from rollout.signals.counters import Reading, Sample, counters, windows

OLD, NEW = "m:v1", "m:v2"


def errors(*samples: Sample) -> tuple[Pair, Pair]:
    """The errors of OLD as stable and NEW as canary."""
    reading = Reading(10.0, counters(EnvoyMetrics("gateway:1").tables(samples)))
    new = windows(Reading(0.0, {}), reading, stable=OLD, canary=NEW)
    return next(((window.stable, window.canary) for window in new if window.signal == "errors"), (Pair(0, 0),) * 2)


def requests(version: str, routed: str, attempts: str, code: str = "200") -> Sample:
    """Ten requests."""
    return Sample(REQUESTS, {"version": version, "routed": routed, "attempts": attempts, "code": code}, 10)


@pytest.mark.parametrize(
    ("sample", "stable", "canary"),
    [
        (requests(NEW, NEW, "1"), Pair(0, 0), Pair(0, 10)),
        (requests(NEW, NEW, "2"), Pair(0, 0), Pair(0, 10)),  # a late try, or one of another of its processes
        (requests(NEW, NEW, "2", "500"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "2"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "3"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "2", "500"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "1"), Pair(0, 0), Pair(0, 0)),  # known to be down
        (requests(NEW, OLD, "2"), Pair(10, 10), Pair(0, 0)),
        (requests(NEW, OLD, "1"), Pair(0, 0), Pair(0, 0)),
        (requests("", NEW, "1", "503"), Pair(0, 0), Pair(10, 10)),
        (requests("", NEW, "0", "401"), Pair(0, 0), Pair(0, 0)),
        (requests("", "", "0", "404"), Pair(0, 0), Pair(0, 0)),
        (requests(OLD, NEW, "2", "0"), Pair(0, 0), Pair(0, 0)),  # the caller hung up
        (Sample(REQUESTS, {"version": OLD, "routed": NEW, "code": "200"}, 10), Pair(0, 0), Pair(0, 0)),
    ],
)
def test_a_request_is_evidence_once_for_the_version_that_was_chosen(sample: Sample, stable: Pair, canary: Pair) -> None:
    """If another version answered in its place, the chosen one failed, whatever the user got."""
    assert errors(sample) == (stable, canary)


def test_good_answers_in_place_of_the_chosen_version_are_counted() -> None:
    """People are not told of failures that no user saw. A 500 from the other version was seen."""
    samples = [requests(OLD, NEW, "2"), requests(OLD, NEW, "3", "422"), requests(OLD, NEW, "4", "500")]
    samples += [requests(OLD, NEW, "2", "5xx"), requests(NEW, NEW, "1", "503"), requests(NEW, NEW, "2")]
    found = counters(EnvoyMetrics("gateway:1").tables(samples))
    assert {(version, pair) for (_, version, signal), pair in found.items() if signal == ANSWERED_ELSEWHERE} == {
        (NEW, Pair(20, 60))
    }
    assert errors(*samples) == (Pair(0, 0), Pair(50, 60))


def test_answers_in_place_of_another_version_are_not_counted_from_before() -> None:
    """A controller of an earlier version did not read them, so the whole count would look new."""
    found = counters(EnvoyMetrics("gateway:1").tables([requests(OLD, NEW, "2")]))
    before = {key: pair for key, pair in found.items() if key[2] != ANSWERED_ELSEWHERE}
    new = windows(Reading(0.0, before), Reading(10.0, found), stable=OLD, canary=NEW)
    assert [window for window in new if window.signal == ANSWERED_ELSEWHERE] == []


def test_routes_are_counted_for_the_version_that_was_chosen() -> None:
    """Each has failed and rejected requests. The contract has only one route, which is not counted again."""

    def of_route(route: str, version: str, routed: str, code: str, *, attempts: str = "1", events: int = 10) -> Sample:
        labels = {"version": version, "routed": routed, "attempts": attempts, "code": code, "route": route}
        return Sample(REQUESTS, labels, events)

    samples = [
        of_route("/a,b/{id:path}", NEW, NEW, "200"),
        of_route("/a,b/{id:path}", NEW, NEW, "422"),
        of_route("/a,b/{id:path}", NEW, NEW, "401"),
        of_route("/a,b/{id:path}", OLD, NEW, "200", attempts="2"),
        of_route("/rare", OLD, OLD, "200", events=1),
        of_route("/predict", OLD, OLD, "500"),
    ]
    found = counters(EnvoyMetrics("gateway:1").tables(samples))
    by_route = {(version, signal): pair for (_, version, signal), pair in found.items() if signal.startswith("route")}
    assert by_route == {(NEW, "route:/a,b/{id:path}"): Pair(20, 40), (OLD, "route:/rare"): Pair(0, 1)}


def test_counts_by_route_from_before_are_not_evidence() -> None:
    """A controller of an earlier version did not count by route, so the whole count would look new."""
    labels = {"version": NEW, "routed": NEW, "attempts": "1", "code": "500", "route": "/rare"}
    readings = [
        Reading(10.0, {}),
        *(
            Reading(at_s, counters(EnvoyMetrics("gateway:1").tables([Sample(REQUESTS, labels, events)])))
            for at_s, events in ((20.0, 1000), (30.0, 1007))
        ),
    ]
    first, second = (
        [window for window in windows(before, now, stable=OLD, canary=NEW) if window.signal == "route:/rare"]
        for before, now in pairwise(readings)
    )
    assert first == []
    assert [window.canary for window in second] == [Pair(7, 7)]


def test_segments_are_counted_for_the_version_that_was_chosen() -> None:
    """Values that are not a segment have an empty label, which Prometheus omits. Copies belong to no segment."""

    def of_segment(version: str, routed: str, code: str, *, attempts: str = "1", **segment: str) -> Sample:
        labels = {"version": version, "routed": routed, "attempts": attempts, "code": code, **segment}
        return Sample(SEGMENT_REQUESTS, labels, 10)

    samples = [
        of_segment(NEW, NEW, "200", segment="acme"),
        of_segment(NEW, NEW, "422", segment="acme"),
        of_segment(OLD, NEW, "200", segment="acme", attempts="2"),
        of_segment(OLD, NEW, "200", segment="acme"),
        of_segment(OLD, OLD, "0", segment="acme"),
        of_segment(OLD, OLD, "503", segment=""),
        of_segment(OLD, OLD, "200"),
    ]
    found = counters(EnvoyMetrics("gateway:1").tables(samples))
    assert {(version, signal): pair for (_, version, signal), pair in found.items()} == {
        (NEW, "segment:acme"): Pair(20, 30),
        (OLD, "segment:other"): Pair(10, 20),
    }


def test_the_duration_of_a_fallback_counts_for_neither_version() -> None:
    """The histogram has no number of tries, and the failure is already counted among the errors."""
    labels = {"version": OLD, "routed": NEW, "le": "+Inf"}
    assert list(EnvoyMetrics("gateway:1").tables([Sample(f"{DURATION}_bucket", labels, 10)])) == []


def test_a_copy_counts_once_if_it_is_counted_by_code_and_by_class() -> None:
    """An older Prometheus configuration keeps only classes: they show failures but not rejections."""

    def copies(name: str, label: str, **counts: int) -> list[Sample]:
        of_new = {"envoy_cluster_name": "shadow%2Fm%3Av2"}
        return [Sample(name, of_new | {label: value[1:]}, count) for value, count in counts.items()]

    def shadow(samples: list[Sample]) -> dict[str, Pair]:
        found = counters(EnvoyMetrics("gateway:1").tables(samples, mirrored=NEW))
        assert {place for place, _, _ in found} == {"gateway:1/shadow"}
        return {signal: pair for (_, _, signal), pair in found.items()}

    classes = copies(SHADOW_CLASSES, "envoy_response_code_class", _2=5, _4=3, _5=2)
    codes = copies(SHADOW_REQUESTS, "envoy_response_code", _200=5, _422=2, _429=1, _503=2)
    errors = {"errors": Pair(2, 10), ANSWERED_ELSEWHERE: Pair(0, 10)}
    by_code = errors | {"rejected": Pair(2, 10)}
    assert shadow(classes) == errors
    assert shadow(codes) == shadow([*classes, *codes]) == shadow([*codes, *classes]) == by_code
