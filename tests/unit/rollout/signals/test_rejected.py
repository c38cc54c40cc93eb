"""Which answers mean that a request is wrong."""

import pytest

from rollout.judge import Pair
from rollout.routers.envoy.metrics import REQUESTS, EnvoyMetrics
from rollout.signals.catalogue import catalogue
from rollout.signals.counters import Sample, counters
from rollout.signals.counting import Outcomes
from tests.support.paths import ROOT

WHO_AND_WHEN = {401, 403, 408, 429}  # about the caller, or about the moment


def rejected(code: str) -> Pair:
    """Ten answers with this status."""
    answers = Sample(REQUESTS, {"version": "m:v1", "routed": "m:v1", "code": code}, 10)
    found = counters(EnvoyMetrics("gateway:1").tables([answers]))
    return next((pair for (_, _, signal), pair in found.items() if signal == "rejected"), Pair(0, 0))


@pytest.mark.parametrize("code", range(400, 500))
def test_a_4xx_is_a_rejection_unless_it_is_about_the_caller_or_the_moment(code: int) -> None:
    """This covers every status of the class, including those without a defined meaning."""
    assert rejected(str(code)) == Pair(0 if code in WHO_AND_WHEN else 10, 10)


@pytest.mark.parametrize(("code", "total"), [("200", 10), ("302", 10), ("101", 10), ("500", 10), ("5xx", 10), ("0", 0)])
def test_other_answers_are_not_rejections(code: str, total: int) -> None:
    """A failure counts as an error, and a caller who hung up got no answer."""
    assert rejected(code) == Pair(0, total)


@pytest.mark.parametrize("classes", [{"2xx": 90, "4xx": 10}, {"2xx": 100}, {"2xx": 90, "5xx": 10}])
def test_without_status_codes_no_rejections_are_counted(classes: dict[str, int]) -> None:
    """With a count of 0, everything that is later known by its code would look new."""
    row = catalogue().of("rejected")
    assert row is not None
    assert row.counter is not None
    assert list(row.counter.pairs(classes)) == []


def test_alert_and_signal_count_the_same_requests() -> None:
    """The alert's expression is written separately, because Prometheus cannot read the catalogue."""
    row = catalogue().of("rejected")
    assert row is not None
    assert isinstance(row.counter, Outcomes)
    assert (ROOT / "monitoring" / "alerts.yaml").read_text().count(f'code=~"{row.counter.bad}"') == 2
