"""Which version each of Envoy's counts is evidence about."""

import pytest

from rollout.judge import Pair
from rollout.routers.envoy.metrics import DURATION, REQUESTS, EnvoyMetrics
from rollout.signals.counters import Reading, Sample, counters, windows

OLD, NEW = "m:v1", "m:v2"


def errors(*samples: Sample) -> tuple[Pair, Pair]:
    """The errors of OLD as stable and of NEW as canary."""
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
        (requests(NEW, NEW, "2"), Pair(0, 0), Pair(0, 10)),  # late, or by another of its processes
        (requests(NEW, NEW, "2", "500"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "2"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "3"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "2", "500"), Pair(0, 0), Pair(10, 10)),
        (requests(OLD, NEW, "1"), Pair(0, 0), Pair(0, 0)),  # known not to be up
        (requests(NEW, OLD, "2"), Pair(10, 10), Pair(0, 0)),
        (requests(NEW, OLD, "1"), Pair(0, 0), Pair(0, 0)),
        (requests("", NEW, "1", "503"), Pair(0, 0), Pair(10, 10)),
        (requests("", NEW, "0", "401"), Pair(0, 0), Pair(0, 0)),
        (requests("", "", "0", "404"), Pair(0, 0), Pair(0, 0)),
        (requests(OLD, NEW, "2", "0"), Pair(0, 0), Pair(0, 0)),  # the caller hung up
        (Sample(REQUESTS, {"version": OLD, "routed": NEW, "code": "200"}, 10), Pair(0, 0), Pair(0, 0)),
    ],
)
def test_a_request_is_evidence_once_about_the_version_that_was_chosen(
    sample: Sample, stable: Pair, canary: Pair
) -> None:
    """What another version answered for it is its failure, whatever the user got."""
    assert errors(sample) == (stable, canary)


def test_how_long_a_fallback_took_is_about_neither() -> None:
    """The histogram has no number of tries, and the failure is counted among the errors."""
    labels = {"version": OLD, "routed": NEW, "le": "+Inf"}
    assert list(EnvoyMetrics("gateway:1").tables([Sample(f"{DURATION}_bucket", labels, 10)])) == []
